r"""Whether two answers are the same, form by form.

Conventions, where graders differ: a unit or percent sign on one side only does not count, a missing base does; a pair
is no set, an open end no closed one; a bare list has an order only against an ordered one; a clock time without a.m. or
p.m. is none with it; a ratio is its quotient. Everything that is not decided here is `synth.verify.symbolic`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from synth.verify import symbolic
from synth.verify.answer_types import (
    Based,
    Clock,
    Equation,
    Form,
    Formula,
    Grid,
    Items,
    Piece,
    Quantity,
    Ratio,
    Region,
    Words,
)
from synth.verify.normalise import clean
from synth.verify.numbers import Number, near, number
from synth.verify.parse import interval, read
from synth.verify.units import comparable

__all__ = ["equal", "is_words", "readable"]

_MOST_PARTS = 64
_DEEPEST = 12


def equal(gold: str, answer: str) -> bool:
    """Whether the answer is the gold one. Raises `symbolic.Unreadable`, and what sympy does."""
    return _equal(clean(gold), clean(answer), 0)


def readable(gold: str) -> bool:
    """Whether a gold answer is anything that answers can be compared with."""
    return _readable(clean(gold), 0)


def is_words(text: str) -> bool:
    """Whether a text is words and no formula."""
    return isinstance(read(clean(text)), Words)


def _readable(text: str, depth: int) -> bool:
    form = read(text)
    match form:
        case Formula():
            try:
                symbolic.expression(form.text, not _imaginary(form.text))
            except symbolic.Unreadable:
                return False
            return True
        case Items(parts=parts) | Ratio(parts=parts):
            return depth < _DEEPEST and all(_readable(part, depth + 1) for part in parts)
        case Equation(left=left, right=right):
            return bool(left) and depth < _DEEPEST and _readable(right, depth + 1)
        case Quantity(core=core):
            return depth < _DEEPEST and _readable(core, depth + 1)
    return True


def _imaginary(text: str) -> bool:
    return symbolic._COMPLEX.search(text) is not None


def _equal(gold: str, answer: str, depth: int) -> bool:
    if _squashed(gold) == _squashed(answer):
        return True
    if depth > _DEEPEST:
        return symbolic.same(gold, answer)
    g, a = read(gold), read(answer)
    again = _Again(gold, answer, depth)
    for kinds, rule in _RULES:
        if isinstance(g, kinds) or isinstance(a, kinds):
            decided = rule(g, a, again)
            if decided is not None:
                return decided
    return symbolic.same(_text(g, gold), _text(a, answer))


class _Again:
    """`_equal` on parts, one level deeper; beside it the two whole texts, for a rule that takes one side as it is."""

    def __init__(self, gold: str, answer: str, depth: int) -> None:
        self.gold, self.answer, self._depth = gold, answer, depth + 1

    def __call__(self, gold: str, answer: str) -> bool:
        return _equal(clean(gold), clean(answer), self._depth)


def _squashed(text: str) -> str:
    return re.sub(r"\s+|(?<=[\^_])\{(\w)\}", lambda found: found[1] or "", text)


def _text(form: Form, text: str) -> str:
    """The text that math-verify is given."""
    match form:
        case Formula(text=inside):
            return inside
        case Region(pieces=pieces):
            return "\\cup ".join(_piece_text(piece) for piece in pieces)
        case Number(value=value):
            # A fraction loses nothing; where it was a decimal, math-verify's rounding is wanted.
            return text if form.decimal else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
        case Items(bracket="", parts=parts):
            return "\\{" + ", ".join(parts) + "\\}"
    return text


def _piece_text(piece: Piece) -> str:
    if piece.low == piece.high and not (piece.low_open or piece.high_open):
        return f"\\{{{piece.low}\\}}"
    return f"{'(' if piece.low_open else '['}{piece.low}, {piece.high}{')' if piece.high_open else ']'}"


# --- the rules: each takes both forms, and gives None where it has nothing to say ----------------------------------


def _numbers(g: Form, a: Form, again: _Again) -> bool | None:
    return near(g, a) if isinstance(g, Number) and isinstance(a, Number) else None


def _equations(g: Form, a: Form, again: _Again) -> bool | None:
    """``x = 5`` is 5, ``2x = 10`` is not; two equations with one left side are compared by their right ones."""
    match g, a:
        case Equation(), Equation():
            if _squashed(g.left) == _squashed(a.left) and g.names and a.names:
                return again(g.right, a.right)
            return None
        case Equation(), _ if not isinstance(a, Items | Region):
            return again(g.right, again.answer) if g.names else False
        case _, Equation() if not isinstance(g, Items | Region):
            return again(again.gold, a.right) if a.names else False
    return None


def _bases(g: Form, a: Form, again: _Again) -> bool | None:
    return isinstance(g, Based) and isinstance(a, Based) and g == a


def _clocks(g: Form, a: Form, again: _Again) -> bool | None:
    if isinstance(g, Clock) and isinstance(a, Clock):
        return g == a
    if isinstance(g, Clock) and g.half is None and isinstance(a, Ratio | Number | Formula):
        return bool(g.minutes % 60) and again(_clock_quotient(g), _quotient(a, again.answer))
    if isinstance(a, Clock) and a.half is None and isinstance(g, Ratio | Number | Formula):
        return bool(a.minutes % 60) and again(_quotient(g, again.gold), _clock_quotient(a))
    return False


def _clock_quotient(clock: Clock) -> str:
    return f"\\frac{{{clock.minutes // 60}}}{{{clock.minutes % 60}}}"


def _ratios(g: Form, a: Form, again: _Again) -> bool | None:
    match g, a:
        case Ratio(), Ratio():
            if len(g.parts) != len(a.parts):
                return False
            return all(
                again(f"({g.parts[0]})\\cdot({right})", f"({a.parts[0]})\\cdot({left})") if place else True
                for place, (left, right) in enumerate(zip(g.parts, a.parts, strict=True))
            ) and bool(again(g.parts[0], a.parts[0]) or not _zero(g.parts[0]))
        case (Ratio(), Number() | Formula()) | (Number() | Formula(), Ratio()):
            ratio = g if isinstance(g, Ratio) else a
            if not isinstance(ratio, Ratio) or len(ratio.parts) != 2:
                return False
            return again(_quotient(g, again.gold), _quotient(a, again.answer))
        case (Quantity(), _) | (_, Quantity()) | (Equation(), _) | (_, Equation()):
            return None
    return False


def _zero(text: str) -> bool:
    value = number(clean(text))
    return value is not None and value.value == 0


def _quotient(form: Form, text: str) -> str:
    return f"\\frac{{{form.parts[0]}}}{{{form.parts[1]}}}" if isinstance(form, Ratio) else text


def _quantities(g: Form, a: Form, again: _Again) -> bool | None:
    match g, a:
        case Quantity(), Quantity():
            if (g.unit.kind == "percent") != (a.unit.kind == "percent"):
                return False
            factors = comparable(g.unit, a.unit)
            if factors is None:
                return False
            if factors[0] == factors[1]:
                return again(g.core, a.core)
            return again(_scaled(g.core, factors[0]), _scaled(a.core, factors[1]))
        case Quantity(), _:
            return _percent(g, a, again.answer, again) if g.unit.kind == "percent" else again(g.core, again.answer)
        case _, Quantity():
            if isinstance(g, Words | Items | Region | Grid | Based | Clock):
                return False
            return _percent(a, g, again.gold, again) if a.unit.kind == "percent" else again(again.gold, a.core)
    return None


def _percent(percent: Quantity, other: Form, text: str, again: _Again) -> bool:
    """44 % is 0.44, and it is the 44 that answers "how many percent"; but 0.5 % is not 0.5, nor 1 % 1."""
    if not isinstance(other, Number | Formula):
        return False
    value = number(clean(percent.core))
    if value is None or not isinstance(other, Number):
        return again(f"\\frac{{{percent.core}}}{{100}}", text) or again(percent.core, text)
    return near(Number(value.value / 100, value.decimal), other) or (abs(value.value) > 1 and near(value, other))


def _scaled(core: str, factor: Fraction) -> str:
    value = number(clean(core))
    if value is not None:
        scaled = value.value * factor
        return f"\\frac{{{scaled.numerator}}}{{{scaled.denominator}}}"
    return f"\\frac{{{factor.numerator}}}{{{factor.denominator}}}\\cdot({core})"


def _texts(g: Form, a: Form, again: _Again) -> bool | None:
    one, two = (form.text if isinstance(form, Words | Formula) else None for form in (g, a))
    if one is None or two is None:
        return None if isinstance(g, Equation) or isinstance(a, Equation) else False
    one, two = (re.sub(r"[-/]", " ", _squeezed(text)) for text in (one, two))
    if one == two:
        return True
    if len(one) == 1 and re.match(rf"\(?{re.escape(one.lower())}\)?[\s:.)]", two):  # (E) followed by the option's text
        return isinstance(a, Words)
    if max(len(one), len(two)) <= 4 and " " not in one + two and isinstance(g, Words) != isinstance(a, Words):
        return None  # three letters may be a product of variables
    return False


def _squeezed(text: str) -> str:
    return " ".join(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).split())


def _grids(g: Form, a: Form, again: _Again) -> bool | None:
    one, two = _rows(g), _rows(a)
    if one is None or two is None:
        return None if isinstance(g, Formula | Equation) or isinstance(a, Formula | Equation) else False
    if isinstance(g, Items) != isinstance(a, Items) and 1 in (len(one), len(one[0])):
        one, two = (
            [[x for row in one for x in row]],
            [[x for row in two for x in row]],
        )  # a vector written as a tuple is neither a row nor a column
    if [len(row) for row in one] != [len(row) for row in two]:
        return False
    return all(again(x, y) for left, right in zip(one, two, strict=True) for x, y in zip(left, right, strict=True))


def _rows(form: Form) -> list[list[str]] | None:
    if isinstance(form, Grid):
        return [list(row) for row in form.rows]
    if isinstance(form, Items) and form.bracket in ("[", "(", "\\langle"):
        rows = [read(part) for part in form.parts]
        if all(isinstance(row, Items) for row in rows):
            return [list(row.parts) for row in rows if isinstance(row, Items)]
        return [list(form.parts)]
    return None


def _regions(g: Form, a: Form, again: _Again) -> bool | None:
    one, two = _as_region(g), _as_region(a)
    if one is None or two is None:
        return None if isinstance(g, Formula) or isinstance(a, Formula) else False
    if len(one) != len(two):
        return None
    return _matched(one, two, lambda x, y: _same_piece(x, y, again))


def _as_region(form: Form) -> tuple[Piece, ...] | None:
    if isinstance(form, Region):
        return form.pieces
    if isinstance(form, Items) and form.bracket in ("(", "[") and len(form.parts) == 2:
        return (interval(form.bracket, ")" if form.bracket == "(" else "]", *form.parts),)
    return None


def _same_piece(one: Piece, two: Piece, again: _Again) -> bool:
    if (one.low_open, one.high_open) != (two.low_open, two.high_open):
        return False
    return again(one.low, two.low) and again(one.high, two.high)


def _lists(g: Form, a: Form, again: _Again) -> bool | None:
    if not isinstance(g, Items) or not isinstance(a, Items):
        one = g if isinstance(g, Items) else a
        if isinstance(one, Items) and one.bracket == "\\{" and len(one.parts) == 1:
            return again(one.parts[0], again.answer) if one is g else again(again.gold, one.parts[0])
        return None if isinstance(g, Formula) or isinstance(a, Formula) else False
    ordered = ("(", "[", "\\langle")
    if g.bracket in ordered and a.bracket in ordered:
        if {g.bracket, a.bracket} == {"(", "["} and len(g.parts) == 2:
            return False
        return _in_order(g.parts, a.parts, again)
    if "\\{" in (g.bracket, a.bracket):
        if g.bracket in ordered or a.bracket in ordered:
            return False
        return _matched(tuple(dict.fromkeys(g.parts)), tuple(dict.fromkeys(a.parts)), again)
    if "[" in (g.bracket, a.bracket) and len(g.parts) == 2:
        return False
    if g.bracket in ordered or a.bracket in ordered:
        return _in_order(_by_name(g.parts), _by_name(a.parts), again)
    return _matched(g.parts, a.parts, again)


def _by_name(parts: tuple[str, ...]) -> tuple[str, ...]:
    """``y=4, x=3`` in the order of its names."""
    named = [read(part) for part in parts]
    if all(isinstance(form, Equation) and re.fullmatch(r"[a-z]", form.left) for form in named):
        return tuple(sorted(parts))
    return parts


def _in_order(one: tuple[str, ...], two: tuple[str, ...], again: _Again) -> bool:
    return len(one) == len(two) and all(again(x, y) for x, y in zip(one, two, strict=True))


def _matched(one: tuple[Any, ...], two: tuple[Any, ...], same: Callable[[Any, Any], bool]) -> bool:
    """Whether each of `one` has its own partner in `two`. Equality is transitive, so the first partner will do."""
    if len(one) != len(two) or len(one) > _MOST_PARTS:
        return False
    left = list(two)
    for item in one:
        partner = next((place for place, other in enumerate(left) if same(item, other)), None)
        if partner is None:
            return False
        left.pop(partner)
    return True


Rule = Callable[[Any, Any, _Again], bool | None]

# In this order; a rule is asked where either side has one of its forms.
_RULES: tuple[tuple[type | tuple[type, ...], Rule], ...] = (
    (Number, _numbers),
    (Equation, _equations),
    (Quantity, _quantities),
    (Words, _texts),
    (Based, _bases),
    (Clock, _clocks),
    (Ratio, _ratios),
    (Grid, _grids),
    (Region, _regions),
    (Items, _lists),
)
