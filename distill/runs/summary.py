"""A run told in tables, or as JSON for programs: stages, waterfall, scores, where the release lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill.runs.artefact import Artefact
from distill.runs.store import current_artefacts
from licensing.errors import InputError

MODEL_NAMES = {
    "student_before": "student before",
    "student_after": "student after",
    "teacher": "teacher",
    "student_control": "student after, unverified traces",
}


def find_run(path: Path) -> Path:
    """The run directory meant by ``path``: itself, or the only run below it.

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
        raise InputError("more than one run is here", where=str(path), hint=f"name one of them: {names}")
    raise InputError("no run is here", where=str(path), hint="name a folder that `distill run` made (runs/NAME-HASH)")


def summary(run: Path) -> dict[str, Any]:
    """``{"run", "stages", "waterfall", "scores", "comparisons", "release"}`` of a run's newest recipe.

    ``release`` is an absolute path, or None where the run has not come so far.
    """
    artefacts = current_artefacts(run)
    evaluate, curate, package = artefacts.get("evaluate"), artefacts.get("curate"), artefacts.get("package")
    return {
        "run": str(run.resolve()),
        "stages": [_stage(artefact) for artefact in artefacts.values()],
        "waterfall": curate.facts["waterfall"] if curate else [],
        "scores": evaluate.facts["scores"] if evaluate else [],
        "comparisons": evaluate.facts["comparisons"] if evaluate else [],
        "release": str((package.path / package.facts["folder"]).resolve()) if package else None,
    }


def _stage(artefact: Artefact) -> dict[str, Any]:
    facts = artefact.facts
    return {
        "stage": artefact.stage,
        "key": artefact.key,
        "seconds": artefact.manifest["seconds"],
        "rows_in": facts.get("rows_in"),
        "rows_out": facts.get("rows_out"),
        "tokens": facts.get("tokens"),
        "path": str(artefact.path.resolve()),
    }


def print_summary(found: dict[str, Any], console: Console) -> None:
    """The tables that ``distill run`` ends with and ``distill show`` prints."""
    stages = Table(title="Stages", title_justify="left")
    for name in ("stage", "seconds", "rows in", "rows kept", "tokens"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for row in found["stages"]:
        counts = [_count(row[name]) for name in ("rows_in", "rows_out", "tokens")]
        stages.add_row(row["stage"], f"{row['seconds']:.1f}", *counts)
    stages.add_section()
    stages.add_row("all", f"{sum(row['seconds'] for row in found['stages']):.1f}", "", "", "")
    console.print(stages)
    if found["waterfall"]:
        waterfall = Table(title="Waterfall", title_justify="left")
        for name in ("step", "rows", "problems", "tokens"):
            waterfall.add_column(name, justify="left" if name == "step" else "right")
        for row in found["waterfall"]:
            waterfall.add_row(row["step"], *(_count(row[name]) for name in ("rows", "problems", "tokens")))
        console.print(waterfall)
    if found["scores"]:
        console.print(_scores(found["scores"]))
        for row in found["comparisons"]:
            a, b = MODEL_NAMES.get(row["a"], row["a"]), MODEL_NAMES.get(row["b"], row["b"])
            interval = f"{row['difference']:+.3f} (95 % interval {row['low']:+.3f} to {row['high']:+.3f})"
            console.print(f"{b} over {a}: {interval}", markup=False)
    if found["release"]:
        console.print(f"release: {found['release']}", markup=False, soft_wrap=True)


def _scores(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Scores on {rows[0]['n']} held-out problems", title_justify="left")
    table.add_column("model")
    for name in ("pass@1", "95 % interval", "ends by itself", "tokens an answer"):
        table.add_column(name, justify="right")
    for row in rows:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        model = MODEL_NAMES.get(row["model"], row["model"])
        table.add_row(model, f"{row['value']:.3f}", interval, f"{row['stop_rate']:.3f}", f"{row['mean_tokens']:.1f}")
    return table


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
