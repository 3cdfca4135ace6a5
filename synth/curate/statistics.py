"""What a data set is made of: rows and tokens by source, teacher, difficulty, language, kind and licence; lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synth.curate.select import BANDS, mean_difficulty

if TYPE_CHECKING:
    import duckdb

EDGES = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
GROUPS = ("source", "teacher", "language", "kind", "license")


def statistics(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Statistics of the training rows; ``lengths`` also of all sampled traces.

    ``by_*``: [{"name", "rows", "tokens"}], most rows first; name is None where it is not known. ``lengths``: rows by
    completion tokens, ``edges[i] <= tokens < edges[i + 1]``, the last bin open; traces without a count are in no bin.
    """
    total = _rows(
        db, "SELECT count(*), count(DISTINCT problem_id), sum(tokens), "
        "quantile_cont(tokens, [0.1, 0.5, 0.9]) FROM t WHERE drop_reason IS NULL",
    )[0]  # fmt: skip
    bands = " ".join(f"WHEN {where} THEN '{name}'" for name, where in BANDS.items())
    columns = {**{name: name for name in GROUPS}, "difficulty": f"CASE {bands} END"}
    return {
        "rows": total[0],
        "problems": total[1],
        "tokens": None if total[2] is None else int(total[2]),
        "mean_difficulty": mean_difficulty(db, "t WHERE drop_reason IS NULL"),
        "token_quantiles": None if total[3] is None else dict(zip(("p10", "p50", "p90"), total[3], strict=True)),
        **{f"by_{name}": _by(db, column) for name, column in columns.items()},
        "lengths": {"edges": list(EDGES), "sampled": _lengths(db, "true"), "kept": _lengths(db, "drop_reason IS NULL")},
    }


def _by(db: duckdb.DuckDBPyConnection, column: str) -> list[dict[str, Any]]:
    rows = _rows(
        db, f"SELECT {column} AS name, count(*) AS n, sum(tokens) FROM t WHERE drop_reason IS NULL GROUP BY name "
        "ORDER BY n DESC, name NULLS LAST",
    )  # fmt: skip
    return [{"name": name, "rows": n, "tokens": None if tokens is None else int(tokens)} for name, n, tokens in rows]


def _lengths(db: duckdb.DuckDBPyConnection, where: str) -> list[int]:
    bins = ", ".join(
        f"count(*) FILTER (tokens >= {low}" + (f" AND tokens < {high})" if high else ")")
        for low, high in zip(EDGES, (*EDGES[1:], None), strict=True)
    )
    return list(_rows(db, f"SELECT {bins} FROM t WHERE {where}")[0])


def _rows(db: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return db.sql(query).fetchall()
