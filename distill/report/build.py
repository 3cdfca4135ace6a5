"""Writes the report of a run.

    report.html     tables, plots and a viewer of the traces; opens from disk, needs no network
    report.md       the tables alone, for a repository

Both lie outside ``stages/``: they are views of artefacts, can be made again at any time, and are never an input. Each
is written under a temporary name and renamed whole.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.check.preview import PreviewRow, trained_rows
from distill.config.recipe import StudentConfig
from distill.report.page import markdown, write_page
from distill.report.summary import sections
from distill.report.trace_rows import trace_rows
from distill.report.traces import MOST_TRACES, Rows, TraceCounts, pack_traces
from distill.runs.artefact import Artefact, of_last_round
from distill.runs.store import current_artefacts
from licensing.errors import InputError
from licensing.files import atomic, disk_errors, write_text
from synth.verify.verify_traces import VERDICTS

_TRAINED_ROWS = 3


@dataclass(frozen=True)
class Report:
    """Absolute paths of the two files; number of traces in the run and in the page."""

    html: Path
    markdown: Path
    traces: int
    shown: int


def build_report(run: Path, out: Path | None = None, most: int = MOST_TRACES) -> Report:
    """Write ``report.html`` and ``report.md`` into ``out``, by default the run's own ``report/``.

    Traces come with their labels and drop reasons where label and curate are finished, and once verify is. At most
    ``most`` are in the page, which says how many are not.

    Raises InputError where nothing is finished yet, a file is damaged or ``out`` cannot be written; MissingDependency
    where the disk is full.
    """
    artefacts = current_artefacts(run)
    if not artefacts:
        raise InputError("no stage of this run is finished", where=str(run), hint="run it first: distill run RECIPE")
    try:
        recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        where = str(run / "recipe.json")
        raise InputError(f"the recipe cannot be read: {error}", where=where, hint="run the recipe again") from None
    out = out or run / "report"
    with disk_errors(out, "choose another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile("w+", encoding="ascii", dir=out) as chunks:
            counted: TraceCounts | None = None
            index = ""
            if (rows := _rows(run, of_last_round(artefacts))) is not None:
                counted, index = pack_traces(rows, chunks, most)
            content = sections(recipe, artefacts, counted, _trained_rows(run, recipe, artefacts))
            title = f"{recipe['name']} ({run.resolve().name})"
            description = recipe.get("description") or ""
            chunks.seek(0)
            page = out / "report.html"
            temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
            with atomic(page, temporary), temporary.open("w", encoding="utf-8") as stream:
                write_page(stream, title, description, content, counted, index, chunks)
        write_text(out / "report.md", markdown(title, description, content))
    total, shown = (counted.total, counted.shown) if counted else (0, 0)
    return Report(page.resolve(), (out / "report.md").resolve(), total, shown)


def _trained_rows(run: Path, recipe: Mapping[str, Any], artefacts: Mapping[str, Artefact[Any]]) -> list[PreviewRow]:
    """The first training rows; none where the recipe is one of another release, whose student section differs."""
    try:
        student = StudentConfig.model_validate(recipe.get("student"))
    except ValidationError:
        return []
    return trained_rows(run, artefacts, student, _TRAINED_ROWS)


def _rows(run: Path, artefacts: Mapping[str, Artefact[Any]]) -> Rows | None:
    """The traces with what the finished stages say of them; None before verify is finished."""
    if "sample" not in artefacts or "verify" not in artefacts:
        return None
    labels, selection = (artefacts[stage].path if stage in artefacts else None for stage in ("label", "curate"))
    verdicts = artefacts["verify"].path / VERDICTS
    return partial(trace_rows, artefacts["sample"].path, run / "store", verdicts, labels, selection if labels else None)
