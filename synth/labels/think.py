"""The think block: is it whole, and does it end with the answer that is given after it?"""

from __future__ import annotations

import re
from typing import Literal

from synth.verify.math import final_answer, last_boxed

__all__ = ["ThinkState", "differs", "split", "think_state"]

ThinkState = Literal["ok", "missing", "unclosed", "doubled", "empty"]

_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|;|!|:| )|[\s$]|\^?\\circ|\\%|%")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]*)\}")
_SPELT = re.compile(r"\\[dt]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")


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


def differs(response: str) -> tuple[bool | None, str | None]:
    r"""Does the last ``\boxed{}`` of the think block differ from the answer given? None where one of them is missing.

    Compared as text, after what LaTeX allows to be written in two ways is folded, and as numbers. No mathematics: 1/2
    and 0.5 differ, so it is a hint for reading and no verdict.
    """
    think, after = split(response)
    if not think.strip() or not after.strip():
        return None, None
    thought, given = last_boxed(think), final_answer(response)
    if thought is None or not thought.strip() or given.text is None or not given.boxed:
        return None, None
    one, other = _folded(thought), _folded(given.text)
    if one == other or (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other) and float(one) == float(other)):
        return False, None
    return True, f"thought {thought.strip()[:80]}, answered {given.text[:80]}"


def _folded(answer: str) -> str:
    text = _SPELT.sub(r"\\frac", _WRAPPED.sub(r"\1", answer))
    text = _THOUSANDS.sub("", _DROPPED.sub("", text)).casefold().rstrip(".")
    return text.removeprefix("+")
