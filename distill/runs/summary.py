"""What a run has come to, as data: stages, waterfall, scores, the path of its release."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.runs.artefact import Artefact, of_last_round
from distill.runs.facts import notes_of
from distill.runs.store import current_artefacts, read_events
from licensing.errors import InputError
from licensing.files import read_json, write_json

_PROGRESS = "progress.json"
MODEL_NAMES = {
    "base": "base, its own template",
    "student_before": "student before",
    "student_after": "student after",
    "teacher": "teacher",
    "student_round_1": "student of the first round",
    "student_control": "student after, unverified traces",
}


def find_run(path: Path) -> Path:
    """The run directory at ``path``: itself, or the only run below it.

    Raises:
        InputError: there is none, or more than one.
    """
    if (path / "ledger.jsonl").is_file():
        return path
    runs = sorted(item.parent for item in path.glob("*/ledger.jsonl")) if path.is_dir() else []
    if len(runs) == 1:
        return runs[0]
    if runs:
        names = ", ".join(run.name for run in runs)
        raise InputError("more than one run is here", where=str(path), hint=f"give one of them: {names}")
    raise InputError("no run is here", where=str(path), hint="give a folder that `distill run` made (runs/NAME-HASH)")


def summary(run: Path) -> dict[str, Any]:
    """``{"run", "stages", "running", "waterfall", "scores", "comparisons", "side_effects", "planted_recall",
    "interval", "persona_probes", "release", "data_release", "formats"}`` of a run's newest recipe.

    ``release`` and ``data_release`` are the absolute paths of the model's folder and the data set's; None before the
    stage package has finished, and where no data set is released. ``formats``: those of the release in other formats.
    """
    artefacts = current_artefacts(run)
    evaluate, package = artefacts.get("evaluate"), artefacts.get("package")
    curate = of_last_round(artefacts).get("curate")
    formats = [artefacts[stage] for stage in ("formats", "compress") if stage in artefacts]
    return {
        "run": str(run.resolve()),
        "stages": stage_rows(artefacts),
        "running": running_stage(run),
        "waterfall": curate.facts["waterfall"] if curate else [],
        "scores": score_rows(evaluate) if evaluate else [],
        "comparisons": evaluate.facts["comparisons"] if evaluate else [],
        "side_effects": evaluate.facts.get("side_effects", []) if evaluate else [],
        "planted_recall": evaluate.facts.get("planted_recall") if evaluate else None,
        "interval": evaluate.facts["interval"] if evaluate else None,
        "persona_probes": evaluate.facts.get("persona_probes") if evaluate else None,
        "release": _folder(package, "folder"),
        "data_release": _folder(package, "data_folder"),
        "formats": [str((one.path / name).resolve()) for one in formats for name in one.facts["folders"]],
    }


def write_progress(scratch: Path, state: Mapping[str, Any]) -> None:
    """Leave how far a stage is in its folder for scratch, for ``running_stage``."""
    scratch.mkdir(parents=True, exist_ok=True)
    write_json(scratch / _PROGRESS, dict(state))


def running_stage(run: Path) -> dict[str, Any] | None:
    """The stage that was begun last and is not finished: ``stage``, ``key``, ``begun``, and how far it is where it says
    so: ``at`` (epoch seconds), ``done``, ``total``, ``failed``, ``note``. Whether its process still runs is not known.
    """
    begun: dict[str, Any] | None = None
    for event in read_events(run):
        if event["event"] == "begin":
            begun = event
        elif event["event"] == "run" or (
            begun is not None and event.get("key") == begun["key"] and event["event"] == "done"
        ):
            begun = None
    if begun is None:
        return None
    row = {"stage": begun["stage"], "key": begun["key"], "begun": begun["at"]}
    state = run / "scratch" / f"{begun['stage']}-{begun['key']}" / _PROGRESS
    return row | read_json(state) | {"at": int(state.stat().st_mtime)} if state.is_file() else row


def running_text(row: Mapping[str, Any]) -> str:
    """A row of ``running_stage`` in words."""
    if "done" not in row:
        return f"begun at {row['begun']}, not finished"
    parts = [f"{row['done']:,} of {row['total']:,}", row["note"], f"{row['failed']:,} failed" if row["failed"] else ""]
    at = datetime.datetime.fromtimestamp(row["at"], datetime.UTC).isoformat()
    return f"not finished: {', '.join(filter(None, parts))}, at {at}"


def score_rows(evaluate: Artefact) -> list[dict[str, Any]]:
    """The scores of stage evaluate, each with the ``seconds`` that the model took: start of the engine, answers that
    were not stored yet, verdicts. None for runs of versions that did not measure it."""
    seconds = evaluate.manifest.get("requests", {}).get("seconds", {})
    return [{**row, "seconds": seconds.get(row["model"])} for row in evaluate.facts["scores"]]


def _folder(package: Artefact | None, fact: str) -> str | None:
    name = package.facts.get(fact) if package else None
    return str((package.path / name).resolve()) if package and name else None


def stage_rows(artefacts: Mapping[str, Artefact]) -> list[dict[str, Any]]:
    """One row a finished stage, in order: ``stage``, ``key``, ``seconds``, ``path``, counts, None where unknown, and
    ``notes`` (``notes_of``)."""
    return [
        {
            "stage": artefact.stage,
            "key": artefact.key,
            "seconds": artefact.manifest["seconds"],
            "rows_in": artefact.facts.get("rows_in"),
            "rows_out": artefact.facts.get("rows_out"),
            "tokens": artefact.facts.get("tokens"),
            "path": str(artefact.path.resolve()),
            "notes": notes_of(artefact.facts),
        }
        for artefact in artefacts.values()
    ]
