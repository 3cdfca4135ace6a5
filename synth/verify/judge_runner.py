"""Ask a judge model about rows that the rules have verified (`synth.sampling.auxiliary_model`), each question once.

Another way to count, or another `when`, asks only about what is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from synth.sampling.auxiliary_model import AuxiliaryModelRun
from synth.verify.config import JudgeConfig
from synth.verify.judge import Question, parse_judgement, question
from synth.verify.verdict import shortened

JUDGE = "judge"
"""Folder of the verify stage, of its scratch folder and of the run's store that holds what the judge said."""

ANSWERS = "judgements.jsonl"
"""The judge's answers, in the order of the questions: raw text, tokens, model, engine."""


class JudgeRun(AuxiliaryModelRun):
    """One pass over verified rows (``note``), the asking (``ask``), and a second pass (``fields``). Arguments as of
    ``AuxiliaryModelRun``."""

    answers_file = ANSWERS

    def __init__(
        self,
        config: JudgeConfig,
        folder: Path,
        store: Path,
        logs: Path | None = None,
        progress: Callable[[int, str], None] | None = None,
    ) -> None:
        super().__init__(config, folder, store, logs, progress)
        self.config = config
        self.rows: dict[str, Counter[str]] = {}
        """What the judge said of rows with each verdict of the rules: correct, wrong, none."""
        self.counted: Counter[str] = Counter()

    def note(self, row: Mapping[str, Any]) -> None:
        """A verified row: what it asks is asked, where the recipe wants a judge for its verdict."""
        if row["verdict"] in self.config.when and isinstance(judge_question := question(row), Question):
            self.add(judge_question.key, judge_question.text, "yes" if row["verdict"] == "correct" else "no")

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`judge_verdict` (correct, wrong, or null), `judge_reason` (why it is null), `judge_text` (raw, at most 10,000
        characters), `judge_model` and `counts_as` for a verified row."""
        rules = row["verdict"]
        verdict: str | None = None
        reason: str | None = None
        text: str | None = None
        if rules in self.config.when:
            judge_question = question(row)
            answer = self.answer(judge_question.key) if isinstance(judge_question, Question) else None
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


def _counts(counts: str, rules: str | None, judge: str | None) -> str | None:
    if judge is None or counts == "rules":
        return rules
    if counts == "either":
        return "correct" if "correct" in (rules, judge) else rules
    return judge
