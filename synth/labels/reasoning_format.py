"""The think block: is it whole, and does it end with the answer that is given after it?"""

from __future__ import annotations

import re

from synth.verify.extract import final_answer, last_boxed
from synth.verify.format_check import ThinkState, split, think_state

__all__ = ["ThinkState", "differs", "split", "think_state"]

_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|;|!|:| )|[\s$]|\^?\\circ|\\%|%")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]*)\}")
_SPELT = re.compile(r"\\[dt]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")


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
