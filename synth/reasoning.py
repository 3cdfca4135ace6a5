"""Thinking and answer of a completion, split by the tags of the model that wrote it.

All who look at a response use this split: answer extraction, the format check, code extraction, labels, the judge and
the guard against empty reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

ReasoningState = Literal["ok", "missing", "unclosed", "doubled", "empty"]
BROKEN: tuple[ReasoningState, ...] = ("unclosed", "doubled")
"""States of a think block that no student is trained on."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A completion in two parts. ``thinking`` is None where there is no think block; ``answer`` is empty where the
    block is not closed. ``state`` is "ok", or what is wrong with the block, and ``reason`` says it in words."""

    thinking: str | None
    answer: str
    state: ReasoningState
    reason: str | None = None


def split_reasoning(text: str, think_open: str = THINK_OPEN, think_close: str = THINK_CLOSE) -> Reasoning:
    """Split a raw completion around its last closing tag. Linear in the text.

    The opening tag may be part of the prompt (R1's template writes it), so a closing tag alone is a whole block, and
    ``think_open`` may be empty. White space around the tags in the arguments does not count.
    """
    opening, closing = think_open.strip(), think_close.strip()
    opened = text.count(opening) if opening else 0
    closed = text.count(closing) if closing else 0
    if not opened and not closed:
        return Reasoning(None, text, "missing", "no think block")
    if not closed:
        return Reasoning(text.partition(opening)[2], "", "unclosed", "the think block is not closed")
    before, _, after = text.rpartition(closing)
    if opening and opening in after:
        return Reasoning(text, "", "unclosed", "the think block is not closed")
    thinking = before.partition(opening)[2] if opening and opening in before else before
    if opened > 1 or closed > 1:
        return Reasoning(thinking, after, "doubled", f"{opened} opening and {closed} closing tags")
    if not thinking.strip():
        return Reasoning(thinking, after, "empty", "nothing in the think block")
    return Reasoning(thinking, after, "ok")


def tags_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a row carries (`think_open`, `think_close`), by name; those that it lacks have defaults."""
    return {key: row[key] for key in ("think_open", "think_close") if isinstance(row.get(key), str)}


def split_row(row: Mapping[str, Any]) -> Reasoning:
    """The `response` of a row, split by the row's own tags."""
    return split_reasoning(row["response"], **tags_of(row))


def complete_answer(text: str, finish_reason: str, think_open: str, think_close: str) -> tuple[str | None, str | None]:
    """(what stands behind the thinking, why there is none) of the raw text of a model that was asked a question. A
    server may write the thinking in the common tags instead of these."""
    if finish_reason == "error":
        return None, "gave no answer"
    if finish_reason != "stop":
        return None, "was cut off"
    reasoning = split_reasoning(text, think_open, think_close)
    if reasoning.state == "missing":
        reasoning = split_reasoning(text)
    if reasoning.state == "unclosed":
        return None, "did not end its thinking"
    return reasoning.answer, None
