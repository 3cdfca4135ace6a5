"""A trace: one answer of a teacher beside its problem, with thinking and answer apart.

The text of a trace is stored once, in the run's sample store (``synth.sampling.store``). Everything else that is known
of it stands in tables keyed by ``request_id``; ``SAMPLES`` is the first of them and lists what one sampling stage
selected from the store, in the order of problems and sample indices.

    problems.jsonl      one problem a row: id, messages, answer, kind, source, license, what a kind needs (tests,
                        entry_point, choices, task, entry), and `extra`: the user's columns
    samples.parquet     ``SAMPLES``: no text
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from licensing.files import read_rows
from synth.parquet_files import read_parquet
from synth.reasoning import Reasoning, split_reasoning
from synth.sampling.samples_table import PROBLEMS, SAMPLES, samples_schema
from synth.sampling.store import SampleStore

__all__ = ["PROBLEMS", "SAMPLES", "Trace", "TraceSet", "samples_schema"]


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
        store: Folder of the run's sample store, which holds the texts.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self._store = SampleStore(store, read_only=True)
        self.problems: dict[str, dict[str, Any]] = {row["id"]: row for row in read_rows(folder / PROBLEMS)}

    def __enter__(self) -> TraceSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._store.close()

    def __iter__(self) -> Iterator[Trace]:
        """Every trace, in the order of problems and sample indices."""
        return map(self.trace, read_parquet(self.folder / SAMPLES))

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

    def _row(self, request_id: str) -> dict[str, Any]:
        row_id = self._store.find(request_id)
        if row_id is None:
            raise KeyError(request_id)
        return self._store.row(row_id)
