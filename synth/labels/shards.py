"""One shard of the labels: a range of rows of samples.parquet, labelled by one process into two Parquet files.

``labels-00000.parquet`` has a row a trace (``synth.labels.trace.label_schema``); ``problems-00000.parquet`` a row a
problem that the shard meets: language, overlap with test items, MinHash of the question. A finished shard is not done
again, so a killed run goes on. Memory: some thousand rows, whatever the number of traces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from synth.decontaminate import Finder
from synth.dedup import signature
from synth.labels.config import LabelConfig
from synth.labels.trace import ProblemLabels, label_problem, label_schema, label_trace, utf8
from synth.trace import TraceSet

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SHARD_ROWS", "Shard", "label_shard", "shards"]

SHARD_ROWS = 6_000
_BATCH = 2_000  # rows of one row group, held in memory


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop - 1`` of samples.parquet."""

    number: int
    start: int
    stop: int

    def file_name(self, kind: str) -> str:
        """``kind``: "labels" or "problems"."""
        return f"{kind}-{self.number:05}.parquet"


def shards(rows: int, shard_rows: int = SHARD_ROWS) -> list[Shard]:
    """The shards of a table of so many rows."""
    return [
        Shard(number, start, min(start + shard_rows, rows)) for number, start in enumerate(range(0, rows, shard_rows))
    ]


def label_shard(traces: TraceSet, shard: Shard, config: LabelConfig, finder: Finder | None, out: Path) -> None:
    """Label the traces of a shard into the folder ``out``.

    Raises InputError where the store does not hold the text of one of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    problems: dict[str, ProblemLabels] = {}
    # The labels are renamed last: where that file is, both are whole.
    targets = {kind: out / shard.file_name(kind) for kind in ("problems", "labels")}
    temporary = {kind: path.with_name(f".{path.name}.tmp") for kind, path in targets.items()}
    schemas = {"labels": label_schema(), "problems": _problem_schema()}
    writers = {kind: pq.ParquetWriter(path, schemas[kind], compression="zstd") for kind, path in temporary.items()}
    rows: dict[str, list[dict[str, Any]]] = {"labels": [], "problems": []}

    def flush(least: int) -> None:
        for kind, batch in rows.items():
            if len(batch) >= least:
                writers[kind].write_table(pa.Table.from_pylist(batch, schema=schemas[kind]))
                batch.clear()

    try:
        for trace in traces.slice(shard.start, shard.stop):
            problem = problems.get(trace.problem_id)
            if problem is None:
                if len(problems) >= _BATCH:  # samples of one problem stand together: the earlier ones are complete
                    problems.clear()
                problem = problems[trace.problem_id] = label_problem(trace.problem, config, finder)
                rows["problems"].append(_problem_row(trace.problem, problem, config))
            row = label_trace(trace, problem, config, finder)
            if config.near_duplicates:
                row["signature"] = signature(trace.text, config.near_duplicates.num_perm)
            rows["labels"].append(row)
            flush(_BATCH)
        flush(1)
    except KeyError as error:
        raise InputError(
            f"the sample store has no row {error}", where=str(traces.store), hint="remove the sample stage, run again"
        ) from error
    finally:
        for writer in writers.values():
            writer.close()
    for kind, path in temporary.items():
        with path.open("rb") as written:
            os.fsync(written.fileno())  # the name must not become durable before what it names
        os.replace(path, targets[kind])


def _problem_row(problem: Mapping[str, Any], labels: ProblemLabels, config: LabelConfig) -> dict[str, Any]:
    match = labels.match
    return {
        "problem_id": problem["id"],
        "language": labels.language,
        "set": utf8(match.item.set) if match else None,
        "item": utf8(match.item.id) if match else None,
        "how": match.how if match else None,
        "overlap": labels.overlap,
        "signature": signature(labels.text, config.near_duplicates.num_perm) if config.near_duplicates else None,
    }


def _problem_schema() -> pa.Schema:
    import pyarrow as pa

    names = ("problem_id", "language", "set", "item", "how")
    fields = [*((name, pa.string()) for name in names), ("overlap", pa.float64()), ("signature", pa.binary())]
    return pa.schema(fields)
