"""The kinds of thing that an answer can be: a number, a list, an interval, words, ... or just a formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synth.verify.numbers import Number
from synth.verify.units import Unit

__all__ = [
    "Based",
    "Clock",
    "Equation",
    "Form",
    "Formula",
    "Grid",
    "Items",
    "Piece",
    "Quantity",
    "Ratio",
    "Region",
    "Words",
]


@dataclass(frozen=True)
class Formula:
    """Anything else: left to math-verify."""

    text: str


@dataclass(frozen=True)
class Quantity:
    """A text with a unit, a currency or a percent sign."""

    core: str
    unit: Unit


@dataclass(frozen=True)
class Based:
    """Digits with the base as a subscript."""

    digits: str
    base: int


@dataclass(frozen=True)
class Clock:
    """A time of day: minutes after midnight where it says a.m. or p.m. or uses 24 hours, else after twelve."""

    minutes: int
    half: Literal["am", "pm"] | None


@dataclass(frozen=True)
class Ratio:
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Items:
    """Several answers. `bracket`: ``(``, ``[``, ``\\langle`` (ordered), ``\\{`` (a set) or "" for a bare list."""

    bracket: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """One interval, or (where `low` is `high` and both ends are closed) one point."""

    low: str
    high: str
    low_open: bool
    high_open: bool


@dataclass(frozen=True)
class Region:
    """A union of intervals, whether written so or as inequalities in one variable."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Grid:
    """A matrix."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Words:
    """Text: lower case but for single letters, punctuation and styles gone."""

    text: str


@dataclass(frozen=True)
class Equation:
    """``left = right``; of a chain the first and the last part. `names`: left is a name, such as x or f(x)."""

    left: str
    right: str
    names: bool


Form = Number | Formula | Quantity | Based | Clock | Ratio | Items | Region | Grid | Words | Equation
