"""DuckDB as the engine for tables that need not fit in memory: windows and joins over Parquet, spilling to disk.

Why DuckDB: what curation asks is SQL (ranks within a problem, quotas, running sums), and its memory can be bounded in
bytes. Polars streams too, but its windows over groups do not spill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.parquet_files import parquet_writer

if TYPE_CHECKING:
    import duckdb

MEMORY = "125MB"  # the least that DuckDB asks for a thread
THREADS = 1
_BATCH = 5_000  # rows in memory at a time


@contextlib.contextmanager
def database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in ``folder``, removed at the end of the block."""
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "work.duckdb"
    path.unlink(missing_ok=True)
    settings: dict[str, str | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": THREADS,
        "temp_directory": str(folder / "work.spill"),
    }
    connection = duckdb.connect(str(path), config={**settings, "preserve_insertion_order": False})
    try:
        connection.execute("SET enable_progress_bar = false")  # it prints on stdout, which is for results
        yield connection
    finally:
        connection.close()
        for file in (path, path.with_name(path.name + ".wal")):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (folder / "work.spill").rmdir()


def stream(relation: duckdb.DuckDBPyRelation) -> Iterator[tuple[Any, ...]]:
    """The rows of a result as they come. DuckDB's own iterator holds the whole result, outside its bound on memory.

    Read it to the end before the connection runs another query.
    """
    for batch in relation.to_arrow_reader(_BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def write_result(path: Path, relation: duckdb.DuckDBPyRelation) -> None:
    """Write a result to a Parquet file (``synth.parquet_files``), with its columns as they come."""
    batches = relation.to_arrow_reader(_BATCH)
    with parquet_writer(path, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
