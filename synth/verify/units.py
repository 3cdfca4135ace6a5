r"""Units at the end of an answer, currency signs at its front, and when two of them may be compared.

A unit that is given on one side only does not count: a problem that asks for metres is answered by a number. Given on
both sides, units of one kind are converted (2 hours, 120 minutes), and units of two kinds (metres, seconds; dollars,
euros) make two answers differ. Words that are no known unit (students, ways) say nothing.

A bare single letter is a variable: ``4t`` is no four. In ``\text{...}`` it is a unit, and so is m, g, s or L behind a
space where the other side is a plain number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Unit", "comparable", "split_unit"]

_BASE: dict[str, tuple[str, Fraction | int, str]] = {
    # name: (kind, in the kind's smallest common unit, spellings)
    "metre": ("length", 1000, "m meter meters metre metres"),
    "mm": ("length", 1, "mm millimeter millimeters millimetre millimetres"),
    "cm": ("length", 10, "cm centimeter centimeters centimetre centimetres"),
    "dm": ("length", 100, "dm decimeter decimeters decimetre decimetres"),
    "km": ("length", 10**6, "km kilometer kilometers kilometre kilometres kms"),
    "inch": ("length", Fraction(254, 10), "in inch inches"),
    "foot": ("length", Fraction(3048, 10), "ft foot feet"),
    "yard": ("length", Fraction(9144, 10), "yd yard yards"),
    "mile": ("length", 1609344, "mi mile miles"),
    "second": ("time", 1, "s sec secs second seconds"),
    "minute": ("time", 60, "min mins minute minutes"),
    "hour": ("time", 3600, "h hr hrs hour hours"),
    "day": ("time", 86400, "day days"),
    "week": ("time", 604800, "week weeks"),
    "month": ("months", 1, "month months"),
    "year": ("months", 12, "yr yrs year years"),
    "mg": ("mass", Fraction(1, 1000), "mg milligram milligrams"),
    "gram": ("mass", 1, "g gm gram grams"),
    "kg": ("mass", 1000, "kg kgs kilogram kilograms kilo kilos"),
    "tonne": ("mass", 10**6, "tonne tonnes"),
    "ounce": ("imperial mass", 1, "oz ounce ounces"),
    "pound": ("imperial mass", 16, "lb lbs pound pounds"),
    "ml": ("volume", 1, "ml milliliter milliliters millilitre millilitres cc"),
    "litre": ("volume", 1000, "l liter liters litre litres"),
    "cup": ("imperial volume", 1, "cup cups"),
    "pint": ("imperial volume", 2, "pint pints pt"),
    "quart": ("imperial volume", 4, "quart quarts qt"),
    "gallon": ("imperial volume", 16, "gal gallon gallons"),
    "mph": ("speed mph", 1, "mph"),
    "km/h": ("speed kmh", 1, "kmh kph kmph"),
    "degree": ("angle", 1, "degree degrees deg degs"),
    "radian": ("radians", 1, "radian radians rad rads"),
    "dollar": ("dollars", 100, "dollar dollars usd bucks"),
    "cent": ("dollars", 1, "cent cents"),
    "euro": ("euros", 1, "euro euros eur"),
    "sterling": ("sterling", 1, "gbp"),
    "rupee": ("rupees", 1, "rupee rupees rs inr"),
    "yen": ("yen", 1, "yen"),
    "yuan": ("yuan", 1, "yuan rmb"),
    "percent": ("percent", 1, "percent percentage pct"),
    "point": ("percent", 1, "percentpoints"),
    "joule": ("energy", 1, "j joule joules"),
    "watt": ("power", 1, "w watt watts"),
    "newton": ("force", 1, "newton newtons"),
    "acre": ("acres", 1, "acre acres"),
    "hectare": ("hectares", 1, "hectare hectares ha"),
    "celsius": ("celsius", 1, "celsius degc"),
    "fahrenheit": ("fahrenheit", 1, "fahrenheit degf"),
}
_CHINESE = {
    "米": "m", "厘米": "cm", "千米": "km", "公里": "km", "元": "yuan", "小时": "hour", "分钟": "minute",
    "秒": "second", "天": "day", "度": "degree", "千克": "kg", "克": "gram", "升": "litre",
}  # fmt: skip
_KNOWN = {word: (kind, Fraction(size)) for kind, size, words in _BASE.values() for word in words.split()}
_KNOWN |= {
    word: _KNOWN[unit] if unit in _KNOWN else _KNOWN[_BASE[unit][2].split()[0]] for word, unit in _CHINESE.items()
}
_CURRENCY = {"$": "dollars", "€": "euros", "£": "sterling", "¥": "yen", "₹": "rupees"}

_FRONT = re.compile(
    r"(?P<minus>-?)\s*(?:\\\$|(?P<sign>[$€£¥₹])|\\text\s*\{\s*(?P<text>\\?\$|"
    r"[€£¥₹]|Rs\.?|USD)\s*\})\s*(?=[\d.\\(-])|Rs\.?\s*(?=\d)"
)
_WRAPPED = re.compile(r"(?:\\cdot|\\times)?\s*\\text\s*\{(?P<words>[^{}]*)\}\s*(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?$")
_BACK_SIGN = re.compile(r"\s*\\?([$€£¥₹])$")
_DEGREES = re.compile(r"\s*\^\\circ\s*(?:\\text\s*\{\s*)?(?P<scale>[CF]?)\s*\}?$")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_BARE = re.compile(
    r"(?<=[\d})\s.])\s*(?P<words>(?:[kc]?m|mi|ft)\s*/\s*[smh]|"
    r"(?<=\d )[mgsL]|(?:[A-Za-z]{2,}\.?(?:\s+|\s*/\s*|-))*[A-Za-z]{2,}\.?)\s*(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?$"
)
_NUMERIC = re.compile(r"[-+\d.,/ ]+|.*\\(?:frac|sqrt|pi)\b.*|.*[\d)}]")
_NOT_UNITS = frozenset(
    [
        "and",
        "or",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "mod",
        "pi",
        "sqrt",
        "max",
        "min",
        "gcd",
        "lcm",
        "abs",
        "to",
        "am",
        "pm",
        "a.m",
        "p.m",
        "i",
        "if",
        "is",
        "for",
        "in",
    ]
)


@dataclass(frozen=True)
class Unit:
    """`kind` None: words that are no known unit. `size` in the kind's smallest common unit."""

    kind: str | None
    size: Fraction = Fraction(1)
    words: str = ""


def split_unit(text: str) -> tuple[str, Unit | None]:
    """(the answer without its unit, the unit), or the whole text and None."""
    if (found := _FRONT.match(text)) and found.end() < len(text):
        sign = found["sign"] or (found["text"] or "$").replace("\\", "")
        kind = _CURRENCY.get(sign[:1], "rupees") if not found[0].startswith("Rs") else "rupees"
        rest = (found["minus"] or "") + text[found.end() :]
        core, behind = split_unit(rest)
        if behind is None or behind.kind in (kind, None):
            return core, Unit(kind, Fraction(100 if kind == "dollars" else 1))
        return text, None
    if found := _DEGREES.search(text):
        core = text[: found.start()].strip()
        kind = {"C": "celsius", "F": "fahrenheit"}.get(found["scale"], "angle")
        return (core, Unit(kind)) if core and "^\\circ" not in core and not _TRIG.search(core) else (text, None)
    if found := _BACK_SIGN.search(text):
        return text[: found.start()].strip(), Unit(_CURRENCY[found[1]], Fraction(100 if found[1] == "$" else 1))
    if found := _WRAPPED.search(text):
        core = text[: found.start()].strip()
        return (core, _unit(found["words"], found["power"], wrapped=True)) if core else (text, None)
    if found := _BARE.search(text):
        core = text[: found.start()].strip()
        words = found["words"].lower().rstrip(".")
        if not core or not _NUMERIC.fullmatch(core) or set(words.split()) & _NOT_UNITS:
            return text, None
        return core, _unit(found["words"], found["power"], wrapped=False)
    for word in sorted(_CHINESE, key=len, reverse=True):
        if text.endswith(word) and len(text) > len(word):
            return text[: -len(word)].strip(), _unit(word, None, wrapped=True)
    return text, None


def _unit(words: str, power: str | None, *, wrapped: bool) -> Unit:
    plain = " ".join(words.lower().replace(".", " ").replace("-", " ").split())
    exponent = int(power or 1)
    if found := re.fullmatch(r"(square|sq|cubic|cu)\s+(.*)", plain):
        exponent, plain = {"s": 2, "c": 3}[found[1][0]], found[2]
    elif found := re.fullmatch(r"(.*)\s+(squared|cubed|square|cube)", plain):
        exponent, plain = {"s": 2, "c": 3}[found[2][0]], found[1]
    elif found := re.fullmatch(r"([a-z]{1,2})\s*\^?\s*([23])", plain):
        exponent, plain = int(found[2]), found[1]
    per = re.fullmatch(r"(.+?)\s*(?:/|\bper\b|\ban?\b)\s*(.+)", plain)
    if per:
        over, under = _KNOWN.get(per[1].strip()), _KNOWN.get(per[2].strip())
        if over and under:
            return Unit(f"{over[0]} per {under[0]}", over[1] / under[1], plain)
        return Unit(None, words=plain)
    if plain in ("mph", "kmh", "kph", "kmph"):
        length = _KNOWN["mile" if plain == "mph" else "km"]
        return Unit("length per time", length[1] / 3600, plain)
    known = _KNOWN.get(plain)
    if known is None:
        return Unit(None, words=plain)
    kind, size = known
    if exponent > 1:
        return Unit(
            {"length": {2: "area", 3: "volume of lengths"}[exponent]}.get(kind, f"{kind}^{exponent}"),
            size**exponent,
            plain,
        )
    return Unit(kind, size, plain)


def comparable(one: Unit | None, two: Unit | None) -> tuple[Fraction, Fraction] | None:
    """The factors by which to multiply before comparing; None where the two can never be equal."""
    if one is None or two is None or one.kind is None or two.kind is None:
        return Fraction(1), Fraction(1)
    if one.kind == two.kind:
        return (Fraction(1), Fraction(1)) if one.size == two.size else (one.size, two.size)
    if {one.kind, two.kind} <= {"angle", "celsius", "fahrenheit"} and "angle" in (one.kind, two.kind):
        return Fraction(1), Fraction(1)
    if {one.kind, two.kind} == {"volume", "volume of lengths"}:  # a millilitre is a cubic centimetre
        return (one.size * (1000 if one.kind == "volume" else 1), two.size * (1000 if two.kind == "volume" else 1))
    return None
