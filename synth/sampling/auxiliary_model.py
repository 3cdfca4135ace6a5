"""Ask a model questions of a stage's own, such as those to a judge: each different one once, every answer committed.

The questions are problems of kind `open` and the model is a teacher, so asking is `synth.sampling.sample`'s: answers
are appended to a store the moment they come, a run that was killed asks for what is not in it, a budget stops it
between two requests, and all kinds of teacher will do. The store is one for the run, so a pass with more questions asks
only about what is new.

Memory: some 500 bytes a different question; texts wait on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

from licensing.closing import Closing
from licensing.errors import DistillError
from licensing.files import disk_errors, write_rows
from synth.distributed.config import LocalEngine
from synth.distributed.open import open_router
from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AuxiliaryModel
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import ENGINES, sample
from synth.sampling.samples_table import SAMPLES
from synth.sampling.selection import Selection
from synth.sampling.store import SampleStore
from synth.teachers.router import read_engine_info, write_engine_info


class AuxiliaryModelRun(Closing):
    """Questions are added (``add``), asked (``ask``), and their answers read (``answer``). A context manager.

    Args:
        folder: Scratch folder for the questions, which are written anew each time, and the list of their answers.
        store: Folder of the model's own sample store, which keeps every answer.
        logs: Folder for what a server has to say.
        progress: Called with answers so far and a note.
    """

    answers_file: ClassVar[str] = "answers.jsonl"

    def __init__(
        self,
        config: AuxiliaryModel,
        folder: Path,
        store: Path,
        logs: Path | None = None,
        progress: Callable[[int, str], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.first: int | None = None
        """Epoch seconds of the first answer, and of the last one."""
        self.last: int | None = None
        self._config, self._folder, self._store = config, folder, store
        self._logs, self._progress = logs, progress
        self._questions = _Questions(folder / ".questions.jsonl", config.role)
        self._answers: SampleStore | None = None
        self._selection: Selection | None = None
        self._plan: RequestPlan | None = None

    def close(self) -> None:
        self._questions.close()
        if self._answers is not None:
            self._answers.close()

    def add(self, key: bytes, text: str, expected: str) -> None:
        """A question, unless one with this key is there. ``expected``: an answer; only the fake teacher sees it, who
        needs something to copy."""
        self._questions.add(key, text, expected)

    def ask(self) -> dict[str, Any]:
        """Ask what is not in the store, or failed there; returns counts and tokens. Raises what the teacher raises,
        with every answer so far kept."""
        config = self._config
        sampling = config.sampling
        self._questions.flush()
        budget = BudgetTracker(config.budget, clock=self._folder / "clock.json")
        router = open_router(LocalEngine(), config.teacher, self._store / ENGINES, self._logs)
        try:
            summary = sample(
                self._questions, router, config.teacher, sampling, self._folder, self._store,
                budget=budget, progress=self._report,
            )  # fmt: skip
        finally:
            router.close()
        self.first, self.last = summary.first_completed, summary.last_completed
        self._plan = RequestPlan(self._questions, config.teacher, sampling)
        self._answers = SampleStore(self._store, read_only=True)
        self._selection = Selection(self._plan, self._answers)
        facts: dict[str, Any] = {
            "model": config.teacher.public_id,
            "questions": len(self._questions),
            "answers": summary.rows,
            "finish_reasons": summary.finish_reasons,
            "tokens": summary.completion_tokens,
            "prompt_tokens": summary.prompt_tokens,
        }
        return facts | ({"stopped_by_budget": summary.stopped} if summary.stopped else {})

    def write(self, out: Path) -> None:
        """Write every answer (``answers_file``), in the order of the questions, and engines.jsonl where there is
        something to say, into the folder ``out``."""
        answers = self._answers
        assert answers is not None, "nothing was asked yet"

        def rows() -> Iterator[dict[str, Any]]:
            for row in read_parquet(self._folder / SAMPLES):
                row_id = answers.find(row["request_id"])
                assert row_id is not None, "every row of samples.parquet is in the store"
                yield {
                    "request_id": row["request_id"],
                    "prompt_id": row["problem_id"],
                    "sample_index": row["sample_index"],
                    "text": answers.row(row_id)["text"],
                    **{name: row[name] for name in ("finish_reason", "error", "prompt_tokens", "completion_tokens")},
                    "model": row["teacher"],
                    "engine": row["engine"],
                }

        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_rows(out / self.answers_file, rows())
            if engines := read_engine_info(self._folder / ENGINES):
                write_engine_info(out / ENGINES, engines)

    def answer(self, key: bytes) -> dict[str, Any] | None:
        """The row of the store that answers the question with this key; None where the budget did not reach it."""
        assert self._plan is not None, "nothing was asked yet"
        assert self._selection is not None
        assert self._answers is not None
        row_id = self._selection.find(self._plan.request_id((self._questions.number(key), 0)))
        return None if row_id is None else self._answers.row(row_id)

    def _report(self, done: int, total: int, generated: int, failed: int) -> None:
        if self._progress is not None:
            failures = f", {failed:,} failed" if failed else ""
            self._progress(done, f"of {total} answers of the {self._config.role}, {generated:,} tokens{failures}")


@contextlib.contextmanager
def section_errors(section: str) -> Iterator[None]:
    """Errors of the model of a section (`verify.judge`) name its own fields and not those of the recipe's teacher."""
    try:
        yield
    except DistillError as error:
        if error.where is None or not error.where.startswith("teacher"):
            raise
        raise type(error)(error.what, where=f"{section}.{error.where}", hint=error.hint) from error


class _Questions(Sequence[Prompt]):
    """The different questions, in the order in which they first came, read from the disk one at a time."""

    def __init__(self, path: Path, source: str) -> None:
        self._file = path.open("w+b")
        self._source = source
        self._offsets = array("Q", [0])
        self._numbers: dict[bytes, int] = {}

    def add(self, key: bytes, text: str, expected: str) -> None:
        if key in self._numbers:
            return
        self._numbers[key] = len(self._numbers)
        line = json.dumps([key.hex(), text, expected]).encode() + b"\n"
        self._file.write(line)
        self._offsets.append(self._offsets[-1] + len(line))

    def number(self, key: bytes) -> int:
        return self._numbers[key]

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Prompt: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, at: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        start, end = self._offsets[at], self._offsets[at + 1]
        key, text, expected = json.loads(os.pread(self._file.fileno(), end - start, start))
        return Prompt(
            id=key, messages=({"role": "user", "content": text},), answer=expected, kind="open", source=self._source
        )
