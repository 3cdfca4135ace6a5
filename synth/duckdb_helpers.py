"""DuckDB as the engine for tables that need not fit in memory: windows and joins over Parquet, spilling to disk.

Why DuckDB: what curation asks is SQL (ranks within a problem, quotas, running sums), its memory can be bounded in
bytes, and one file holds it. Polars streams too, but its windows over groups do not spill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import MissingDependency

if TYPE_CHECKING:
    import duckdb

__all__ = ["database", "stream"]

MEMORY = "125MB"  # the least that DuckDB asks for a thread
THREADS = 1
BATCH = 5_000  # rows of a result in memory at a time


@contextlib.contextmanager
def database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in ``folder``, gone when the block is left. Raises MissingDependency without duckdb."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingDependency("duckdb is not installed", where="curate", hint="pip install duckdb") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "choice.duckdb"
    path.unlink(missing_ok=True)
    settings: dict[str, str | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": THREADS,
        "temp_directory": str(folder / "choice.spill"),
    }
    connection = duckdb.connect(str(path), config={**settings, "preserve_insertion_order": False})
    try:
        yield connection
    finally:
        connection.close()
        for left in (path, path.with_name(path.name + ".wal")):
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (folder / "choice.spill").rmdir()


def stream(relation: duckdb.DuckDBPyRelation) -> Iterator[tuple[Any, ...]]:
    """The rows of a result as they come. Its own iterator holds the whole result, outside of the bound on memory.

    Read it to the end before the connection is asked anything else.
    """
    for batch in relation.to_arrow_reader(BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
