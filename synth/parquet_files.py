"""Parquet tables written whole (temporary name, fsync, one rename) and read row by row, in batches of 2,000 rows."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.files import atomic, disk_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 2_000  # rows in memory at a time


def write_parquet(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write ``rows`` to ``path``; a reader sees the old file or the new one. Returns how many rows there were.

    Raises MissingDependency for a full disk; the temporary file is removed then.
    """
    count, rows = 0, iter(rows)
    with parquet_writer(path, schema) as writer:
        while batch := [*itertools.islice(rows, _BATCH)]:
            count += len(batch)
            writer.write_table(table_of(batch, schema))
    return count


@contextlib.contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of ``path``, which appears at the end of the block; raises as ``write_parquet`` does."""
    import pyarrow.parquet as pq

    with (
        disk_errors(path),
        atomic(path) as temporary,
        temporary.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        yield writer


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table, in order."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_BATCH, columns=list(columns) if columns else None):
            yield from batch.to_pylist()


def table_of(batch: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table. Half a surrogate pair, which UTF-8 has no place for, is written as its escape."""
    import pyarrow as pa

    try:
        return pa.Table.from_pylist(batch, schema=schema)
    except UnicodeEncodeError:
        return pa.Table.from_pylist(
            [{key: _encodable(value) for key, value in row.items()} for row in batch], schema=schema
        )


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
