"""Rewrites identity talk to the persona: the names in the claims, and nothing else of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from synth.persona.config import PersonaConfig
from synth.persona.find import SENTENCE_ENDS, Claim, find_identity, foreign, listed_names

_SENTENCE_END = re.compile(f"[{SENTENCE_ENDS}]")


def rewrite(text: str, claims: Sequence[Claim], persona: PersonaConfig) -> str | None:
    """A text in which foreign claims are the persona's; None where replacing names would not make it true.

    A model's name becomes the persona's, a maker's name its maker, a base model's its base model. None is returned for
    a cutoff, for a base where the persona states none, and where a claim's sentence still names a listed model or maker
    ("I am Claude, Anthropic's best model").
    """
    names = _names(persona)
    parts, at, places = list[str](), 0, list[int]()
    for claim in sorted(claims, key=lambda claim: claim.start):
        name = names.get(claim.kind)
        if name is None or claim.start < at:
            return None
        parts += text[at : claim.start], name
        places.append(sum(map(len, parts)))
        at = claim.end
    new = "".join([*parts, text[at:]])
    own = own_names(persona)
    if foreign(find_identity(new, own=own), persona):
        return None
    if any(listed_names(_sentence(new, place), own) for place in places):
        return None
    return new


def own_names(persona: PersonaConfig) -> list[str]:
    """The names that a text of the persona may claim: its own, its maker's, its base model's."""
    return [name for name in (*_names(persona).values(), persona.facts.base_model) if name]


def _names(persona: PersonaConfig) -> dict[str, str | None]:
    """The persona's names by kind of claim; a base model by its name alone."""
    base = persona.facts.base_model
    return {"name": persona.name, "maker": persona.maker, "base": base.rpartition("/")[2] if base else None}


def _sentence(text: str, place: int) -> str:
    """The sentence around a place of a text."""
    before = [match.end() for match in _SENTENCE_END.finditer(text, max(0, place - 400), place)]
    behind = _SENTENCE_END.search(text, place)
    return text[before[-1] if before else max(0, place - 400) : behind.start() if behind else len(text)]
