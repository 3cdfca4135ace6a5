"""The ablation: two data sets that differ in one filter, of equal size and matched difficulty.

A filter makes a data set smaller and, mostly, easier (a correct trace is likelier on an easy problem), so that two runs
with and without it differ in more than the filter. Here both selections are made whole and then thinned to the same
number of rows in every stratum of difficulty: the pass rate of the problem in steps of 0.05, problems without one being
a stratum of their own. Within a stratum both arms draw rows by the same hash, so that they share as many as possible.
Mean difficulties then differ by less than the width of a stratum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synth.curate.config import CurateConfig
from synth.curate.select import draw, mean_difficulty, select

if TYPE_CHECKING:
    import duckdb

ARMS = ("with", "without")
STEP = 0.05


def ablate(db: duckdb.DuckDBPyConnection, config: CurateConfig) -> dict[str, Any]:
    """Make the tables `arm_with` and `arm_without` (column trace_row) and return what ablation.json says of them.

    ``t`` is left with the drop reasons of the last selection: select again.
    """
    name = config.ablation
    assert name is not None
    for arm in ARMS:
        select(db, config.with_filter(name, arm == "with"))
        stratified = (
            f"SELECT *, coalesce(round(rate / {STEP})::INTEGER, -1) AS stratum FROM t WHERE drop_reason IS NULL"
        )
        order = draw(f"{config.seed}/ablation")
        rank = f"row_number() OVER (PARTITION BY stratum ORDER BY {order}) AS rank"
        db.sql(f"CREATE OR REPLACE TABLE selected_{arm} AS SELECT trace_row, stratum, {rank} FROM ({stratified})")
    db.sql(
        "CREATE OR REPLACE TABLE strata AS SELECT stratum, least(a.n, b.n) AS n FROM "
        "(SELECT stratum, count(*) AS n FROM selected_with GROUP BY stratum) AS a "
        "JOIN (SELECT stratum, count(*) AS n FROM selected_without GROUP BY stratum) AS b USING (stratum)"
    )
    for arm in ARMS:
        matched = f"SELECT trace_row, stratum FROM selected_{arm} JOIN strata USING (stratum) WHERE rank <= n"
        db.sql(f"CREATE OR REPLACE TABLE arm_{arm} AS {matched}")
    shared = db.sql("SELECT count(*) FROM arm_with JOIN arm_without USING (trace_row)").fetchall()[0][0]
    rows = db.sql("SELECT count(*) FROM arm_with").fetchall()[0][0]
    strata = db.sql("SELECT stratum, n FROM strata ORDER BY stratum").fetchall()
    return {
        "filter": name,
        "rows": rows,
        "rows_in_both": shared,
        "matched_by": f"pass rate of the problem in steps of {STEP}",
        "arms": {arm: _arm(db, arm) for arm in ARMS},
        "strata": [{"pass_rate": None if at < 0 else round(at * STEP, 2), "rows": n} for at, n in strata],
    }


def _arm(db: duckdb.DuckDBPyConnection, arm: str) -> dict[str, Any]:
    before = db.sql(f"SELECT count(*) FROM selected_{arm}").fetchall()[0][0]
    source = f"t JOIN arm_{arm} USING (trace_row)"
    problems, tokens = db.sql(f"SELECT count(DISTINCT problem_id), sum(tokens) FROM {source}").fetchall()[0]
    return {
        "rows_before_matching": before,
        "problems": problems,
        "tokens": None if tokens is None else int(tokens),
        "mean_difficulty": mean_difficulty(db, source),
    }
