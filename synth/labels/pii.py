"""Personal data: e-mail addresses, phone and card numbers. Secrets are in ``licensing.secrets``.

The reason names the kind and how often, never the thing itself: a label must not carry what it warns of. What
mathematics is full of is let pass: a card number has to stand in groups, or beside a word of cards, and pass its
check digit; a phone number has to be written as one, and be one that exists. Not covered: names, addresses.
"""

from __future__ import annotations

import re
from collections import Counter

from licensing.errors import MissingDependency
from licensing.secrets import listed_kinds

_LONG_NUMBER = re.compile(r"\d{3}[ ().-]{0,3}\d{3}|\+\d[\d ().-]{7}")  # without one there is neither phone nor card
_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b", re.ASCII)
_MADE_UP = re.compile(
    r"@(?:[\w.-]*\.)?(?:example|test|invalid|domain|email|mail|company|website)\.\w+$|^(?:user|name|git)@"
)
_PHONE = re.compile(
    r"(?<![\w.+])\+\d[\d ().-]{7,18}\d(?!\w)|(?<![\w.(-])\(?[2-9]\d{2}\)?[ .-] ?\d{3}[.-]\d{4}(?![\w-])"
)
_CARD = re.compile(
    r"(?<![\d.-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|3[47]\d{2}([ -])\d{6}\2\d{5}|\d{13,19})(?![\d.]\d|\d)"
)
_ABOUT_CARDS = re.compile(
    r"\b(?:visa|master ?card|amex|american express|(?:credit|debit) card|card number|cvv)\b", re.I
)
_ISSUERS = re.compile(r"4|5[1-5]|2(?:2[2-9]|[3-6]|7[01]|720)|3[47]|6(?:011|5)|35(?:2[89]|[3-8])")
_NEAR = 60  # characters


def personal_data(text: str) -> str | None:
    """Which kinds of personal data stand in a text, or None."""
    counts = Counter[str]()
    if "@" in text:
        counts["e-mail address"] = sum(1 for match in _EMAIL.finditer(text) if not _MADE_UP.search(match[0].lower()))
    if _LONG_NUMBER.search(text):
        counts["phone number"] = sum(_is_phone(match[0]) for match in _PHONE.finditer(text))
        counts["card number"] = sum(_is_card(match, text) for match in _CARD.finditer(text))
    return listed_kinds(counts)


def _is_phone(text: str) -> bool:
    try:
        import phonenumbers
    except ModuleNotFoundError as error:
        hint = "pip install phonenumbers, or set label.secrets to false"
        raise MissingDependency("phonenumbers is not installed", where="label.secrets", hint=hint) from error
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, "US")))
    except phonenumbers.NumberParseException:
        return False


def _is_card(match: re.Match[str], text: str) -> bool:
    digits = re.sub(r"\D", "", match[0])
    if not 13 <= len(digits) <= 19 or not _ISSUERS.match(digits) or not _luhn(digits):
        return False
    around = text[max(0, match.start() - _NEAR) : match.end() + _NEAR]
    return digits != match[0] or _ABOUT_CARDS.search(around) is not None


def _luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1: every second digit from the right doubled, digits summed, a multiple of 10."""
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
