r"""Verdicts for rows of kind `math`: the final answer of a response equals the gold answer or not.

`synth.verify.extract` extracts the final answer; `synth.verify.answers` reads both whole and compares them by type.

`quick` is pure text and safe anywhere; it decides where both are the same letters or plain numbers. `judge` and
`verify` are meant for a process of `synth.worker_pool`. Their work is bounded (`answers.evaluate`), so the process's
limit of CPU time is a second bound, and verdicts do not depend on the load of a machine.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from synth.reasoning import Reasoning, split_row
from synth.verify.answers.read import equal, is_plain_number, is_prose, plainly_equal, read
from synth.verify.answers.values import Unreadable
from synth.verify.extract import Answer, committed_answer, gold_text
from synth.verify.verdict import Verdict, shortened


def prepare(_: str | None = None) -> None:
    """Import what a comparison needs: once in a process, and no time of a row."""
    equal("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}")
    equal("100\\text{ cm}", "1\\text{ m}")


def serve(job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a job of `synth.verify.verifier`: an extracted answer, a whole response, or the gold alone."""
    if "answer" in job:
        return asdict(judge(job["gold"], Answer(**job["answer"])))
    return asdict(verify(job["gold"], split_row(job)) if "response" in job else check_gold(job["gold"]))


def quick(gold: Any, response: str | Reasoning) -> tuple[Answer, Verdict | None]:
    """The final answer, and the verdict where no mathematics is needed. Linear in the length of the response."""
    try:
        text = gold_text(gold)
    except ValueError as err:
        return Answer(None), Verdict("error", reason=str(err))
    answer = committed_answer(response)
    if answer.text is None:
        # A gold that cannot be read is an error, whatever the response; the slow path finds out.
        return answer, Verdict("unparseable", reason=answer.reason) if is_plain_number(text) else None
    if answer.how != "text" and (is_equal := plainly_equal(text, answer.text)) is not None:
        return answer, _verdict(is_equal, answer.text)
    return answer, None


def verify(gold: Any, response: str | Reasoning) -> Verdict:
    r"""Does the response's final answer equal `gold`? Score 1.0 or 0.0.

    A gold answer that cannot be read is `error`, unless the response repeats it letter for letter.
    """
    answer, verdict = quick(gold, response)
    return judge(gold, answer) if verdict is None else verdict


def judge(gold: Any, answer: Answer) -> Verdict:
    """The verdict on an answer that `quick` has extracted and not decided."""
    try:
        text = gold_text(gold)
        read(text)
    except ValueError as err:
        return Verdict("error", reason=str(err))
    except Unreadable as err:
        return Verdict("error", reason=f"the gold answer cannot be read: {err}")
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    extracted = shortened(answer.text)
    try:
        if any(_is_equal(text, other) for other in answer.others):
            return _verdict(True, answer.text)
        is_whole = answer.how != "text" or is_prose(text) or not any(map(str.isdigit, answer.text))
        if is_whole and equal(text, answer.text):
            return _verdict(True, answer.text)
        if answer.how == "text":
            return Verdict("unparseable", extracted=extracted, reason="no answer that stands out")
        if answer.how not in ("box", "hash") and is_prose(answer.text) and not is_prose(text):
            return Verdict("unparseable", extracted=extracted, reason="words where mathematics was asked for")
        return _verdict(False, answer.text)
    except Unreadable as err:
        return Verdict("unparseable", extracted=extracted, reason=f"the answer cannot be read: {err}")
    except (ArithmeticError, TypeError, ValueError) as err:  # whatever mpmath or pint raises: could not tell
        return Verdict("error", extracted=extracted, reason=f"could not compare: {type(err).__name__}")


def _is_equal(gold: str, reading: str) -> bool:
    """Whether a second reading of a response is the gold answer; one that cannot be read is none."""
    try:
        return equal(gold, reading)
    except Unreadable:
        return False


def check_gold(gold: Any) -> Verdict:
    """`correct` where the gold answer can be read."""
    try:
        text = gold_text(gold)
        read(text)
    except (ValueError, Unreadable) as err:
        return Verdict("error", reason=str(err))
    return Verdict("correct", 1.0, shortened(text))


def _verdict(is_equal: bool, answer: str) -> Verdict:
    if is_equal:
        return Verdict("correct", 1.0, shortened(answer))
    return Verdict("wrong", extracted=shortened(answer), reason="not equal to the gold answer")
