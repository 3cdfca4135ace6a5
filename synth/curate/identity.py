"""The policy for identity talk: traces in which the teacher says who it is are dropped, or rewritten to the persona.

Only the texts of traces with the label `identity_leak` are read. A rewritten trace is verified anew: it stays only
where verdict, extracted answer and think block are what they were. The sample store keeps the original; the new text
stands in rewrites.parquet, and training rows take it from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.duckdb_helpers import stream
from synth.parquet_files import write_parquet
from synth.persona.config import PersonaConfig
from synth.persona.find import Claim, describe, find_identity, foreign
from synth.persona.rewrite import rewrite
from synth.trace import Trace, TraceSet, samples_schema
from synth.verify.config import VerifyConfig
from synth.verify.trace_verifier import verify_row
from synth.verify.verifier import verify_rows

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["REWRITES", "apply_identity_policy", "rewrites_schema"]

REWRITES = "rewrites.parquet"


def rewrites_schema() -> pa.Schema:
    """Columns of ``rewrites.parquet``, a row a rewritten trace: its request_id, the new raw text, and `claims`, what
    the original says ("answer: name ChatGPT (OpenAI)"). The original text is in the sample store."""
    import pyarrow as pa

    return pa.schema([("request_id", pa.string()), ("text", pa.string()), ("claims", pa.list_(pa.string()))])


def apply_identity_policy(
    db: duckdb.DuckDBPyConnection, traces: TraceSet, persona: PersonaConfig, verify: VerifyConfig | None, out: Path
) -> None:
    """Set `identity_talk` in ``t`` where a trace is to be dropped, and write rewrites.parquet into ``out`` where the
    persona's policy is to rewrite.

    Claims that are the persona's own (its name, maker, base, teachers, cutoff) are none. ``verify``: the settings that
    the verdicts were made with, for rewriting.
    """
    reasons: list[tuple[int, str]] = []
    if verify is None or persona.identity_talk == "drop":
        reasons += [(trace_row, _words(trace, claims)) for trace_row, trace, claims in _talking(db, traces, persona)]
    else:
        write_parquet(out / REWRITES, rewrites_schema(), _rewrites(db, traces, persona, verify, reasons))
    db.execute("CREATE OR REPLACE TABLE talking (trace_row BIGINT, why VARCHAR)")
    if reasons:
        db.executemany("INSERT INTO talking VALUES (?, ?)", reasons)
    db.sql("UPDATE t SET identity_talk = talking.why FROM talking WHERE t.trace_row = talking.trace_row")


def _talking(
    db: duckdb.DuckDBPyConnection, traces: TraceSet, persona: PersonaConfig
) -> Iterator[tuple[int, Trace, list[Claim]]]:
    """(row, trace, claims) of the traces with foreign claims."""
    columns = samples_schema().names
    labelled = db.sql(
        f"SELECT t.trace_row, {', '.join(f's.{name}' for name in columns)} FROM t JOIN samples AS s "
        "ON s.file_row_number = t.trace_row WHERE t.identity_leak IS NOT NULL ORDER BY t.trace_row"
    ).fetchall()
    for trace_row, *values in labelled:
        trace = traces.trace(dict(zip(columns, values, strict=True)))
        claims = foreign(find_identity(trace.text), persona)
        if claims:
            yield trace_row, trace, claims


def _words(trace: Trace, claims: Sequence[Claim]) -> str:
    return "; ".join(_described(trace, claims))


def _described(trace: Trace, claims: Sequence[Claim]) -> list[str]:
    answer_start = len(trace.text) - len(trace.reasoning.answer)
    return [describe(claim, answer_start) for claim in claims]


def _rewrites(
    db: duckdb.DuckDBPyConnection,
    traces: TraceSet,
    persona: PersonaConfig,
    verify: VerifyConfig,
    reasons: list[tuple[int, str]],
) -> Iterator[dict[str, Any]]:
    """Rows of rewrites.parquet; ``reasons`` gets the traces that cannot be rewritten."""
    verdicts = {
        name: (verdict, extracted)
        for name, verdict, extracted in stream(
            db.sql(
                "SELECT request_id, verdict, extracted FROM verdicts WHERE request_id IN "
                "(SELECT request_id FROM t WHERE identity_leak IS NOT NULL)"
            )
        )
    }

    def rows() -> Iterator[dict[str, Any]]:
        for trace_row, trace, claims in _talking(db, traces, persona):
            text = rewrite(trace.text, claims, persona)
            if text is None or trace.with_text(text).reasoning.state != trace.reasoning.state:
                reasons.append((trace_row, f"cannot be rewritten: {_words(trace, claims)}"))
                continue
            row = verify_row(trace.problem, text, trace.think_open, trace.think_close)
            named = {"_request_id": trace.request_id, "_claims": _described(trace, claims)}
            yield {**row, "_trace_row": trace_row, **named}

    for row in verify_rows(rows(), verify):
        before, after = verdicts[row["_request_id"]], (row["verdict"], row["extracted"])
        if before == after:
            yield {"request_id": row["_request_id"], "text": row["response"], "claims": row["_claims"]}
        else:
            change = f"{before[0]} {before[1]!r} becomes {after[0]} {after[1]!r}"
            reasons.append((row["_trace_row"], f"rewriting changes the answer: {change}"))
