"""The run directory, and the only code that commits an artefact to it.

    runs/<name>-<hash8>/
        recipe.json                     the recipe of the last run, resolved
        ledger.jsonl                    what happened, appended: runs, stages finished, stages reused
        stages/<stage>/<key>/           the stage's files and manifest.json, written last
        staging/<stage>-<key>/          a stage at work; thrown away and begun anew after a crash
        logs/                           what engines and workers had to say

A stage writes into its staging directory; then every file is hashed and fsynced, the manifest is written and fsynced,
and one rename makes it an artefact: **a manifest that exists means a stage that finished**. The key is a digest of the
stage's name, its version (bumped by hand), its recipe sections and the digests of its inputs; the code revision is
recorded, not keyed, so a typo fix does not retrain.

Two kinds of stage keep work across a crash. A stage that *grows in place* (``sample``) writes straight into its final
directory, and its manifest still comes last. A stage that *checkpoints* (``train``) is handed a ``scratch`` directory,
which is deleted once the stage is committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel

from distill.config.recipe import Recipe
from distill.runs.provenance import code_revision, installed_versions
from licensing.errors import InputError, MissingDependency

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artefact:
    """A finished stage: its directory, its manifest, and the digest of its content (names and sha256 of its files)."""

    stage: str
    key: str
    path: Path
    digest: str
    manifest: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage had to say of itself, part of the manifest."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts


class Reporter(Protocol):
    """What a stage tells of its progress; ``distill/cli/console.py`` shows it."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


@dataclass(frozen=True)
class StageContext:
    """Where a stage works. ``out`` becomes the artefact; ``scratch`` outlives a crash and not the commit."""

    out: Path
    scratch: Path
    logs: Path
    progress: Reporter
    stages: Path = field(default=Path())
    """The ``stages/<stage>`` folder: earlier keys of the same stage, to take over rows from."""


class StageWork(Protocol):
    """A stage's function: works in ``place`` on sections and artefacts; returns facts for the manifest.

    Facts must not hold times or paths: a killed and resumed run ends with the same facts as one left alone.
    """

    def __call__(self, place: StageContext, *args: Any) -> dict[str, Any]: ...


class Watcher(Protocol):
    """Sees stages begin and end."""

    def stage_begins(self, stage: str) -> Reporter: ...
    def stage_ends(self, stage: str, artefact: Artefact, *, reused: bool) -> None: ...


class _Silent:
    def stage_begins(self, stage: str) -> Reporter:
        return lambda done, total=None, note="": None

    def stage_ends(self, stage: str, artefact: Artefact, *, reused: bool) -> None:
        return None


class UntilReached(Exception):
    """The stage named by ``--until`` is done. Carries its artefact."""

    def __init__(self, artefact: Artefact) -> None:
        super().__init__(artefact.stage)
        self.artefact = artefact


class Ledger:
    """One run directory, held by one process at a time. Use ``Ledger.open`` as a context manager."""

    def __init__(self, root: Path, watcher: Watcher | None = None, until: str | None = None) -> None:
        self.root = root
        self._watcher = watcher or _Silent()
        self._until = until
        self.finished: dict[str, Artefact] = {}

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, runs: Path, recipe: Recipe, *, watcher: Watcher | None = None, until: str | None = None
    ) -> Iterator[Ledger]:
        """Open or make the run directory of ``recipe`` below ``runs`` and hold its lock until the block is left.

        Raises:
            InputError: another process holds it (named by pid), or ``runs`` cannot be written.
            MissingDependency: the disk is full.
        """
        root = runs / recipe.run_name()
        with _disk_errors(root):
            (root / "logs").mkdir(parents=True, exist_ok=True)
        with _hold(root):
            ledger = cls(root, watcher, until)
            with _disk_errors(root):
                shutil.rmtree(root / "staging", ignore_errors=True)
                write_atomically(root / "recipe.json", recipe.model_dump_json(indent=2) + "\n")
                ledger._note("run", recipe_digest=recipe.digest(), pid=os.getpid(), code=code_revision())
            yield ledger

    def stage(self, name: str, work: StageWork, *args: Any, version: int = 1, in_place: bool = False) -> Artefact:
        """Run a stage, or return its artefact if one with the same key is finished.

        Args:
            name: The stage; several arms of one kind of work have names of their own.
            work: Called as ``work(place, *args)``; see ``StageWork``.
            args: Recipe sections (pydantic), plain JSON values, and artefacts of earlier stages: all that the work
                may depend on, since they make the key.
            version: Bump it when the work's meaning changes.
            in_place: The stage grows in its final directory, so that a crash loses nothing of it.
        """
        key = _key(name, version, args)
        final = self.root / "stages" / name / key
        artefact = read_artefact(final)
        with _disk_errors(self.root):
            if artefact is not None:
                self._note("reused", stage=name, key=key)
                self._watcher.stage_ends(name, artefact, reused=True)
            else:
                artefact = self._run(name, work, args, version, key, final, in_place)
        self.finished[name] = artefact
        if name == self._until:
            raise UntilReached(artefact)
        return artefact

    def _run(
        self, name: str, work: StageWork, args: Sequence[Any], version: int, key: str, final: Path, in_place: bool
    ) -> Artefact:
        out = final if in_place else self.root / "staging" / f"{name}-{key}"
        scratch = self.root / "scratch" / f"{name}-{key}"
        out.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        self._note("begin", stage=name, key=key, pid=os.getpid())
        started = time.time()
        place = StageContext(out, scratch, self.root / "logs", self._watcher.stage_begins(name), final.parent)
        with stderr_into(self.root / "logs" / f"{name}.log"):
            facts = work(place, *args)
        files = [_entry(out, path) for path in sorted(out.rglob("*")) if path.is_file() and path.name != MANIFEST]
        manifest = {
            "stage": name,
            "key": key,
            "version": version,
            "sections": [_keyed(arg) for arg in args if not isinstance(arg, Artefact)],
            "inputs": {arg.stage: arg.digest for arg in args if isinstance(arg, Artefact)},
            "facts": facts,
            "files": files,
            "digest": _files_digest(files),
            "code": code_revision(),
            "versions": installed_versions(),
            "seconds": round(time.time() - started, 3),
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        }
        write_atomically(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        if not in_place:
            shutil.rmtree(final, ignore_errors=True)  # no manifest, so no artefact: left by a crash
            os.rename(out, final)
            _sync_folder(final.parent)
        shutil.rmtree(scratch, ignore_errors=True)
        artefact = read_artefact(final)
        assert artefact is not None, "a stage just committed must be readable"
        self._note("done", stage=name, key=key, seconds=manifest["seconds"])
        self._watcher.stage_ends(name, artefact, reused=False)
        return artefact

    def _note(self, event: str, **facts: Any) -> None:
        line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts}
        with (self.root / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())


def read_artefact(folder: Path) -> Artefact | None:
    """The artefact in a stage folder, or None where its manifest is not there (so the stage never finished)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"damaged manifest: {error}", where=str(folder / MANIFEST), hint=f"remove {folder} to run the stage again"
        ) from None
    return Artefact(manifest["stage"], manifest["key"], folder, manifest["digest"], manifest)


def read_events(root: Path) -> list[dict[str, Any]]:
    """The ledger's lines, oldest first; a torn last line is left out."""
    events: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):
        for line in (root / "ledger.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                events.append(json.loads(line))
    return events


def current_artefacts(root: Path) -> dict[str, Artefact]:
    """The artefacts that the newest run of a run directory finished or reused, by stage, in order."""
    keys: dict[str, str] = {}
    for event in read_events(root):
        if event["event"] == "run":
            keys = {}
        elif event["event"] in ("done", "reused"):
            keys[event["stage"]] = event["key"]
    found = {stage: read_artefact(root / "stages" / stage / key) for stage, key in keys.items()}
    return {stage: artefact for stage, artefact in found.items() if artefact is not None}


# --- keys and files ----------------------------------------------------------------------------------------------


def _keyed(arg: Any) -> Any:
    if isinstance(arg, BaseModel):
        return arg.model_dump(mode="json")
    if isinstance(arg, list | tuple):
        return [_keyed(item) for item in arg]
    return arg


def _key(name: str, version: int, args: Sequence[Any]) -> str:
    parts = [
        {"artefact": arg.stage, "digest": arg.digest} if isinstance(arg, Artefact) else _keyed(arg) for arg in args
    ]
    canonical = json.dumps([name, version, parts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _entry(out: Path, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if not path.is_symlink():
            os.fsync(stream.fileno())
    return {"path": path.relative_to(out).as_posix(), "size": path.stat().st_size, "sha256": sha256}


def _files_digest(files: Sequence[dict[str, Any]]) -> str:
    lines = "".join(f"{item['sha256']}  {item['path']}\n" for item in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _hold(root: Path) -> Iterator[None]:
    """Hold the run directory. The lock dies with the process, so a kill -9 leaves none behind."""
    holder = root / ".lock.json"
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = _holder(holder)
        raise InputError(
            f"this run is at work in process {pid}", where=str(root), hint="wait for it, or stop it and run again"
        ) from None
    try:
        write_atomically(holder, json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> int | str:
    try:
        pid: int = json.loads(path.read_text(encoding="utf-8"))["pid"]
    except (OSError, ValueError, KeyError):
        return "unknown"
    return pid


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written, told as such. What was committed stays."""
    import errno

    try:
        yield
    except OSError as error:
        where = str(error.filename or root)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MissingDependency(
                "no space left on the disk", where=where, hint="free some, and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR) and str(root) in where:
            hint = "choose another --runs folder"
            raise InputError(f"cannot be written: {error.strerror}", where=where, hint=hint) from error
        raise


@contextlib.contextmanager
def stderr_into(log: Path) -> Iterator[None]:
    """Append all that is written to descriptor 2 meanwhile, by C libraries and child processes too, to ``log``."""
    with log.open("ab") as sink:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
