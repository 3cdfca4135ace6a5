"""Runs a judge model over rows that the rules have verified: each different question once, every judgement committed.

The questions are problems of kind `open` and the judge is a teacher, so `synth.sampling.sample` asks them: judgements
are appended to a log as they come, a run that was killed asks only what is not in the log, a budget stops it between
two requests, and every kind of teacher will do.

Memory: some 500 bytes a different question; texts wait on the disk.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from synth.distributed.config import LocalEngine
from synth.distributed.open import open_router
from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import ENGINES, SampleSummary, harvest, sample
from synth.sampling.sampler import Progress
from synth.sampling.store import SampleStore
from synth.teachers.router import add_engine_info
from synth.verify.config import JudgeConfig
from synth.verify.judge import Question, parse_judgement, question
from synth.verify.verdict import shortened

__all__ = ["ANSWERS", "Judging"]

ANSWERS = "judgements.jsonl"
"""The judge's answers, as sample rows in the order of the questions: raw text, tokens, model, engine."""


class Judging:
    """Judges rows in two passes: ``note`` every row, ``ask`` the judge, ``fields`` for every row. A context manager.

    ``folder`` keeps the judgements (``judgements.jsonl``) and the settings of the judge's engine (``engines.jsonl``)
    over a crash; the questions are written anew.
    """

    def __init__(self, config: JudgeConfig, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.log = folder / ANSWERS
        self.rows: dict[str, Counter[str]] = {}
        """Verdict of the rules -> counts of the judge's verdicts: correct, wrong, none."""
        self.counted: Counter[str] = Counter()
        self._questions = _Questions(folder / ".questions.jsonl")
        self._answers: SampleStore | None = None
        self._plan: RequestPlan | None = None

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._questions.close()
        if self._answers is not None:
            self._answers.__exit__(kind, error, at)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add the question about a verified row, where the recipe has its verdict judged."""
        if row["verdict"] in self.config.when and isinstance(asked := question(row), Question):
            self._questions.add(asked, "yes" if row["verdict"] == "correct" else "no")

    def ask(
        self, earlier: Sequence[Path] = (), logs: Path | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Ask the questions that are neither in the log nor in one of the ``earlier`` logs; returns counts and tokens.

        Raises what the teacher raises; the log keeps every judgement so far.
        """
        config, engines = self.config, self.log.with_name(ENGINES)
        sampling = TeacherSampling(
            num_samples=1,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            budget=config.budget,
        )
        self._questions.flush()
        self._plan = RequestPlan(self._questions, config.teacher, sampling)
        if earlier:
            add_engine_info(engines, [path.with_name(ENGINES) for path in earlier])
            harvest(self.log, earlier, self._plan.request_ids())
        meter = BudgetTracker(config.budget, clock=self.log.with_name("clock.json"))
        team = open_router(LocalEngine(), config.teacher, engines, logs)
        try:
            summary = sample(self._questions, team, config.teacher, sampling, self.log, meter=meter, progress=progress)
        finally:
            team.close()
        self._answers = SampleStore(self.log, read_only=True)
        return self._facts(summary)

    def _facts(self, summary: SampleSummary) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "model": self.config.teacher.public_id,
            "questions": len(self._questions),
            "answers": summary.rows,
            "finish_reasons": summary.finish_reasons,
            "tokens": summary.completion_tokens,
            "prompt_tokens": summary.prompt_tokens,
        }
        return facts | ({"stopped_by_budget": summary.stopped} if summary.stopped else {})

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`judge_verdict` (correct, wrong, or null), `judge_reason` (why it is null), `judge_text` (raw, at most 10,000
        characters), `judge_model` and `counts_as` for a verified row."""
        rules = row["verdict"]
        verdict: str | None = None
        reason: str | None = None
        text: str | None = None
        if rules in self.config.when:
            asked = question(row)
            answer = self._answer(asked) if isinstance(asked, Question) else None
            if isinstance(asked, str):
                reason = asked
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

    def _answer(self, asked: Question) -> dict[str, Any] | None:
        assert self._plan is not None, "the judge was not asked yet"
        assert self._answers is not None
        row = self._answers.find(self._plan.request_id((self._questions.number(asked), 0)))
        return None if row is None else self._answers.row(row)


def _counts(counts: str, rules: str | None, judge: str | None) -> str | None:
    if judge is None or counts == "rules":
        return rules
    if counts == "either":
        return "correct" if "correct" in (rules, judge) else rules
    return judge


class _Questions(Sequence[Prompt]):
    """The different questions in the order of their first row, read from the disk one at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._offsets = array("Q", [0])
        self._numbers: dict[bytes, int] = {}

    def add(self, asked: Question, expected: str) -> None:
        """``expected`` is the answer by the rules, which the fake teacher copies; no other sees it."""
        if asked.key in self._numbers:
            return
        self._numbers[asked.key] = len(self._numbers)
        line = json.dumps([asked.key.hex(), asked.text, expected]).encode() + b"\n"
        self._file.write(line)
        self._offsets.append(self._offsets[-1] + len(line))

    def number(self, asked: Question) -> int:
        return self._numbers[asked.key]

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
