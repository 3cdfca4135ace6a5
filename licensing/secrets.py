"""Formats that keys and tokens are known by: those of detect-secrets, and some newer ones.

In this package because labels of traces and the scan of a release both look for them. Not covered: passwords,
high-entropy strings.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from functools import lru_cache
from typing import Any

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
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{34}\b"),
}
"""Formats that detect-secrets 1.5 does not know."""
_PIECE, _OVERLAP = 1000, 250  # characters of a long line


def secrets(text: str) -> str | None:
    """Which kinds of key or token stand in a text, or None."""
    counts = Counter({kind: len(pattern.findall(text)) for kind, pattern in _NEWER.items()})
    for plugin in _plugins() if _HINT.search(text) else ():
        for line in text.splitlines():
            if count := _count(plugin, line):
                counts[plugin.secret_type] += count
    return listed_kinds(counts)


def _count(plugin: Any, line: str) -> int:
    """Tokens in a line. Some patterns of detect-secrets are quadratic, so a long line is searched piece by piece; the
    pieces overlap by more than the part of a token that it is known by."""
    if len(line) <= _PIECE:
        return sum(1 for _ in plugin.analyze_string(line))
    pieces = (line[at : at + _PIECE] for at in range(0, len(line), _PIECE - _OVERLAP))
    return len({token for piece in pieces for token in plugin.analyze_string(piece)})


def listed_kinds(counts: Counter[str]) -> str | None:
    """ "kind (count), …" of what was seen, or None."""
    kinds = [f"{kind} ({count})" for kind, count in sorted(counts.items()) if count]
    return ", ".join(kinds) or None


@lru_cache(maxsize=1)
def _plugins() -> list[Any]:
    return [
        getattr(importlib.import_module(f"detect_secrets.plugins.{name}"), kind)() for name, kind in _PLUGINS.items()
    ]
