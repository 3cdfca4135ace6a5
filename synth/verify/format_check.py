r"""Is a response laid out as the recipe asks: one closed think block, an answer after it, the answer in a box?

A verdict of its own, beside the one on the answer and never instead of it: a right answer in a bad format is right, and
a wrong one in a good format is wrong. Pure text, linear in its length. `split` and `think_state` are what the labels
of a trace are made of too (`synth.labels.reasoning_format`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from synth.verify.extract import last_boxed

if TYPE_CHECKING:  # a worker imports this package, and pydantic has no place there
    from synth.verify.config import FormatConfig

__all__ = ["ThinkState", "fault", "format_fields", "split", "think_state"]

ThinkState = Literal["ok", "missing", "unclosed", "doubled", "empty"]

_UNBOXED = ("code", "open")  # kinds whose answer is no value


def split(response: str) -> tuple[str, str]:
    """(think, answer) around the last ``</think>``; no think where there is no tag, no answer where it is unclosed."""
    before, tag, after = response.rpartition("</think>")
    if not tag:
        opening, opened, rest = response.partition("<think>")
        return (rest, "") if opened else ("", opening)
    if "<think>" in after:
        return response, ""
    return before.partition("<think>")[2] if "<think>" in before else before, after


def think_state(response: str) -> tuple[ThinkState, str | None]:
    """The state and why. The opening tag may be part of the prompt, as in R1's template; a closing one will do."""
    opened, closed = response.count("<think>"), response.count("</think>")
    if not opened and not closed:
        return "missing", "no think block"
    if response.rfind("<think>") > response.rfind("</think>"):
        return "unclosed", "the think block is not closed"
    if opened > 1 or closed > 1:
        return "doubled", f"{opened} opening and {closed} closing tags"
    if not split(response)[0].strip():
        return "empty", "nothing in the think block"
    return "ok", None


def fault(response: str, kind: Any, wanted: FormatConfig) -> str | None:
    r"""The first thing that is not as ``wanted``, or None.

    ``think``: one block, closed, with text in it, and text after it. ``boxed``: after the block a closed ``\boxed{}``
    that is not empty; kinds `code` and `open`, whose answer is no value, need none.
    """
    if wanted.think:
        _, why = think_state(response)
        if why is not None:
            return why
    answer = split(response)[1]
    if wanted.think and not answer.strip():
        return "nothing after the think block"
    if wanted.boxed and kind not in _UNBOXED and not (last_boxed(answer) or "").strip():
        return "the answer is not in a \\boxed{}"
    return None


def format_fields(row: Mapping[str, Any], wanted: FormatConfig) -> dict[str, Any]:
    """`format_verdict` ("ok", "bad", or null for a row without a response) and `format_reason` for a row."""
    response = row.get("response")
    if not isinstance(response, str):
        return {"format_verdict": None, "format_reason": "no response"}
    found = fault(response, row.get("kind"), wanted)
    return {"format_verdict": "ok" if found is None else "bad", "format_reason": found}
