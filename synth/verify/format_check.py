r"""Format check: has a response one closed think block, an answer after it, and the answer in a box?

The result is a field of its own beside the verdict on the answer: a right answer in a bad format is right, and a wrong
one in a good format is wrong. Pure text, linear in its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synth.reasoning import Reasoning, split_reasoning, split_row
from synth.verify.extract import last_boxed

if TYPE_CHECKING:  # a worker imports this package, and does without pydantic
    from synth.verify.config import FormatConfig

_UNBOXED = ("code", "constraints", "open")  # kinds whose answer is no value


def fault(response: str | Reasoning, kind: Any, config: FormatConfig) -> str | None:
    r"""The first fault of the format, or None.

    ``think``: one block, closed, with text in it, and text after it. ``boxed``: after the block a closed ``\boxed{}``
    that is not empty; kinds `code`, `constraints` and `open` need none. A response in tags other than
    ``<think>`` comes already split (`synth.reasoning`).
    """
    reasoning = split_reasoning(response) if isinstance(response, str) else response
    if config.think and reasoning.reason is not None:
        return reasoning.reason
    if config.think and not reasoning.answer.strip():
        return "nothing after the think block"
    if config.boxed and kind not in _UNBOXED and not (last_boxed(reasoning.answer) or "").strip():
        return "the answer is not in a \\boxed{}"
    return None


def format_fields(row: Mapping[str, Any], config: FormatConfig) -> dict[str, Any]:
    """`format_verdict` ("ok", "bad", or null for a row without a response) and `format_reason` of a row."""
    if not isinstance(row.get("response"), str):
        return {"format_verdict": None, "format_reason": "no response"}
    reason = fault(split_row(row), row.get("kind"), config)
    return {"format_verdict": "ok" if reason is None else "bad", "format_reason": reason}
