"""Instructions by name: a checker is a function that returns what is wrong, or None.

Arguments are validated by their annotations (pydantic): IFEval's rows hold counts as floats and null for every argument
that an instruction does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError, validate_call

from synth.reasoning import Reasoning

Relation = Literal["less than", "at least", "at most", "exactly"]
"""The first two are IFEval's."""


@dataclass(frozen=True)
class Response:
    """What a model wrote: ``answer`` is what stands behind the thinking, if any.

    ``finish_reason`` is None where the row has none. ``template_thinks``: the model's chat template writes think
    blocks, so that one is not a fault of the format.
    """

    text: str
    reasoning: Reasoning
    finish_reason: str | None = None
    template_thinks: bool = False

    @property
    def answer(self) -> str:
        return self.reasoning.answer.strip()


Checker = Callable[[Response], str | None]
DECLARED: dict[str, tuple[bool, Callable[..., str | None]]] = {}
"""Filled when the modules of instructions are imported: name -> (takes the whole response, checker)."""


def instruction(name: str, *, whole: bool = False) -> Callable[[Callable[..., str | None]], Callable[..., str | None]]:
    """Declare a checker of the answer's text, or with ``whole`` of the ``Response``, under the name of a row's `id`."""

    def declare(check: Callable[..., str | None]) -> Callable[..., str | None]:
        DECLARED[name] = (whole, validate_call(check))
        return check

    return declare


def checker(name: str, arguments: Mapping[str, Any]) -> Checker:
    """The checker of a declared instruction with its arguments.

    Raises ValueError where there is no such instruction, or it does not take these arguments.
    """
    if name not in DECLARED:
        raise ValueError(f"there is no instruction {name!r}")
    whole, check = DECLARED[name]

    def run(response: Response) -> str | None:
        return check(response if whole else response.answer, **arguments)

    try:
        run(Response("", Reasoning(None, "", "missing")))  # validates the arguments, whatever the answer is
    except ValidationError as error:
        first = error.errors()[0]
        argument = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{name}: {argument}: {first['msg']}") from None
    return run


def count_fault(what: str, count: int, relation: Relation, number: int) -> str | None:
    """What is wrong with a count, in words."""
    holds = {
        "less than": count < number,
        "at least": count >= number,
        "at most": count <= number,
        "exactly": count == number,
    }[relation]
    return None if holds else f"{count} {what}, not {relation} {number}"
