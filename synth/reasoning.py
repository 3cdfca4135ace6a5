"""Thinking and answer of a completion: the one place that splits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["THINK_CLOSE", "THINK_OPEN", "Reasoning", "ReasoningState", "split_reasoning"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

ReasoningState = Literal["ok", "missing", "unclosed", "doubled", "empty"]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A completion in two parts. ``thinking`` is None where there is no think block; ``answer`` is empty where the
    block is not closed. ``state`` is "ok", or what is wrong with the block, and ``reason`` says it in words."""

    thinking: str | None
    answer: str
    state: ReasoningState
    reason: str | None


def split_reasoning(text: str, think_open: str = THINK_OPEN, think_close: str = THINK_CLOSE) -> Reasoning:
    """Split a raw completion around its last closing tag. Linear in the text.

    The opening tag may be part of the prompt (R1's template writes it), so a closing tag alone is a whole block, and
    ``think_open`` may be empty. White space around the tags in the arguments does not count.
    """
    opening, closing = think_open.strip(), think_close.strip()
    opened = text.count(opening) if opening else 0
    closed = text.count(closing)
    if not opened and not closed:
        return Reasoning(None, text, "missing", "no think block")
    before, _, after = text.rpartition(closing)
    if not closed or (opening and opening in after):
        thinking = text.partition(opening)[2] if not closed else text
        return Reasoning(thinking, "", "unclosed", "the think block is not closed")
    thinking = before.partition(opening)[2] if opening and opening in before else before
    if opened > 1 or closed > 1:
        return Reasoning(thinking, after, "doubled", f"{opened} opening and {closed} closing tags")
    if not thinking.strip():
        return Reasoning(thinking, after, "empty", "nothing in the think block")
    return Reasoning(thinking, after, "ok", None)
