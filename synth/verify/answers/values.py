r"""The types of an answer. What is read prints back (``str``) to LaTeX that reads as an equal value.

An expression is a tree of `Number`, `Symbol` and `Operation`; the other types hold values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal


def word_list(text: str) -> list[str]:
    """The words of a table."""
    return text.split()


class Unreadable(Exception):
    """The text is no answer of any type."""


# --- expressions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    """`decimal`: written with a decimal point, so the last digit may be a rounded one."""

    value: Fraction
    decimal: bool = False

    def __str__(self) -> str:
        over, under = self.value.numerator, self.value.denominator
        rest, twos, fives = under, 0, 0
        while self.decimal and rest % 2 == 0:
            rest, twos = rest // 2, twos + 1
        while self.decimal and rest % 5 == 0:
            rest, fives = rest // 5, fives + 1
        if self.decimal and rest == 1:
            places = max(twos, fives, 1)
            digits = f"{abs(over) * 10**places // under:0{places + 1}d}"
            return f"{'-' if over < 0 else ''}{digits[:-places]}.{digits[-places:]}"
        return str(over) if under == 1 else f"{'-' if over < 0 else ''}\\frac{{{abs(over)}}}{{{under}}}"


@dataclass(frozen=True, slots=True)
class Symbol:
    r"""A variable or a constant, subscripts, primes and accents included: ``x``, ``a_{n-1}``, ``\vec{v}``, ``\pi``."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} " if self.name.startswith("\\") and self.name[-1].isalpha() else self.name


@dataclass(frozen=True, slots=True)
class Operation:
    r"""`name`: ``+ * / ^ neg pm root abs ! ...``, a function (``sin``), ``apply f`` for a function of the problem, or
    a LaTeX command without a meaning here (``\cup``), which is compared by its arguments."""

    name: str
    args: tuple[Value, ...]

    def __str__(self) -> str:
        args = [str(arg) for arg in self.args]
        if self.name == "+":
            return f"({' + '.join(args)})"
        if self.name == "*":
            return "(" + " \\cdot ".join(args) + ")" if len(args) > 1 else args[0]
        if (form := _FORMS.get(self.name)) is not None:
            return form.format(*args)
        if self.name in ("\\int", "\\iint", "\\oint", "\\sum", "\\prod"):
            bounds = zip("_^", args[:2], strict=True)
            return f"({self.name}{''.join(f'{mark}{{{bound}}}' for mark, bound in bounds if bound != '?')} {args[2]})"
        if self.name.startswith("\\lim"):
            return f"(\\lim_{{{self.name[5:]}}} {args[0]})"
        if self.name.startswith("apply "):
            return f"{self.name[6:]}({', '.join(args)})"
        if self.name.startswith("\\") and len(args) == 2:
            return f"({args[0]} {self.name} {args[1]})"
        return f"\\operatorname{{{self.name}}}({', '.join(args)})"


_FORMS = {
    "/": r"\frac{{{0}}}{{{1}}}", "^": "({0})^{{{1}}}", "neg": "(-{0})", "pm": r"(\pm {0})", "abs": "|{0}|",
    "root": r"\sqrt[{0}]{{{1}}}", "norm": r"\|{0}\|", "!": "({0})!", "!!": "({0})!!", "degrees": r"({0})^\circ ",
    "binom": r"\binom{{{0}}}{{{1}}}", "floor": r"\lfloor {0}\rfloor ", "ceil": r"\lceil {0}\rceil ",
    "log": r"\log_{{{0}}}({1})", "mod": r"({0} \bmod {1})", "sum": r"(\sum_{{{0} = {1}}}^{{{2}}} {3})",
    "prod": r"(\prod_{{{0} = {1}}}^{{{2}}} {3})", "\\times": r"\vec{{{0}}} \times \vec{{{1}}}",
    "\\vec": r"\vec{{{0}}}", "\\builder": r"\{{{0} \mid {1}\}}",
}  # fmt: skip

Expression = Number | Symbol | Operation


# --- other types -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """`dimension`: what units can be converted into each other share; `factor`: the size in the dimension's base unit.

    ``label``: the dimension is a thing that is counted ("apple"), or "" for words that say nothing ("units").
    """

    dimension: str
    factor: Fraction = Fraction(1)
    words: str = ""
    is_label: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Value
    unit: Unit

    def __str__(self) -> str:
        return f"{self.value}\\text{{ {self.unit.words}}}"


@dataclass(frozen=True, slots=True)
class Digits:
    """Digits with their base as a subscript."""

    digits: str
    base: int

    def __str__(self) -> str:
        return f"{self.digits}_{{{self.base}}}"


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day in minutes after midnight; `half` is None where neither a.m. nor p.m. is said or implied."""

    minutes: int
    half: Literal["am", "pm"] | None

    def __str__(self) -> str:
        hours = self.minutes // 60 % 12 or 12 if self.half else self.minutes // 60
        return f"{hours}:{self.minutes % 60:02d}" + (f" {self.half}" if self.half else "")


_MONTHS = word_list("January February March April May June July August September October November December")


@dataclass(frozen=True, slots=True)
class Date:
    month: int
    day: int
    year: int | None

    def __str__(self) -> str:
        month = _MONTHS[self.month - 1]
        return f"{month} {self.day}" + (f", {self.year}" if self.year is not None else "")


@dataclass(frozen=True, slots=True)
class Ratio:
    parts: tuple[Value, ...]

    def __str__(self) -> str:
        return ":".join(str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Items:
    r"""Several values. `bracket`: ``(`` and ``[`` (ordered), ``{`` (a set) or "" for a bare list, without an order."""

    bracket: str
    parts: tuple[Value, ...]

    def __str__(self) -> str:
        inside = ", ".join(str(part) for part in self.parts)
        return {"(": f"({inside})", "[": f"[{inside}]", "{": f"\\{{{inside}\\}}"}.get(self.bracket, inside)


@dataclass(frozen=True, slots=True)
class Interval:
    low: Value
    high: Value
    low_open: bool
    high_open: bool

    def __str__(self) -> str:
        return f"{'(' if self.low_open else '['}{self.low}, {self.high}{')' if self.high_open else ']'}"


@dataclass(frozen=True, slots=True)
class Relation:
    r"""A chain such as ``0 < x \le 1`` or ``a = b``: one mark between each two sides. A side that is not written
    (``\ge 7``) is the symbol ``?``. `modulus` of a congruence."""

    sides: tuple[Value, ...]
    marks: tuple[str, ...]
    modulus: Value | None = None

    def __str__(self) -> str:
        chain = "".join(f"{side} {mark} " for side, mark in zip(self.sides, (*self.marks, ""), strict=True)).strip()
        return chain.replace("? ", "") + (f" \\pmod{{{self.modulus}}}" if self.modulus is not None else "")


@dataclass(frozen=True, slots=True)
class Logic:
    """Inequalities joined by ``and`` or ``or``."""

    word: Literal["and", "or"]
    parts: tuple[Value, ...]

    def __str__(self) -> str:
        return f" \\text{{ {self.word} }} ".join(str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Cases:
    """A piecewise function: (value, condition) of each piece; None is "otherwise"."""

    rows: tuple[tuple[Value, Value | None], ...]

    def __str__(self) -> str:
        rows = [f"{value} & {'otherwise' if when is None else when}" for value, when in self.rows]
        return "\\begin{cases} " + " \\\\ ".join(rows) + " \\end{cases}"


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Value, ...], ...]

    def __str__(self) -> str:
        rows = " \\\\ ".join(" & ".join(str(cell) for cell in row) for row in self.rows)
        return f"\\begin{{pmatrix}} {rows} \\end{{pmatrix}}"


@dataclass(frozen=True, slots=True)
class Permutation:
    """Its cycles, each from its least element, without those of one element; in order."""

    cycles: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return "".join("(" + " ".join(map(str, cycle)) + ")" for cycle in self.cycles)


@dataclass(frozen=True, slots=True)
class Boolean:
    value: bool

    def __str__(self) -> str:
        return "\\text{Yes}" if self.value else "\\text{No}"


@dataclass(frozen=True, slots=True)
class Text:
    """Words, in lower case but for single letters, without articles at the front and punctuation."""

    words: str

    def __str__(self) -> str:
        return f"\\text{{{self.words}}}"


@dataclass(frozen=True, slots=True)
class Labelled:
    """``Alice: 5``, ``(a) 5``."""

    label: str
    value: Value

    def __str__(self) -> str:
        return f"({self.label}) {self.value}" if len(self.label) == 1 else f"\\text{{{self.label}: }}{self.value}"


@dataclass(frozen=True, slots=True)
class Family:
    r"""``n = 3k, k \in \mathbb{Z}``: a value and the conditions on its parameters."""

    value: Value
    conditions: tuple[Value, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, (self.value, *self.conditions)))


@dataclass(frozen=True, slots=True)
class Opaque:
    """A formula that is well formed and of none of the types: equal to what is letter for letter the same."""

    text: str

    def __str__(self) -> str:
        return self.text


Value = (
    Number | Symbol | Operation | Quantity | Digits | Clock | Date | Ratio | Items | Interval | Relation | Logic | Cases
    | Matrix | Permutation | Boolean | Text | Labelled | Family | Opaque
)  # fmt: skip


def renamed(value: Any, old: str, new: str) -> Any:
    """A value, or a tuple of values, with another name for a variable that has no subscript."""
    match value:
        case Symbol(name=name):
            return Symbol(new) if name == old else value
        case tuple():
            return tuple(renamed(part, old, new) for part in value)
        case Operation() | Items() | Interval() | Relation() | Logic() | Cases() | Matrix() | Family() | Labelled():
            parts = {field.name: renamed(getattr(value, field.name), old, new) for field in fields(value)}
            return replace(value, **parts)
    return value
