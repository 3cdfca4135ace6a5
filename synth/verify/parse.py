r"""What kind of thing a text is. `read` looks at the cleaned text only and decides nothing about equality;
`synth.verify.equivalence` does that, form by form.
"""

from __future__ import annotations

import re
from typing import Literal

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
from synth.verify.normalise import clean, outer_pair, split_top
from synth.verify.numbers import number
from synth.verify.units import Unit, split_unit

__all__ = ["interval", "read"]

_NAME = re.compile(
    r"\\?[A-Za-z]+(?:_\{?\w+\}?)?'?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?|"
    r"\\text\s*\{[^{}]*\}|[A-Za-z]\s*[A-Za-z]|\\(?:angle|overline|"
    r"widehat|triangle)\s*\{?\s*[A-Z]+\s*\}?"
)
_INTRO = re.compile(
    (
        r"^(?:\\text\s*\{\s*)?(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:correct\s+|"
        r"final\s+)?(?:answer|solution)s?\s*(?:is|are|:|=)\s*\}?\s*"
    ),
    re.IGNORECASE,
)
_BASED = re.compile(
    r"(?P<digits>-?\s*[0-9A-Z]+(?:\.[0-9A-Z]+)?)\s*_\s*(?:\{\s*(?:\\text\s*\{)?\s*(?P<a>\d+|"
    r"[a-z]+)\s*\}?\s*\}|(?P<b>\d+))|(?P<c>[0-9A-F]+)\s*(?:\\text\s*\{\s*)?\(?(?:in\s+)?base[\s-]*(?P<d>\d+|"
    r"[a-z]+)\)?\s*\}?"
)
_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
_CLOCK = re.compile(
    r"(?:\\text\s*\{\s*)?(?P<h>\d{1,2})\s*(?:\\colon|:)\s*(?P<m>\d{2})\s*\}?\s*(?:\\text\s*\{\s*)?(?P<half>[AaPp]\.?\s*[Mm]\.?)?\s*\}?|"
    r"(?:\\text\s*\{\s*)?(?P<h2>\d{1,2})\s*\}?\s*(?:\\text\s*\{\s*)?(?P<half2>[AaPp]\.?\s*[Mm]\.?)\s*\}?"
)
_COLON = re.compile(r"\\colon|:(?!=)")
_TO = re.compile(r"(?P<a>\d[\d.,]*)\s*(?:\\text\s*\{\s*to\s*\}|to)\s*(?P<b>\d[\d.,]*)")
_COMMA = re.compile(
    r"\s*(?:,|;|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\text\s*\{\s*,?\s*(?:and|"
    r"or)\s*\})\s*(?:(?:and|or)(?![A-Za-z])|\\text\s*\{\s*(?:and|"
    r"or)\s*\})?\s*"
)
_APPROX = re.compile(r"\s*(?:\\approx|\\simeq|\\sim)(?![A-Za-z])\s*")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_CUP = re.compile(
    r"\s*(?:\\cup(?![A-Za-z])|\bU\b|\\text\s*\{\s*(?:or|union|"
    r"\\cup)\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z])|"
    r"\\vee(?![A-Za-z]))\s*"
)
_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>")
_EQUALS = re.compile(r"(?<![<>!:\\])=|\\equiv(?![A-Za-z])")
_IN = re.compile(r"(?:\\?[a-zA-Z](?:\([a-z]\))?)\s*\\in\s*")
_BUILDER = re.compile(
    r"\\\{\s*\\?[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|\||:)\s*(?P<condition>.+?)\s*\\\}"
)
_GRID = re.compile(
    (
        r"[\[(]?\s*\\begin\s*\{(?P<kind>[bpB]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|"
        r" ]*\})?(?P<body>.*?)\\end\s*\{(?P=kind)\}\s*[\])]?"
    ),
    re.DOTALL,
)
_PERCENT = re.compile(r"(?P<core>.*?)\s*(?:%|(?:\\text\s*\{)?\s*(?:\bpercent(?:age)?|\bpct)\s*\}?)")
_WHOLE_TEXT = re.compile(r"\(?\s*\\text\s*\{(?P<inside>[^{}]*)\}\s*\)?")
_WORD_CHARS = re.compile(r"[A-Za-z][A-Za-z'\- ,.!?]*")
_FUNCTION = re.compile(r"\b(?:sin|cos|tan|log|ln|exp|sqrt|pi)\b")
_VARIABLE = r"\\?[A-Za-z]+(?:_\{?\w\}?)?(?:\s*\(\s*[a-z]\s*\))?"


def read(text: str) -> Form:
    """The form of a text that `clean` has seen. Never raises; what is not recognised is a Formula."""
    text = _INTRO.sub("", text).strip() or text
    text = _exact_side(text)
    if outer_pair(text) is None:
        text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    for _ in range(8):  # brackets round everything that hold a single thing only group
        if outer_pair(text) != "(" or text[-1] != ")" or len(split_top(text[1:-1], _COMMA)) > 1:
            break
        text = text[1:-1].strip()
    if (value := number(text)) is not None:
        return value
    for reader in (_grid, _words, _clock, _based, _region, _items, _ratio, _equation, _quantity):
        if (form := reader(text)) is not None:
            return form
    return Formula(text)


def _exact_side(text: str) -> str:
    r"""Of ``exact \approx rounded`` the exact side; of ``x \approx rounded`` the number."""
    sides = [side for side in split_top(text, _APPROX) if side]
    if not sides or (len(sides) == 1 and not _APPROX.search(text)):
        return text
    return sides[-1] if _NAME.fullmatch(sides[0]) else sides[0]


def _grid(text: str) -> Form | None:
    found = _GRID.fullmatch(text)
    if found is None or "\\begin" in found["body"]:
        return None
    rows = [
        row
        for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?|\\cr(?![A-Za-z])", found["body"].replace("\\hline", ""))
        if row.strip()
    ]
    if not rows:
        return None
    return Grid(tuple(tuple(clean(cell) for cell in row.split("&")) for row in rows))


def _words(text: str) -> Form | None:
    if len(text) > 300 or _clock(text) is not None:
        return None
    wrapped = _WHOLE_TEXT.fullmatch(text)
    inside = wrapped["inside"] if wrapped else text
    if wrapped and number(clean(inside)) is not None:
        return None
    if not wrapped:
        plain = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", inside)
        if not _WORD_CHARS.fullmatch(plain.strip()) or _FUNCTION.search(plain) or not re.search(r"[A-Za-z]{3}", plain):
            return None
        if plain == inside and "," in inside and all(len(part.strip()) < 3 for part in inside.split(",")):
            return None
        inside = plain
    elif re.fullmatch(r"[^A-Za-z]*", inside) or re.match(r"\s*[-\d]", inside):
        return None
    words = re.sub(r"[^\w\s+/'-]|_", " ", inside).split()
    if not words:
        return None
    while len(words) > 1 and words[0].lower() in ("the", "a", "an"):
        words.pop(0)
    if len(words) == 1 and len(words[0]) == 1:
        return Words(words[0])
    return Words(" ".join(words).lower())


def _clock(text: str) -> Form | None:
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    hours, minutes = int(found["h"] or found["h2"]), int(found["m"] or 0)
    said = (found["half"] or found["half2"] or "").lower()
    half: Literal["am", "pm"] | None = "am" if said.startswith("a") else "pm" if said else None
    if hours > 24 or minutes > 59 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + (12 if half == "pm" else 0)
    elif hours > 12:
        half = "pm"
    return Clock(hours * 60 + minutes, half)


def _based(text: str) -> Form | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    base = found["a"] or found["b"] or found["d"]
    size = int(base) if base.isdigit() and len(base) < 4 else _BASES.get(base)
    digits = (found["digits"] or found["c"]).replace(" ", "")
    if size is None or not 2 <= size <= 36 or not re.search(r"\d", digits):
        return None
    if any(int(digit, 36) >= size for digit in digits if digit not in "-."):
        return None
    sign = "-" if digits.startswith("-") else ""
    return Based(sign + (digits.lstrip("-").lstrip("0") or "0"), size)


# --- regions -----------------------------------------------------------------------------------------------------


def _region(text: str) -> Form | None:
    if found := _BUILDER.fullmatch(text):
        text = found["condition"]
        if not _RELATION.search(text):
            return None
    text, had_in = _IN.subn("", text, count=1) if _IN.match(text) else (text, 0)
    parts = split_top(text, _CUP)
    pieces: list[Piece] = []
    for part in parts:
        found_pieces = _pieces(re.sub(r"^\\text\s*\{\s*\}\s*", "", part), union=len(parts) > 1 or bool(had_in))
        if found_pieces is None:
            return None
        pieces += found_pieces
    return Region(tuple(pieces)) if pieces else None


def _pieces(text: str, *, union: bool) -> list[Piece] | None:
    if re.fullmatch(r"\\mathbb\s*\{?\s*R\s*\}?", text):
        return [Piece("-\\infty", "\\infty", True, True)]
    bracket = outer_pair(text)
    if bracket in ("(", "["):
        ends = split_top(text[1:-1], re.compile(r"\s*[,;]\s*"))
        if len(ends) == 2 and all(ends) and (union or bracket + text[-1] in ("[)", "(]") or "\\infty" in text):
            return [interval(bracket, text[-1], ends[0], ends[1])]
        return None
    if bracket == "\\{" and union:
        return [Piece(point, point, False, False) for point in split_top(text[2:-2], _COMMA)]
    return _inequality(text)


def interval(opening: str, closing: str, low: str, high: str) -> Piece:
    low, high = re.sub(r"^\+", "", low.strip()), re.sub(r"^\+", "", high.strip())
    return Piece(low, high, opening == "(" or low == "-\\infty", closing == ")" or high == "\\infty")


def _inequality(text: str) -> list[Piece] | None:
    marks = [found[0] for found in _RELATION.finditer(text)]
    sides = [side.strip() for side in _RELATION.split(text)]
    if (
        not 1 <= len(marks) <= 2
        or not all(sides)
        or _EQUALS.search(text)
        or len(split_top(text, re.compile(r"\s*[,;]\s*"))) > 1
    ):
        return None
    names = [bool(re.fullmatch(_VARIABLE, side)) and side not in ("\\infty", "\\pi", "e", "i") for side in sides]
    if len(marks) == 2:
        if (
            not names[1]
            or marks[0] == "\\ne"
            or marks[1] == "\\ne"
            or (marks[0] in ("<", "\\le")) != (marks[1] in ("<", "\\le"))
        ):
            return None
        if any(re.search(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])", side) for side in (sides[0], sides[2])):
            return None
        if marks[0] in (">", "\\ge"):
            sides.reverse()
            marks.reverse()
        return [
            Piece(
                sides[0], sides[2], "\\infty" in sides[0] or marks[0] in "<>", "\\infty" in sides[2] or marks[1] in "<>"
            )
        ]
    if names[0] == names[1]:
        return None
    mark, bound = marks[0], sides[1] if names[0] else sides[0]
    if re.search(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])", bound):  # a bound that is itself a variable: a relation of two
        return None
    if mark == "\\ne":
        return [Piece("-\\infty", bound, True, True), Piece(bound, "\\infty", True, True)]
    less = (mark in ("<", "\\le")) == names[0]
    sharp = mark in "<>"
    return [Piece("-\\infty", bound, True, sharp) if less else Piece(bound, "\\infty", sharp, True)]


# --- lists, ratios, equations, quantities ------------------------------------------------------------------------


def _items(text: str) -> Form | None:
    bracket = outer_pair(text) or ""
    if bracket == "{":
        return None
    if bracket:
        closing = 1 if bracket in "([" else len(bracket.replace("l", "r"))
        inside = text[len(bracket) : -closing].strip()
        if bracket == "\\{" and re.search(r"\\mid|\||:", inside):
            return None
        if bracket == "\\{" and not inside:
            return Formula("\\emptyset")
        parts = split_top(inside, _COMMA)
        if bracket in ("(", "[") and len(parts) == 1:
            return None
        mixed = bracket in "([" and (bracket, text[-1]) not in (("(", ")"), ("[", "]"))
        return None if mixed or not all(parts) else Items(bracket, _spread(parts, ordered=bracket != "\\{"))
    parts = [part for part in split_top(text, _COMMA) if part]
    parts = list(_spread(parts, ordered=False))
    return Items("", tuple(parts)) if len(parts) > 1 else None


def _spread(parts: list[str], *, ordered: bool) -> tuple[str, ...]:
    """Each ``a \\pm b`` of an unordered list as the two that it stands for."""
    if ordered:
        return tuple(parts)
    found: list[str] = []
    for part in parts:
        if (
            part.count("\\pm") == 1
            and "\\mp" not in part
            and len(split_top(part, re.compile(r"\\pm"))) + ("{" in part) >= 2
        ):
            name, equals, right = part.rpartition("=")
            if equals and _NAME.fullmatch(name.strip()):
                part = right
            found += [re.sub(r"\\pm\s*", "+ ", part).lstrip("+ "), re.sub(r"\\pm\s*", "- ", part)]
        else:
            found.append(part)
    return tuple(found)


def _ratio(text: str) -> Form | None:
    if found := _TO.fullmatch(text):
        return Ratio((found["a"], found["b"]))
    parts = split_top(text, _COLON)
    if 2 <= len(parts) <= 6 and all(
        re.fullmatch(r"[\w\s.,\\{}^+*/-]+", part) and re.search(r"\w", part) for part in parts
    ):
        return Ratio(tuple(parts))
    return None


def _equation(text: str) -> Form | None:
    parts = split_top(text, _EQUALS)
    if len(parts) < 2 or not all(parts) or _RELATION.search(text):
        return None
    return Equation(
        parts[0],
        parts[-1],
        bool(_NAME.fullmatch(parts[0])) or not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", parts[0])),
    )


def _quantity(text: str) -> Form | None:
    if (found := _PERCENT.fullmatch(text)) and found["core"].strip():
        return Quantity(found["core"].strip(), Unit("percent"))
    core, unit = split_unit(text)
    return None if unit is None else Quantity(core, unit)
