"""Secrets (detect-secrets' token formats) and personal data: e-mail addresses, phone and card numbers.

The reason names the kind and how often, never the thing itself: a label must not carry what it warns of. What
mathematics is full of is let pass: a card number has to stand in groups, or beside a word of cards, and pass its
check digit; a phone number has to be written as one, and be one that exists. Not covered: names, addresses,
high-entropy strings, passwords.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from functools import lru_cache
from typing import Any

from licensing.errors import MissingDependency

__all__ = ["personal_data", "secrets"]

_PLUGINS = {
    "aws": "AWSKeyDetector", "azure_storage_key": "AzureStorageKeyDetector", "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector", "gitlab_token": "GitLabTokenDetector", "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector", "npm": "NpmDetector", "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector", "pypi_token": "PypiTokenDetector", "sendgrid": "SendGridDetector",
    "slack": "SlackDetector", "square_oauth": "SquareOAuthDetector", "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
}  # fmt: skip
"""Formats that a token is known by. Twilio's (34 hex digits) and the entropy detectors find hashes in any program."""

_HINT = re.compile(
    r"AKIA|ASIA|A3T|ABIA|ACCA|AccountKey|gh[pousr]_|gl\w{2,5}-|eyJ|-us\d|_authToken|T3BlbkFJ|PRIVATE KEY|PuTTY|pypi-|"
    r"SG\.|xox|hooks\.slack|sq0|[sr]k_live|\d:[A-Za-z0-9_-]{35}|[MNO][A-Za-z\d_-]{23,25}\.|(?i:aws)"
)
_NEWER = {
    "Anthropic Token": re.compile(r"\bsk-ant-[A-Za-z0-9_-]{32,}"),
    "GitHub Token": re.compile(r"\bgithub_pat_[A-Za-z0-9_]{36,}"),
    "Google API Key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z]{34}\b"),
}
"""Formats that detect-secrets 1.5 does not know."""
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
PIECE, OVERLAP = 1000, 250  # characters of a long line


def secrets(text: str) -> str | None:
    """Which kinds of key or token stand in a text, or None. Raises MissingDependency without detect-secrets."""
    counts = Counter({kind: len(pattern.findall(text)) for kind, pattern in _NEWER.items()})
    for plugin in _plugins() if _HINT.search(text) else ():
        for line in text.splitlines():
            if count := _count(plugin, line):
                counts[plugin.secret_type] += count
    return _listed(counts)


def _count(plugin: Any, line: str) -> int:
    """Tokens in a line. Some patterns of detect-secrets are quadratic, so a long line is searched piece by piece; the
    pieces overlap by more than the part of a token that it is known by."""
    if len(line) <= PIECE:
        return sum(1 for _ in plugin.analyze_string(line))
    pieces = (line[at : at + PIECE] for at in range(0, len(line), PIECE - OVERLAP))
    return len({token for piece in pieces for token in plugin.analyze_string(piece)})


def personal_data(text: str) -> str | None:
    """Which kinds of personal data stand in a text, or None. Raises MissingDependency without phonenumbers."""
    found = Counter[str]()
    if "@" in text:
        found["e-mail address"] = sum(1 for match in _EMAIL.finditer(text) if not _MADE_UP.search(match[0].lower()))
    if _LONG_NUMBER.search(text):
        found["phone number"] = sum(_is_phone(match[0]) for match in _PHONE.finditer(text))
        found["card number"] = sum(_is_card(match, text) for match in _CARD.finditer(text))
    return _listed(found)


def _listed(found: Counter[str]) -> str | None:
    kinds = [f"{kind} ({count})" for kind, count in sorted(found.items()) if count]
    return ", ".join(kinds) or None


@lru_cache(maxsize=1)
def _plugins() -> list[Any]:
    try:
        modules = {name: importlib.import_module(f"detect_secrets.plugins.{name}") for name in _PLUGINS}
    except ModuleNotFoundError as error:
        hint = "pip install detect-secrets, or set label.secrets to false"
        raise MissingDependency("detect-secrets is not installed", where="label.secrets", hint=hint) from error
    return [getattr(modules[name], kind)() for name, kind in _PLUGINS.items()]


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
