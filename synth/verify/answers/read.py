"""From a text to a typed value, and equality of two texts."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from synth.verify.answers.equality import same
from synth.verify.answers.evaluate import TooLarge, same_number, start_work
from synth.verify.answers.parser.answer import Parser
from synth.verify.answers.parser.cursor import Malformed
from synth.verify.answers.tokens import RELATIONS, Token, spelling, tokenize
from synth.verify.answers.values import Number, Opaque, Text, Unreadable, Value
from synth.verify.answers.words import join_number_words, prose, special, without_exception

MAX_LENGTH = 20_000

_DIGITS = r"\d{1,40}"
_PLAIN_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>\d{{1,3}}(?:,\d{{3}}){{1,12}}|{_DIGITS})(?P<part>\.{_DIGITS})?|"
    rf"\\[dt]?frac\{{(?P<a>{_DIGITS})\}}\{{(?P<b>{_DIGITS})\}}|(?P<c>{_DIGITS})/(?P<d>{_DIGITS}))"
)


@lru_cache(maxsize=512)  # the samples of one problem come together, with one gold answer and few others
def read(text: str) -> Value:
    """The value of a text, read whole. Raises Unreadable for what is no answer of any type.

    A text that holds words and is no value is a `Text`; a well-formed formula of no type is `Opaque`, and equal to
    itself only.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable("it is longer than any answer")
    plain = without_exception(spelling(text))
    if (value := special(plain)) is not None:
        return value
    tokens = _connected(join_number_words(tokenize(plain)))
    try:
        return Parser(tokens).whole()
    except Malformed:
        raise
    except (Unreadable, RecursionError) as reason:
        if (words := prose(tokens)) is not None:
            return words
        if not any(token.kind in ("number", "letter", "word", "name") or token.text in _SIGNS for token in tokens):
            raise Unreadable(str(reason)) from None
        return Opaque(plain)


def _connected(tokens: list[Token]) -> list[Token]:
    r"""The tokens with ``\lor`` and ``\land`` between relations as the words."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        parts.append([]) if token.text in _CONNECTIVES else parts[-1].append(token)
    if not all(any(token.text in RELATIONS for token in part) for part in parts):
        return tokens
    words = {mark: Token("word", word, True) for mark, word in _CONNECTIVES.items()}
    return [words.get(token.text, token) for token in tokens]


_CONNECTIVES = {"\\lor": "or", "\\land": "and"}
_SIGNS = ("\\infty", "\\pi", "\\emptyset", "\\ldots")


def is_prose(text: str) -> bool:
    """Whether a text is words and no mathematics. Raises Unreadable."""
    return isinstance(read(text), Text)


def is_plain_number(text: str) -> bool:
    """Whether a text is an integer, a decimal or a fraction of integers, plainly written."""
    return _plain_number(text) is not None


def _plain_number(text: str) -> Number | None:
    match = _PLAIN_NUMBER.fullmatch(text.strip().removesuffix("."))
    if match is None:
        return None
    over, under = match["a"] or match["c"], match["b"] or match["d"]
    if over is not None:
        value = Fraction(int(over), int(under)) if int(under) else None
    else:
        value = Fraction(match["whole"].replace(",", "") + (match["part"] or ""))
    if value is None:
        return None
    return Number(-value if match["sign"] == "-" else value, decimal=bool(match["part"]))


def plainly_equal(gold: str, answer: str) -> bool | None:
    """Equality where that needs no mathematics (plain numbers, the same letters), else None. Linear in the texts."""
    one, two = _plain_number(gold), _plain_number(answer)
    if one is not None and two is not None:
        return same_number(one, two)
    try:
        return True if letters(gold) == letters(answer) else None
    except Unreadable:
        return None


@lru_cache(maxsize=512)
def letters(text: str) -> str:
    """The text as its letters and signs, without styles and spaces: two answers with the same letters are equal.

    Spaces between two numbers or two words count. Raises Unreadable for unbalanced braces.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable("it is longer than any answer")
    tokens = tokenize(spelling(text))
    while tokens and tokens[-1].text in (".", ",", ";"):
        tokens = tokens[:-1]
    out: list[str] = []
    for at, token in enumerate(tokens):
        if token.text in ("{", "}") and _is_single(tokens, at):
            continue
        before = tokens[at - 1] if at and token.kind in ("number", "word") else None
        if before and not token.spaced and (before.kind != "number" or token.kind != "number"):
            before = None
        if before and (
            before.kind == token.kind or before.text == "." or (before.text == "," and len(token.text) == 3)
        ):
            out.append(" ")  # 1, 234 is not 1,234
        out.append(token.text)
    return "".join(out)


def _is_single(tokens: tuple[Token, ...], at: int) -> bool:
    r"""Whether a brace stands around one sign, and no digits behind it that it keeps apart (``2^{1}0``). Longer numbers
    keep theirs: ``\frac{31}{6}`` is no ``\frac{3}{16}``."""
    opening = at if tokens[at].text == "{" else at - 2
    around = [token.text for token in tokens[max(opening, 0) : opening + 3]]
    is_one = len(around) == 3 and around[::2] == ["{", "}"] and (len(around[1]) == 1 or around[1].startswith("\\"))
    return is_one and not (opening + 3 < len(tokens) and tokens[opening + 3].kind == "number")


_FORMULA = re.compile(r"(?=.*\d)(?:[A-Z][a-z]?\d*|\((?:[A-Z][a-z]?\d*)+\)\d*){2,}")


def _chemical(text: str) -> str:
    """The letters of a chemical formula, whose digits need no sign of a subscript (``H_2O``, ``H2O``); "" otherwise."""
    formula = letters(text).replace("_", "").replace("{", "").replace("}", "")
    return formula if _FORMULA.fullmatch(formula) else ""


def equal(gold: str, answer: str) -> bool:
    """Whether two texts are equal answers. Raises Unreadable where one of them is no answer.

    A comparison that would take more work than allowed is False: no answer of a data set is that large.
    """
    if letters(gold) == letters(answer) or _chemical(gold) == _chemical(answer) != "":
        return True
    start_work()
    try:
        return same(read(gold), read(answer))
    except (TooLarge, RecursionError):
        return False
