r"""Values of expressions, and equality of two expressions by their values.

Rational arithmetic is exact; the rest is mpmath's, in a precision that grows until a difference is either seen or as
small as the precision is fine. Expressions with variables are compared at points (Schwartz, Zippel: two different
polynomials agree at few points). Every step counts: what would take long raises `TooLarge` before it starts, so a
comparison is bounded by work, the same on every machine, and needs no clock.

Conventions: variables are real and positive, unless an absolute value or an even power under a root says that their
sign matters. Variables under a factorial, in a binomial or in ``(-1)^n`` are whole numbers. Functions that only the
problem knows (``f(x)``) and commands without a meaning here have a value that is a digest of their name and arguments.

Not covered: limits, integrals and infinite sums are compared by their parts, not by their value.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from mpmath import mp

from synth.verify.answers.values import (
    Expression,
    Interval,
    Items,
    Logic,
    Number,
    Operation,
    Relation,
    Symbol,
    Value,
    word_list,
)

Env = dict[str, Fraction]

REALS = Symbol("\\mathbb{R}")

MAX_BITS = 1 << 19  # of an exact number
MAX_LOG2 = 1 << 62  # of the size of an approximate one
MAX_WORK = 500_000  # bits of exact results and digits of approximate ones, summed over a comparison
MAX_TERMS = 2000  # of a finite sum
MAX_NODES = 800
DIGITS = 40
MAX_DIGITS = 3000


class TooLarge(Exception):
    """The value cannot be computed within the bounds."""


class Undefined(Exception):
    """No value there: a division by zero, a logarithm of zero."""


class NotARegion(Exception):
    """The value is no set of reals."""


class _Work:
    remaining = MAX_WORK


def start_work() -> None:
    """Begin a comparison: all of its work has one bound."""
    _Work.remaining = MAX_WORK


def _spend(amount: int) -> None:
    _Work.remaining -= amount
    if _Work.remaining < 0:
        raise TooLarge


# --- evaluation --------------------------------------------------------------------------------------------------


def evaluate(node: Value, env: Env) -> Any:
    """A Fraction where the value is rational and computed exactly, else a number of mpmath in its present precision."""
    match node:
        case Number(value=value):
            _size(value)
            return value
        case Symbol(name=name):
            return _symbol(name, env)
        case Operation(name=name, args=args):
            _spend(40)  # about what an operation costs beside its digits
            if name in ("sum", "prod"):
                return _series(name, args, env)
            if name == "cases":
                return _cases(args, env)
            return _apply(name, [evaluate(arg, env) for arg in args])
        case Items(bracket=bracket, parts=parts):
            return _digest(f"items {bracket}", [evaluate(part, env) for part in parts])
        case Relation(sides=sides, marks=marks):
            return _digest(" ".join(marks), [evaluate(side, env) for side in sides])
        case Interval(low=low, high=high, low_open=low_open, high_open=high_open):
            return _digest(f"interval {low_open} {high_open}", [evaluate(low, env), evaluate(high, env)])
    return _digest(str(node), [])


def _size(value: Fraction) -> Fraction:
    bits = value.numerator.bit_length() + value.denominator.bit_length()
    if bits > MAX_BITS:
        raise TooLarge
    _spend(bits // 8 + 40)
    return value


def _symbol(name: str, env: Env) -> Any:
    if name in env:
        return env[name]
    if name in ("\\pi", "e", "i", "\\infty"):
        _spend(20)
        return {"\\pi": mp.pi, "e": mp.e, "i": mp.j, "\\infty": mp.inf}[name] * 1
    return _digest(name, [])


def _digest(name: str, values: list[Any]) -> Fraction:
    """A number of its own for a name with arguments: equal for equal arguments, whatever their precision."""
    text = "\0".join([name, *map(_rounded, values)])
    return Fraction(1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big"), 1 << 39)


def _rounded(value: Any) -> str:
    with mp.workdps(30):
        number = mp.mpmathify(approximate(value))
        parts = [number.real, number.imag] if isinstance(number, mp.mpc) else [number, mp.mpf(0)]
        size = max(abs(part) for part in parts)
        return " ".join("0" if abs(part) <= size * mp.mpf("1e-15") else mp.nstr(part, 12) for part in parts)


def approximate(value: Any) -> Any:
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _checked(value: Any) -> Any:
    """An approximate value that is one, and no larger than allowed."""
    _spend(mp.dps)
    if mp.isnan(value):
        raise Undefined
    part = max(abs(value.real), abs(value.imag)) if isinstance(value, mp.mpc) else abs(value)
    if part and not mp.isinf(part) and abs(mp.mag(part)) > MAX_LOG2:
        raise TooLarge
    return value.real if isinstance(value, mp.mpc) and value.imag == 0 else value


def _apply(name: str, values: list[Any]) -> Any:
    exact = all(isinstance(value, Fraction) for value in values)
    if (rational := _RATIONAL.get(name)) is not None and exact:
        result = rational(*values)
        if result is not None:
            return _size(result) if isinstance(result, Fraction) else result
    if (function := _FUNCTIONS.get(name)) is None:
        return _digest(name, sorted(values, key=_rounded) if name in _COMMUTATIVE else values)
    try:
        return _checked(mp.mpmathify(function(*map(approximate, values))))
    except (ZeroDivisionError, ValueError, TypeError):
        raise Undefined from None
    except OverflowError:
        raise TooLarge from None


def _add(*values: Fraction) -> Fraction:
    total = Fraction(0)
    for value in values:
        total = _size(total + value)
    return total


def _multiply(*values: Fraction) -> Fraction:
    product = Fraction(1)
    for value in values:
        product = _size(product * value)
    return product


def _divide(one: Fraction, two: Fraction) -> Fraction:
    if two == 0:
        raise Undefined
    return one / two


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        if (
            base >= 0
            and exponent.denominator < 64
            and (root := _root(Fraction(exponent.denominator), base)) is not None
        ):
            return _power(root, Fraction(exponent.numerator))
        return None
    if base == 0:
        if exponent < 0:
            raise Undefined
        return Fraction(int(exponent == 0))
    bits = (base.numerator.bit_length() + base.denominator.bit_length() - 1) * abs(exponent.numerator)
    if abs(base) == 1:
        return Fraction(1 if base == 1 or exponent.numerator % 2 == 0 else -1)
    return None if bits > MAX_BITS else base**exponent.numerator


def _root(index: Fraction, value: Fraction) -> Fraction | None:
    """An exact root where there is one. The odd root of a negative number is negative."""
    if index.denominator != 1 or not 2 <= index < 64:
        return None
    if value < 0:
        if index.numerator % 2 == 0:
            return None
        root = _root(index, -value)
        return None if root is None else -root
    if value.numerator.bit_length() + value.denominator.bit_length() > 20_000:
        return None
    parts = [_integer_root(index.numerator, part) for part in (value.numerator, value.denominator)]
    return None if parts[0] is None or parts[1] is None else Fraction(parts[0], parts[1])


def _integer_root(index: int, value: int) -> int | None:
    if value < 2:
        return value
    if index == 2:
        root = math.isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // index)
        while (step := ((index - 1) * root + value // root ** (index - 1)) // index) < root:  # Newton, from above
            root = step
    return root if root**index == value else None


def _factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or value < 0:
        return None
    if value > 20_000:
        raise TooLarge
    return Fraction(math.factorial(value.numerator))


def _double_factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or not -1 <= value <= 5000:
        return None
    return Fraction(math.prod(range(value.numerator, 0, -2)))


def _binomial(over: Fraction, under: Fraction) -> Fraction | None:
    if over.denominator != 1 or under.denominator != 1 or over < 0:
        return None
    if over > 20_000:
        raise TooLarge
    return Fraction(math.comb(over.numerator, under.numerator)) if under >= 0 else Fraction(0)


def _modulo(one: Fraction, two: Fraction) -> Fraction:
    if two == 0:
        raise Undefined
    return one % two


def _whole(function: Callable[..., int]) -> Callable[..., Fraction | None]:
    def of(*values: Fraction) -> Fraction | None:
        whole = all(value.denominator == 1 for value in values)
        return Fraction(function(*(value.numerator for value in values))) if whole else None

    return of


_RATIONAL: dict[str, Callable[..., Fraction | None]] = {
    "+": _add, "*": _multiply, "/": _divide, "neg": lambda x: -x, "^": _power, "root": _root, "abs": abs,
    "!": _factorial, "!!": _double_factorial, "binom": _binomial, "floor": lambda x: Fraction(math.floor(x)),
    "ceil": lambda x: Fraction(math.ceil(x)), "mod": _modulo, "gcd": _whole(math.gcd), "lcm": _whole(math.lcm),
    "min": lambda *values: min(values), "max": lambda *values: max(values),
    "sgn": lambda x: Fraction((x > 0) - (x < 0)),
}  # fmt: skip


def _mp_power(base: Any, exponent: Any) -> Any:
    if base == 0 or mp.isinf(base):
        return base**exponent
    if abs(exponent) * (1 + abs(mp.log(abs(base), 2))) > MAX_LOG2:
        raise TooLarge
    return base**exponent


def _mp_root(index: Any, value: Any) -> Any:
    if isinstance(value, mp.mpf) and value < 0 and index % 2 == 1:
        return -((-value) ** (1 / index))
    return mp.sqrt(value) if index == 2 else value ** (1 / index)


def _sum(*values: Any) -> Any:
    """The sum; zero where the terms cancel to the last digits, so that a root or a quotient of it is not noise.
    Raises Undefined where a term is too small to be seen beside the others, and is no noise."""
    total = mp.mpc(0)
    for value in values:
        total += value
    sizes = [abs(value) for value in values]
    size = max(sizes, default=0)
    if not mp.isinf(size) and any(0 < small < size * mp.mpf(10) ** (-10 - mp.dps) for small in sizes):
        raise Undefined
    if not mp.isinf(size) and abs(total) < size * mp.mpf(10) ** (4 - mp.dps):
        return mp.mpf(0)
    return total


def _bounded(function: str, most: float) -> Callable[..., Any]:
    """A function of mpmath whose argument must not be large: its reduction or its series would take long."""

    def of(value: Any) -> Any:
        if not mp.isinf(value) and abs(value) > most:
            raise TooLarge
        return getattr(mp, function)(value)

    return of


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": _sum,
    "*": lambda *values: mp.fprod(values),
    "/": operator.truediv,
    "neg": operator.neg,
    "^": _mp_power,
    "root": _mp_root,
    "abs": abs,
    "norm": abs,
    "!": lambda value: _bounded("gamma", 1e5)(value + 1),
    "!!": _bounded("fac2", 1e4),
    "binom": lambda over, under: mp.binomial(over, under) if abs(over) + abs(under) < 1e5 else _too_large(),
    "floor": lambda value: mp.floor(value),
    "ceil": lambda value: mp.ceil(value),
    "mod": lambda one, two: one % two if abs(mp.mag(one)) < 1000 else _too_large(),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "sgn": lambda value: mp.sign(value),
    "degrees": lambda value: value * mp.pi / 180,
    "ln": lambda value: mp.log(value),
    "log": lambda base, value: mp.log(value) / mp.log(base),
    "exp": lambda value: _mp_power(mp.e, value),
    "Re": lambda value: mp.re(value),
    "Im": lambda value: mp.im(value),
    "arg": lambda value: mp.arg(value),
    "erf": _bounded("erf", 1e4),
    **{name: _bounded(name, 1e8) for name in word_list("sin cos tan cot sec csc sinh cosh tanh coth")},
    **{f"arc{name}": _bounded(f"a{name}", 1e30) for name in ["sin", "cos", "tan", "cot", "sec", "csc"]},
    **{f"ar{name}": _bounded(f"a{name}", 1e30) for name in ["sinh", "cosh", "tanh"]},
}
_COMMUTATIVE = ("\\cup", "\\cap", "\\land", "\\lor", "\\oplus", "\\dot", "gcd", "lcm", "min", "max")


def has_value(name: str) -> bool:
    """Whether an operation has a value here, and is no digest."""
    return name in _FUNCTIONS or name in _RATIONAL


def _too_large() -> Any:
    raise TooLarge


def _series(name: str, args: tuple[Value, ...], env: Env) -> Any:
    """A finite sum or product by its terms; another by its parts."""
    variable, low, high, body = args
    assert isinstance(variable, Symbol)
    first, last = evaluate(low, env), evaluate(high, env)
    if isinstance(first, Fraction) and isinstance(last, Fraction) and first.denominator == last.denominator == 1:
        if not -1 <= last - first < MAX_TERMS:
            raise TooLarge
        terms = [
            evaluate(body, {**env, variable.name: Fraction(k)}) for k in range(first.numerator, last.numerator + 1)
        ]
        return _apply("+" if name == "sum" else "*", terms)
    inner = [evaluate(body, {**env, variable.name: Fraction(*point)}) for point in ((3, 1), (7, 1), (12, 1))]
    return _digest(name, [first, last, *inner])


def _cases(args: tuple[Value, ...], env: Env) -> Any:
    """Values and conditions in turn, at the end perhaps a value for all other cases. Raises NotARegion where two
    conditions hold with different values."""
    values = [evaluate(value, env) for value, when in zip(args[::2], args[1::2], strict=False) if holds(when, env)]
    if not values:
        if len(args) % 2:
            return evaluate(args[-1], env)
        raise Undefined
    if any(_order(value, values[0]) for value in values[1:]):
        raise NotARegion
    return values[0]


# --- conditions ---------------------------------------------------------------------------------------------------


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
    if not isinstance(one, Expression) or not isinstance(two, Expression):
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
    if isinstance(one, Fraction) and isinstance(two, Fraction):
        return (one > two) - (one < two)
    one, two = approximate(one), approximate(two)
    if isinstance(one, mp.mpc) or isinstance(two, mp.mpc):
        raise Undefined
    if not (mp.isinf(one) or mp.isinf(two)) and abs(one - two) <= max(abs(one), abs(two)) * 1e-15:
        return 0
    return int(one > two) - int(one < two)


# --- equality ----------------------------------------------------------------------------------------------------


def near(one: Fraction, two: Fraction) -> bool:
    """Equal to six decimals and to four significant digits: what decimals are compared by."""
    return round(one, 6) == round(two, 6) and abs(one - two) * 10**4 <= max(abs(one), abs(two))


def same_number(one: Number, two: Number) -> bool:
    return one.value == two.value or ((one.decimal or two.decimal) and near(one.value, two.value))


def symbols(node: Value) -> set[str]:
    """The variables of an expression."""
    match node:
        case Symbol(name=name):
            return set() if name in ("\\pi", "e", "i", "\\infty", "?") else {name}
        case Operation(name="sum" | "prod", args=(Symbol(name=bound), *rest)):
            return set().union(*map(symbols, rest)) - {bound}
        case Operation(args=parts) | Items(parts=parts) | Relation(sides=parts):
            return set().union(*map(symbols, parts))
        case Interval(low=low, high=high):
            return symbols(low) | symbols(high)
    return set()


def _walk(node: Value) -> Iterator[Value]:
    yield node
    children: tuple[Value, ...] = ()
    match node:
        case Operation(args=parts) | Items(parts=parts) | Relation(sides=parts):
            children = parts
        case Interval(low=low, high=high):
            children = (low, high)
    for child in children:
        yield from _walk(child)


def same_expression(gold: Value, answer: Value) -> bool:
    """Whether two expressions are equal wherever both are defined. Raises TooLarge."""
    if gold == answer:
        return True
    if isinstance(gold, Number) and isinstance(answer, Number):
        return same_number(gold, answer)
    nodes = [*_walk(gold), *_walk(answer)]
    if len(nodes) > MAX_NODES:
        raise TooLarge
    names = symbols(gold) | symbols(answer)
    if symbols(gold) != symbols(answer) and not any(isinstance(node, Operation) for node in nodes):
        return False
    decimal = any(isinstance(node, Number) and node.decimal for node in nodes)
    strict = any(_sign_matters(node) for node in nodes)
    imaginary = any(isinstance(node, Symbol) and node.name == "i" for node in nodes)
    agreements = 0
    for number, env in enumerate(points(names, _whole_numbers(nodes), negative=strict, far=strict)):
        try:
            is_same = _same_at(gold, answer, env, decimal, may_be_complex=imaginary or not names, strict=strict)
        except TooLarge:
            if number < _FAR:
                raise
            break
        if is_same is False:
            return False
        agreements += is_same is True
    return agreements >= (3 if names else 1)


def _sign_matters(node: Value) -> bool:
    match node:
        case Operation(name="abs" | "sgn" | "floor" | "ceil" | "min" | "max" | "mod" | "cases"):
            return True
        case Operation(name="root", args=(Number(value=index), Operation(name="^", args=(_, Number(value=power))))):
            return index.denominator == 1 == power.denominator and index % 2 == 0 == power % 2
        case Operation(name="^", args=(Operation(name="^", args=(_, Number(value=inner))), Number(value=outer))):
            return inner.denominator == 1 and inner % 2 == 0 and outer.denominator % 2 == 0
    return False


def _whole_numbers(nodes: list[Value]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        match node:
            case Operation(name="!" | "!!" | "binom" | "mod" | "gcd" | "lcm", args=args):
                names |= set().union(*map(symbols, args))
            case Operation(name="sum" | "prod", args=(_, low, high, _)):
                names |= symbols(low) | symbols(high)
            case Operation(name="^", args=(Operation(name="neg") | Number(value=Fraction(numerator=-1)), exponent)):
                names |= symbols(exponent)
            case Operation(name="^", args=(Number(value=value), exponent)) if value < 0:
                names |= symbols(exponent)
            case Operation(name="^", args=(_, exponent)):
                names |= symbols(exponent) & {"n", "k", "m"}
            case Operation(name="sin" | "cos" | "tan", args=(arg,)) if "\\pi" in str(arg):
                names |= symbols(arg) & {"n", "k", "m"}
    return names


_FAR = 16  # from this number on, points lie far away


def points(names: set[str], whole: set[str], *, negative: bool = False, far: bool = False) -> Iterator[Env]:
    """Where two expressions are compared: the same points on every machine and in every run. `far`: two more, where
    ``max(x, 2024)`` is no 2024."""
    for number in range(1 if not names else _FAR + 2 * far if negative else 13 if whole else 7):
        env: Env = {}
        for name in names:
            seed = hashlib.sha256(f"{number} {name}".encode()).digest()
            value = Fraction(2 + seed[0] % 9) if name in whole else Fraction(64 + seed[0] + seed[1], 211)
            if name in ("n", "N", "m", "M") and name in whole:
                value += 8  # above k, mostly
            if number in (2, 4, 5, 8, 11) and name not in whole:
                value /= 4  # within the domain of arcsin
            if negative and number in (1, 8):
                value = Fraction(1 + seed[3] % 5)  # where floor and ceiling agree
            if negative and number >= _FAR and name in whole:
                value = Fraction(1000 + seed[0])
            elif negative and number > 12:  # |f| and f differ where f is negative, max(f, 2024) and 2024 far away
                value = (value / 3 + 2, 4 * value, 30 * value, 4000 * value, 10**7 * value)[number - 13]
            env[name] = -value if negative and 6 < number < 13 and seed[2] % 2 and name not in whole else value
        yield env


def _same_at(gold: Value, answer: Value, env: Env, decimal: bool, *, may_be_complex: bool, strict: bool) -> bool | None:
    """Equal, different, or None where one is not defined."""
    apart: list[Any] = []
    digits = DIGITS
    for is_last in (False, True):
        with mp.workdps(digits):
            sides = []
            for node in (gold, answer):
                try:
                    sides.append(evaluate(node, env))
                except Undefined:
                    sides.append(None)
            one, two = sides
            if one is None or two is None:
                return None if env or (one is None and two is None and gold == answer) else False
            if isinstance(one, Fraction) and isinstance(two, Fraction):
                if env and one == two == 0:
                    return None  # \binom{n}{k} with k > n: no evidence
                return one == two or (decimal and near(one, two))
            one, two = mp.mpmathify(approximate(one)), mp.mpmathify(approximate(two))
            if mp.isinf(one) or mp.isinf(two):
                return bool(one == two)
            size = max(abs(one), abs(two))
            is_real = [abs(mp.im(side)) <= size * mp.mpf(10) ** (-digits // 2) for side in (one, two)]
            if not all(is_real) and not may_be_complex:
                return False if strict and any(is_real) else None
            apart.append(abs(one - two))
            if decimal:
                rounded = mp.mpf("5e-7") * (1 + mp.mpf("1e-6"))
                return bool(apart[0] <= min(rounded, size / 10**4)) or apart[0] <= size * mp.mpf("1e-9")
            if not is_last and apart[0] > size * mp.mpf("1e-20") and size > mp.mpf("1e-25"):
                return False
            if not is_last:
                digits = 2 * DIGITS + (math.ceil(abs(mp.mag(size)) * 0.302) if size else 0)
                if digits > MAX_DIGITS:
                    raise TooLarge
    # A difference that is there stays; one of rounding shrinks with the precision.
    return bool(apart[1] <= size * mp.mpf(10) ** (DIGITS // 2 - digits) or apart[1] < apart[0] * mp.mpf("1e-12"))
