"""The rows that the report's viewer shows: a trace with its problem, verdicts, labels and drop reason, joined from the
tables of the stages that are finished."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from synth.curate.curate import SELECTION
from synth.curate.tables import stage_views, view
from synth.curate.training_rows import majority_field
from synth.duckdb_helpers import database, stream
from synth.labels.trace import LABELS
from synth.sampling.samples_table import samples_schema
from synth.trace import Trace, TraceSet

_VERDICT = (
    "verdict", "score", "extracted", "reason", "isolation", "format_verdict", "format_reason", "judge_verdict",
    "judge_reason", "judge_text", "judge_model", "counts_as", "majority_answer", "majority_votes", "majority_samples",
)  # fmt: skip
_LABEL = (
    *(column for name in LABELS for column in (name, f"{name}_reason")),
    "language_prompt", "language_think", "language_answer",
)  # fmt: skip
_STATS = ("n_judged", "n_correct", "estimate", "low", "high", "suspect_gold", "teacher")
_NEAR = ("prompt_cluster", "prompt_size", "trace_cluster", "trace_size")
_SELECTION = ("kept", "drop_reason")
_REPEAT = "remove the stage's folder and run it again"


@dataclass(frozen=True)
class TraceTables:
    """Folders of the stages' tables; ``labels`` and ``selection`` are None where those stages are not finished."""

    samples: Path
    store: Path
    verdicts: Path
    labels: Path | None = None
    selection: Path | None = None


def trace_rows(tables: TraceTables) -> Callable[[], Iterator[dict[str, Any]]]:
    """A function that begins the rows anew each time that it is called, in the order of the traces.

    A row has the fields of the problem (the user's columns as `extra`), of the sample (the text as `response`) and of
    the verdict, `labels` (name -> value and reason), `kept` and `drop_reason`. It raises InputError, naming the file,
    where a table cannot be read or a text is missing.
    """

    def rows() -> Iterator[dict[str, Any]]:
        import duckdb
        import pyarrow as pa

        try:
            yield from _joined(tables)
        except (duckdb.Error, pa.ArrowInvalid) as error:
            raise InputError(f"a table is damaged: {error}", where=str(tables.verdicts.parent), hint=_REPEAT) from error
        except KeyError as error:
            raise InputError(f"the sample store has no row {error}", where=str(tables.store), hint=_REPEAT) from error

    return rows


def _joined(tables: TraceTables) -> Iterator[dict[str, Any]]:
    with (
        TraceSet(tables.samples, tables.store) as traces,
        tempfile.TemporaryDirectory() as folder,
        database(Path(folder)) as db,
    ):
        if not len(traces):
            return
        has_near = stage_views(db, traces, tables.verdicts, tables.labels)
        samples = samples_schema().names
        columns = [f"s.{name}" for name in samples] + [f"v.{name}" for name in _VERDICT]
        joins = "JOIN verdicts AS v ON v.request_id = s.request_id"
        if tables.labels is not None:
            columns += [f"l.{name}" for name in _LABEL]
            there = db.view("problem_stats").columns  # in runs of older releases without `teacher`
            columns += [f"ps.{name}" if name in there else "NULL" for name in _STATS]
            joins += " JOIN labels AS l ON l.request_id = s.request_id"
            joins += " LEFT JOIN problem_stats AS ps ON ps.problem_id = s.problem_id"
            if has_near:
                columns += ["np.cluster", "np.size", "nt.cluster", "nt.size"]
                joins += " LEFT JOIN near_prompts AS np ON np.problem_id = s.problem_id"
                joins += " LEFT JOIN near_traces AS nt ON nt.request_id = s.request_id"
            else:
                columns += ["NULL"] * len(_NEAR)
        if tables.selection is not None:
            view(db, "selection", tables.selection / SELECTION)
            columns += [f"c.{name}" for name in _SELECTION]
            joins += " JOIN selection AS c ON c.request_id = s.request_id"
        numbered = ", ".join(f"{column} AS c{at}" for at, column in enumerate(columns))
        query = f"SELECT {numbered} FROM samples AS s {joins} ORDER BY s.file_row_number"
        for row in stream(db.sql(query)):
            values = iter(row)
            trace = traces.trace(_take(values, samples))
            verdict = _take(values, _VERDICT)
            labels = None
            if tables.labels is not None:
                labels = _labels(_take(values, _LABEL), _take(values, _STATS), _take(values, _NEAR))
            selection = _take(values, _SELECTION) if tables.selection is not None else {}
            yield _row(trace, verdict) | ({} if labels is None else {"labels": labels}) | selection


def _take(values: Iterator[Any], names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    return {name: next(values) for name in names}


def _row(trace: Trace, verdict: Mapping[str, Any]) -> dict[str, Any]:
    problem = {name: value for name, value in trace.problem.items() if name != "extra" or value}
    rules = ("verdict", "score", "extracted", "reason")
    optional = {name: verdict[name] for name in _VERDICT[4:11] if verdict[name] is not None}
    if majority := majority_field(dict(verdict)):
        optional["majority"] = majority
    return {
        **problem,
        "request_id": trace.request_id,
        "prompt_id": trace.problem_id,
        "sample_index": trace.sample_index,
        "response": trace.canonical_text,
        "finish_reason": trace.finish_reason,
        "error": trace.error,
        "prompt_tokens": trace.prompt_tokens,
        "completion_tokens": trace.completion_tokens,
        "model": trace.teacher,
        "engine": trace.engine,
        **{name: verdict[name] for name in rules},
        **optional,
    }


def _labels(label: Mapping[str, Any], stats: Mapping[str, Any], near: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    labels: dict[str, dict[str, Any]] = {}
    for name in LABELS:
        value, reason = label[name], label[f"{name}_reason"]
        if value is not None or reason is not None:
            labels[name] = {"value": value, "reason": reason}
    languages = {part: label[f"language_{part}"] for part in ("prompt", "think", "answer")}
    if any(languages.values()):
        labels["language"] = {"value": languages, "reason": None}
    if stats["suspect_gold"]:
        labels["suspect_gold"] = {"value": True, "reason": "samples agree with each other and never with the gold"}
    rate, of_teacher = stats["estimate"], f" of {stats['teacher']}" if stats["teacher"] else ""
    labels["pass_rate"] = {
        "value": None if rate is None else round(rate, 6),
        "reason": f"{stats['n_correct']} of {stats['n_judged']} samples{of_teacher} are correct; "
        f"95 % interval {stats['low']:.3f} to {stats['high']:.3f}"
        if stats["n_judged"]
        else None,
        "low": stats["low"],
        "high": stats["high"],
    }
    for kind in ("prompt", "trace"):
        first, size = near[f"{kind}_cluster"], near[f"{kind}_size"]
        reason = None if first is None else f"one of {size} that are like {first}"
        labels[f"near_duplicate_{kind}"] = {"value": first is not None, "reason": reason}
    return labels
