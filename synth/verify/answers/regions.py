r"""Sets of real numbers: intervals, inequalities in one variable, their unions and intersections, finite sets.

Two of them are equal where each point belongs to both or to neither. That is tried at all the bounds that either of
them names, between them, beyond them, and, for unsolved inequalities (``|k| \ge 2``, ``x^2 < 9``), on a grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from synth.verify.answers.evaluate import REALS, Env, NotARegion, TooLarge, Undefined, evaluate, holds, points, symbols
from synth.verify.answers.values import Interval, Items, Logic, Number, Operation, Relation, Symbol, Value

INEQUALITIES = ("<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\notin")
_SETS = ("\\cup", "\\cap", "\\setminus")
_GRID = [Fraction(k, 7) for k in range(-75, 76, 5)] + [Fraction(k) for k in (-1000, -30, 30, 1000)]


def is_region(value: Value) -> bool:
    """Whether a value is a set of reals by its form; a pair ``(1, 2)`` is one only beside another region."""
    match value:
        case Interval() | Logic():
            return True
        case Relation(marks=marks, modulus=None):
            return all(mark in INEQUALITIES for mark in marks)
        case Operation(name=name, args=args) if name in _SETS:
            return all(is_region(arg) or _is_finite_or_pair(arg) for arg in args)
    return value == REALS


def _is_finite_or_pair(value: Value) -> bool:
    return isinstance(value, Items) and (value.bracket == "{" or len(value.parts) == 2)


def variable(value: Value) -> str | None:
    """The name of the variable of inequalities; None for intervals, "" for inequalities without one name in common."""
    names: set[str] = set()
    match value:
        case Relation(sides=sides, marks=marks):
            bare = [side.name for side in sides if (isinstance(side, Symbol) and symbols(side)) or side == Symbol("?")]
            if marks[0] in ("\\in", "\\notin"):
                bare = bare[:1]
            names = set(bare) if bare else set().union(*map(symbols, sides))
        case Logic(parts=parts):
            names = {name for part in parts if (name := variable(part)) is not None}
        case Operation(name=operation, args=args) if operation in _SETS:
            names = {name for arg in args if (name := variable(arg)) is not None}
    return names.pop() if len(names) == 1 else ("" if names else None)


def same_region(gold: Value, answer: Value) -> bool:
    """Whether two sets of reals are equal. Raises TooLarge."""
    names = [variable(value) for value in (gold, answer)]
    for place, other in ((0, 1), (1, 0)):
        own = _symbols((gold, answer)[place]) - _symbols((gold, answer)[other])
        if names[place] == "" and names[other] is None and len(own) == 1:
            names[place] = own.pop()  # x > a beside (a, \infty)
    if "" in names:
        return False  # several variables
    if None not in names and "?" not in names and names[0] != names[1]:
        return False
    others = (_symbols(gold) | _symbols(answer)) - {name for name in names if name}
    try:
        return all(_same_set(gold, answer, names, env) for env in points(others, set()))
    except NotARegion:
        return False


def _symbols(value: Value) -> set[str]:
    return set().union(*(symbols(part) for part in _parts(value))) - {"\\mathbb{R}"}


def _parts(value: Value) -> list[Value]:
    match value:
        case Logic(parts=parts):
            return [each for part in parts for each in _parts(part)]
        case Operation(name=name, args=args) if name in _SETS:
            return [each for arg in args for each in _parts(arg)]
        case Relation(sides=sides):
            return [each for side in sides for each in _parts(side)]
    return [value]


def _same_set(gold: Value, answer: Value, names: list[str | None], env: Env) -> bool:
    for at in [*places((gold, answer), env), *_GRID]:
        inside = []
        for value, name in zip((gold, answer), names, strict=True):
            try:
                inside.append(holds(value, {**env, name: at} if name else env, at))
            except Undefined:
                inside.append(False)
        if inside[0] != inside[1]:
            return False
    return True


def places(regions: Sequence[Value], env: Env | None = None) -> list[Fraction]:
    """The bounds that regions name, and points between and beyond them.

    A bound is compared with itself as rounded to a fraction, which is equal to it within rounding.
    """
    bounds = {_rational(bound) for value in regions for bound in _bounds(value, env or {})} - {None}
    numbers = sorted(bound for bound in bounds if bound is not None)
    between = [(one + two) / 2 for one, two in itertools.pairwise(numbers)]
    return [*numbers, *between, *([numbers[0] - 1, numbers[-1] + 1] if numbers else [])]


def _bounds(value: Value, env: Env) -> list[Any]:
    out: list[Any] = []
    for part in _parts(value):
        ends: tuple[Value, ...] = ()
        match part:
            case Interval(low=low, high=high):
                ends = (low, high)
            case Items(parts=parts):
                ends = parts
            case Number() | Operation():
                ends = (part,)
        for end in ends:
            try:
                out.append(evaluate(end, env))
            except (Undefined, TooLarge):
                continue
    return out


def _rational(value: Any) -> Fraction | None:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, mp.mpc) or mp.isinf(value) or mp.isnan(value):
        return None
    return Fraction(int(mp.nint(value * 10**25)), 10**25)
