"""Refusals. First lists, in English and Chinese; no model behind them."""

from __future__ import annotations

import re

OPENING = 400  # characters of an answer in which a refusal is said

_REFUSALS = re.compile(
    r"""\bI(?:'m|\ am)\ (?:really\ |very\ |so\ |deeply\ )?sorry\b[^.!?\n]{0,60}\b
            (?:can(?:not|'t)|unable|won't|not\ able)\b(?!\ (?:find|determine|see|compute|simplify|conclude)\b)
    |\bI\ (?:can(?:not|'t|\ not)|won't|will\ not|am\ (?:unable|not\ able)\ to|'m\ (?:unable|not\ able)\ to)\ 
            (?:help\b(?!\ (?:but|noticing|it\b))|assist\b|comply\b|fulfil|provide\ (?:that|this|instructions|information
            |guidance|assistance|advice)|engage\ (?:in|with)\b|support\ (?:that|this)|participate\b
            |answer\ (?:that|this)\ (?:request|question)|do\ that\ for\ you|discuss\ that)
    |\bI\ must\ (?:respectfully\ )?(?:decline|refuse)\b
    |\bas\ an?\ (?:AI|artificial\ intelligence)(?:\ language)?(?:\ model|\ assistant)?,?\ I\ 
            (?:can(?:not|'t)|do(?:n't|\ not)\ (?:have\ personal|feel\ comfortable)|am\ (?:not\ able|unable)|won't)
    |抱歉[,\uff0c。]?\s*(?:但)?\s*我(?:无法|不能|不可以)|我(?:无法|不能)(?:提供|协助|帮助|回答)(?:您|你|这)""",
    re.IGNORECASE | re.VERBOSE,
)


def refusal(answer: str) -> str | None:
    """The sentence in which an answer refuses, or None. Looks at its first 400 characters only."""
    sentence = _REFUSALS.search(answer[:OPENING].replace("\u2019", "'"))
    return None if sentence is None else " ".join(sentence[0].split())[:120]
