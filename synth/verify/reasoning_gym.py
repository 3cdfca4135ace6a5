"""Verdicts for rows of kind `reasoning_gym`, by the task's own scorer, from a row's `task` and `entry`.

Pure functions for a process of `synth.worker_pool`; a scorer may run for long. Some scorers hand the model's answer to
`eval` or to sympy's `parse_expr`, which is `eval` too. A worker is no sandbox, so for those tasks `_is_plain` lets
through only text that can call nothing but plain mathematics. It is a filter on text, not a wall.

Not covered: tasks whose scorer needs a configuration other than the default. Their entries fail the check that the
own answer scores 1.0, and end as `error`.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from functools import lru_cache
from typing import Any

from licensing.errors import MissingDependency
from synth.decontaminate import texts_of
from synth.reasoning import Reasoning, split_row
from synth.verify.extract import committed_answer, final_answer
from synth.verify.verdict import MAX_EXTRACTED, Verdict

Scorer = Callable[..., Any]

# What a scorer that evaluates its input may call. Everything else that could be a call, an attribute or a string that
# becomes code is refused: `exec(`, `(exec)(`, `x.__class__`, `sin("exec" + "(1)")`.
_PLAIN = re.compile(
    r"sin|cos|tan|cot|sec|csc|asin|acos|atan|sinh|cosh|tanh|asinh|acosh|atanh|exp|log|ln|sqrt|Abs|abs|"
    r"Rational|Integer|Float|factorial|binomial|floor|ceiling|erf|Integral|Derivative|"
)
_CALL = re.compile(r"(\w*)\s*\(")
_FENCED = re.compile(r"```\w*\n(?P<f>(?:(?!```).)*)```", re.DOTALL)
_WRAPPED = re.compile(
    rf"{_FENCED.pattern}|"
    r"\$\$?(?P<a>[^$]*)\$\$?|\\\((?P<b>.*)\\\)|\\(?:text|textbf|texttt|mathrm|mathbf|mbox)\s*\{(?P<c>[^{}]*)\}|\*\*(?P<d>(?:(?!\*\*\s|\s\*\*).)*)\*\*|"
    r"`(?P<e>[^`]*)`",
    re.DOTALL,
)
_NOT_PLAIN = re.compile(r"\.\s*[^\W\d]|[\])'\"]\s*\(|__|[#\\`@{}]|\b(?:lambda|import)\b")


def prepare(task: str | None = None) -> None:
    """Import reasoning-gym and build the scorer of `task`: over a second, once. Raises MissingDependency without it."""
    try:
        import reasoning_gym  # noqa: F401
    except ModuleNotFoundError as err:
        raise MissingDependency("reasoning-gym is not installed", hint="pip install reasoning-gym") from err

    if task is not None:
        with contextlib.suppress(ValueError):  # `verify` meets it, and gives it to the row that asked for this task
            _scorer(task)


def serve(job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a job of `synth.verify.verifier`."""
    if "response" in job:
        return asdict(verify(job["task"], job["entry"], split_row(job)))
    return asdict(check_entry(job["task"], job["entry"]))


def verify(task: Any, entry: Any, response: str | Reasoning) -> Verdict:
    r"""`correct` where the task's scorer gives 1.0 or more and the answer is no other one than the entry's; `score`
    keeps what the scorer gave, so partial credit is `wrong`.

    The answer is the last ``\boxed{...}`` after the think block, without ``$`` and ``\text`` around all of it, else all
    the text after it, what the text says that the answer is, or the code block that ends it. An entry whose own answer
    does not score 1.0 is `error`. Tasks without a single solution carry no own answer (null): there the scorer alone
    decides.
    """
    sound = _sound_entry(task, entry)
    if isinstance(sound, str):
        return Verdict("error", reason=sound)
    answer = final_answer(response)
    if answer.text is None:
        return Verdict("unparseable", reason=answer.reason)
    readings = [_unwrapped(answer.text)]
    if not answer.boxed and (stated := committed_answer(response)).how in ("hash", "sentence") and stated.text:
        readings.append(stated.text)
    if not answer.boxed and (fences := list(_FENCED.finditer(answer.text))) and fences[-1].end() == len(answer.text):
        readings.append(fences[-1]["f"].strip("\n"))
    verdicts = [_verdict(task, text, sound) for text in readings]
    return next((verdict for verdict in verdicts if verdict.verdict == "correct"), verdicts[0])


def _verdict(task: str, answer: str, entry: dict[str, Any]) -> Verdict:
    extracted = answer[:MAX_EXTRACTED]
    if _evaluates(task) and not _is_plain(answer):
        return Verdict("wrong", extracted=extracted, reason="not plain mathematics: it is not given to an evaluator")
    try:
        score = _score(task, answer, entry)
    except ValueError as err:  # it is the answer that cannot be scored, where the entry's own one could
        return Verdict("error" if entry["answer"] is None else "unparseable", extracted=extracted, reason=str(err))
    if score >= 1.0 and isinstance(own := entry["answer"], str) and _is_another(task, own, answer):
        return Verdict(
            "wrong", extracted=extracted, reason="the scorer accepts it, yet it is another answer than the entry's"
        )
    if score >= 1.0:
        return Verdict("correct", 1.0, extracted)
    return Verdict("wrong", score, extracted, f"the scorer gave {score:.3g} of 1")


def _is_another(task: str, own: str, answer: str) -> bool:
    """Whether an answer that a scorer accepts is none: scorers take the first number of several, the beginning of a
    decimal, or any text (`_COMPARED`)."""
    if set(_HEDGE.findall(answer.lower())) - set(_HEDGE.findall(own.lower())):
        return True
    if (form := _COMPARED.get(task)) is not None:
        return bool(form(own) != form(answer))
    if not _ONLY_NUMBERS.fullmatch(own):
        return False
    own_numbers, numbers = ([Decimal(number) for number in _numbers(text, own)] for text in (own, answer))
    if len(own_numbers) != len(numbers):
        return True
    if len(numbers) > 1 and "." not in own:
        return False  # a list or a matrix of integers may be one of several right ones
    return not all(map(_is_rounded, sorted(own_numbers), sorted(numbers)))


def _numbers(text: str, own: str) -> list[str]:
    """The numbers of a text; a comma in one belongs to it where the entry's own answer is a single number."""
    is_single = len(_NUMBER.findall(own)) == 1 or _THOUSANDS.sub("", own).isdigit()
    return _NUMBER.findall(_THOUSANDS.sub("", text) if is_single else text)


def _is_rounded(own: Decimal, number: Decimal) -> bool:
    """Whether two numbers are equal at the precision of the coarser one, to 1 %. An integer of the entry is exact."""
    exponents = [int(value.as_tuple().exponent) for value in (own, number)]
    if exponents[0] >= 0 >= exponents[1]:
        return own == number
    return abs(own - number) <= min(Decimal(5).scaleb(max(exponents) - 1), abs(own) / 100)


_HEDGE = re.compile(r"\b(?:or|not|either|maybe|perhaps|nan|inf(?:inity)?)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[+-]?\d{1,3})?(?![\w/^*])", re.IGNORECASE)
_ONLY_NUMBERS = re.compile(rf"(?:[\s\[\]()'\",$%\u00b0]*{_NUMBER.pattern})+[\s\[\]()'\",$%\u00b0]*", re.IGNORECASE)
_COMPARED: dict[str, Callable[[str], Any]] = {
    "game_of_life_halting": lambda text: text.strip().lower(),
    "puzzle24": lambda text: sorted(re.findall(r"\d+", text)),
    "fraction_simplification": lambda text: re.findall(r"\d+", text),
    "time_intervals": lambda text: len(re.findall(r"\d+", text)),
    "cryptarithm": lambda text: set(re.findall(r"\w=\d", "".join(text.split()))),
    "kakurasu": lambda text: set(text.split()),
    "letter_jumble": lambda text: len(text.split()),
    "word_sorting": lambda text: text.count(","),
}
"""What has to be the same in an answer and in the entry's own, where the scorer of a task does not look at it."""


def _unwrapped(text: str) -> str:
    """The text without the delimiters and styles around all of it."""
    for _ in range(4):
        match = _WRAPPED.fullmatch(text.strip())
        if match is None:
            break
        text = next(group for group in match.groups() if group is not None)
    return text.strip("\n") if "\n" in text else text.strip()


def check_entry(task: Any, entry: Any) -> Verdict:
    """`correct` where the entry's own answer scores 1.0, or where the task has no own answer to check."""
    sound = _sound_entry(task, entry)
    if isinstance(sound, str):
        return Verdict("error", reason=sound)
    return Verdict("correct", 1.0, extracted=None if sound["answer"] is None else str(sound["answer"])[:MAX_EXTRACTED])


def _sound_entry(task: Any, entry: Any) -> dict[str, Any] | str:
    """The entry in the shape that its scorer understands, or the reason why there is none."""
    if not isinstance(task, str):
        return "the row names no reasoning-gym task"
    if not isinstance(entry, dict) or "answer" not in entry:
        return "the row carries no reasoning-gym entry with an answer"
    try:
        _scorer(task)
    except ValueError as err:
        return str(err)
    own = entry["answer"]
    if _evaluates(task) and not all(_is_plain(text) for text in texts_of([own, entry.get("metadata")])):
        return "the entry holds text that is not plain mathematics, and this task's scorer would evaluate it"
    if own is None:
        return entry
    score = 0.0
    # JSON has turned tuples into lists, and a few scorers (arc_agi, rearc) compare with tuples.
    for shape in (entry, {**entry, "metadata": _tuples(entry.get("metadata"))}):
        try:
            score = _score(task, own, shape)
        except ValueError as err:
            return f"the entry's own answer cannot be scored: {err}"
        if score >= 1.0:
            return shape
    return f"the entry's own answer scores {score:.3g}, not 1"


def _score(task: str, answer: Any, entry: dict[str, Any]) -> float:
    """The scorer's number, held to [0, 1]. Raises ValueError where the scorer fails or gives no number."""
    try:
        score = float(_scorer(task)(answer=answer, entry=entry))
    except MemoryError:
        raise
    except Exception as err:  # scorers raise whatever their task's arithmetic raises
        raise ValueError(f"the scorer of {task} failed: {type(err).__name__}") from err
    if math.isnan(score):
        raise ValueError(f"the scorer of {task} gave nan")
    return min(1.0, max(0.0, score))


@lru_cache(maxsize=256)
def _scorer(task: str) -> Scorer:
    from reasoning_gym import get_score_answer_fn

    try:
        scorer: Scorer = get_score_answer_fn(task)
    except Exception as err:  # unknown task, or one that has no default configuration
        raise ValueError(f"reasoning-gym gives no scorer for task {task!r}: {err or type(err).__name__}") from err
    return scorer


@lru_cache(maxsize=256)
def _evaluates(task: str) -> bool:
    """Whether the module of the task's scorer evaluates text, read off its source. (codeio's `exec` makes problems.)"""
    source = inspect.getsource(inspect.getmodule(_scorer(task)) or _scorer(task))
    return re.search(r"\b(?:eval|parse_expr|sympify)\(", source) is not None


def _is_plain(text: str) -> bool:
    if len(text) > MAX_EXTRACTED or _NOT_PLAIN.search(text) or ("(" in text and ("'" in text or '"' in text)):
        return False
    return all(_PLAIN.fullmatch(name) for name in _CALL.findall(text))


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
