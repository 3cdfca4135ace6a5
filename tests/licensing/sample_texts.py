"""Licence texts for tests: SPDX's own, and texts as long as a model licence with the words that make it that one."""

from __future__ import annotations

from licensing.detect import standard_text
from licensing.license_texts import license_text
from licensing.registry import builtin


def standard(spdx: str) -> str:
    text = standard_text(spdx)
    assert text is not None
    return text


MIT = standard("MIT").partition("\n\n")[2].partition("\n\n")[2]  # without title and copyright line
APACHE = standard("Apache-2.0")

_CLAUSE = "{n}. The licensor grants what this clause {n} says, and the licensee shall keep clause {n} as it stands. "


def model_license(name: str) -> str:
    """The licence's text where we have it; else its telling words, at a length that only a whole text has."""
    if text := license_text(name):
        return text
    entry = builtin().entries[name]
    return "\n".join(entry.recognise) + "\n\n" + "".join(_CLAUSE.format(n=n) for n in range(1, 31))
