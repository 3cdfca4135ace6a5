"""Training rows: a query over the tables, joined with the texts of the sample store. No second copy of a text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synth.curate.curate import ARMS_TABLE, SELECTION
from synth.curate.identity import REWRITES
from synth.curate.tables import stage_views, view
from synth.duckdb_helpers import database, stream
from synth.sampling.samples_table import samples_schema
from synth.trace_set import TraceSet

_VERDICT = (
    "verdict", "isolation", "format_verdict", "judge_verdict", "counts_as", "majority_answer", "majority_votes",
    "majority_samples",
)  # fmt: skip


def training_rows(
    traces: TraceSet, verdicts: Path, labels: Path, selection: Path, arm: str = "train"
) -> Iterator[dict[str, Any]]:
    """The rows that a student is trained on, in order of position, one at a time.

    Args:
        traces: What the sample stage selected.
        verdicts: verdicts.parquet of the verify stage.
        labels: The folder of the label stage.
        selection: The folder of the curate stage.
        arm: "train", or an arm of arms.parquet: "control", "with", "without".

    Yields:
        id (of the request), prompt_id, messages (the problem's, then the assistant's ``Trace.canonical_text``), answer,
        kind, source, license, model (the teacher), verdict, engine, sample_index, prompt_tokens, completion_tokens,
        pass_rate (of the problem), language (of the answer, else of the thinking); pass_rate_teacher in a cascade, the
        one whose samples pass_rate counts; isolation, format_verdict, judge_verdict and counts_as where the verify
        stage gave any; majority where the problem's gold was elected or searched; with rewrites.parquet `rewritten`,
        the claims of the original about itself, None where it has none.
    """
    if not len(traces):
        return
    with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as db:
        stage_views(db, traces, verdicts, labels)
        if arm == "train":
            view(db, "chosen", selection / SELECTION)
            condition = "kept"
        else:
            view(db, "chosen", selection / ARMS_TABLE)
            condition = f"arm = '{arm}'"
        rewritten = (selection / REWRITES).exists()
        if rewritten:
            view(db, "rewrites", selection / REWRITES)
        else:
            db.sql("CREATE TABLE rewrites (request_id VARCHAR, text VARCHAR, claims VARCHAR[])")
        optional = ("isolation", "format_verdict", "judge_verdict", "counts_as")
        counts = db.sql(f"SELECT {', '.join(f'count({name})' for name in optional)} FROM verdicts").fetchall()[0]
        present = [name for name, count in zip(optional, counts, strict=True) if count]
        rated = "ps.teacher" if "teacher" in db.view("problem_stats").columns else "NULL"  # runs of older releases
        columns = samples_schema().names
        rows = db.sql(
            f"SELECT {', '.join(f's.{name}' for name in columns)}, {', '.join(f'v.{name}' for name in _VERDICT)}, "
            f"ps.estimate, {rated}, coalesce(l.language_answer, l.language_think), r.text, r.claims FROM chosen "
            "JOIN samples AS s USING (request_id) JOIN verdicts AS v USING (request_id) "
            "JOIN labels AS l USING (request_id) LEFT JOIN problem_stats AS ps ON ps.problem_id = s.problem_id "
            "LEFT JOIN rewrites AS r ON r.request_id = s.request_id "
            f"WHERE {condition} ORDER BY position"
        )
        for values in stream(rows):
            trace = traces.trace(dict(zip(columns, values, strict=False)))
            verdict = dict(zip(_VERDICT, values[len(columns) : -5], strict=True))
            pass_rate, pass_rate_teacher, language, new_text, claims = values[-5:]
            if new_text is not None:
                trace = trace.with_text(new_text)
            problem = trace.problem
            row: dict[str, Any] = {
                "id": trace.request_id,
                "prompt_id": trace.problem_id,
                "messages": [*problem["messages"], {"role": "assistant", "content": trace.canonical_text}],
                **{key: problem.get(key) for key in ("answer", "kind", "source", "license")},
                "model": trace.teacher,
                "verdict": verdict["verdict"],
                "engine": trace.engine,
                "sample_index": trace.sample_index,
                "prompt_tokens": trace.prompt_tokens,
                "completion_tokens": trace.completion_tokens,
                "pass_rate": None if pass_rate is None else round(pass_rate, 6),
                "language": language,
                **{name: verdict[name] for name in present},
            }
            if pass_rate_teacher is not None:
                row["pass_rate_teacher"] = pass_rate_teacher
            if rewritten:
                row["rewritten"] = claims
            if majority := majority_field(verdict):
                row["majority"] = majority
            yield row


def majority_field(verdict: dict[str, Any]) -> dict[str, Any] | None:
    """The field `majority` of a row, from the columns of verdicts.parquet; None where the problem has a gold answer."""
    votes, samples = verdict["majority_votes"], verdict["majority_samples"]
    if votes is None:
        return None
    share = round(votes / samples, 6) if samples else 0.0
    return {"answer": verdict["majority_answer"], "votes": votes, "samples": samples, "share": share}
