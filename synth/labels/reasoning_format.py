"""The label `answer_mismatch`: does a think block end with the answer that is given after it?"""

from __future__ import annotations

import re

from synth.reasoning import Reasoning
from synth.verify.extract import final_answer, last_boxed

_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|;|!|:| )|[\s$]|\^?\\circ|\\%|%")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?|-?\.\d{1,300}")


def differs(reasoning: Reasoning) -> tuple[bool | None, str | None]:
    r"""(does the last ``\boxed{}`` of the thinking differ from the one in the answer, how); None where one is missing.

    Compared as text, after what LaTeX allows to be written in two ways is folded, and as numbers. No mathematics: 1/2
    and 0.5 differ, so this is a hint for reading and no verdict.
    """
    thinking = reasoning.thinking or ""
    if not thinking.strip() or not reasoning.answer.strip():
        return None, None
    thought, answer = last_boxed(thinking), final_answer(reasoning)
    if thought is None or not thought.strip() or answer.text is None or not answer.boxed:
        return None, None
    one, other = _folded(thought), _folded(answer.text)
    if one == other or (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other) and float(one) == float(other)):
        return False, None
    return True, f"thought {thought.strip()[:80]}, answered {answer.text[:80]}"


def _folded(answer: str) -> str:
    text = _FRACTION.sub(r"\\frac", _WRAPPED.sub(r"\1", answer))
    text = _THOUSANDS.sub("", _DROPPED.sub("", text)).casefold().rstrip(".")
    return text.removeprefix("+")
