r"""Sets of real numbers: intervals, inequalities in one variable, their unions and intersections, finite sets.

Two of them are equal where each point belongs to both or to neither. That is tried at all the bounds that either of
them names, between them, beyond them, and, for inequalities that are not solved (``|k| \ge 2``, ``x^2 < 9``), on a grid.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from synth.verify.answers.evaluate import Env, TooLarge, Undefined, evaluate, points, symbols
from synth.verify.answers.values import Interval, Items, Logic, Number, Operation, Relation, Symbol, Value

__all__ = ["INEQUALITIES", "REALS", "NotARegion", "holds", "is_region", "same_region", "variable"]

INEQUALITIES = ("<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\notin")
REALS = Symbol("\\mathbb{R}")
_SETS = ("\\cup", "\\cap", "\\setminus")
_SAME = Fraction(1, 10**15)
_GRID = [Fraction(k, 7) for k in range(-75, 76, 5)] + [Fraction(k) for k in (-1000, -30, 30, 1000)]


class NotARegion(Exception):
    """The value is no set of reals."""


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
            bare = [side.name for side in sides if isinstance(side, Symbol) and symbols(side) or side == Symbol("?")]
            if marks[0] in ("\\in", "\\notin"):
                bare = bare[:1]
            names = set(bare) if bare else set().union(*map(symbols, sides))
        case Logic(parts=parts):
            names = {name for part in parts if (name := variable(part)) is not None}
        case Operation(name=operation, args=args) if operation in _SETS:
            names = {name for arg in args if (name := variable(arg)) is not None}
        case _:
            return None
    return names.pop() if len(names) == 1 else ("" if names else None)


def holds(value: Value, env: Env, at: Fraction | None = None) -> bool:
    """Whether an inequality is true, or a set contains the point `at`. Raises NotARegion for what is
    neither, and Undefined where it has no value there."""
    match value:
        case Interval(low=low, high=high, low_open=low_open, high_open=high_open):
            below, above = _order(evaluate(low, env), at), _order(at, evaluate(high, env))
            return (below < 0 or (below == 0 and not low_open)) and (above < 0 or (above == 0 and not high_open))
        case Items(bracket="{", parts=parts):
            return any(_order(evaluate(part, env), at) == 0 for part in parts)
        case Items(parts=(low, high)):
            return _order(evaluate(low, env), at) < 0 and _order(at, evaluate(high, env)) < 0
        case Logic(word=word, parts=parts):
            return (any if word == "or" else all)(holds(part, env, at) for part in parts)
        case Operation(name="\\cup", args=args):
            return any(holds(arg, env, at) for arg in args)
        case Operation(name="\\cap", args=args):
            return all(holds(arg, env, at) for arg in args)
        case Operation(name="\\setminus", args=(one, two)):
            return holds(one, env, at) and not holds(two, env, at)
        case Relation(sides=sides, marks=marks):
            return all(_related(one, mark, two, env) for one, mark, two in zip(sides, marks, sides[1:], strict=False))
    if value == REALS:
        return True
    raise NotARegion


def _related(one: Value, mark: str, two: Value, env: Env) -> bool:
    if mark in ("\\in", "\\notin"):
        inside = holds(two, env, evaluate(one, env))
        return inside == (mark == "\\in")
    if not isinstance(one, Number | Symbol | Operation) or not isinstance(two, Number | Symbol | Operation):
        raise NotARegion
    order = _order(evaluate(one, env), evaluate(two, env))
    match mark:
        case "<":
            return order < 0
        case ">":
            return order > 0
        case "\\le":
            return order <= 0
        case "\\ge":
            return order >= 0
        case "\\ne":
            return order != 0
        case "=":
            return order == 0
    raise NotARegion


def _order(one: Any, two: Any) -> int:
    """-1, 0 or 1; numbers that differ by rounding are equal. Raises Undefined for what is not real."""
    import mpmath

    if isinstance(one, Fraction) and isinstance(two, Fraction):
        return (one > two) - (one < two)
    one, two = (mpmath.mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x for x in (one, two))
    if isinstance(one, mpmath.mpc) or isinstance(two, mpmath.mpc):
        raise Undefined
    if not (mpmath.isinf(one) or mpmath.isinf(two)) and abs(one - two) <= max(abs(one), abs(two)) * _float(_SAME):
        return 0
    return int(one > two) - int(one < two)


def _float(value: Fraction) -> float:
    return value.numerator / value.denominator


def same_region(gold: Value, answer: Value) -> bool:
    """Whether two sets of reals are equal. Raises TooLarge."""
    names = [variable(value) for value in (gold, answer)]
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
    bounds = {_rational(bound) for value in (gold, answer) for bound in _bounds(value, env)} - {None}
    numbers = sorted(bound for bound in bounds if bound is not None)
    between = [(one + two) / 2 for one, two in zip(numbers, numbers[1:], strict=False)]
    # A bound is compared with itself as rounded to a fraction, which is within _SAME of it.
    for at in [*numbers, *between, *_GRID, *([numbers[0] - 1, numbers[-1] + 1] if numbers else [])]:
        inside = []
        for value, name in zip((gold, answer), names, strict=True):
            try:
                inside.append(holds(value, {**env, name: at} if name else env, at))
            except Undefined:
                inside.append(False)
        if inside[0] != inside[1]:
            return False
    return True


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
    import mpmath

    if isinstance(value, Fraction):
        return value
    if isinstance(value, mpmath.mpc) or mpmath.isinf(value) or mpmath.isnan(value):
        return None
    return Fraction(int(mpmath.nint(value * 10**25)), 10**25)
