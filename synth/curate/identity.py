"""The policy for identity talk: traces in which the teacher says who it is are dropped, or rewritten to the persona.

Only the texts of traces with the label `identity_leak` are read. Rules rewrite (``synth.persona.rewrite``), and a model
what they cannot (``synth.persona.rewriter``), for which these texts are read twice. A rewritten trace is verified anew:
it stays only where verdict, extracted answer and think block are what they were. The sample store keeps the original;
the new text stands in rewrites.parquet, and training rows take it from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from synth.curate.tables import view
from synth.duckdb_helpers import stream, write_result
from synth.parquet_files import write_parquet
from synth.persona.config import PersonaConfig
from synth.persona.find import Claim, describe, find_identity, foreign
from synth.persona.rewrite import rewrite
from synth.persona.rewriter import REWRITER, RewriterRun
from synth.sampling.auxiliary_model import section_errors
from synth.sampling.samples_table import samples_schema
from synth.trace import Trace
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig
from synth.verify.trace_verifier import verify_row
from synth.verify.verdict import stored_extracted
from synth.verify.verifier import verify_rows

if TYPE_CHECKING:
    import duckdb

REWRITES = "rewrites.parquet"
"""A row a rewritten trace: its request_id, the new raw text, and `claims`, what the original says ("answer: name
ChatGPT (OpenAI)"). The original text is in the sample store."""


class _Talk(NamedTuple):
    """A trace with foreign claims, and its verdict."""

    trace_row: int
    trace: Trace
    claims: list[Claim]
    verdict: str | None
    extracted: str | None

    @property
    def described(self) -> list[str]:
        answer_start = len(self.trace.text) - len(self.trace.reasoning.answer)
        return [describe(claim, answer_start) for claim in self.claims]


def apply_identity_policy(
    db: duckdb.DuckDBPyConnection,
    traces: TraceSet,
    persona: PersonaConfig,
    verify: VerifyConfig | None,
    out: Path,
    scratch: Path,
    rewriter: RewriterRun | None = None,
) -> dict[str, Any] | None:
    """Set `identity_talk` in ``t`` where a trace is to be dropped, and write rewrites.parquet into ``out`` where there
    is ``verify``: the settings that the verdicts were made with, for a persona whose policy is to rewrite.

    Claims that are the persona's own (its name, maker, base, teachers, cutoff) are none. ``scratch`` is a folder.
    Returns what a ``rewriter`` did: counts, tokens, and the traces that it got by what counts of them. Raises what its
    teacher raises, with every answer so far kept.
    """
    import pyarrow as pa

    outcomes = scratch / "identity.parquet"
    texts = [(name, pa.string()) for name in ("why", "request_id", "text")]
    schema = pa.schema([("trace_row", pa.int64()), *texts, ("claims", pa.list_(pa.string()))])
    facts: dict[str, Any] | None = None
    counts = Counter[str]()
    if rewriter is not None:
        for talk in _talking(db, traces, persona):
            if _by_rules(talk, persona) is None:
                rewriter.note(talk.trace, talk.claims)
        with section_errors("persona.rewriter"):
            facts = rewriter.ask()
        rewriter.write(out / REWRITER)
    talking = _talking(db, traces, persona)
    rows = _dropped(talking) if verify is None else _rewritten(talking, persona, verify, rewriter, counts)
    write_parquet(outcomes, schema, rows)
    view(db, "identity", outcomes)
    db.sql("UPDATE t SET identity_talk = identity.why FROM identity WHERE t.trace_row = identity.trace_row")
    if verify is not None:
        rewritten = "SELECT request_id, text, claims FROM identity WHERE text IS NOT NULL ORDER BY trace_row"
        write_result(out / REWRITES, db.sql(rewritten))
    return None if facts is None else facts | {"traces": dict(sorted(counts.items()))}


def _talking(db: duckdb.DuckDBPyConnection, traces: TraceSet, persona: PersonaConfig) -> Iterator[_Talk]:
    columns = samples_schema().names
    labelled = db.sql(
        f"SELECT t.trace_row, v.verdict, v.extracted, {', '.join(f's.{name}' for name in columns)} FROM t "
        "JOIN samples AS s ON s.file_row_number = t.trace_row JOIN verdicts AS v ON v.request_id = t.request_id "
        "WHERE t.identity_leak IS NOT NULL ORDER BY t.trace_row"
    )
    for trace_row, verdict, extracted, *values in stream(labelled):
        trace = traces.trace(dict(zip(columns, values, strict=True)))
        claims = foreign(find_identity(trace.text), persona)
        if claims:
            yield _Talk(trace_row, trace, claims, verdict, extracted)


def _dropped(talking: Iterable[_Talk]) -> Iterator[dict[str, Any]]:
    for talk in talking:
        yield {"trace_row": talk.trace_row, "why": "; ".join(talk.described)}


def _by_rules(talk: _Talk, persona: PersonaConfig) -> str | None:
    """The text that rules rewrite; None where they cannot."""
    text = rewrite(talk.trace.text, talk.claims, persona)
    if text is None or talk.trace.with_text(text).reasoning.state != talk.trace.reasoning.state:
        return None
    return text


def _rewritten(
    talking: Iterable[_Talk],
    persona: PersonaConfig,
    verify: VerifyConfig,
    rewriter: RewriterRun | None,
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """A row a trace: `text` where it is rewritten and stays, else `why`. ``counts`` counts what the rewriter got."""

    def rows() -> Iterator[dict[str, Any]]:
        for talk in talking:
            text, why = _by_rules(talk, persona), None
            by_model = text is None and rewriter is not None
            if text is None and rewriter is not None:
                text, why = rewriter.text(talk.trace, talk.claims)
            # What cannot be rewritten passes as kind open, of which nothing is verified.
            row: dict[str, Any] = {"kind": "open", "response": ""}
            if text is not None:
                row = verify_row(talk.trace.with_text(text))
            yield {**row, "_talk": talk, "_text": text, "_why": why, "_by_model": by_model}

    for row in verify_rows(rows(), verify):
        talk, text, why = row["_talk"], row["_text"], row["_why"]
        before, after = (
            (verdict, stored_extracted(row["kind"], extracted))
            for verdict, extracted in ((talk.verdict, talk.extracted), (row["verdict"], row["extracted"]))
        )
        if text is None:
            reason = f"; {why}" if why else ""
            outcome = {"why": f"cannot be rewritten: {'; '.join(talk.described)}{reason}"}
        elif before != after:
            why = "rewriting changes the answer"
            outcome = {"why": f"{why}: {before[0]} {before[1]!r} becomes {after[0]} {after[1]!r}"}
        else:
            outcome = {"text": text, "request_id": talk.trace.request_id, "claims": talk.described}
        if row["_by_model"]:
            counts[(why or "rewritten").partition(": ")[0]] += 1
        yield {"trace_row": talk.trace_row, **outcome}
