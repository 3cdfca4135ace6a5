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

__all__ = ["farthest", "leave_alike"]

BATCH = 2_000


def leave_alike(db: duckdb.DuckDBPyConnection, limit: int, order: str, labelled: bool) -> str:
    """A query of the traces to leave out, so that ``limit`` of each problem stay; raises InputError where ``labelled``
    says that there are no signatures. Problems with ``limit`` traces or fewer are not looked at.

    Memory: the signatures of one problem, and the places of the traces left out.
    """
    if not labelled:
        raise InputError(
            "select: diverse compares signatures, and there are none", where="curate.select",
            hint="set label.near_duplicates, or choose another way to select",
        )  # fmt: skip
    import numpy as np
    import pyarrow as pa

    db.sql(
        f'CREATE OR REPLACE TABLE contested AS SELECT "offset", prompt_id, row_number() OVER (PARTITION BY prompt_id '
        f"ORDER BY {order}) AS rank FROM t WHERE left_out IS NULL "
        f"QUALIFY count(*) OVER (PARTITION BY prompt_id) > {limit}"
    )
    ordered = db.sql(
        'SELECT contested.prompt_id, contested."offset", traces.signature FROM contested JOIN traces USING ("offset") '
        "ORDER BY contested.prompt_id, rank"
    )
    out: list[int] = []
    for _, group in groupby(stream(ordered), key=lambda row: row[0]):
        rows = list(group)
        table = np.stack([np.frombuffer(row[2], dtype="<u4") for row in rows])
        kept = set(farthest(table, limit))
        out += [row[1] for place, row in enumerate(rows) if place not in kept]
    db.register("alike_now", pa.table({"offset": pa.array(out, pa.int64())}))
    db.sql("CREATE OR REPLACE TABLE alike AS SELECT * FROM alike_now")
    db.unregister("alike_now")
    return 'SELECT "offset" FROM alike'


def farthest(signatures: NDArray[np.uint32], limit: int) -> list[int]:
    """Places of ``limit`` signatures: the first, then always the one whose nearest among the chosen is farthest."""
    import numpy as np

    chosen = [0]
    nearest = (signatures == signatures[0]).mean(axis=1)
    while len(chosen) < limit:
        nearest[chosen] = np.inf
        following = int(nearest.argmin())
        chosen.append(following)
        nearest = np.maximum(nearest, (signatures == signatures[following]).mean(axis=1))
    return chosen
