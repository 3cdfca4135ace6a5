"""A trace: one answer of a teacher beside its problem, with thinking and answer apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from synth.reasoning import BROKEN, THINK_CLOSE, THINK_OPEN, Reasoning, split_reasoning

_COLUMNS = (
    "request_id", "sample_index", "teacher", "engine", "finish_reason", "error", "prompt_tokens", "completion_tokens",
    "think_open", "think_close",
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

    @classmethod
    def of(cls, problem: Mapping[str, Any], text: str, sample: Mapping[str, Any]) -> Trace:
        """The trace of a sample: a row of samples.parquet, or of the store with the other fields."""
        reasoning = split_reasoning(text, sample["think_open"], sample["think_close"])
        return cls(problem=problem, text=text, reasoning=reasoning, **{name: sample[name] for name in _COLUMNS})

    @property
    def problem_id(self) -> str:
        problem_id: str = self.problem["id"]
        return problem_id

    def with_text(self, text: str) -> Trace:
        """The same sample with another text."""
        return replace(self, text=text, reasoning=split_reasoning(text, self.think_open, self.think_close))

    @property
    def canonical_text(self) -> str:
        """The text as a student of ``<think>`` learns it: the raw text where it has no think block, or opens one
        with these tags itself; otherwise thinking and answer around these tags.

        A text of other tags that spells out these ones, so that they would split it in another place, gets an empty
        think block in front: training refuses the row as one with two.
        """
        reasoning, text = self.reasoning, self.text
        own_tags = (self.think_open.strip(), self.think_close.strip()) == (THINK_OPEN, THINK_CLOSE)
        if reasoning.thinking is not None and not (own_tags and THINK_OPEN in text):
            close = "" if reasoning.state == "unclosed" else THINK_CLOSE
            text = f"{THINK_OPEN}{reasoning.thinking}{close}{reasoning.answer}"
        read = split_reasoning(text)
        same = (read.thinking, read.answer) == (reasoning.thinking, reasoning.answer)
        return text if same or read.state in BROKEN else f"{THINK_OPEN}{THINK_CLOSE}{text}"
