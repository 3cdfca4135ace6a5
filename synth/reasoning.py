"""A response split into its thinking and its answer, by the tags of the model that wrote it.

One function for all who look at a response: answer extraction, the format check, code extraction, labels, the judge and
the guard against empty reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["THINK_CLOSE", "THINK_OPEN", "Reasoning", "State", "split_reasoning", "split_row", "tags_of"]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
State = Literal["ok", "missing", "unclosed", "doubled", "empty"]


@dataclass(frozen=True)
class Reasoning:
    """`thinking` is None where the response has no tag, and `answer` empty where a think block is open at the end.

    `reason` says in words why `state` is not "ok".
    """

    thinking: str | None
    answer: str
    state: State
    reason: str | None = None


def split_reasoning(text: str, think_open: str = THINK_OPEN, think_close: str = THINK_CLOSE) -> Reasoning:
    """Split at the last closing tag. Linear in the length of the text.

    White space around the tags does not count. The opening tag may be missing in the text, or empty: then the chat
    template wrote it. States: "missing" (no tag at all: the whole text is the answer), "unclosed" (a block is open at
    the end), "doubled" (more than one block), "empty" (nothing in the block), "ok".
    """
    opening, closing = think_open.strip(), think_close.strip()
    opened = text.count(opening) if opening else 0
    closed = text.count(closing) if closing else 0
    if not opened and not closed:
        return Reasoning(None, text, "missing", "no think block")
    if not closed:
        return Reasoning(text.partition(opening)[2], "", "unclosed", "the think block is not closed")
    before, _, answer = text.rpartition(closing)
    if opening and opening in answer:
        return Reasoning(text, "", "unclosed", "the think block is not closed")
    thinking = before.partition(opening)[2] if opening and opening in before else before
    if opened > 1 or closed > 1:
        return Reasoning(thinking, answer, "doubled", f"{opened} opening and {closed} closing tags")
    if not thinking.strip():
        return Reasoning(thinking, answer, "empty", "nothing in the think block")
    return Reasoning(thinking, answer, "ok")


def tags_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a row carries (`think_open`, `think_close`), by name; those that it lacks have defaults."""
    return {key: row[key] for key in ("think_open", "think_close") if isinstance(row.get(key), str)}


def split_row(row: Mapping[str, Any]) -> Reasoning:
    """The `response` of a row, split by the row's own tags."""
    return split_reasoning(row["response"], **tags_of(row))
