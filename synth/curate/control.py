"""The control arm: as many unverified traces as the training set has rows, to train a control student on.

The two sets have to differ in verification alone, so the control arm is drawn from traces that ended by themselves (a
trace that was cut off teaches a student not to stop, whatever verifying does), and matched to the training rows in
length: in every bin of completion tokens (half a power of two; traces without a count are a bin) it has as many rows as
the training set. Where a bin holds too few, traces of other lengths fill up, and the report counts them. Draws go by
hash, from at most `max_traces_per_problem` of each problem; contaminated problems and identity talk are left out where
they are dropped from the training set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from synth.curate.config import CurateConfig
from synth.curate.select import ANSWERED, draw

if TYPE_CHECKING:
    import duckdb

__all__ = ["ControlReport", "draw_control"]

_BIN = "coalesce(floor(2 * log2(greatest(tokens, 1)))::INTEGER, -1)"


class ControlReport(TypedDict):
    """``rows`` is below ``training_rows`` where there are too few finished traces. ``other_lengths``: rows drawn from
    another bin of lengths. ``mean_tokens``: completion tokens of a row, None without counts."""

    rows: int
    training_rows: int
    matched_by: str
    other_lengths: int
    mean_tokens: float | None
    training_mean_tokens: float | None


def draw_control(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> ControlReport:
    """Make the table `arm_control` (column trace_row) for the selection that ``t`` holds."""
    clean = "AND contaminated IS NULL" if config.filters.contaminated else ""
    pool = (
        f"SELECT *, {_BIN} AS bin FROM t WHERE finish_reason = 'stop' AND {ANSWERED} AND identity_talk IS NULL {clean}"
    )
    if config.max_traces_per_problem is not None:
        by_chance = draw(f"{config.seed}/control_per_problem")
        limit = config.max_traces_per_problem
        pool += f" QUALIFY row_number() OVER (PARTITION BY problem_id ORDER BY {by_chance}) <= {limit}"
    order = draw(f"{config.seed}/control")
    db.sql(
        f"CREATE OR REPLACE TABLE pool AS SELECT trace_row, bin, row_number() OVER (ORDER BY {order}) AS rank, "
        f"row_number() OVER (PARTITION BY bin ORDER BY {order}) AS rank_in_bin FROM ({pool})"
    )
    db.sql(
        f"CREATE OR REPLACE TABLE bins AS SELECT {_BIN} AS bin, count(*) AS n FROM t WHERE drop_reason IS NULL "
        "GROUP BY bin"
    )
    db.sql(
        "CREATE OR REPLACE TABLE arm_control AS SELECT trace_row FROM pool JOIN bins USING (bin) WHERE rank_in_bin <= n"
    )
    training_rows, training_tokens = _count(db, "t WHERE drop_reason IS NULL")
    matched, _ = _count(db, "t JOIN arm_control USING (trace_row)")
    db.sql(
        "INSERT INTO arm_control SELECT trace_row FROM pool WHERE trace_row NOT IN (SELECT trace_row FROM arm_control) "
        f"ORDER BY rank LIMIT {training_rows - matched}"
    )
    rows, tokens = _count(db, "t JOIN arm_control USING (trace_row)")
    return ControlReport(
        rows=rows,
        training_rows=training_rows,
        matched_by="completion tokens in bins of half a power of two",
        other_lengths=rows - matched,
        mean_tokens=tokens,
        training_mean_tokens=training_tokens,
    )


def _count(db: duckdb.DuckDBPyConnection, source: str) -> tuple[int, float | None]:
    rows, tokens = db.sql(f"SELECT count(*), avg(tokens) FROM {source}").fetchall()[0]
    return rows, None if tokens is None else round(tokens, 2)
