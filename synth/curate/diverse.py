"""`select: diverse`: the traces of a problem that are least like one another, by their MinHash signatures."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from licensing.errors import InputError
from synth.duckdb_helpers import stream

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray


def most_alike(db: duckdb.DuckDBPyConnection, limit: int, order: str) -> str:
    """A query of the traces to drop, so that ``limit`` of each problem stay. Problems with ``limit`` traces or fewer
    are not looked at. Raises InputError where a trace to compare has no signature.

    Memory: the signatures of one problem, and the row numbers of the traces to drop.
    """
    import numpy as np
    import pyarrow as pa

    db.sql(
        "CREATE OR REPLACE TABLE contested AS SELECT trace_row, request_id, problem_id, "
        f"row_number() OVER (PARTITION BY problem_id ORDER BY {order}) AS rank FROM t WHERE drop_reason IS NULL "
        f"QUALIFY count(*) OVER (PARTITION BY problem_id) > {limit}"
    )
    ordered = db.sql(
        "SELECT contested.problem_id, contested.trace_row, labels.signature FROM contested "
        "JOIN labels USING (request_id) ORDER BY contested.problem_id, rank"
    )
    alike: list[int] = []
    for _, group in groupby(stream(ordered), key=lambda row: row[0]):
        rows = list(group)
        if any(row[2] is None for row in rows):
            raise InputError(
                "select: diverse compares signatures, and there are none", where="curate.select",
                hint="set label.near_duplicates, or select otherwise",
            )  # fmt: skip
        diverse = set(farthest(np.stack([np.frombuffer(row[2], dtype="<u4") for row in rows]), limit))
        alike += [row[1] for place, row in enumerate(rows) if place not in diverse]
    db.register("alike_rows", pa.table({"trace_row": pa.array(alike, pa.int64())}))
    db.sql("CREATE OR REPLACE TABLE alike AS SELECT * FROM alike_rows")
    db.unregister("alike_rows")
    return "SELECT trace_row FROM alike"


def farthest(signatures: NDArray[np.uint32], limit: int) -> list[int]:
    """Places of ``limit`` signatures: the first, then always the one whose nearest among the selected is farthest."""
    import numpy as np

    selected = [0]
    nearest = (signatures == signatures[0]).mean(axis=1)
    while len(selected) < limit:
        nearest[selected] = np.inf
        following = int(nearest.argmin())
        selected.append(following)
        nearest = np.maximum(nearest, (signatures == signatures[following]).mean(axis=1))
    return selected
