"""The table ``t`` of curation: a row a trace, joined from samples, verdicts, labels and problem statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.labels.label import PROBLEM_STATS, problem_stats_schema
from synth.labels.trace import LABELS, label_schema
from synth.parquet_files import write_parquet
from synth.problems.difficulty import stated_level
from synth.sampling.samples_table import SAMPLES
from synth.trace_set import TraceSet

if TYPE_CHECKING:
    import duckdb

FLAGS = (*(name for name in LABELS if name != "contaminated"), "suspect_gold", "format", "majority_gold", "in_process")
"""Columns of `t` that can drop a trace: the reason where it has the flaw, else null. The recipe has a filter for each,
by the same name."""

ORDER = "problem_id, sample_index, request_id, digest, trace_row"
"""The order of training rows. `trace_row` is the row in samples.parquet."""


def view(db: duckdb.DuckDBPyConnection, name: str, source: Path | list[Path], **options: Any) -> None:
    """Make a view of one Parquet file or several."""
    files = [str(path) for path in source] if isinstance(source, list) else str(source)
    db.read_parquet(files, **options).create_view(name, replace=True)


def stage_views(db: duckdb.DuckDBPyConnection, traces: TraceSet, verdicts: Path, labels: Path | None) -> bool:
    """Make the views ``samples`` (with file_row_number), ``verdicts``, and of the folder ``labels`` its tables:
    ``labels``, ``problem_stats``, ``near_prompts``, ``near_traces``; returns whether there are the last two."""
    view(db, "samples", traces.folder / SAMPLES, file_row_number=True)
    view(db, "verdicts", verdicts)
    if labels is None:
        return False
    if not len(traces):
        db.register("labels", label_schema().empty_table())
        db.register("problem_stats", problem_stats_schema().empty_table())
        return False
    view(db, "labels", sorted(labels.glob("labels-*.parquet")))
    view(db, "problem_stats", labels / PROBLEM_STATS)
    has_near = (labels / "near_traces.parquet").exists()
    for kind in ("near_prompts", "near_traces") if has_near else ():
        view(db, kind, labels / f"{kind}.parquet")
    return has_near


def open_table(db: duckdb.DuckDBPyConnection, traces: TraceSet, verdicts: Path, labels: Path, scratch: Path) -> None:
    """Make ``t`` and the view ``labels``.

    Args:
        db: An empty database.
        traces: What the sample stage selected.
        verdicts: verdicts.parquet.
        labels: The folder that ``synth.labels.label`` wrote.
        scratch: A folder that stays as long as the database.
    """
    import pyarrow as pa

    near = ""
    near_columns = ", ".join(f"NULL::VARCHAR AS near_{kind}" for kind in ("prompt", "trace"))
    if stage_views(db, traces, verdicts, labels):
        near_columns = "near_prompts.cluster AS near_prompt, near_traces.cluster AS near_trace"
        near = (
            "LEFT JOIN near_prompts ON near_prompts.problem_id = s.problem_id "
            "LEFT JOIN near_traces ON near_traces.request_id = s.request_id"
        )
    texts = [(name, pa.string()) for name in ("problem_id", "kind", "source", "license", "level")]
    problems = scratch / "problems.parquet"
    write_parquet(problems, pa.schema([*texts, ("judge_score", pa.float64())]), _problem_rows(traces))
    view(db, "problems", problems)
    flags = ", ".join(_flag(name) for name in LABELS)
    db.sql(
        "CREATE TABLE t AS SELECT "
        "s.file_row_number AS trace_row, s.request_id, s.problem_id, s.sample_index, l.digest, "
        "s.completion_tokens AS tokens, l.characters, l.answer_characters, s.finish_reason, "
        "coalesce(v.counts_as, v.verdict) AS verdict, s.teacher, p.kind, p.source, p.license, p.level, p.judge_score, "
        "v.judge_verdict, coalesce(l.language_answer, l.language_think) AS language, "
        f"{flags}, "
        "CASE WHEN ps.suspect_gold THEN 'samples agree with each other and never with the gold' END AS suspect_gold, "
        "CASE WHEN v.format_verdict = 'bad' THEN coalesce(v.format_reason, 'bad') END AS format, "
        "CASE WHEN v.majority_answer IS NOT NULL THEN v.majority_votes || ' of ' || v.majority_samples || "
        "' samples give this answer' END AS majority_gold, "
        "CASE WHEN v.isolation = 'in_process' THEN 'the program could reach its tests' END AS in_process, "
        f"{near_columns}, ps.n_judged, ps.estimate AS rate, NULL::VARCHAR AS identity_talk, "
        "NULL::VARCHAR AS drop_reason "
        "FROM samples AS s JOIN labels AS l ON l.request_id = s.request_id "
        "JOIN verdicts AS v ON v.request_id = s.request_id JOIN problems AS p ON p.problem_id = s.problem_id "
        f"LEFT JOIN problem_stats AS ps ON ps.problem_id = s.problem_id {near}"
    )


def _flag(name: str) -> str:
    """A label that its limits stopped (null, with a reason) counts as a flaw: nobody looked."""
    condition = "l.think <> 'ok'" if name == "think" else f"l.{name}"
    reason = f"l.{name}_reason"
    return f"CASE WHEN l.{name} IS NULL THEN {reason} WHEN {condition} THEN coalesce({reason}, '{name}') END AS {name}"


def _problem_rows(traces: TraceSet) -> Iterator[dict[str, Any]]:
    """What curation reads of the problems. ``judge_score`` is a column of the user's, for `select: judge`."""
    for problem_id, problem in traces.problems.items():
        score: Any = (problem.get("extra") or {}).get("judge_score")
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        yield {
            "problem_id": problem_id,
            **{name: problem.get(name) for name in ("kind", "source", "license")},
            "level": stated_level(problem),
            "judge_score": float(score) if is_number else None,
        }
