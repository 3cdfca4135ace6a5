"""The traces that a sampling stage selected, read from its tables and the run's store.

The text of a trace is stored once, in the run's sample store (``synth.sampling.store``). Everything else that is known
of it stands in tables keyed by ``request_id``; ``SAMPLES`` is the first of them and lists what one sampling stage
selected from the store, in the order of problems and sample indices.

    problems.jsonl      one problem a row: id, messages, answer, kind, source, license, what a kind needs (tests,
                        entry_point, choices, task, entry), and `extra`: the user's columns
    samples.parquet     ``SAMPLES``: no text
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from licensing.closing import Closing
from synth.sampling.append_log import KeyIndex, key_of
from synth.sampling.samples_table import PROBLEMS, SAMPLES
from synth.sampling.store import SampleStore
from synth.trace import Trace


class ProblemFile(Mapping[str, dict[str, Any]]):
    """The rows of problems.jsonl by id, read from the disk when they are asked for: the index has 30 to 55 bytes a
    problem, and the last row read stays in memory, because the samples of a problem stand together."""

    def __init__(self, path: Path) -> None:
        self._index = KeyIndex()
        self._offsets = array("Q")
        self._last: tuple[str, dict[str, Any]] | None = None
        self._file = path.open("rb")
        at = 0
        for line in self._file:
            if self._index.add(key_of(json.loads(line)["id"])) == len(self._offsets):
                self._offsets.append(at)
            at += len(line)

    def __getitem__(self, problem_id: str) -> dict[str, Any]:
        if self._last is None or self._last[0] != problem_id:
            number = self._index.find(key_of(problem_id))
            if number is None:
                raise KeyError(problem_id)
            self._last = problem_id, self._row(number)
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self)):
            row = self._row(number)
            self._last = row["id"], row  # whoever iterates asks for it next
            yield row["id"]

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        self._file.close()

    def _row(self, number: int) -> dict[str, Any]:
        self._file.seek(self._offsets[number])
        row: dict[str, Any] = json.loads(self._file.readline())
        return row


class TraceSet(Closing):
    """The traces that one sampling stage selected, in order. A context manager; holds an index and no text.

    Args:
        folder: Folder with problems.jsonl and samples.parquet.
        store: Folder of the run's sample store, which holds the texts.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = store
        self._samples = SampleStore(store, read_only=True)
        self.problems = ProblemFile(folder / PROBLEMS)

    def close(self) -> None:
        self.problems.close()
        self._samples.close()

    def __len__(self) -> int:
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.folder / SAMPLES).num_rows)

    def __iter__(self) -> Iterator[Trace]:
        """Every trace, in the order of problems and sample indices."""
        yield from self.slice(0, len(self))

    def slice(self, start: int, stop: int) -> Iterator[Trace]:
        """The traces of rows ``start`` to ``stop - 1`` of samples.parquet."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.folder / SAMPLES) as table:
            at = 0
            for group in range(table.num_row_groups):  # each of few thousand rows: ``synth.parquet_files``
                size = table.metadata.row_group(group).num_rows
                first, last = max(start - at, 0), min(stop - at, size)
                if first < last:
                    for row in table.read_row_group(group).slice(first, last - first).to_pylist():
                        yield self.trace(row)
                at += size

    def text(self, request_id: str) -> str:
        """The raw text of a sample. Raises KeyError where the store does not hold it."""
        text: str = self._row(request_id)["text"]
        return text

    def trace(self, row: Mapping[str, Any]) -> Trace:
        """The trace of a row of samples.parquet."""
        stored = self._row(row["request_id"])
        # A request that failed when this table was written may have been answered since, for another recipe.
        failed = row["finish_reason"] == "error" and stored["finish_reason"] != "error"
        text = "" if failed else stored["text"]
        return Trace.of(self.problems[row["problem_id"]], text, row)

    def _row(self, request_id: str) -> dict[str, Any]:
        row_id = self._samples.find(request_id)
        if row_id is None:
            raise KeyError(request_id)
        return self._samples.row(row_id)
