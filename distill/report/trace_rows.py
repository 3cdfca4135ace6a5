"""The rows that the report's viewer shows: a trace with its problem, verdicts, labels and drop reason, joined from the
tables of the stages that are finished."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from synth.curate.curate import SELECTION
from synth.curate.tables import stage_views, view
from synth.curate.training_rows import majority_field
from synth.duckdb_helpers import database, stream
from synth.labels.trace import LABELS
from synth.trace import Trace
from synth.trace_set import TraceSet

_OPTIONAL = (
    "isolation", "format_verdict", "format_reason", "judge_verdict", "judge_reason", "judge_text", "judge_model",
    "counts_as",
)  # fmt: skip
_REPEAT = "remove the stage's folder and run it again"


def trace_rows(
    samples: Path, store: Path, verdicts: Path, labels: Path | None = None, selection: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The rows in the order of the traces. Folders of the stages' tables; ``labels`` and ``selection`` are None where
    those stages are not finished.

    A row has the fields of the problem (the user's columns as `extra`), of the sample (the text as `response`) and of
    the verdict, `labels` (name -> value and reason), `kept` and `drop_reason`. Raises InputError, naming the file,
    where a table cannot be read or a text is missing.
    """
    import duckdb
    import pyarrow as pa

    tables = ["s", "v"]  # a row of a table is one column of the result
    joins = "JOIN verdicts AS v ON v.request_id = s.request_id"
    try:
        with (
            TraceSet(samples, store) as traces,
            tempfile.TemporaryDirectory() as folder,
            database(Path(folder)) as db,
        ):
            if not len(traces):
                return
            has_near = stage_views(db, traces, verdicts, labels)
            if labels is not None:
                tables += ["l", "ps"]
                joins += " JOIN (SELECT * EXCLUDE (digest, signature) FROM labels) AS l ON l.request_id = s.request_id"
                joins += " LEFT JOIN problem_stats AS ps ON ps.problem_id = s.problem_id"
            if has_near:
                tables += ["np", "nt"]
                joins += " LEFT JOIN near_prompts AS np ON np.problem_id = s.problem_id"
                joins += " LEFT JOIN near_traces AS nt ON nt.request_id = s.request_id"
            if selection is not None:
                view(db, "selection", selection / SELECTION)
                tables.append("c")
                joins += " JOIN selection AS c ON c.request_id = s.request_id"
            query = f"SELECT {', '.join(tables)} FROM samples AS s {joins} ORDER BY s.file_row_number"
            for columns in stream(db.sql(query)):
                of = dict(zip(tables, columns, strict=True))
                try:
                    trace = traces.trace(of["s"])
                except KeyError as error:
                    what = f"the sample store has no row {error}"
                    raise InputError(what, where=str(store), hint=_REPEAT) from error
                row = _row(trace, of["v"])
                if "l" in of:
                    row["labels"] = _labels(of["l"], of["ps"], {"prompt": of.get("np"), "trace": of.get("nt")})
                if "c" in of:
                    row |= {name: of["c"][name] for name in ("kept", "drop_reason")}
                yield row
    except (duckdb.Error, pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"a table is damaged: {error}", where=str(verdicts.parent), hint=_REPEAT) from error


def _row(trace: Trace, verdict: Mapping[str, Any]) -> dict[str, Any]:
    problem = {name: value for name, value in trace.problem.items() if name != "extra" or value}
    rules = ("verdict", "score", "extracted", "reason")
    optional = {name: verdict[name] for name in _OPTIONAL if verdict[name] is not None}
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
        **({"extracted": None} if problem["kind"] == "code" else {}),  # a digest of the program
        **optional,
    }


def _labels(
    label: Mapping[str, Any], stats: Mapping[str, Any], near: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, dict[str, Any]]:
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
    rate, of_teacher = stats["estimate"], ""
    if teacher := stats.get("teacher"):  # runs of older releases are without
        of_teacher = f" of {teacher}"
    labels["pass_rate"] = {
        "value": None if rate is None else round(rate, 6),
        "reason": f"{stats['n_correct']} of {stats['n_judged']} samples{of_teacher} are correct; "
        f"95 % interval {stats['low']:.3f} to {stats['high']:.3f}"
        if stats["n_judged"]
        else None,
        **{name: stats[name] for name in ("n_correct", "n_judged")},
        "low": stats["low"],
        "high": stats["high"],
    }
    for kind, group in near.items():
        is_near = group is not None and group["cluster"] is not None
        reason = f"one of {group['size']} that are like {group['cluster']}" if group and is_near else None
        labels[f"near_duplicate_{kind}"] = {"value": is_near, "reason": reason}
    return labels
