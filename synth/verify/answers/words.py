r"""Prose in answers: numbers in words, texts, yes and no, times of day, dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from synth.verify.answers.tokens import Token
from synth.verify.answers.values import Boolean, Clock, Date, Digits, Items, Symbol, Text, Value, word_list

_ONES = dict(zip(
    word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
), range(20), strict=True))  # fmt: skip
_TENS = dict(
    zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True)
)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
           "lakh": 10**5, "crore": 10**7}  # fmt: skip
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4,
          "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8,
          "ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10, "hundredth": 100, "hundredths": 100}  # fmt: skip
_YES = {"yes": True, "true": True, "no": False, "false": False}
_YES_NO = re.compile(r"(yes|no)[,.;]? (?:it|that|this|there|such|the|they|we) (?:(?!\b(?:if|unless|or|wait)\b).)*")
_MONTHS = dict(zip(word_list("jan feb mar apr may jun jul aug sep oct nov dec"), range(1, 13), strict=True))
_MONTH = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|" \
         r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"  # fmt: skip
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_DATES = (
    re.compile(rf"{_MONTH}\s*{_DAY}(?:\s*,?\s*(?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(rf"(?:the\s+)?{_DAY}\s*(?:of\s+)?{_MONTH}(?:\s*,?\s*(?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"),
)
_CLOCK = re.compile(
    r"(?P<h>\d{1,2})\s*(?::\s*(?P<m>[0-5]\d))?\s*(?:(?P<half>[ap])\.?\s*m\b\.?|(?P<oclock>o'clock))?", re.IGNORECASE
)
_BASED = re.compile(
    r"\(?(?P<digits>-?[0-9A-Fa-f]*\d[0-9A-Z]*(?:\.[0-9A-Z]+)?|-?\d+[a-f]+)\)?\s*"
    r"(?:_\s*\{?\s*(?:base\s*|\()?(?P<a>\d{1,2}|[a-z]+)\s*\)?\}?|\(?\s*(?:in\s+)?base[\s-]*(?P<b>\d{1,2}|[a-z]+)\s*\)?)"
)
_NOTHING = re.compile(
    r"(?:there (?:is|are) )?no (?:real |integer |such |positive )*(?:solutions?|roots?)(?: exists?)?|empty set"
)
_NUMBERS = (
    r"(?:all |any |every |the )?(?:set of )?(?:all )?"
    r"(?:(?P<kind>real|integer|rational|complex)s?(?: numbers?| values?)?|\\mathbb\{?R\}?)"
)
_EVERYTHING = re.compile(_NUMBERS)
_ALL_BUT = re.compile(
    rf"{_NUMBERS}(?: of)?(?: (?P<name>[a-z]))?,? (?:except|other than|excluding|but not|apart from)"
    r"(?: for)?(?: (?P=name))?(?: ?=)? (?P<rest>[^:]+)",
    re.IGNORECASE,
)
_SETS = {"real": "R", "integer": "Z", "rational": "Q", "complex": "C"}
_REMAINDER = re.compile(r"(\d+),? ?(?:R\.?|r\.?|(?:with )?(?:a )?remainder(?: of)?) ?(\d+)")
_ADDITIONS = frozenset(["all", "every", "any", "each"])  # in front of a text
_PLURALS = {f"{word}s": word for word in word_list("integer number prime solution root value real multiple square")}
_OPTION = re.compile(r"(?:option|choice) \(?([a-j])")
_STYLES = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|math(?:rm|bf|it|sf|tt)|operatorname)\s*\{([^{}]*)\}")


def special(text: str) -> Value | None:
    """A text of `spelling` as a time of day, a date, a number in another base, yes or no, or "no solution"."""
    text = _unstyled(text)
    plain = text.lower().strip("()")
    if len(text) > 60:
        return None
    if plain in _YES:
        return Boolean(_YES[plain])
    if (sentence := _YES_NO.fullmatch(plain)) is not None:
        return Boolean(_YES[sentence[1]])
    if (option := _OPTION.fullmatch(plain)) is not None:
        return Symbol(option[1].upper())
    if (numbers := _EVERYTHING.fullmatch(plain)) and numbers["kind"]:
        return Symbol(f"\\mathbb{{{_SETS[numbers['kind']]}}}")
    if (division := _REMAINDER.fullmatch(text)) is not None:
        return Text(f"{division[1]} remainder {division[2]}")
    if _NOTHING.fullmatch(plain):
        return Items("{", ())
    return _clock(text) or _date(text) or _based(text)


def without_exception(text: str) -> str:
    r"""The text with ``all real numbers except 2`` as ``\mathbb{R} \setminus \{2\}``."""
    if len(text) > 120 or (match := _ALL_BUT.fullmatch(_unstyled(text))) is None:
        return text
    name = re.escape(match["name"]) if match["name"] else "[a-z]"
    rest = re.sub(rf"(?<![A-Za-z\\]){name} ?=", "", match["rest"])
    return f"\\mathbb{{{_SETS[(match['kind'] or 'real').lower()]}}} \\setminus \\{{{rest}\\}}"


def _unstyled(text: str) -> str:
    for _ in range(3):
        text = _STYLES.sub(r" \1 ", text)
    return " ".join(re.sub(r"\\[,;:! ]|~", " ", text).split()).rstrip(" .!")


def _clock(text: str) -> Clock | None:
    match = _CLOCK.fullmatch(text)
    if match is None or not (match["m"] or match["half"] or match["oclock"]):
        return None
    hours, minutes = int(match["h"]), int(match["m"] or 0)
    half = (match["half"] or "").lower()
    if hours > 24 or (half and not 1 <= hours <= 12):
        return None
    if half:
        return Clock((hours % 12 + 12 * (half == "p")) * 60 + minutes, "am" if half == "a" else "pm")
    return Clock(hours * 60 + minutes, "pm" if hours > 12 else None)


def _date(text: str) -> Date | None:
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            month, day = match["month"], int(match["day"])
            number = int(month) if month.isdigit() else _MONTHS[month[:3].lower()]
            if 1 <= number <= 12 and 1 <= day <= 31:
                return Date(number, day, int(match["year"]) if match["year"] else None)
    return None


def _based(text: str) -> Digits | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    base = match["a"] or match["b"]
    size = int(base) if base.isdigit() else _ONES.get(base, 0)
    digits = match["digits"].upper()
    if not 2 <= size <= 36 or any(int(digit, 36) >= size for digit in digits if digit not in "-."):
        return None
    sign = "-" if digits.startswith("-") else ""
    digits = digits.lstrip("-").lstrip("0")
    return Digits(sign + (f"0{digits}" if digits[:1] in ("", ".") else digits), size)


def join_number_words(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with numbers in words as number tokens: ``five``, ``twenty-one``, ``7 million``."""
    out: list[Token] = []
    at = 0
    while at < len(tokens):
        number, end = _number(tokens, at)
        if number is None:
            out.append(tokens[at])
            at += 1
        else:
            text = str(number) if number.denominator == 1 else f"{number.numerator}/{number.denominator}"
            out.append(Token("number", text, tokens[at].spaced, True))
            at = end
    return out


def _number(tokens: Sequence[Token], at: int) -> tuple[Fraction | None, int]:
    """(the number in words that begins at a position or None, the position behind it)."""
    total = group = Fraction(0)
    start = at
    is_words = False
    if tokens[at].text == "a" and _word(tokens, at + 1) in _SCALES:
        at += 1
    if tokens[at].kind == "number" and at + 1 < len(tokens) and tokens[at].text.replace(".", "").isdigit():
        if _word(tokens, at + 1) not in {**_SCALES, **_PARTS}:
            return None, at
        group, at = tokens[at].value, at + 1
    while at < len(tokens):
        word = _word(tokens, at)
        if word == "-" and at > start and _word(tokens, at + 1) in {**_ONES, **_PARTS}:
            at += 1
            continue
        if word == "and" and at > start and _word(tokens, at + 1) in ("a", "one") and _word(tokens, at + 2) == "half":
            return total + group + Fraction(1, 2), at + 3  # two and a half
        if word == "and" and is_words and _word(tokens, at + 1) in {**_ONES, **_TENS}:
            if not group or group % 100:
                break
            at += 1
            continue
        if word in _ONES or word in _TENS:
            small = _ONES.get(word, _TENS.get(word, 0))
            if is_words and group % 100 and not (group % 10 == 0 and small < 10):
                break
            group += small
        elif word in _SCALES and at > start:
            if word == "hundred":
                group = (group or Fraction(1)) * 100
            else:
                total, group = total + (group or 1) * _SCALES[word], Fraction(0)
        elif word in _PARTS and (at > start or word == "half"):
            return (total + group or 1) / Fraction(_PARTS[word]), at + 1
        else:
            break
        is_words = True
        at += 1
    return (total + group, at) if is_words else (None, start)


def _word(tokens: Sequence[Token], at: int) -> str:
    if at >= len(tokens) or (tokens[at].kind not in ("word", "mark") and tokens[at].text != "a"):
        return ""
    return tokens[at].text.lower()


def prose(tokens: Sequence[Token]) -> Text | None:
    """Words without articles and punctuation; None where there is no word of two letters, or mathematics beside it."""
    if any(token.kind == "command" or token.text in "+=<>*^_|&" for token in tokens):
        return None
    if not any(token.kind == "word" and len(token.text) > 1 for token in tokens) and not all(
        token.kind in ("word", "mark") for token in tokens
    ):
        return None
    words: list[str] = []
    joined = False
    for token in tokens:
        between_words = token.text in "-/'" and words and token is not tokens[-1]
        if token.kind == "mark" and (token.text in ',.;:!?"(){}$' or between_words):
            joined = False
            continue
        letter = token.kind == "letter" and joined and not token.spaced
        if letter:
            words[-1] += token.text
        else:
            words.append(token.text if len(token.text) == 1 else token.text.lower())
        joined = token.kind == "letter"
    while len(words) > 1 and (words[0].lower() in ("the", "a", "an") or words[0] in _ADDITIONS):
        words.pop(0)
    if words[:2] == ["answer", "is"]:
        words = words[2:]
    words = [_PLURALS.get(word, word) for word in words]
    letters = [word for word in words if len(word) == 1]
    if len(letters) == 1 and len(words) < 5:  # n is even, even n
        words = letters + [word for word in words if word not in (*letters, "is", "are")]
    if words == ["dne"] or (words[-3:] == ["does", "not", "exist"] and words[:-3] in (["limit"], ["it"])):
        words = ["does", "not", "exist"]
    return Text(" ".join(words)) if words else None
