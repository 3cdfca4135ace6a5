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
from licensing.files import commit
from synth.decontaminate import Finder
from synth.labels.config import LabelConfig
from synth.labels.limits import mark, within
from synth.labels.trace import label_problem, label_schema, label_trace, no_labels
from synth.parquet_files import table_of
from synth.trace import Trace
from synth.trace_set import TraceSet

if TYPE_CHECKING:
    import pyarrow as pa

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


def label_shard(
    traces: TraceSet,
    shard: Shard,
    config: LabelConfig,
    finder: Finder | None,
    out: Path,
    *,
    progress: Path,
    unlabelled: Mapping[int, str],
) -> None:
    """Label the traces of a shard into the folder ``out``.

    A row in ``unlabelled`` (by its number) gets no labels but a reason, as does one whose labels need more than
    ``config.timeout_s`` or the memory of this process. ``progress`` keeps the number of the row under way. Raises
    InputError where the store does not hold the text of a trace.
    """
    import pyarrow.parquet as pq

    problems: dict[str, tuple[dict[str, Any], str | None]] = {}
    # The labels are renamed last: where that file is, both are whole.
    targets = {kind: out / shard.file_name(kind) for kind in ("problems", "labels")}
    temporary = {kind: path.with_name(f".{path.name}.tmp") for kind, path in targets.items()}
    schemas = {"labels": label_schema(), "problems": _problem_schema()}
    writers = {kind: pq.ParquetWriter(path, schemas[kind], compression="zstd") for kind, path in temporary.items()}
    rows: dict[str, list[dict[str, Any]]] = {"labels": [], "problems": []}

    def flush(least: int) -> None:
        for kind, batch in rows.items():
            if len(batch) >= least:
                writers[kind].write_table(table_of(batch, schemas[kind]))
                batch.clear()

    marks = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for number, trace in enumerate(traces.slice(shard.start, shard.stop), shard.start):
            mark(marks, number)
            if trace.problem_id not in problems:
                if len(problems) >= _BATCH:  # samples of one problem stand together: the earlier ones are complete
                    problems.clear()
                problems[trace.problem_id] = _problem_labels(trace, config, finder, unlabelled.get(number))
                rows["problems"].append({"problem_id": trace.problem_id, **problems[trace.problem_id][0]})
            problem, why = problems[trace.problem_id]
            rows["labels"].append(_trace_labels(trace, problem, config, finder, unlabelled.get(number, why)))
            flush(_BATCH)
        flush(1)
    except KeyError as error:
        raise InputError(
            f"the sample store has no row {error}", where=str(traces.store), hint="remove the sample stage, run again"
        ) from error
    finally:
        os.close(marks)
        for writer in writers.values():
            writer.close()
    for kind, path in temporary.items():
        commit(path, targets[kind])


def _problem_labels(
    trace: Trace, config: LabelConfig, finder: Finder | None, why: str | None
) -> tuple[dict[str, Any], str | None]:
    """The labels that the traces of a problem share, and why there are none: then its traces have none either."""
    if why is None:
        labels, why = within(config.timeout_s, lambda: label_problem(trace.problem, config, finder))
        if labels is not None:
            return labels, None
    return {}, why


def _trace_labels(
    trace: Trace, problem: dict[str, Any], config: LabelConfig, finder: Finder | None, why: str | None
) -> dict[str, Any]:
    if why is None:
        row, why = within(config.timeout_s, lambda: label_trace(trace, problem, config, finder))
        if row is not None:
            return row
    return no_labels(trace, config, finder, str(why))


def _problem_schema() -> pa.Schema:
    import pyarrow as pa

    names = ("problem_id", "language", "set", "item", "how")
    fields = [*((name, pa.string()) for name in names), ("overlap", pa.float64()), ("signature", pa.binary())]
    return pa.schema(fields)
