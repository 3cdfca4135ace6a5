r"""Verdicts for rows of kind `math`: the final answer of a response equals the gold answer or not.

Steps for a row: `synth.verify.extract` extracts the final answer; `synth.verify.numbers` decides where both are plain
numbers; `synth.verify.equivalence` compares by form (units, lists, intervals, clock times, ...);
`synth.verify.symbolic` asks math-verify about the rest, and about prose without an answer that stands out.

`quick` is pure text and safe anywhere. `judge` and `verify` are meant for a process of `synth.worker_pool`: a tower of
powers holds the interpreter for ever and some inputs abort the process. math-verify's own timeouts are switched off:
they are signals, they cost up to five seconds for each step, and they do not interrupt big-integer arithmetic. A
memory error that sympy swallows ends as `wrong`.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from licensing.errors import MissingDependency
from synth.reasoning import Reasoning, split_row
from synth.verify import numbers as exact
from synth.verify import symbolic
from synth.verify.equivalence import equal, is_words, readable
from synth.verify.extract import Answer, committed_answer, final_answer, gold_text, last_boxed
from synth.verify.verdict import Verdict, VerdictName, shortened

__all__ = [
    "Answer",
    "Verdict",
    "VerdictName",
    "check_gold",
    "final_answer",
    "gold_text",
    "judge",
    "last_boxed",
    "prepare",
    "quick",
    "serve",
    "verify",
]

LONGEST = 20_000  # characters: no answer is longer, and sympy would take minutes to say so
DEEPEST = 200  # brackets within brackets


def prepare(_: str | None = None) -> None:
    """Import math-verify and warm its parser: about a second, once in a process.

    Raises MissingDependency without math-verify.
    """
    try:
        import math_verify  # noqa: F401
    except ModuleNotFoundError as err:
        raise MissingDependency("math-verify is not installed", hint="pip install math-verify") from err
    symbolic.quiet()
    verify("\\frac{1}{\\sqrt{2}}", "so \\boxed{\\frac{\\sqrt{2}}{2}}")
    verify("(1, 2]", "so it is $(1, \\frac{4}{2}]$, I think")


def serve(job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a job of `synth.verify.verifier`: an extracted answer, a whole response, or the gold alone."""
    if job["op"] == "check":
        return asdict(check_gold(job["gold"]))
    if "answer" in job:
        return asdict(judge(job["gold"], Answer(**job["answer"])))
    return asdict(verify(job["gold"], split_row(job)))


def quick(gold: Any, response: str | Reasoning) -> tuple[Answer, Verdict | None]:
    """The final answer, and the verdict where no mathematics is needed. Linear in the length of the response."""
    try:
        wanted = gold_text(gold)
    except ValueError as err:
        return Answer(None), Verdict("error", reason=str(err))
    if len(wanted) > LONGEST:
        return Answer(None), Verdict("error", reason=f"the gold answer is longer than {LONGEST:,} characters")
    answer = committed_answer(response)
    if answer.text is None:
        # A gold that cannot be read is an error, whatever the response; the slow path finds out.
        plain = exact.decide(wanted, wanted)
        return answer, Verdict("unparseable", reason=answer.reason) if plain else None
    if answer.how == "text":
        return answer, None
    if (decided := exact.decide(wanted, answer.text)) is not None:
        return answer, _verdict(decided, answer.text)
    return answer, None


def verify(gold: Any, response: str | Reasoning) -> Verdict:
    r"""Does the response's final answer equal `gold`? Score 1.0 or 0.0.

    A gold answer that is no expression, list, interval, text or the like is `error`, never `correct`. A comparison
    that raises is `error`: could not tell.
    """
    answer, verdict = quick(gold, response)
    return judge(gold, answer) if verdict is None else verdict


def judge(gold: Any, answer: Answer) -> Verdict:
    """The verdict on an answer that `quick` has extracted and not decided."""
    try:
        wanted = _gold(gold_text(gold))
    except ValueError as err:
        return Verdict("error", reason=str(err))
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    if answer.how == "text":
        return _prose(wanted, answer.text)
    if len(answer.text) > LONGEST or _depth(answer.text) > DEEPEST:
        return Verdict("unparseable", extracted=shortened(answer.text), reason="longer or deeper than any answer")
    try:
        is_equal = equal(wanted, answer.text)
        if not is_equal and answer.how not in ("box", "hash") and is_words(answer.text) and not is_words(wanted):
            return _prose(
                wanted, answer.text
            )  # words where mathematics was asked for: no answer, unless one is in them
        return _verdict(is_equal, answer.text)
    except symbolic.Unreadable:
        if answer.how == "box":
            reason = "the answer is not an expression that can be read"
            return Verdict("unparseable", extracted=shortened(answer.text), reason=reason)
        return _prose(wanted, answer.text)
    except MemoryError:
        raise
    except Exception as err:  # sympy may raise anything; the row ends as `error` with this reason
        return _undecided(answer.text, err)


def check_gold(gold: Any) -> Verdict:
    """`correct` where the gold answer, given as the response, verifies against itself."""
    try:
        text = gold_text(gold)
        if exact.decide(text, text) is None:
            _gold(text)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    return judge(gold, Answer(text, boxed=True, how="box"))


def _verdict(is_equal: bool, answer: str) -> Verdict:
    if is_equal:
        return Verdict("correct", 1.0, shortened(answer))
    return Verdict("wrong", extracted=shortened(answer), reason="not equal to the gold answer")


def _undecided(answer: str, err: Exception) -> Verdict:
    return Verdict("error", extracted=shortened(answer), reason=f"could not compare: {type(err).__name__}")


@lru_cache(maxsize=256)  # the samples of one problem come together, with one gold answer
def _gold(text: str) -> str:
    if _depth(text) > DEEPEST:
        raise ValueError("the brackets of the gold answer are nested too deeply")
    if not readable(text):
        raise ValueError("math-verify reads no expression in the gold answer")
    return text


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _prose(gold: str, text: str) -> Verdict:
    """Text that names no answer: what math-verify finds in its end is compared by our rules, then by its own."""
    import math_verify

    text = text[-LONGEST:]
    try:
        found = math_verify.parse(text, parsing_timeout=None, raise_on_error=True)
        if not found:
            return Verdict("unparseable", reason="no answer found")
        said = found[-1] if isinstance(found[-1], str) else text
        readings = [item for item in found if not isinstance(item, str)]
        if not readings:
            return Verdict("unparseable", extracted=shortened(said), reason="no expression that can be read")
        if _depth(said) <= DEEPEST:
            return _verdict(equal(gold, said), said)
        return Verdict("unparseable", extracted=shortened(said), reason="deeper than any answer")
    except symbolic.Unreadable:
        return Verdict("unparseable", reason="no answer found")
    except MemoryError:
        raise
    except Exception as err:  # as above
        return _undecided(text, err)
