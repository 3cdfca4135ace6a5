"""The control arm: as many unverified traces as the training set has rows, to train a control student on.

The two sets have to differ in verification alone, so the control arm is drawn from traces that ended by themselves (a
trace that was cut off teaches a student not to stop, whatever verifying does), and matched to the training rows in
length and difficulty: in every stratum of both it has as many rows as the training set. A length is a bin of completion
tokens (half a power of two; traces without a count are a bin). A difficulty is the pass rate of the problem in steps of
0.1 where enough samples were judged (``synth.curate.select.JUDGED_SAMPLES``), else the level that the problem states
(``synth.problems.difficulty``); with neither, length alone is matched. Correct traces are likelier on easy problems, so
a control matched by length alone also differs in its problems; problems that no sample solves are in neither arm.

Where a stratum holds too few, traces of the same length fill up, then any; the report counts both. Draws go by hash,
from at most `max_traces_per_problem` of each problem; contaminated problems and identity talk are left out
where they are dropped from the training set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from synth.curate.config import CurateConfig
from synth.curate.select import ANSWERED, draw, has_pass_rates, mean_difficulty

if TYPE_CHECKING:
    import duckdb

_LENGTH = "coalesce(floor(2 * log2(greatest(tokens, 1)))::INTEGER, -1)"
_STEP = 0.1


class ControlReport(TypedDict):
    """``rows`` is below ``training_rows`` where there are too few finished traces. ``other_lengths``,
    ``other_difficulties``: rows beyond those that the training set has of their length or difficulty; the second is
    None where no difficulty is known. ``mean_tokens``: completion tokens of a row, None without counts.
    ``mean_difficulty`` as of ``synth.curate.select.Step``."""

    rows: int
    training_rows: int
    matched_by: str
    other_lengths: int
    other_difficulties: int | None
    mean_tokens: float | None
    training_mean_tokens: float | None
    mean_difficulty: float | None
    training_mean_difficulty: float | None


def draw_control(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> ControlReport:
    """Make the table `arm_control` (column trace_row) for the selection that ``t`` holds."""
    has_rates = has_pass_rates(db)
    has_levels = bool(db.sql("SELECT 1 FROM t WHERE level IS NOT NULL LIMIT 1").fetchall())
    difficulty = f"round(rate / {_STEP})::VARCHAR" if has_rates else "level"
    matched_by = "completion tokens in bins of half a power of two"
    if has_rates:
        matched_by += f", pass rate of the problem in steps of {_STEP}"
    elif has_levels:
        matched_by += ", difficulty that the problem states"
    strata = f"{_LENGTH} AS length, coalesce({difficulty}, '') AS difficulty"
    clean = "AND contaminated IS NULL" if config.filters.contaminated else ""
    pool = f"SELECT *, {strata} FROM t WHERE finish_reason = 'stop' AND {ANSWERED} AND identity_talk IS NULL {clean}"
    if has_rates:
        pool += " AND (rate IS NULL OR rate > 0)"
    if config.max_traces_per_problem is not None:
        by_chance = draw(f"{config.seed}/control_per_problem")
        limit = config.max_traces_per_problem
        pool += f" QUALIFY row_number() OVER (PARTITION BY problem_id ORDER BY {by_chance}) <= {limit}"
    order = draw(f"{config.seed}/control")
    db.sql(
        "CREATE OR REPLACE TABLE pool AS SELECT trace_row, length, difficulty, "
        f"row_number() OVER (ORDER BY {order}) AS rank FROM ({pool})"
    )
    db.sql(f"CREATE OR REPLACE TABLE training AS SELECT trace_row, {strata} FROM t WHERE drop_reason IS NULL")
    db.sql("CREATE OR REPLACE TABLE arm_control (trace_row BIGINT)")
    for columns in ("length, difficulty", "length", "''"):
        _fill(db, columns)
    training_rows, training_tokens = _count(db, "t WHERE drop_reason IS NULL")
    rows, tokens = _count(db, "t JOIN arm_control USING (trace_row)")
    return ControlReport(
        rows=rows,
        training_rows=training_rows,
        matched_by=matched_by,
        other_lengths=_surplus(db, "length"),
        other_difficulties=_surplus(db, "difficulty") if has_rates or has_levels else None,
        mean_tokens=tokens,
        training_mean_tokens=training_tokens,
        mean_difficulty=mean_difficulty(db, "t JOIN arm_control USING (trace_row)"),
        training_mean_difficulty=mean_difficulty(db, "t WHERE drop_reason IS NULL"),
    )


def _fill(db: duckdb.DuckDBPyConnection, columns: str) -> None:
    """Add rows of the pool until each stratum of ``columns`` has as many as the training set, or no more are left."""
    in_arm = "SELECT trace_row FROM arm_control"
    free = f"FROM pool WHERE trace_row NOT IN ({in_arm})"
    db.sql(
        "INSERT INTO arm_control SELECT trace_row FROM "
        f"(SELECT trace_row, stratum, row_number() OVER (PARTITION BY stratum ORDER BY rank) AS position FROM "
        f"(SELECT trace_row, ({columns},) AS stratum, rank {free})) JOIN "
        f"(SELECT stratum, sum(n) AS n FROM (SELECT ({columns},) AS stratum, 1 AS n FROM training UNION ALL "
        f"SELECT ({columns},), -1 FROM pool WHERE trace_row IN ({in_arm})) GROUP BY stratum) USING (stratum) "
        "WHERE position <= n"
    )


def _surplus(db: duckdb.DuckDBPyConnection, column: str) -> int:
    """Rows of the arm beyond as many as the training set has of each value of ``column``."""
    query = (
        f"SELECT coalesce(sum(greatest(n, 0)), 0) FROM (SELECT sum(n) AS n FROM (SELECT {column}, 1 AS n FROM pool "
        f"WHERE trace_row IN (SELECT trace_row FROM arm_control) UNION ALL SELECT {column}, -1 FROM training) "
        f"GROUP BY {column})"
    )
    return int(db.sql(query).fetchall()[0][0])


def _count(db: duckdb.DuckDBPyConnection, source: str) -> tuple[int, float | None]:
    rows, tokens = db.sql(f"SELECT count(*), avg(tokens) FROM {source}").fetchall()[0]
    return rows, None if tokens is None else round(tokens, 2)
