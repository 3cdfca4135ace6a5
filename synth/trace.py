"""A trace: one answer of a teacher beside its problem, with thinking and answer apart.

The text of a trace is stored once, in the run's sample store (``synth.sampling.store``). Everything else that is known
of it stands in tables keyed by ``request_id``; ``SAMPLES`` is the first of them and lists what one sampling stage
selected from the store, in the order of problems and sample indices.

    problems.jsonl      one problem a row: id, messages, answer, kind, source, license, and `extra`: the user's columns
    samples.parquet     ``SAMPLES``: no text
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from licensing.files import read_rows
from synth.reasoning import Reasoning, split_reasoning
from synth.sampling.store import SampleStore

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PROBLEMS", "SAMPLES", "Trace", "TraceSet", "samples_schema"]

PROBLEMS = "problems.jsonl"
SAMPLES = "samples.parquet"
_BATCH = 2_000  # rows of a table in memory at a time


def samples_schema() -> pa.Schema:
    """Columns of ``samples.parquet``. Token counts are null where the engine gave none; `error` is null unless
    `finish_reason` is "error"; `think_open` and `think_close` are the tags of the row's teacher."""
    import pyarrow as pa

    return pa.schema(
        [
            ("request_id", pa.string()), ("problem_id", pa.string()), ("sample_index", pa.int64()),
            ("teacher", pa.string()), ("engine", pa.string()), ("finish_reason", pa.string()), ("error", pa.string()),
            ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()), ("reasoning_tokens", pa.int64()),
            ("think_open", pa.string()), ("think_close", pa.string()), ("escalated", pa.bool_()),
        ]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trace:
    """One sample and its problem. ``text`` is the raw completion; ``reasoning`` is the one split of it into thinking
    and answer, by the tags of the teacher. ``problem`` is a row of problems.jsonl."""

    request_id: str
    problem: Mapping[str, Any]
    sample_index: int
    text: str
    reasoning: Reasoning
    teacher: str
    engine: str
    finish_reason: str
    error: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    think_open: str
    think_close: str

    @property
    def problem_id(self) -> str:
        problem_id: str = self.problem["id"]
        return problem_id


class TraceSet:
    """The traces that one sampling stage selected, in order. A context manager; holds an index and no text.

    Args:
        folder: Folder with problems.jsonl and samples.parquet.
        store: The run's sample store, which holds the texts.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self._store = SampleStore(store, read_only=True)
        self.problems: dict[str, dict[str, Any]] = {row["id"]: row for row in read_rows(folder / PROBLEMS)}

    def __enter__(self) -> TraceSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._store.__exit__(kind, error, at)

    def __iter__(self) -> Iterator[Trace]:
        """Every trace, in the order of problems and sample indices."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.folder / SAMPLES) as table:
            for batch in table.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    yield self.trace(row)

    def text(self, request_id: str) -> str:
        """The raw text of a sample. Raises KeyError where the store does not hold it."""
        row_id = self._store.find(request_id)
        if row_id is None:
            raise KeyError(request_id)
        text: str = self._store.row(row_id)["text"]
        return text

    def trace(self, row: Mapping[str, Any]) -> Trace:
        """The trace of a row of samples.parquet."""
        text = self.text(row["request_id"])
        return Trace(
            request_id=row["request_id"],
            problem=self.problems[row["problem_id"]],
            sample_index=row["sample_index"],
            text=text,
            reasoning=split_reasoning(text, row["think_open"], row["think_close"]),
            teacher=row["teacher"],
            engine=row["engine"],
            finish_reason=row["finish_reason"],
            error=row["error"],
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            think_open=row["think_open"],
            think_close=row["think_close"],
        )
