"""The verdict on a row of kind `constraints`.

`correct` where the answer fulfils every constraint (IFEval's prompt-level strict accuracy); the score is the share that
it fulfils (instruction-level). An empty answer and a loop fulfil none, whatever the constraints say: without this rule,
"no commas" is fulfilled by silence. Constraints are the row's `constraints`, or IFEval's own columns
`instruction_id_list` and `kwargs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.reasoning import split_row
from synth.repetition import repetition
from synth.verify.constraints import ifeval, responses, texts  # noqa: F401  (they declare the instructions)
from synth.verify.constraints.registry import Checker, Response, checker
from synth.verify.constraints.segments import words
from synth.verify.verdict import Verdict, shortened

_LONGEST_UNIT = 12  # words of a phrase that is said over and over
_TIMES = 6
"""How often a phrase may stand directly behind itself. Judgements of ours: longer loops are `synth.repetition`'s."""


def verify(row: Mapping[str, Any]) -> Verdict:
    """The verdict on a row with its `response`. A row whose constraints are malformed is `error`."""
    try:
        constraints = _checkers(row)
        reasoning = split_row(row)
        finish = row.get("finish_reason")
        response = Response(
            row["response"],
            reasoning,
            finish if isinstance(finish, str) else None,
            row.get("template_thinks") is True,
        )
        answer = response.answer
        if not answer:
            return Verdict("unparseable", reason=reasoning.reason or "the answer is empty")
        if (again := loop(answer)) is not None:
            return Verdict("wrong", extracted=shortened(answer), reason=f"a loop: {again}")
        faults = [(name, fault) for name, check in constraints if (fault := check(response)) is not None]
    except ValueError as error:
        return Verdict("error", reason=str(error))
    score = round(1 - len(faults) / len(constraints), 6)
    reason = "; ".join(f"{name}: {fault}" for name, fault in faults) or None
    return Verdict("wrong" if faults else "correct", score, shortened(answer), reason)


def check_constraints(row: Mapping[str, Any]) -> Verdict:
    """`correct` where every constraint of a problem is known and has its arguments."""
    try:
        _checkers(row)
    except ValueError as error:
        return Verdict("error", reason=str(error))
    return Verdict("correct", 1.0)


def loop(answer: str) -> str | None:
    """Why an answer is a loop, or None: a phrase of up to 12 words at least six times in a row, or a longer loop.

    Linear in the length of the answer.
    """
    answer_words = [word.casefold() for word in words(answer)]
    for unit in range(1, _LONGEST_UNIT + 1):
        run = 0
        for at in range(unit, len(answer_words)):
            run = run + 1 if answer_words[at] == answer_words[at - unit] else 0
            if run >= unit * (_TIMES - 1):
                return f"{' '.join(answer_words[at - unit + 1 : at + 1])!r} stands there {_TIMES} times in a row"
    return repetition(answer)


def _checkers(row: Mapping[str, Any]) -> list[tuple[str, Checker]]:
    """(name, checker) of every constraint of a row. Raises ValueError where one is malformed, or there is none."""
    checkers = []
    for constraint in _constraints(row):
        if not isinstance(constraint, Mapping) or not isinstance(constraint.get("id"), str):
            raise ValueError("a constraint is an object with an `id`")
        arguments = {key: value for key, value in constraint.items() if key != "id" and value is not None}
        checkers.append((constraint["id"], checker(constraint["id"], arguments)))
    return checkers


def _constraints(row: Mapping[str, Any]) -> list[Any]:
    own = row.get("constraints")
    if own is not None:
        if not isinstance(own, list | tuple) or not own:
            raise ValueError("`constraints` is no list with a constraint in it")
        return [*own]
    names, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, list | tuple) or not isinstance(arguments, list | tuple) or len(names) != len(arguments):
        raise ValueError("the row has neither `constraints` nor `instruction_id_list` with as many `kwargs`")
    return [{**(entry if isinstance(entry, Mapping) else {}), "id": name}
            for name, entry in zip(names, arguments, strict=True)]  # fmt: skip
