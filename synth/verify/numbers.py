r"""Numbers, read exactly and without sympy.

`decide` is the cheap path in front of math-verify: integers, decimals and fractions of integers, written plainly. It
answers only where math-verify would answer the same (`tests/synth/test_synth_verify_exact.py` lets hypothesis look for
a pair on which the two differ). `number` reads more forms, for the rules behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Number", "decide", "near", "number"]

_DIGITS = 40  # more digits than any sensible answer, few enough that no arithmetic here takes time
_PLAIN = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>\d{{1,3}}(?:,(?:\\!)?\d{{3}}){{1,12}}|"
    rf"\d{{1,{_DIGITS}}})?(?P<part>\.\d{{1,{_DIGITS}}})?|"
    rf"(?:\\[dt]?frac\{{(?P<a>-?\d{{1,{_DIGITS}}})\}}\{{(?P<b>-?\d{{1,{_DIGITS}}})\}}|"
    rf"(?P<c>\d{{1,{_DIGITS}}})/(?P<d>\d{{1,{_DIGITS}}})))"
)
_APART = Fraction(1, 10**4)  # math-verify rounds to six decimals where a decimal is involved; this is far outside


@dataclass(frozen=True)
class Number:
    """A value, and whether it was written with a decimal point (then the last digit may be a rounded one)."""

    value: Fraction
    decimal: bool = False


def _plain(text: str) -> Number | None:
    found = _PLAIN.fullmatch(text.strip().removesuffix("."))
    if found is None:
        return None
    sign = -1 if found["sign"] == "-" else 1
    over, under = (found["a"], found["b"]) if found["a"] else (found["c"], found["d"])
    if over is not None:
        return Number(sign * Fraction(int(over), int(under))) if int(under) else None
    if not found["whole"] and not found["part"]:
        return None
    digits = (found["whole"] or "0").replace(",", "").replace("\\!", "")
    return Number(sign * Fraction(digits + (found["part"] or "")), decimal=bool(found["part"]))


def decide(gold: str, answer: str) -> bool | None:
    """Whether two plainly written numbers are equal; None where this path leaves it to the slow one."""
    one, two = _plain(gold), _plain(answer)
    if one is None or two is None:
        return None
    if one.value == two.value:
        return True
    if not one.decimal and not two.decimal:
        return False
    return False if abs(one.value - two.value) > _APART else None


# --- more forms --------------------------------------------------------------------------------------------------

_INT = r"\d{1,40}(?:,\d{3}(?!\d)){0,12}"
_SIGN = r"(?P<sign>[+-]?)\s*"
_FRAC = rf"\\frac\s*\{{\s*(?P<a>-?\s*{_INT})\s*\}}\s*\{{\s*(?P<b>-?\s*{_INT})\s*\}}"
_DECIMAL = re.compile(rf"{_SIGN}(?P<whole>\d{{1,3}}(?:,\d{{3}})+|\d{{0,{_DIGITS}}})(?P<part>\.\d{{0,{_DIGITS}}})?")
_FRACTION = re.compile(
    rf"{_SIGN}(?:{_FRAC}|(?P<c>{_INT})\s*/\s*(?P<d>{_INT})|\(\s*(?P<e>-?\d{{1,40}})\s*/\s*(?P<f>-?\d{{1,40}})\s*\))"
)
_MIXED = re.compile(
    rf"{_SIGN}(?P<n>\d{{1,40}})\s*(?:\\ )?\s*(?:{_FRAC}|(?<=\s)(?P<c>\d{{1,40}})\s*/\s*(?P<d>\d{{1,40}}))"
)
_MIXED_WORDS = re.compile(
    rf"{_SIGN}(?P<n>\d{{1,40}})\s*(?:and|&|\+|-|\\text\{{\s*and\s*\}})\s*(?:{_FRAC}|"
    rf"(?P<c>\d{{1,40}})\s*/\s*(?P<d>\d{{1,40}}))"
)
_SCIENTIFIC = re.compile(
    rf"{_SIGN}(?P<m>\d{{1,3}}(?:,\d{{3}})+|\d{{0,{_DIGITS}}}(?:\.\d{{0,{_DIGITS}}})?)\s*"
    r"(?:(?:\\times|\\cdot|[x*])\s*10\s*\^\s*(?:\{\s*(?P<p>[+-]?\s*\d{1,3})\s*\}|"
    r"(?P<q>[+-]?\d{1,3}))|[eE](?P<r>[+-]?\d{1,3}))"
)
_POWER_OF_TEN = re.compile(rf"{_SIGN}10\s*\^\s*(?:\{{\s*(?P<p>[+-]?\s*\d{{1,3}})\s*\}}|(?P<q>\d{{1,3}}))")
_REPEATING = re.compile(
    rf"{_SIGN}(?P<whole>\d{{0,{_DIGITS}}})\.(?P<fixed>\d{{0,30}})\s*(?:\\(?:overline|"
    rf"bar|dot)\s*\{{?\s*(?P<o>\d{{1,30}})\s*\}}?|\((?P<p>\d{{1,30}})\))"
)
_DOTTED = re.compile(rf"{_SIGN}(?P<whole>\d{{0,{_DIGITS}}})\.(?P<digits>\d{{3,40}})\s*\\ldots")
_WORDS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}


def number(text: str) -> Number | None:
    r"""The value of a cleaned text that is one number: also mixed numbers, scientific notation, repeating decimals.

    ``1\frac{1}{2}`` and ``1 1/2`` are mixed numbers where the fraction is proper; ``2\frac{3}{2}`` might be a product
    and gives None, and so does everything with more than a few dozen digits or an exponent beyond 999.
    """
    text = text.strip()
    if not text or len(text) > 400:
        return None
    if (word := _WORDS.get(text.lower())) is not None:
        return Number(Fraction(word))
    if (found := _DECIMAL.fullmatch(text)) and (found["whole"] or len(found["part"] or "") > 1):
        digits = (found["whole"].replace(",", "") or "0") + (found["part"] or "")
        return Number(_signed(found, Fraction(digits.removesuffix("."))), decimal=len(found["part"] or "") > 1)
    if found := _FRACTION.fullmatch(text):
        over, under = _parts(found)
        return Number(_signed(found, Fraction(over, under))) if under else None
    if (found := _MIXED.fullmatch(text)) or (found := _MIXED_WORDS.fullmatch(text)):
        return _mixed(found, text)
    if found := _POWER_OF_TEN.fullmatch(text):
        power = (found["p"] or found["q"]).replace(" ", "")
        return Number(_signed(found, Fraction(10) ** int(power)))
    if (found := _SCIENTIFIC.fullmatch(text)) and any(char.isdigit() for char in found["m"]):
        power = (found["p"] or found["q"] or found["r"]).replace(" ", "")
        mantissa = Fraction(found["m"].replace(",", "").removesuffix("."))
        return Number(_signed(found, mantissa * Fraction(10) ** int(power)), decimal="." in found["m"])
    return _repeating(text)


def _mixed(found: re.Match[str], text: str) -> Number | None:
    over, under = _parts(found)
    if not 0 < over < under:
        return None
    rest = Fraction(over, under)
    between = text[found.end("n") : found.end("n") + 2].strip()[:1]
    if between == "-":  # 3 - 1/2 is a difference, and 3-1/2 may be meant as three and a half: nobody can tell
        return None
    if between == "+":
        return Number(_signed(found, Fraction(int(found["n"]))) + rest)
    return Number(_signed(found, int(found["n"]) + rest))


def _repeating(text: str) -> Number | None:
    if found := _REPEATING.fullmatch(text):
        block, fixed = found["o"] or found["p"], found["fixed"]
    elif found := _DOTTED.fullmatch(text):
        block, fixed = found["digits"][-1], found["digits"]
        if len(set(fixed[-3:])) > 1:  # the dots go on with one digit only where it has stood three times
            return None
    else:
        return None
    shift = 10 ** len(fixed)
    part = Fraction(int(fixed or 0), shift) + Fraction(int(block), (10 ** len(block) - 1) * shift)
    return Number(_signed(found, int(found["whole"] or 0) + part))


def _parts(found: re.Match[str]) -> tuple[int, int]:
    groups = found.groupdict()
    over = next(groups[key] for key in ("a", "c", "e") if groups.get(key))
    under = next(groups[key] for key in ("b", "d", "f") if groups.get(key))
    return int(over.replace(",", "").replace(" ", "")), int(under.replace(",", "").replace(" ", ""))


def _signed(found: re.Match[str], value: Fraction) -> Fraction:
    return -value if found["sign"] == "-" else value


def near(one: Number, two: Number) -> bool:
    """Equal; or, where either is a decimal, equal to six decimals and to four significant digits."""
    if one.value == two.value:
        return True
    if not (one.decimal or two.decimal):
        return False
    apart = abs(one.value - two.value)
    return round(one.value, 6) == round(two.value, 6) and apart * 10**4 <= max(abs(one.value), abs(two.value))
