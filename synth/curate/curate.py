"""Select the traces that the student is trained on. Every trace keeps a row, with the reason why it was dropped.

The steps, in order (names as in `waterfall.json`, and as the prefix of a trace's `drop_reason`):

    sampled        every trace
    answered       requests that failed, and empty answers of kind `open`, are never trained on
    identity_talk  traces that the persona's policy drops, where there are any (``synth.curate.identity``)
    (filters)      one step for each filter that is on, by its name: see `curate.filters`
    per_problem    at most `max_traces_per_problem`, by `select`
    open_share     no more than this share of kind `open`
    quota          the composition that `quota` asks for
    total          at most `max_traces` and `max_total_tokens`, drawn at random

Memory does not grow with the traces: the selection is SQL in DuckDB (`synth.duckdb_helpers`), whose tables spill to the
disk. No text is read but that of traces with identity talk.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.files import write_json
from synth.curate.ablate import ARMS, ablate
from synth.curate.config import CurateConfig
from synth.curate.control import ControlReport, draw_control
from synth.curate.identity import REWRITES, apply_identity_policy
from synth.curate.select import Step, select
from synth.curate.statistics import statistics
from synth.curate.tables import ORDER, open_table, view
from synth.duckdb_helpers import database, stream, write_result
from synth.persona.config import PersonaConfig
from synth.persona.rewriter import RewriterRun
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig

if TYPE_CHECKING:
    import duckdb

SELECTION = "selection.parquet"
ARMS_TABLE = "arms.parquet"
_REPORTS = ("near_duplicates.json", "decontamination.json")


@dataclass(frozen=True)
class Curation:
    """What was selected. ``control`` is None without a control arm. ``texts_digest`` is sha256 over request id and text
    (after NFC and white-space folding) of every row of every arm, in order: a request that was answered anew has the
    same id and another text. ``rewriter``: what the persona's rewriter did, where it has one."""

    waterfall: list[Step]
    control: ControlReport | None
    texts_digest: str
    rewriter: dict[str, Any] | None = None


def curate(
    traces: TraceSet,
    verdicts: Path,
    labels: Path,
    config: CurateConfig,
    out: Path,
    *,
    persona: PersonaConfig | None = None,
    verify: VerifyConfig | None = None,
    rewriter: RewriterRun | None = None,
) -> Curation:
    """Select among the traces that ``synth.labels.label`` labelled into the folder ``labels``. Written to ``out``:

    selection.parquet    a row a trace, in their order: request_id, kept, drop_reason ("step: detail", or null), and
                         position, its place among the training rows (from 0; null where it was dropped)
    arms.parquet         with `control_arm` or `ablation`: arm (control, with, without), request_id, position
    waterfall.json       the steps
    statistics.json      what the training rows are made of, and how the control arm compares
    ablation.json        with `ablation`
    near_duplicates.json, decontamination.json    copies of those of the labels
    rewrites.parquet     where the persona's policy for identity talk is to rewrite
    rewriter/            with ``rewriter``: every answer of this model (answers.jsonl)

    ``persona`` is None where all identity talk is kept; ``verify`` is None where it is dropped; ``rewriter`` is that of
    the persona, open.
    ``synth.curate.training_rows`` reads the training rows from these tables. Equal traces and seed give equal rows in
    whatever order the traces come. When nothing is kept the tables are empty and the caller decides. Raises InputError
    where the selection needs what no trace has.
    """
    out.mkdir(parents=True, exist_ok=True)
    control: ControlReport | None = None
    rewriting: dict[str, Any] | None = None
    arms: list[str] = []
    with database(out / ".work") as db:
        open_table(db, traces, verdicts, labels, out / ".work")
        if persona is not None and len(traces):
            rewriting = apply_identity_policy(db, traces, persona, verify, out, out / ".work", rewriter)
        if config.ablation is not None:
            write_json(out / "ablation.json", ablate(db, config))
            arms += ARMS
        waterfall = select(db, config)
        counts = statistics(db)
        if config.control_arm:
            control = draw_control(db, config)
            counts["control"] = control
            arms.append("control")
        order = f"rate DESC NULLS LAST, {ORDER}" if config.order == "difficulty" else ORDER
        write_result(out / SELECTION, db.sql(_selection_query(order)))
        if arms:
            write_result(out / ARMS_TABLE, db.sql(" UNION ALL ".join(map(_arm_query, arms))))
        texts_digest = _texts_digest(db, order, arms, out / REWRITES)
    shutil.rmtree(out / ".work", ignore_errors=True)
    write_json(out / "statistics.json", counts)
    write_json(out / "waterfall.json", waterfall)
    for name in _REPORTS:
        if (labels / name).exists():
            shutil.copyfile(labels / name, out / name)
    return Curation(waterfall, control, texts_digest, rewriting)


def _texts_digest(db: duckdb.DuckDBPyConnection, order: str, arms: list[str], rewrites: Path) -> str:
    total = hashlib.sha256()
    if rewrites.exists():
        view(db, "rewrites", rewrites)
        for request_id, text in stream(db.sql("SELECT request_id, text FROM rewrites ORDER BY request_id")):
            total.update(f"rewrite\n{request_id}\0{text}\0".encode())
    sources = {"train": ("t WHERE drop_reason IS NULL", order)}
    sources |= {arm: (f"t JOIN arm_{arm} USING (trace_row)", ORDER) for arm in arms}
    for arm, (source, by) in sources.items():
        total.update(f"{arm}\n".encode())
        for request_id, digest in stream(db.sql(f"SELECT request_id, digest FROM {source} ORDER BY {by}")):
            total.update(request_id.encode() + b"\0" + digest)
    return total.hexdigest()


def _selection_query(order: str) -> str:
    position = f"row_number() OVER (PARTITION BY drop_reason IS NULL ORDER BY {order}) - 1"
    return (
        "SELECT request_id, drop_reason IS NULL AS kept, drop_reason, "
        f"CASE WHEN drop_reason IS NULL THEN {position} END AS position FROM t ORDER BY trace_row"
    )


def _arm_query(arm: str) -> str:
    position = f"row_number() OVER (ORDER BY {ORDER}) - 1 AS position"
    return f"(SELECT '{arm}' AS arm, request_id, {position} FROM t JOIN arm_{arm} USING (trace_row) ORDER BY position)"
