r"""Units, by pint: which words are a unit, what it measures and how large it is.

The definitions (``units.txt``) are those that answers use. pint's own list also holds short ones (``a`` a year,
``rh`` a rontohour, ``bag``) that are variables and words here. A plural that is no unit (``apples``, ``ways``) is a
label: what is counted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from synth.verify.answers.values import Unit, word_list

MAX_LENGTH = 60
PERCENT = Unit("percent", words="percent")
DEGREE = Unit("angle", words="degrees")
CURRENCIES = {"$": "dollar", "\\euro": "euro", "\\pound": "sterling", "\\yen": "yen", "\\rupee": "rupee",
              "usd": "dollar", "eur": "euro", "gbp": "sterling", "inr": "rupee", "rs": "rupee"}  # fmt: skip

_DEFINITIONS = Path(__file__).with_name("units.txt")
_SPELLINGS = {
    "°": "degree", "deg": "degree", "degs": "degree", "pct": "percent", "percentage": "percent", "gms": "g",
    "kgs": "kg", "kms": "km", "mins": "min", "secs": "sec", "hrs": "hr", "yrs": "yr", "mls": "ml", "lbs": "lb",
    "inches": "inch", "kilo": "kilogram", "kilos": "kilogram", "usd": "dollar", "eur": "euro",
    "gbp": "sterling", "rs": "rupee", "inr": "rupee", "cny": "yuan", "centuries": "century", "kwh": "kW*h",
    "kWh": "kW*h", "henries": "henry", "kilohm": "kiloohm", "kilohms": "kiloohm",
    "minuten": "minute", "stunden": "hour",
    "米": "m", "厘米": "cm", "毫米": "mm", "千米": "km", "公里": "km", "元": "yuan",
    "美元": "dollar", "小时": "hour", "分钟": "minute", "秒": "second", "天": "day", "度": "degree", "千克": "kg",
    "公斤": "kg", "克": "g", "升": "liter", "平方米": "m**2", "平方厘米": "cm**2",
    "立方米": "m**3", "立方厘米": "cm**3", "年": "year", "月": "month", "周": "week",
}  # fmt: skip
# Plurals, and words before them, that change the value of the number beside them.
NO_LABEL = frozenset(
    word_list(
        "hundred thousand million billion trillion lakh crore half third quarter fourth fifth sixth seventh eighth "
        "ninth tenth hundredth squared cubed percent infinite negative positive approximately "
        "times thirds halves quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths "
        "twelfths hundreds thousands millions billions trillions dozens dozen pairs pair scores twice plus minus "
        "less more fewer least most than over under below above not no or and if when at up between choose mod is "
        "was as this factorials powers else otherwise unless except cases ones tens bases logs infinity "
        "millones milliers milliards milhares milhões milioni miliardi millionen milliarden tausend docenas douzaines "
        "veces fails works exists holds divides equals exceeds gives"
    )
)
_NAMES = {
    "degrees celsiu": "degC", "degree celsiu": "degC", "celsiu": "degC", "degrees fahrenheit": "degF",
    "degree fahrenheit": "degF", "electron volt": "eV", "metric ton": "tonne",
}  # fmt: skip
_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose",
    "jahre": "jahr", "tage": "tag", "möglichkeiten": "möglichkeit",
    "sheep": "sheep", "fish": "fish", "dice": "die", "person": "person", "vertices": "vertex", "oxen": "ox",
}  # fmt: skip
_PART = re.compile(r"(?P<word>[A-Za-zµΩÅ°\u4e00-\u9fff]+)|(?P<digits>(?<=\^)-\d+|\d+)|(?P<mark>[*/^()-])|\s+|\.")


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(None, non_int_type=Fraction)
    registry.load_definitions(_DEFINITIONS.read_text(encoding="utf-8").splitlines())
    registry._build_cache()
    return registry


@lru_cache(maxsize=1024)
def unit(text: str) -> Unit | None:
    """The unit or label that a text is, whole; None where it is none: ``km/h``, ``square inches``, ``people``."""
    if len(text) > MAX_LENGTH:
        return None
    words = re.sub(r"(?:^| )(?:old|in total|total|altogether|remaining|left)$", "", " ".join(text.split())) or "units"
    words = _NAMES.get(words.lower().rstrip("s"), words)
    plain = words.lower().strip(" .()")
    if plain in ("%", "percent", "percentage", "pct", "per cent"):
        return PERCENT
    if plain in ("degree", "degrees", "deg", "degs", "°", "度"):
        return DEGREE
    if plain in ("unit", "units", "square unit", "square units", "sq units", "cubic unit", "cubic units", "sq unit",
                 "units^2", "units^3", "unit^2", "unit^3", "units squared", "units cubed", "unitless"):  # fmt: skip
        return Unit("", words="units", is_label=True)
    if (formula := _formula(words)) is not None and (physical := _physical(formula, words)) is not None:
        return physical
    return _label(plain)


def _formula(words: str) -> str | None:
    """The words as a formula of pint."""
    out: list[str] = []
    power = after = ""
    at = 0
    while at < len(words):
        match = _PART.match(words, at)
        if match is None:
            return None
        at = match.end()
        if (word := match["word"]) is not None:
            low = word.lower()
            if low in ("square", "sq", "cubic", "cu"):
                after = "**2" if low[0] == "s" else "**3"
                continue
            if word in ("squared", "cubed", "per", "a", "an") or (low in ("square", "cube") and out):
                out.append({"s": "**2", "c": "**3"}.get(low[0], "/") if low != "per" else "/")
                continue
            if out and out[-1][-1].isalnum() and not power:
                out.append("*")
            out.append(_SPELLINGS.get(word) or _SPELLINGS.get(low) or word)
            out.append(after) if after else None
            after = power = ""
        elif match["mark"] == "^":
            power = "^"
            out.append("**")
        elif match["digits"]:
            out.append(match["digits"] if power else f"**{match['digits']}")  # m2 is a square metre
            power = ""
        elif match["mark"] == "-":
            out.append("*")
        elif match["mark"]:
            out.append(match["mark"])
    formula = "".join(out)
    return None if after or not formula or formula[0] in "*/" or formula[-1] in "*/" else formula


def _physical(formula: str, words: str) -> Unit | None:
    registry = _registry()
    names = re.findall(r"[A-Za-zµΩÅ_]+", formula)
    for spelling in (formula, formula.lower()):
        if spelling != formula and any(len(name) < 4 for name in names):
            return None  # the case of a short symbol has a meaning: mJ, MJ
        try:
            size = (1 * registry.parse_units(spelling)).to_base_units()
        except Exception:  # pint raises many classes for what is no unit, and some are Python's own
            continue
        dimension = "*".join(f"{name}^{power}" for name, power in sorted(size.dimensionality.items()))
        return Unit(dimension or "share", Fraction(size.magnitude), words)  # hours per day
    return None


def listed_label(words: str) -> Unit | None:
    """What is counted in a list of counts, where it is no plural: ``3 red, 2 blue``."""
    word = words.lower()
    return (
        Unit(word, words=word, is_label=True) if re.fullmatch(r"[a-z]{3,20}", word) and word not in NO_LABEL else None
    )


_MADE_OF = set("万亿千百十的倍不或半多分以余前后平立未満满超过過約约")  # a multiple, a bound


def _label(words: str) -> Unit | None:
    if re.fullmatch(r"[\u4e00-\u9fff]{1,3}", words) and not set(words) & _MADE_OF:
        return Unit("", words=words, is_label=True)  # a Chinese measure word
    name = re.sub(r"^(?:ordered|distinct|different|possible) (?=pairs$)", "ordered_", words)  # no 2 * 18
    parts = re.split(r"[\s-]+", name)
    is_word = re.compile(r"[a-z\u00df-\u00f6\u00f8-\u024f'_]{3,20}|of").fullmatch
    if not 1 <= len(parts) <= 3 or not all(map(is_word, parts)):
        return None
    last = parts[-1] if "of" not in parts[1:2] else parts[0]
    if set(parts) & NO_LABEL:
        return None
    if last in _IRREGULAR:
        stem = _IRREGULAR[last]
    elif last.endswith("s") and not last.endswith(("ss", "us", "is")):
        stem = last.removesuffix("s")
    else:
        return None
    return Unit(" ".join([*parts[:-1], stem]) if last is parts[-1] else f"{stem} {' '.join(parts[1:])}", words=words,
                is_label=True)  # fmt: skip
