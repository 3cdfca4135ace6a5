"""Ask a judge model about rows that the rules have verified: each different question once, every answer committed.

The questions are problems of kind `open` and the judge is a teacher, so asking is `synth.sampling.sample`'s: answers
are appended to a store the moment they come, a run that was killed asks for what is not in it, a budget stops it
between two requests, and all kinds of teacher will do. The store is one for the run, so another way to count, or
another `when`, asks only about what is new.

Memory: some 500 bytes a different question; texts wait on the disk.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from licensing.files import disk_errors, write_rows
from synth.distributed.config import LocalEngine
from synth.distributed.open import open_router
from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import ENGINES, sample
from synth.sampling.sampler import Progress
from synth.sampling.samples_table import SAMPLES
from synth.sampling.selection import Selection
from synth.sampling.store import SampleStore
from synth.teachers.router import read_engine_info, write_engine_info
from synth.verify.config import JudgeConfig
from synth.verify.judge import Question, parse_judgement, question
from synth.verify.verdict import shortened

__all__ = ["ANSWERS", "JUDGE", "JudgeRun"]

JUDGE = "judge"
"""Folder of the verify stage, of its scratch folder and of the run's store that holds what the judge said."""

ANSWERS = "judgements.jsonl"
"""The judge's answers, in the order of the questions: raw text, tokens, model, engine."""


class JudgeRun:
    """One pass over verified rows (``note``), the asking (``ask``), and a second pass (``fields``). A context manager.

    Args:
        folder: Scratch folder for the questions, which are written anew each time, and the list of their answers.
        store: Folder of the judge's own sample store, which keeps every answer.
    """

    def __init__(self, config: JudgeConfig, folder: Path, store: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.rows: dict[str, Counter[str]] = {}
        """What the judge said of rows with each verdict of the rules: correct, wrong, none."""
        self.counted: Counter[str] = Counter()
        self.first: int | None = None
        """Epoch seconds of the first answer, and of the last one."""
        self.last: int | None = None
        self._folder, self._store = folder, store
        self._questions = _Questions(folder / ".questions.jsonl")
        self._answers: SampleStore | None = None
        self._selection: Selection | None = None
        self._plan: RequestPlan | None = None

    def __enter__(self) -> JudgeRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._questions.close()
        if self._answers is not None:
            self._answers.close()

    def note(self, row: Mapping[str, Any]) -> None:
        """A verified row: what it asks is asked, where the recipe wants a judge for its verdict."""
        if row["verdict"] in self.config.when and isinstance(asked := question(row), Question):
            self._questions.add(asked, "yes" if row["verdict"] == "correct" else "no")

    def ask(self, logs: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
        """Ask what is not in the store, or failed there; returns counts and tokens. Raises what the teacher raises,
        with every answer so far kept."""
        config = self.config
        sampling = TeacherSampling(
            num_samples=1,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            budget=config.budget,
        )
        self._questions.flush()
        budget = BudgetTracker(config.budget, clock=self._folder / "clock.json")
        router = open_router(LocalEngine(), config.teacher, self._store / ENGINES, logs)
        try:
            summary = sample(
                self._questions, router, config.teacher, sampling, self._folder, self._store,
                budget=budget, progress=progress,
            )  # fmt: skip
        finally:
            router.close()
        self.first, self.last = summary.first_completed, summary.last_completed
        self._plan = RequestPlan(self._questions, config.teacher, sampling)
        self._answers = SampleStore(self._store, read_only=True)
        self._selection = Selection(self._plan, self._answers)
        facts: dict[str, Any] = {
            "model": self.config.teacher.public_id,
            "questions": len(self._questions),
            "answers": summary.rows,
            "finish_reasons": summary.finish_reasons,
            "tokens": summary.completion_tokens,
            "prompt_tokens": summary.prompt_tokens,
        }
        return facts | ({"stopped_by_budget": summary.stopped} if summary.stopped else {})

    def write(self, out: Path) -> None:
        """Write judgements.jsonl, and engines.jsonl where there is something to say, into the folder ``out``."""
        answers = self._answers
        assert answers is not None, "the judge was not asked yet"

        def rows() -> Iterator[dict[str, Any]]:
            for row in read_parquet(self._folder / SAMPLES):
                row_id = answers.find(row["request_id"])
                assert row_id is not None, "every row of samples.parquet is in the store"
                yield {
                    "request_id": row["request_id"],
                    "prompt_id": row["problem_id"],
                    "sample_index": row["sample_index"],
                    "text": answers.row(row_id)["text"],
                    "finish_reason": row["finish_reason"],
                    "error": row["error"],
                    "prompt_tokens": row["prompt_tokens"],
                    "completion_tokens": row["completion_tokens"],
                    "model": row["teacher"],
                    "engine": row["engine"],
                }

        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_rows(out / ANSWERS, rows())
            if engines := read_engine_info(self._folder / ENGINES):
                write_engine_info(out / ENGINES, engines)

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`judge_verdict` (correct, wrong, or null), `judge_reason` (why it is null), `judge_text` (raw, at most 10,000
        characters), `judge_model` and `counts_as` for a verified row."""
        rules = row["verdict"]
        verdict: str | None = None
        reason: str | None = None
        text: str | None = None
        if rules in self.config.when:
            judge_question = question(row)
            answer = self._answer(judge_question) if isinstance(judge_question, Question) else None
            if isinstance(judge_question, str):
                reason = judge_question
            elif answer is None:
                reason = "the judge's budget did not reach it"
            else:
                text = shortened(answer["text"])
                judge = self.config.teacher
                verdict, reason = parse_judgement(
                    answer["text"], answer["finish_reason"], judge.think_open, judge.think_close
                )
                if answer["error"]:
                    reason = f"{reason}: {answer['error']}"
            self.rows.setdefault(rules, Counter())[verdict or "none"] += 1
        counts = _counts(self.config.counts, rules, verdict)
        self.counted[counts or "none"] += 1
        return {
            "judge_verdict": verdict,
            "judge_reason": reason,
            "judge_text": text,
            "judge_model": self.config.teacher.public_id if text is not None else None,
            "counts_as": counts,
        }

    def _answer(self, judge_question: Question) -> dict[str, Any] | None:
        assert self._plan is not None, "the judge was not asked yet"
        assert self._selection is not None
        assert self._answers is not None
        row_id = self._selection.find(self._plan.request_id((self._questions.number(judge_question), 0)))
        return None if row_id is None else self._answers.row(row_id)


def _counts(counts: str, rules: str | None, judge: str | None) -> str | None:
    if judge is None or counts == "rules":
        return rules
    if counts == "either":
        return "correct" if "correct" in (rules, judge) else rules
    return judge


class _Questions(Sequence[Prompt]):
    """The different questions, in the order in which they first came, read from the disk one at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._offsets = array("Q", [0])
        self._numbers: dict[bytes, int] = {}

    def add(self, judge_question: Question, expected: str) -> None:
        """``expected`` is what the rules would say; only the fake teacher sees it, who needs something to copy."""
        if judge_question.key in self._numbers:
            return
        self._numbers[judge_question.key] = len(self._numbers)
        line = json.dumps([judge_question.key.hex(), judge_question.text, expected]).encode() + b"\n"
        self._file.write(line)
        self._offsets.append(self._offsets[-1] + len(line))

    def number(self, judge_question: Question) -> int:
        return self._numbers[judge_question.key]

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
            id=key, messages=({"role": "user", "content": text},), answer=expected, kind="open", source="judge"
        )
