"""The run directory, and the only code that commits an artefact to it.

    runs/<name>-<hash8>/
        recipe.json                     the recipe of the last run, resolved
        ledger.jsonl                    events, appended: runs, stages begun, finished, reused
        stages/<stage>/<key>/           a finished stage: its files, and manifest.json, written last
        staging/<stage>-<key>/          a stage at work; removed and begun anew after a crash
        scratch/<stage>-<key>/          what a stage keeps across a crash, such as checkpoints
        store/                          samples and verdicts, appended by all keys of all stages
        logs/                           what engines, workers and stage processes print

A stage writes into its staging folder; then every file is hashed and fsynced, the manifest is written and fsynced,
and one rename makes it an artefact: **a manifest that exists means a stage that finished**. The key is a digest of the
stage's name, its version and its fields (``distill.runs.stage``); the code revision is recorded, not keyed, so a typo
fix does not retrain.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import psutil
from filelock import FileLock, Timeout

from distill.config.recipe import Recipe
from distill.runs.artefact import (
    MANIFEST,
    Artefact,
    digest_of,
    file_entries,
    read_artefact,
    sha256_of,
    size_faults,
    verify_artefact,
)
from distill.runs.facts import Facts
from distill.runs.process import StageHost
from distill.runs.provenance import code_revision, device, installed_versions
from distill.runs.stage import RequestTimes, Stage, StageContext, Watcher
from licensing.errors import InputError
from licensing.files import disk_errors, sync_folder, write_json, write_text

F = TypeVar("F", bound=Facts)

_ORPHAN_S = 30.0


class LastStage(Exception):
    """The last stage that this run was asked for is done. Carries its artefact to ``distill.stages.pipeline.run``."""

    def __init__(self, artefact: Artefact[Any]) -> None:
        super().__init__(artefact.stage)
        self.artefact = artefact


@dataclass(frozen=True)
class Run:
    """One run directory, held by one process at a time. Use ``Run.open`` as a context manager.

    ``until``: the last stage to run. ``only``: the one stage to run; those before it must be finished.
    """

    root: Path
    host: StageHost
    watcher: Watcher
    until: str | None
    only: str | None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        runs: Path,
        recipe: Recipe,
        *,
        watcher: Watcher | None = None,
        until: str | None = None,
        only: str | None = None,
    ) -> Iterator[Run]:
        """Open or make the run directory of ``recipe`` below ``runs`` and hold its lock until the block is left.

        Raises:
            InputError: another process holds it (named by pid), or ``runs`` cannot be written.
            MissingDependency: the disk is full.
        """
        root = runs / recipe.run_name()
        with disk_errors(root, hint="choose another --runs folder"):
            (root / "logs").mkdir(parents=True, exist_ok=True)
            (root / "store").mkdir(exist_ok=True)
        with _lock(root), StageHost(root / "logs" / "stages.log") as host:
            _end_orphans(root)
            run = cls(root, host, watcher or Watcher(), until, only)
            with disk_errors(root):
                shutil.rmtree(root / "staging", ignore_errors=True)
                write_text(root / "recipe.json", recipe.model_dump_json(indent=2) + "\n")
                run._record("run", recipe_digest=recipe.digest(), pid=os.getpid(), code=code_revision())
            yield run

    def stage(self, stage: Stage[F]) -> Artefact[F]:
        """Run a stage, or return its artefact if one with the same key is finished.

        Raises InputError where a file of a finished stage was changed or is gone, or where ``only`` names a later stage
        and this one is not finished; LastStage after the last stage; and what the stage raises.
        """
        folder = self.root / "stages" / stage.name / stage.key
        artefact = read_artefact(folder, stage.facts_type())
        if artefact is not None and self.only in (None, stage.name) and stage.runs_again(artefact.facts):
            artefact = None  # its folder stays until the new one is complete
        with disk_errors(self.root):
            if artefact is None:
                if self.only not in (None, stage.name):
                    hint = f"run it first: distill run RECIPE --until {stage.name}"
                    raise InputError(f"stage {stage.name} is not finished", where=f"--only {self.only}", hint=hint)
                artefact = self._execute(stage, folder)
            else:
                if faults := size_faults(artefact, self.root):
                    raise InputError(
                        f"a finished stage was changed: {'; '.join(faults[:3])}",
                        where=f"stage {stage.name}",
                        hint=f"put the file back, or remove {folder} to run the stage again",
                    )
                self._record("reused", stage=stage.name, key=stage.key)
                self.watcher.stage_ends(stage.name, artefact, reused=True)
        if stage.name in (self.until, self.only):
            raise LastStage(artefact)
        return artefact

    def _execute(self, stage: Stage[F], folder: Path) -> Artefact[F]:
        name = f"{stage.name}-{stage.key}"
        out, scratch = self.root / "staging" / name, self.root / "scratch" / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._record("begin", stage=stage.name, key=stage.key, pid=os.getpid())
        started = time.time()
        ctx = StageContext(
            out=out, scratch=scratch, logs=self.root / "logs", store=self.root / "store",
            progress=self.watcher.stage_begins(stage.name), requests=RequestTimes(),
        )  # fmt: skip
        log = self.root / "logs" / f"{stage.name}.log"
        if stage.takes_accelerator:
            facts = self.host.run(stage, ctx, log, lambda pid: self._record("process", stage=stage.name, pid=pid))
        else:
            with stderr_into(log):
                facts = stage.run(ctx)
        self._commit(stage, ctx, facts, started)
        if folder.exists():
            shutil.rmtree(folder)  # without a manifest, or of a stage that ran again
        os.rename(out, folder)
        sync_folder(folder.parent)
        shutil.rmtree(scratch, ignore_errors=True)
        artefact = read_artefact(folder, stage.facts_type())
        assert artefact is not None, "a stage just committed is readable"
        self._record("done", stage=stage.name, key=stage.key, seconds=artefact.manifest["seconds"])
        self.watcher.stage_ends(stage.name, artefact, reused=False)
        return cast("Artefact[F]", artefact)

    def _commit(self, stage: Stage[F], ctx: StageContext, facts: Facts, started: float) -> None:
        files = list(file_entries(ctx.out))
        facts_json = facts.as_json()
        manifest = {
            "stage": stage.name,
            "key": stage.key,
            "version": stage.version,
            "fields": stage.keyed_fields(),
            "inputs": stage.inputs(),
            "facts": facts_json,
            "files": files,
            "appended": [self._appended(name) for name in stage.appends if (self.root / "store" / name).is_file()],
            "digest": digest_of(files, facts_json),
            "code": code_revision(),
            "versions": installed_versions(),
            "device": device(),
            "requests": {
                "first": _iso(ctx.requests.first),
                "last": _iso(ctx.requests.last),
                "seconds": {model: round(seconds, 3) for model, seconds in ctx.requests.seconds.items()},
            },
            "seconds": round(time.time() - started, 3),
            "started_at": _iso(started),
        }
        write_json(ctx.out / MANIFEST, manifest)

    def _appended(self, name: str) -> dict[str, Any]:
        path = self.root / "store" / name
        size = path.stat().st_size
        return {"path": f"store/{name}", "size": size, "sha256": sha256_of(path, size)}

    def _record(self, event: str, **values: Any) -> None:
        line = json.dumps({"at": _iso(time.time()), "event": event, **values}, ensure_ascii=False) + "\n"
        with (self.root / "ledger.jsonl").open("ab+") as ledger:
            if ledger.tell():
                ledger.seek(-1, os.SEEK_END)
                if ledger.read() != b"\n":
                    line = "\n" + line  # a torn line must not swallow this one
            ledger.write(line.encode())
            ledger.flush()
            os.fsync(ledger.fileno())


def read_events(root: Path) -> list[dict[str, Any]]:
    """The events of a run directory, oldest first; a torn line is left out."""
    events: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):
        for line in (root / "ledger.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                events.append(json.loads(line))
    return events


def has_artefact(root: Path, stage: str) -> bool:
    """Whether ``stage`` is finished in the run ``root``, by whichever of its recipes."""
    return any((root / "stages" / stage).glob(f"*/{MANIFEST}"))


def current_artefacts(root: Path) -> dict[str, Artefact[dict[str, Any]]]:
    """The artefacts that the newest run of a run directory finished or reused, by stage, in order; facts as JSON."""
    keys: dict[str, str] = {}
    for event in read_events(root):
        if event["event"] == "run":
            keys = {}
        elif event["event"] in ("done", "reused"):
            keys[event["stage"]] = event["key"]
    artefacts = {stage: read_artefact(root / "stages" / stage / key) for stage, key in keys.items()}
    return {stage: artefact for stage, artefact in artefacts.items() if artefact is not None}


def verify_run(root: Path) -> list[str]:
    """Compare every file of the newest run's stages with its manifest, by size and sha256; the differences in words,
    none where all is as it was written."""
    return [fault for artefact in current_artefacts(root).values() for fault in verify_artefact(artefact, root)]


def _end_orphans(root: Path) -> None:
    """Wait for stage processes of a driver that was killed a moment ago, and end one that does not end by itself."""
    for pid in {event["pid"] for event in read_events(root)[-20:] if event["event"] == "process"}:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if any("distill.runs.process" in part for part in process.cmdline()):
                try:
                    process.wait(_ORPHAN_S)
                except psutil.TimeoutExpired:
                    process.kill()


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Hold the run directory. The lock dies with the process, so a kill -9 leaves none behind."""
    holder = root / ".lock.json"
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"this run is at work in process {_holder(holder)}",
            where=str(root),
            hint="wait for it, or stop it and run again",
        ) from None
    try:
        write_json(holder, {"pid": os.getpid()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        return "unknown"


@contextlib.contextmanager
def stderr_into(log: Path) -> Iterator[None]:
    """Append everything that is written to descriptor 2 meanwhile, by C libraries and children too, to ``log``."""
    with log.open("ab") as sink:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
