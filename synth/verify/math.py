"""The final answer of a response, and whether it equals a gold answer: `math-verify` does the mathematics.

Everything here is a pure function meant for a worker of `synth.verify.pool`: a tower of powers holds the
interpreter for ever and some inputs abort the process, so nobody should call `verify` on a model's text in a process
that matters. math-verify's own timeouts are switched off: they are signals, they cost up to five seconds for each
step, and they do not interrupt big-integer arithmetic.

Not covered yet: units, mixed numbers and other known misses of math-verify; `<answer>` tags; the sentence
"the answer is" beyond what math-verify itself reads. A memory error that sympy swallows ends as `wrong`.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from licensing.errors import MissingPart

__all__ = ["Answer", "Verdict", "VerdictName", "check_gold", "final_answer", "gold_text", "last_boxed", "verify"]

VerdictName = Literal["correct", "wrong", "unparseable", "timeout", "error"]

MAX_EXTRACTED = 10_000  # characters of `extracted` that a row carries; a megabyte in a box helps nobody
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What a verifier found out about one row.

    `verdict` is None for rows that have nothing to verify (kind `open`). `unparseable`: the response gives no answer
    that can be read. `timeout` and `error`: could not tell, and `reason` says why. `score` is in [0, 1] and None only
    where `verdict` is. `extracted` is the answer's text, at most 10,000 characters. `seconds` is wall time of the
    row alone: neither the start of a worker nor waiting for one counts.
    """

    verdict: VerdictName | None
    score: float | None = 0.0
    extracted: str | None = None
    reason: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The final answer of a response: `text` is None where there is none, and `reason` then says why."""

    text: str | None
    boxed: bool = False
    reason: str | None = None


def final_answer(response: str) -> Answer:
    r"""The last ``\boxed{...}`` after the think block, else all the text after it.

    Only what follows the last ``</think>`` counts (the opening tag may be part of the prompt, as in R1's template). A
    think block that is still open has no answer after it: a box inside it is a thought, not an answer. A last box that
    never closes was cut off; an earlier box is not taken in its place.
    """
    tail = response.rpartition("</think>")[2]
    if "<think>" in tail:
        return Answer(None, reason="the think block is not closed")
    if not tail.strip():
        return Answer(None, reason="nothing after the think block" if "</think>" in response else "empty response")
    if not _BOX.search(tail):
        return Answer(tail.strip())
    inside = last_boxed(tail)
    if inside is None:
        return Answer(None, reason="the last \\boxed{ is not closed")
    if not inside.strip():
        return Answer(None, boxed=True, reason="the last \\boxed{} is empty")
    return Answer(inside.strip(), boxed=True)


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` or ``\fbox{...}`` holds, nested braces included; None without a closed one.

    Escaped braces do not nest. Linear in the length of the text.
    """
    start = None
    for match in _BOX.finditer(text):
        start = match.end()
    if start is None:
        return None
    depth = 1
    for match in _BRACES.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start : match.start()]
    return None


def _balanced(text: str) -> bool:
    depth = 0
    for match in _BRACES.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def gold_text(gold: Any) -> str:
    r"""The bare gold answer. Raises ValueError where there is none.

    A number is written out. Of a worked solution the last ``\boxed{...}`` counts, or what follows GSM8K's ``####``.
    """
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise ValueError(f"the gold answer is of type {type(gold).__name__}, not text or a number")
    if isinstance(gold, float):
        if not math.isfinite(gold):
            raise ValueError(f"the gold answer is {gold}")
        gold = f"{gold:.0f}" if gold.is_integer() and abs(gold) < 1e15 else repr(gold)
    text = str(gold)
    if _BOX.search(text):
        text = last_boxed(text) or ""
    text = text.rpartition("####")[2].strip()
    if not text:
        raise ValueError("the gold answer is empty")
    if not _balanced(text):
        raise ValueError("the braces of the gold answer do not balance")
    return text


def prepare() -> None:
    """Import math-verify and warm its parser: about a second, once in a process. Raises MissingPart without it."""
    try:
        import math_verify
    except ModuleNotFoundError as err:
        raise MissingPart("math-verify is not installed", hint="pip install math-verify") from err
    # It warns that its timeouts are off; that is the point here.
    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)
    verify("\\frac{1}{2}", "so \\boxed{0.5}")
    verify("2", "the answer is $\\frac{4}{2}$")


def verify(gold: Any, response: str) -> Verdict:
    r"""Does the response's final answer equal `gold`? Score 1.0 or 0.0.

    A gold answer that math-verify reads as no expression is `error`, never `correct`. The gold answer is wrapped in
    ``\boxed{}``: bare LaTeX is mostly not parsed at all. A comparison that raises is `error`: could not tell.
    """
    try:
        wanted = _parse_gold(gold_text(gold))
    except ValueError as err:
        return Verdict("error", reason=str(err))
    answer = final_answer(response)
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    found = _parse(f"\\boxed{{{answer.text}}}" if answer.boxed else answer.text)
    if not found:
        return Verdict("unparseable", extracted=_short(answer.text) if answer.boxed else None, reason="no answer found")
    # The last item is the text that math-verify matched; without a box that is the answer, not the whole response.
    matched = found[-1] if isinstance(found[-1], str) else answer.text
    extracted = _short(answer.text if answer.boxed else matched)
    equal, failure = _equal(wanted, found)
    if equal:
        return Verdict("correct", 1.0, extracted)
    if failure:
        return Verdict("error", extracted=extracted, reason=f"could not compare: {failure}")
    if all(isinstance(item, str) for item in found):
        return Verdict("unparseable", extracted=extracted, reason="the answer is not an expression that can be read")
    return Verdict("wrong", extracted=extracted, reason="not equal to the gold answer")


def check_gold(gold: Any) -> Verdict:
    """`correct` where the gold answer, given as the response, verifies against itself."""
    try:
        text = gold_text(gold)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    return verify(gold, f"\\boxed{{{text}}}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_EXTRACTED else text[:MAX_EXTRACTED]


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, parsing_timeout=None, raise_on_error=True))


@lru_cache(maxsize=64)  # the samples of one problem come together, with one gold answer
def _parse_gold(text: str) -> list[Any]:
    parsed = _parse(f"\\boxed{{{text}}}")
    if all(isinstance(item, str) for item in parsed):
        raise ValueError("math-verify reads no expression in the gold answer")
    return parsed


def _equal(wanted: list[Any], found: list[Any]) -> tuple[bool, str | None]:
    """Any pair equal, and the first comparison that failed. math-verify itself would call a failure unequal."""
    import math_verify

    failure = None
    for gold in wanted:
        for answer in found:
            try:
                if math_verify.verify(gold, answer, timeout_seconds=None, raise_on_error=True):
                    return True, None
            except MemoryError:
                raise
            except Exception as err:  # sympy may raise anything; the row ends as `error` with this reason
                failure = failure or type(err).__name__
    return False, failure
