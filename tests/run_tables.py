"""Training rows and traces of a run directory, read as the stages read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.report.trace_rows import trace_rows
from distill.runs.artefact import of_last_round
from distill.runs.store import current_artefacts
from distill.runs.tables import TrainingTables
from synth.verify.verify_traces import VERDICTS


def training_rows_of(run: Path, arm: str = "train") -> list[dict[str, Any]]:
    """The training rows of the run's newest recipe; ``arm``: see ``synth.curate.training_rows``."""
    stages = of_last_round(current_artefacts(run))
    inputs = (stages[stage] for stage in ("sample", "verify", "label", "curate"))
    with TrainingTables(*inputs).training_rows(run / "store", arm) as rows:
        return list(rows)


def traces_of(run: Path) -> list[dict[str, Any]]:
    """Every trace with its problem, verdict, labels and drop reason, as the report shows them."""
    stages = current_artefacts(run)
    labels, selection = (stages[stage].path if stage in stages else None for stage in ("label", "curate"))
    verdicts = stages["verify"].path / VERDICTS
    return list(trace_rows(stages["sample"].path, run / "store", verdicts, labels, selection))
