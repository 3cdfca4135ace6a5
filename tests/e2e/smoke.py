"""The smoke recipe at the level of the command: run it, copy a finished run, read what it left."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from command import Answer, call

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "distill.cli"]
STAGES = ("prepare", "sample", "verify", "label", "curate", "train", "export", "train_control", "export_control",
          "evaluate", "audit", "package")  # fmt: skip


def distill(*arguments: object) -> Answer:
    return call(*arguments, folder=ROOT)


def run_smoke(runs: Path, *more: object) -> dict[str, Any]:
    done = distill("run", "recipes/smoke.yaml", "--runs", runs, "--json", *more)
    assert done.code == 0, done.err
    result: dict[str, Any] = done.json
    return result | {"stderr": done.err}


def copy_of(runs: Path, to: Path) -> Path:
    """A copy of a finished run in the runs folder ``to``; links to base weights stay links."""
    shutil.copytree(the_run(runs), to / the_run(runs).name, symlinks=True)
    return to


def the_run(runs: Path) -> Path:
    (run,) = runs.glob("smoke-*")
    return run


def manifests(runs: Path) -> dict[str, Any]:
    """Every manifest of a run, less what may differ between equal runs: when, how long, which commit of ours, and the
    bytes of shared files."""
    found = {}
    for path in sorted(the_run(runs).glob("stages/*/*/manifest.json")):
        manifest = json.loads(path.read_text())
        for volatile in ("seconds", "started_at", "requests", "appended", "code"):
            manifest.pop(volatile)
        found[manifest["stage"]] = manifest
    return found


def ledger(runs: Path) -> list[dict[str, Any]]:
    """All events of the ledger."""
    return [json.loads(line) for line in (the_run(runs) / "ledger.jsonl").read_text().splitlines()]


def events(runs: Path) -> list[dict[str, Any]]:
    """The ledger's events since the newest run began."""
    lines = ledger(runs)
    newest = max(number for number, event in enumerate(lines) if event["event"] == "run")
    return lines[newest:]


def last_event(runs: Path) -> dict[str, Any]:
    """The newest event of a run at work, whose last line may be half written; empty where there is none yet."""
    logs = list(runs.glob("smoke-*/ledger.jsonl"))
    lines = logs[0].read_text().splitlines(keepends=True) if logs else []
    return next((json.loads(line) for line in reversed(lines) if line.endswith("\n")), {})


def executed(runs: Path) -> list[str]:
    """The stages that the newest run did not find done."""
    return [event["stage"] for event in events(runs) if event["event"] == "done"]
