r"""When two answers are equal, for each pair of types. A pair that is not listed in `_same` is never equal.

Conventions, where graders differ: a unit, label or percent sign on one side only does not count, a missing base does;
``x = 5`` is 5 and ``2x = 10`` is not; a pair is no set, an open end no closed one; a bare list has an order only beside
an ordered one; a clock time without a.m. or p.m. is none with it; a ratio is its quotient; decimals agree with exact
values to six decimals and four significant digits; conditions on parameters on one side only do not count.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeGuard, TypeVar

from synth.verify.answers.evaluate import (
    NotARegion,
    TooLarge,
    Undefined,
    approximate,
    evaluate,
    has_value,
    points,
    same_expression,
    same_number,
    symbols,
)
from synth.verify.answers.regions import INEQUALITIES, is_region, places, same_region, variable
from synth.verify.answers.units import DEGREE, PERCENT
from synth.verify.answers.values import (
    Cases,
    Clock,
    Date,
    Expression,
    Family,
    Interval,
    Items,
    Labelled,
    Logic,
    Matrix,
    Number,
    Operation,
    Quantity,
    Ratio,
    Relation,
    Symbol,
    Text,
    Value,
    renamed,
    word_list,
)

T = TypeVar("T")

MAX_PARTS = 200
MAX_PROGRESSION = 1000

_ORDERED = ("(", "[")
_NOT_COMMUTATIVE = frozenset("ABCDMNPQXYZ")  # single letters that usually name matrices or points
_MIRRORED = {"\\supset": "\\subset", "\\supseteq": "\\subseteq", ">": "<", "\\ge": "\\le", "\\gg": "\\ll"}
_MIRRORED |= {right: left for left, right in _MIRRORED.items()}
_MIRRORED |= {mark: mark for mark in word_list("= \\perp \\parallel \\sim \\cong \\approx \\equiv \\iff \\ne")}
_TEMPERATURES = ("[celsius]^1", "[fahrenheit]^1")
_UNNAMED = Symbol("?")
_ARGUMENTS = frozenset("xyztsuvwnmkij")  # the variable of a function, which may have another name
_DOTS = Symbol("\\ldots")


def same(gold: Value, answer: Value) -> bool:
    """Whether two answers are equal. Raises TooLarge where that takes more work than allowed."""
    if isinstance(gold, Labelled) or isinstance(answer, Labelled):
        return _labelled(gold, answer)
    if isinstance(gold, Family) or isinstance(answer, Family):
        return _family(gold, answer)
    return _same(_spread(gold), _spread(answer))


def _same(g: Value, a: Value) -> bool:
    if g == a:
        return True
    match g, a:
        case (Relation(), _) | (_, Relation()) if not (_is_inequality(g) or _is_inequality(a)):
            return _relations(g, a)
        case (Cases(), _) | (_, Cases()):
            return _cases(g, a)
        case (Matrix(), _) | (_, Matrix()):
            return _matrices(g, a)
        case (Quantity(), _) | (_, Quantity()):
            return _quantities(g, a)
        case (
            (Ratio(), _)
            | (_, Ratio())
            | (Clock(half=None), Number() | Operation())
            | (Number() | Operation(), Clock(half=None))
        ):
            return _ratios(g, a)
    if is_region(g) or is_region(a):
        return _regions(g, a)
    match g, a:
        case (Items(), _) | (_, Items()):
            return _lists(g, a)
        case (Number() | Symbol() | Operation(), Number() | Symbol() | Operation()):
            return _expressions(g, a)
        case (Text(words=letter), Symbol(name=other)) | (Symbol(name=other), Text(words=letter)):
            return letter == other
        case Date(), Date():
            return (g.month, g.day) == (a.month, a.day) and (g.year == a.year or None in (g.year, a.year))
    return False  # Text, Digits, Boolean, Clock, Permutation: equal only to an equal value


# --- labels and conditions ---------------------------------------------------------------------------------------


def _labelled(g: Value, a: Value) -> bool:
    labels = [value.label if isinstance(value, Labelled) else None for value in (g, a)]
    inner = [value.value if isinstance(value, Labelled) else value for value in (g, a)]
    if all(label and len(label) == 1 for label in labels) and str(labels[0]).lower() != str(labels[1]).lower():
        return False  # (A) 12 and (B) 12
    for label, other in ((labels[0], a), (labels[1], g)):
        if (
            label is not None
            and len(label) == 1
            and isinstance(other, Symbol | Text)
            and (other.words if isinstance(other, Text) else other.name) == label
        ):
            return True  # an option by its letter, beside the letter and its text
    return same(inner[0], inner[1])


def _family(g: Value, a: Value) -> bool:
    g, a = _parametric(g), _parametric(a)
    if isinstance(g, Family) and isinstance(a, Family):
        one, two = _parameter(g), _parameter(a)
        if one != two and one and two:
            value, conditions = renamed(renamed((a.value, a.conditions), one, f"{one}'"), two, one)
            a = Family(value, conditions)
        return same(g.value, a.value) and _matched(g.conditions, a.conditions, same)
    return same(*(value.value if isinstance(value, Family) else value for value in (g, a)))


def _parametric(value: Value) -> Value:
    r"""``\{k\pi \mid k \in \mathbb{Z}\}`` as ``k\pi, k \in \mathbb{Z}``."""
    match value:
        case Relation(sides=(Symbol(), Operation() as inner), marks=("\\in",)) if inner.name == "\\builder":
            return _parametric(inner)
        case Operation(name="\\builder", args=(element, Relation(sides=(Symbol(), Symbol()), marks=("\\in",)) as when)):
            return value if isinstance(element, Relation) else Family(element, (when,))
    return value


def _parameter(value: Family) -> str | None:
    r"""The one parameter of ``\frac{\pi}{4} + k\pi, k \in \mathbb{Z}``, which may have another name."""
    match value.conditions:
        case (Relation(sides=(Symbol(name=name), _), marks=("\\in",)),):
            return name
    return None


# --- relations ---------------------------------------------------------------------------------------------------


def _is_inequality(value: Value) -> bool:
    return isinstance(value, Relation) and value.modulus is None and all(mark in INEQUALITIES for mark in value.marks)


def _relations(g: Value, a: Value) -> bool:
    if isinstance(g, Relation) and isinstance(a, Relation):
        if g.modulus is not None or a.modulus is not None:
            return _congruences(g, a)
        if set(g.marks + a.marks) <= {"=", "\\approx"}:
            return _equations(g, a)
        return _chains(g, a)
    relation, other = (g, a) if isinstance(g, Relation) else (a, g)
    assert isinstance(relation, Relation)
    if relation.modulus is not None:
        residue = relation.sides[-1]
        is_residue = len(relation.sides) == 2 and relation.sides[0] == _UNNAMED and isinstance(residue, Number)
        return relation is g and is_residue and same(residue, other)  # 3^{100} \mod 7 is no 3^{100}
    if not set(relation.marks) <= {"=", "\\approx"} or (isinstance(other, Cases) and len(relation.sides) > 2):
        return False
    if relation is g and symbols(relation.sides[0]) and _relates_variables(relation.sides[0]):
        return False  # x + y = 5 may be a line, whose answer is no number
    return any(same(value, other) if relation is g else same(other, value) for value in _stated(relation))


def _relates_variables(side: Value) -> bool:
    match side:
        case Operation(name="+" | "neg" | "\\cup" | "\\cap" | "\\setminus"):
            return True
        case Operation(name="/", args=(Operation(name="*", args=(Symbol(name="d"), *_)), _)):
            return False  # dy/dx
        case Operation(name="*" | "/", args=args):
            return any(isinstance(arg, Symbol) and not arg.name.lstrip("\\")[0].isupper() for arg in args)
    return False


def _stated(relation: Relation) -> list[Value]:
    """The values that ``x = 5`` or ``2 + 3 = 5`` states, of which an answer gives one."""
    sides = list(relation.sides)
    if len(sides) == 2 and _is_name(sides[1]) and not symbols(sides[0]):
        sides.reverse()  # 5 = x
    values = sides[1:] if _is_name(sides[0]) else sides
    constant = [side for side in values if _is_constant(side)]
    if not _is_name(sides[0]) and len(constant) < len(values):
        return []
    rounded = "\\approx" in relation.marks or (isinstance(values[-1], Number) and values[-1].decimal)
    agree = _agree_roughly if rounded else _agree
    if _is_constant(values[-1]) and any(not agree(one, values[-1]) for one in constant):
        return []  # 256 + 36 = 293
    return list(reversed(values)) if rounded else values[-1:]


def _agree_roughly(one: Value, rounded: Value) -> bool:
    """Whether a number may be another one rounded: to 2 %, or to a whole number."""
    try:
        exact, rounded_value = (approximate(evaluate(value, {})) for value in (one, rounded))
    except (TooLarge, Undefined):
        return False
    is_whole = isinstance(rounded, Number) and rounded.value.denominator == 1
    return bool(abs(exact - rounded_value) <= max(abs(rounded_value) / 50, 0.5 if is_whole else 0))


def _agree(one: Value, two: Value) -> bool:
    try:
        return same(one, two)
    except TooLarge:
        return False


def _is_constant(value: Value) -> bool:
    if isinstance(value, Quantity):
        return _is_constant(value.value)
    return isinstance(value, Expression) and value != _UNNAMED and not symbols(value)


def _is_name(value: Value) -> bool:
    """What stands left of ``=`` only to say what the right side is: x, f(x), AB, |AB|, (x, y), m + n, \\max f."""
    match value:
        case Symbol() | Text():
            return value not in (Symbol("\\pi"), Symbol("e"), Symbol("i"), Symbol("\\infty"))
        case Operation(name="+" | "*" | "neg", args=args):  # m + n, AB, a - b; but not 2x
            return all(map(_is_name, args)) and len(set(args)) == len(args)
        case Operation(name="abs" | "norm", args=(inner,)):
            return _is_name(inner)
        case Operation(name="/", args=(over, under)):  # dy/dx, a/b
            return _is_name(over) and _is_name(under)
        case Operation(
            name="sin" | "cos" | "tan" | "cot" | "sec" | "csc", args=(Symbol() | Operation(name="\\angle"),)
        ):
            return bool(symbols(value))
        case Operation(name="max" | "min" | "gcd" | "lcm" | "det" | "Re" | "Im" | "arg" | "sum" | "prod"):
            return bool(symbols(value))
        case Operation(name=name):
            return not has_value(name) and name not in ("cases", "pm", "mp", "degrees")
        case Items(bracket="(" | "[" | "", parts=parts):
            return all(isinstance(part, Symbol) for part in parts)
        case Ratio(parts=parts):  # S_1 : S_2
            return all(map(_is_name, parts))
    return False


def _equations(g: Relation, a: Relation) -> bool:
    names = [_is_name(side.sides[0]) and not _occurs(side.sides[0], side.sides[1:]) for side in (g, a)]
    if len(g.sides) > 2 and _matched(g.sides, a.sides, same):
        return True  # x = y = z in any order
    if any(len(side.sides) > 2 and all(isinstance(each, Symbol) for each in side.sides) for side in (g, a)):
        return False
    match g.sides[0], a.sides[0]:
        case Operation(name=f, args=(Symbol(name=x),)), Operation(name=h, args=(Symbol(name=t),)) if f == h and x != t:
            if not f.startswith("apply ") or not {x, t} <= _ARGUMENTS or x in symbols(a.sides[1]):
                return False  # f(t) = 2x, P(A) and P(B)
            a = renamed(a, t, x)
    if all(names):
        if not _same_name(g.sides[0], a.sides[0]):
            if any(isinstance(side.sides[0], Operation) and side.sides[0].name == "\\angle" for side in (g, a)):
                return False
            return len(g.sides) == 2 == len(a.sides) and (_proportional(g, a, signed=False) or _chains(g, a))
        return any(same(one, two) for one in _stated(g) for two in _stated(a)) or (
            len(g.sides) == 2 == len(a.sides) and _proportional(g, a, signed=False)
        )
    return (len(g.sides) == 2 == len(a.sides) and _proportional(g, a, signed=False)) or _chains(g, a)


def _occurs(name: Value, sides: Sequence[Value]) -> bool:
    return isinstance(name, Symbol) and any(name.name in symbols(side) for side in sides)


def _same_name(one: Value, two: Value) -> bool:
    if _is_function(one) and _is_function(two):
        return one == two  # f(0) is no f(x)
    names = [_name(side) for side in (one, two)]
    function = {"y", "f"} == set(names)
    bases = [name.partition("_")[0] for name in names]
    return function or names[0] == names[1] or (bases[0] == bases[1] and bases[0] in names)  # x_1 and x


def _name(side: Value) -> str:
    r"""A name as text: of ``f(x)`` the f, of ``|AB|`` and ``\overline{AB}`` AB, of ``\angle A`` A."""
    if _is_function(side):
        return side.name.removeprefix("apply ").strip()
    text = str(side).replace("\\operatorname{\\angle}", "").strip()
    points = re.sub(r"\\(?:cdot|bar)|[|(){} ]", "", text)
    return points if len(points) > 1 and points.isalpha() and points.isupper() else text.strip("()")


def _is_function(value: Value) -> TypeGuard[Operation]:
    return isinstance(value, Operation) and value.name.startswith("apply ")


def _congruences(g: Relation, a: Relation) -> bool:
    if g.modulus is None or a.modulus is None:
        return _residue_class(g, a) if a.modulus is None else _residue_class(a, g)
    if not same(g.modulus, a.modulus):
        return False
    if (
        len(g.sides) != 2
        or len(a.sides) != 2
        or (not {_UNNAMED} & {g.sides[0], a.sides[0]} and g.sides[0] != a.sides[0])
    ):
        return False
    match g.sides[1], a.sides[1], g.modulus:
        case Number(value=one), Number(value=two), Number(value=modulus) if modulus:
            return (one - two) % modulus == 0
    return same(g.sides[1], a.sides[1])


def _residue_class(congruence: Relation, equation: Relation) -> bool:
    r"""``x \equiv 3 \pmod 7`` beside ``x = 7k + 3``."""
    match congruence, equation:
        case (
            Relation(sides=(name, Number(value=residue)), modulus=Number(value=modulus)),
            Relation(sides=(other, form), marks=("=",)),
        ) if name == other and modulus and _is_plain(form) and len(symbols(form)) == 1:
            (variable_name,) = symbols(form)
            terms = [evaluate(form, {variable_name: Fraction(k)}) for k in range(4)]
            if not all(isinstance(term, Fraction) for term in terms):
                return False
            steps = {two - one for one, two in itertools.pairwise(terms)}
            return steps <= {modulus, -modulus} and len(steps) == 1 and (terms[0] - residue) % modulus == 0
    return False


def _chains(g: Relation, a: Relation) -> bool:
    """The same marks between equal sides, read from either end. The vertices of similar figures have an order."""
    if set(g.marks) & {"\\cong", "\\sim"}:
        return g.marks == a.marks and a.sides in (g.sides, g.sides[::-1])
    return _sides_equal(g, a) or _sides_equal(g, _mirrored(a))


def _sides_equal(g: Relation, a: Relation) -> bool:
    return g.marks == a.marks and all(same(one, two) for one, two in zip(g.sides, a.sides, strict=True))


def _mirrored(value: Relation) -> Relation:
    marks = tuple(_MIRRORED.get(mark, f"{mark} from the right") for mark in reversed(value.marks))
    return Relation(tuple(reversed(value.sides)), marks, value.modulus)


def _difference(relation: Relation) -> tuple[Operation, str]:
    """``left - right`` and the mark, with ``<`` and ``\\le`` for their mirror images."""
    left, right = relation.sides
    mark = relation.marks[0]
    if mark in (">", "\\ge"):
        left, right, mark = right, left, _MIRRORED[mark]
    return Operation("+", (left, Operation("neg", (right,)))), mark


def _proportional(g: Relation, a: Relation, *, signed: bool) -> bool:
    """Whether ``left - right`` of the two differ by a constant factor (a positive one for inequalities)."""
    (one, mark), (two, other) = _difference(g), _difference(a)
    names = symbols(one) | symbols(two)
    if mark != other or symbols(one) != symbols(two) or not all(_is_plain(side) for side in g.sides + a.sides):
        return False
    factors: list[Any] = []
    for env in points(names, set(), negative=True):
        try:
            over, under = evaluate(one, env), evaluate(two, env)
        except Undefined:
            continue
        if bool(over) != bool(under):
            return False
        if under:
            factors.append(approximate(over) / approximate(under))
    if len(factors) < 3 or (signed and any(factor.imag or factor.real <= 0 for factor in factors)):
        return False
    return all(abs(factor - factors[0]) <= abs(factors[0]) * 1e-12 for factor in factors)


def _is_plain(value: Value) -> bool:
    return isinstance(value, Expression)


# --- sets, lists, matrices ---------------------------------------------------------------------------------------


def _regions(g: Value, a: Value) -> bool:
    g, a = _as_region(g), _as_region(a)
    if not all(is_region(side) or (isinstance(side, Items) and side.bracket == "{") for side in (g, a)):
        return (
            isinstance(g, Operation | Symbol) and isinstance(a, Operation | Symbol) and same_expression(g, a)
        )  # A \cup B of sets without a value
    if any(isinstance(value, Relation) and not symbols(value) for value in (g, a)):
        return isinstance(g, Relation) and isinstance(a, Relation) and _chains(g, a)  # f(1) < f(2)
    if isinstance(g, Relation) and isinstance(a, Relation) and "" in (variable(g), variable(a)):
        if len(g.sides) == 2 == len(a.sides) and g.marks[0] not in ("\\in", "\\notin"):
            return _proportional(g, a, signed=g.marks[0] != "\\ne")
        return _chains(g, a)
    if isinstance(g, Interval) and isinstance(a, Interval):
        open_ends = (g.low_open, g.high_open) == (a.low_open, a.high_open)
        return open_ends and same(g.low, a.low) and same(g.high, a.high)
    if isinstance(g, Logic) and isinstance(a, Logic) and g.word == a.word:
        named = all(isinstance(part, Relation) and isinstance(part.sides[0], Symbol) for part in g.parts + a.parts)
        if named and _matched(g.parts, a.parts, same):
            return True  # x \ge 0 and y \ge 0
    return same_region(g, a) or (isinstance(g, Relation) and isinstance(a, Relation) and _chains(g, a))


def _as_region(value: Value) -> Value:
    """A pair as an interval; ``f(x)`` in an inequality as its variable."""
    match value:
        case Items(bracket="(" | "[" as bracket, parts=(low, high)):
            return Interval(low, high, bracket == "(", bracket == "(")
        case Symbol("\\mathbb{R}^{+}" | "\\mathbb{R}_{+}" | "\\mathbb{R}_{>0}"):
            return Interval(Number(Fraction(0)), Symbol("\\infty"), True, True)
        case Relation(sides=sides) if _is_inequality(value):
            applied = [isinstance(side, Operation) and side.name.startswith("apply ") for side in sides]
            named = (Symbol(str(side)) if is_applied else side for side, is_applied in zip(sides, applied, strict=True))
            return replace(value, sides=tuple(named))
    return value


def _spread(value: Value) -> Value:
    r"""Each ``a \pm b`` as the two values that it stands for; ``n = 2, 3`` as two equations; dots written out."""
    if isinstance(value, Items):
        parts: list[Value] = []
        name: Value | None = None
        for part in value.parts:
            if value.bracket in _ORDERED:
                parts.append(part)
                continue
            if isinstance(part, Relation) and part.marks == ("=",) and _is_name(part.sides[0]):
                name = part.sides[0]
            elif name is not None and _is_plain(part) | isinstance(part, Items):
                part = Relation((name, part), ("=",))
            spread = _spread(part)
            parts += spread.parts if isinstance(spread, Items) and spread.bracket == "" else [spread]
        return Items(value.bracket, _progression(_grouped(tuple(parts))))
    if (
        isinstance(value, Relation)
        and value.marks == ("\\in",)
        and isinstance(value.sides[1], Items)
        and value.sides[0] != _UNNAMED
    ):
        return _spread(value.sides[1])
    if isinstance(value, Relation) and set(value.marks) == {"="} and len(value.sides) > 2:
        *names, last = value.sides
        if len(set(names)) == len(names) and all(isinstance(name, Symbol) for name in names) and _is_constant(last):
            return Items("", tuple(Relation((name, last), ("=",)) for name in names))  # x = y = z = 1
    if isinstance(value, Relation) and value.marks in (("=",), ("\\equiv",)):
        right = _spread(value.sides[1])
        if isinstance(right, Items) and right.bracket == "" and not isinstance(value.sides[0], Items):
            return Items("", tuple(replace(value, sides=(value.sides[0], part)) for part in right.parts))
    if isinstance(value, Expression) and _has_sign_pair(value):
        return Items("", (_signed(value, 1), _signed(value, -1)))
    if isinstance(value, Quantity) and _has_sign_pair(value.value):
        return Items("", tuple(replace(value, value=_signed(value.value, sign)) for sign in (1, -1)))
    return value


def _has_sign_pair(value: Value) -> bool:
    return isinstance(value, Operation) and (
        value.name in ("pm", "mp") or any(_has_sign_pair(arg) for arg in value.args)
    )


def _signed(value: Value, sign: int) -> Any:
    if not isinstance(value, Operation):
        return value
    args = tuple(_signed(arg, sign) for arg in value.args)
    if value.name in ("pm", "mp"):
        if (value.name == "pm") == (sign > 0):
            return args[0]
        return Number(-args[0].value, args[0].decimal) if isinstance(args[0], Number) else Operation("neg", args)
    return Operation(value.name, args)


def _progression(parts: tuple[Value, ...]) -> tuple[Value, ...]:
    r"""``1, 2, \ldots, 10`` written out; ``1, 2, 3, \ldots, n`` with two terms before the dots."""
    if _DOTS not in parts:
        return parts
    at = parts.index(_DOTS)
    first, last = parts[:at], parts[at + 1 :]
    terms = [part.value for part in first if isinstance(part, Number)]
    if len(terms) != at or at < 2 or len(last) > 1:
        return parts
    step = terms[1] - terms[0]
    if not step or any(two - one != step for one, two in itertools.pairwise(terms)):
        return parts
    if last and isinstance(last[0], Number):
        count = (last[0].value - terms[0]) / step
        if count.denominator == 1 and 0 < count < MAX_PROGRESSION:
            return tuple(Number(terms[0] + k * step) for k in range(count.numerator + 1))
    return (*first[:2], _DOTS, *last)


def _lists(g: Value, a: Value) -> bool:
    if isinstance(g, Items) and isinstance(a, Items):
        return _two_lists(g, a)
    items, other = (g, a) if isinstance(g, Items) else (a, g)
    assert isinstance(items, Items)
    if items.bracket == "(" and isinstance(other, Operation) and Symbol("j") in _factors(other):
        return same_expression(_on_axes(items.parts), other)
    if items.bracket in ("{", "") and len(items.parts) == 1:
        return same(items.parts[0], other)
    if (
        items.bracket == ""
        and len(set(items.parts)) > 1
        and all(map(_is_plain, items.parts))
        and all(_agree(items.parts[0], part) for part in items.parts[1:])
    ):
        return same(items.parts[0], other)  # 1/2 or 0.5
    return items.bracket == "" and _letters(items, other)


def _two_lists(g: Items, a: Items) -> bool:
    if max(len(g.parts), len(a.parts)) > MAX_PARTS:
        raise TooLarge
    if g.bracket in _ORDERED and a.bracket in _ORDERED:
        return not (g.bracket != a.bracket and len(g.parts) == 2) and _in_order(g.parts, a.parts)
    if "{" in (g.bracket, a.bracket):
        if g.bracket in _ORDERED or a.bracket in _ORDERED or any(len(_bases(x.parts)) > 1 for x in (g, a)):
            return False
        return _matched(_distinct(_unnamed(g.parts)), _distinct(_unnamed(a.parts)), _same_part)
    if "[" in (g.bracket, a.bracket) and len(g.parts) == 2:
        return False
    if g.bracket in _ORDERED or a.bracket in _ORDERED:
        if any(items.bracket == "" and _is_one_name(items.parts) for items in (g, a)):
            return False  # x = -1, x = 3 is no pair
        return _in_order(*(_by_name(items.parts) if items.bracket == "" else items.parts for items in (g, a)))
    one, two = g.parts, a.parts
    if not all(isinstance(part, Relation) for part in (*one, *two)):
        one, two = _unnamed(one), _unnamed(two)
    has_names = [
        len(_names(parts)) == len(parts) or all(isinstance(part, Quantity) and part.unit.is_label for part in parts)
        for parts in (one, two)
    ]
    if any(has_names) and not all(has_names):
        unnamed = one if has_names[1] else two
        if all(isinstance(part, Expression | Quantity) for part in unnamed):
            return _in_order(one, two)
    has_labels = [any(isinstance(part, Labelled) for part in parts) for parts in (one, two)]
    if (any(has_labels) and not all(has_labels)) or _DOTS in one:
        return _in_order(one, two)
    return _matched(one, two, _same_with_label if all(has_labels) else _same_part)


def _same_part(one: Value, two: Value) -> bool:
    """Equality of elements: {1} is no 1 there."""
    is_set = [isinstance(part, Items) and part.bracket == "{" for part in (one, two)]
    return is_set[0] == is_set[1] and same(one, two)


def _factors(value: Value) -> set[Value]:
    return {value}.union(*map(_factors, value.args)) if isinstance(value, Operation) else {value}


def _on_axes(parts: Sequence[Value]) -> Operation:
    """``(2, 3)`` as ``2i + 3j``."""
    axes = [Symbol(name) for name in "ijk"]
    return Operation("+", tuple(Operation("*", pair) for pair in zip(parts, axes, strict=False)))


def _letters(items: Items, other: Value) -> bool:
    """``B, D`` beside ``BD``: options by their letters."""
    names = [part.name for part in items.parts if isinstance(part, Symbol) and part.name in "ABCDEFGHIJ"]
    factors = other.args if isinstance(other, Operation) and other.name == "*" else ()
    letters = [factor.name for factor in factors if isinstance(factor, Symbol)]
    if isinstance(other, Text):
        letters = list(other.words.upper())
    return len(names) == len(items.parts) and sorted(set(letters)) == sorted(names) and letters == sorted(letters)


def _same_with_label(one: Value, two: Value) -> bool:
    if isinstance(one, Labelled) and isinstance(two, Labelled):
        return one.label.lower() == two.label.lower() and same(one.value, two.value)
    return False


def _names(parts: Sequence[Value]) -> list[Value]:
    """What stands left of the equations with a name among the parts."""
    equations = [part for part in parts if isinstance(part, Relation) and part.marks == ("=",)]
    return [equation.sides[0] for equation in equations if _is_name(equation.sides[0])]


def _bases(parts: Sequence[Value]) -> set[str]:
    """The names without their subscripts."""
    return {str(name).partition("_")[0].strip() for name in _names(parts)}


def _is_one_name(parts: Sequence[Value]) -> bool:
    names = _names(parts)
    return len(names) == len(parts) > 1 and len(set(names)) == 1


def _unnamed(parts: Sequence[Value]) -> tuple[Value, ...]:
    """The values of ``x = 2`` and ``x = 3``, where all have one name (or names that differ by their subscripts)."""
    if len(_bases(parts)) != 1:
        return tuple(parts)
    return tuple(part.sides[1] if isinstance(part, Relation) and part.marks == ("=",) else part for part in parts)


def _by_name(parts: Sequence[Value]) -> tuple[Value, ...]:
    """The values of ``y = 4, x = 3`` in the order of their names."""
    if len(_names(parts)) != len(parts):
        return tuple(parts)
    named = [part.sides for part in parts if isinstance(part, Relation)]
    return tuple(sides[1] for sides in sorted(named, key=lambda sides: (str(sides[0])[0] == "\\", str(sides[0]))))


def _grouped(parts: tuple[Value, ...]) -> tuple[Value, ...]:
    """``x = 1, y = 2; x = 3, y = 4`` as two pairs."""
    names = _names(parts)
    width = len(set(names))
    if not 1 < width < len(parts) == len(names) or names != names[:width] * (len(parts) // width):
        return parts
    groups = [parts[at : at + width] for at in range(0, len(parts), width)]
    return tuple(Items("(", _by_name(group)) for group in groups)


def _distinct(parts: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(parts))


def _in_order(one: Sequence[Value], two: Sequence[Value]) -> bool:
    return len(one) == len(two) and all(same(x, y) for x, y in zip(one, two, strict=True))


def _matched(one: Sequence[T], two: Sequence[T], equal: Callable[[T, T], bool]) -> bool:
    """Whether each of `one` has its own partner in `two`. Equality is transitive, so the first partner will do."""
    if len(one) != len(two):
        return False
    rest = list(two)
    for item in one:
        partner = next((place for place, other in enumerate(rest) if equal(item, other)), None)
        if partner is None:
            return False
        rest.pop(partner)
    return True


def _matrices(g: Value, a: Value) -> bool:
    one, two = _rows(g), _rows(a)
    for rows, other in ((one, a), (two, g)):
        if rows and 1 in (len(rows), len(rows[0])) and isinstance(other, Operation) and Symbol("j") in _factors(other):
            return same_expression(_on_axes([cell for row in rows for cell in row]), other)
    if one is None or two is None:
        return isinstance(g, Operation) and isinstance(a, Operation) and same_expression(g, a)
    if isinstance(g, Items) != isinstance(a, Items) and 1 in (len(one), len(one[0])):
        one, two = [[x for row in one for x in row]], [[x for row in two for x in row]]  # a tuple is either vector
    if [len(row) for row in one] != [len(row) for row in two]:
        return False
    if sum(map(len, one)) > MAX_PARTS:
        raise TooLarge
    return all(same(x, y) for left, right in zip(one, two, strict=True) for x, y in zip(left, right, strict=True))


def _rows(value: Value) -> list[Sequence[Value]] | None:
    match value:
        case Operation(name="neg" | "*", args=(*factors, Matrix(rows=rows))) if all(map(_is_plain, factors)):
            return [[Operation(value.name, (*factors, cell)) for cell in row] for row in rows]
        case Matrix(rows=rows):
            return list(rows)
        case Items(bracket="(" | "[", parts=parts):
            inner = [part.parts for part in parts if isinstance(part, Items) and part.bracket in _ORDERED]
            return list(inner) if len(inner) == len(parts) else [parts]
        case Interval(low=low, high=high):
            return [[low, high]]
    return None


def _cases(g: Value, a: Value) -> bool:
    """Functions by their values where all the conditions can be evaluated, else piece by piece."""
    one, two = _function(g), _function(a)
    if one is None or two is None:
        return isinstance(g, Cases) and isinstance(a, Cases) and _matched(g.rows, a.rows, _same_piece)
    if symbols(one) != symbols(two):
        return False
    rows = [row for value in (g, a) if isinstance(value, Cases) for row in value.rows]
    try:
        return same_expression(one, two) and _same_at_bounds(one, two, [when for _, when in rows if when is not None])
    except NotARegion:
        return False


def _function(value: Value) -> Expression | None:
    """Pieces as one expression; None where a condition is words."""
    if not isinstance(value, Cases):
        return value if isinstance(value, Expression) else None
    for _, when in value.rows:
        if not (when is None or is_region(when) or (isinstance(when, Relation) and set(when.marks) == {"="})):
            return None
    rows = sorted(value.rows, key=lambda row: row[1] is None)
    return Operation("cases", tuple(part for row in rows for part in row if part is not None))


def _same_piece(one: tuple[Value, Value | None], two: tuple[Value, Value | None]) -> bool:
    return same(one[0], two[0]) and (one[1] is None or two[1] is None or _agree(one[1], two[1]))


def _same_at_bounds(g: Value, a: Value, conditions: Sequence[Value]) -> bool:
    """Whether two functions of one variable agree where their pieces meet, and between and beyond these places."""
    names = symbols(g) | symbols(a)
    if len(names) != 1:
        return True
    (name,) = names
    for at in places(conditions):
        values = []
        for side in (g, a):
            try:
                values.append(approximate(evaluate(side, {name: at})))
            except Undefined:
                values.append(None)
        if (values[0] is None) != (values[1] is None):
            return False
        if values[0] is not None and abs(values[0] - values[1]) > abs(values[0]) * 1e-12:
            return False
    return True


# --- quantities, ratios, expressions -----------------------------------------------------------------------------


def _quantities(g: Value, a: Value) -> bool:
    match g, a:
        case Quantity(), Quantity():
            dimensions = {g.unit.dimension, a.unit.dimension}
            if len(dimensions) == 1:
                return (
                    _expressions(_scaled(g), _scaled(a)) if g.unit.factor != a.unit.factor else same(g.value, a.value)
                )
            neutral = "" in dimensions or (
                dimensions <= {DEGREE.dimension, *_TEMPERATURES} and DEGREE.dimension in dimensions
            )
            return neutral and PERCENT not in (g.unit, a.unit) and same(g.value, a.value)
        case (Quantity() as quantity, other) | (other, Quantity() as quantity):
            if quantity.unit == PERCENT:
                return _percent(quantity, other)
            if not isinstance(other, Expression):
                return False
            return same(quantity.value, other) if quantity is g else same(other, quantity.value)
    return False


def _scaled(quantity: Quantity) -> Value:
    match quantity.value:
        case Number(value=value, decimal=decimal):
            return Number(value * quantity.unit.factor, decimal)
    return Operation("*", (Number(quantity.unit.factor), quantity.value))


def _percent(percent: Quantity, other: Value) -> bool:
    """44 % is 0.44, and it is the 44 that answers "how many percent"; but 0.5 % is not 0.5, nor 1 % 1."""
    match percent.value, other:
        case Number(value=value, decimal=decimal), Number():
            return same_number(Number(value / 100, decimal), other) or (abs(value) > 1 and same(percent.value, other))
        case _, Number() | Symbol() | Operation():
            share = Operation("/", (percent.value, Number(Fraction(100))))
            return same_expression(share, other) or (
                _is_constant(percent.value)
                and abs(approximate(evaluate(percent.value, {}))) > 1
                and same_expression(percent.value, other)
            )
    return False


def _ratios(g: Value, a: Value) -> bool:
    g, a = (_clock_ratio(value) for value in (g, a))
    if isinstance(g, Ratio) and isinstance(a, Ratio):
        if len(g.parts) != len(a.parts) or _DOTS in g.parts or _DOTS in a.parts:
            return len(g.parts) == len(a.parts) and all(same(x, y) for x, y in zip(g.parts, a.parts, strict=True))
        first = [_scalar(value.parts[0]) for value in (g, a)]
        return all(
            same(Operation("*", (first[1], _scalar(x))), Operation("*", (first[0], _scalar(y))))
            for x, y in zip(g.parts[1:], a.parts[1:], strict=True)
        ) and not any(part == Number(Fraction(0)) for part in (*g.parts, *a.parts))
    ratio, other = (g, a) if isinstance(g, Ratio) else (a, g)
    assert isinstance(ratio, Ratio)
    if len(ratio.parts) != 2 or not isinstance(other, Expression):
        return False
    quotient = Operation("/", (_scalar(ratio.parts[0]), _scalar(ratio.parts[1])))
    return same_expression(quotient, other)


def _scalar(value: Value) -> Any:
    return value if isinstance(value, Expression) else Symbol(str(value))


def _clock_ratio(value: Value) -> Value:
    """``4:30`` may be a ratio."""
    if isinstance(value, Clock) and value.half is None:
        return Ratio((Number(Fraction(value.minutes // 60)), Number(Fraction(value.minutes % 60))))
    return value


def _expressions(g: Value, a: Value) -> bool:
    if isinstance(g, Operation) and isinstance(a, Operation) and g.name == a.name == "*":
        letters = {letter for factor in (*g.args, *a.args) for letter in str(factor)[:2] if letter.isalpha()}
        if letters and letters <= _NOT_COMMUTATIVE and set(g.args) == set(a.args):
            return g.args == a.args
    if _has_inverse(g) != _has_inverse(a):
        return False  # A^{-1}B is no B/A
    return same_expression(g, a)


def _has_inverse(value: Value) -> bool:
    """Whether a value is a product of matrices with an inverse among them."""
    match value:
        case Operation(name="*", args=args):
            bases = [arg.args[0] if isinstance(arg, Operation) and arg.name == "^" else arg for arg in args]
            names = {str(base) for base in bases}
            return names <= _NOT_COMMUTATIVE and any(str(arg).endswith("^{-1}") for arg in args)
    return False
