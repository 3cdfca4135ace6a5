"""R5: the naming test, on every name that the release goes by."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import Case, Edge, Finding, finding
from licensing.schema import Prefix


def release_names(release: str) -> list[str]:
    """`owner/A (and B), renamed owner/C` -> [A, C]: the owner and what stands in parentheses are no part of a name."""
    bare = re.sub(r"\([^()]*\)", " ", release)
    split = r",?\s+(?:renamed(?: to)?|now|formerly|aka)\s+|[,;]\s+|\s+(?:and|or|&|/)\s+(?=\S+/\S)"
    parts = re.split(split, bare)
    return [part.strip().rsplit("/", 1)[-1].strip() for part in parts if part.strip()]


def begins_with(name: str, prefix: str) -> str:
    """`yes`, `near` (only as letters of a longer word), or `no`. Case, spaces, hyphens and underscores do not count.

    "Llama-3.1-X" and "llama3-x" begin with "Llama 3"; "LLaMAcme" begins with the letters of "Llama" only.
    """
    parts = re.findall(r"[a-z]+|\d+", prefix.casefold())
    hit = re.match(r"[\s_\-]*".join(parts), name.casefold())
    if hit is None:
        return "near" if name.casefold().startswith(parts[0]) else "no"
    following = name.casefold()[hit.end() : hit.end() + 1]
    longer = following.isalpha() if parts[-1].isalpha() else following.isdigit()
    return "near-yes" if longer else "yes"


def _required(case: Case) -> Iterator[tuple[Edge, Prefix, str]]:
    for edge in case.roots:
        if edge.licence and edge.licence.copies.name_prefix and not case.own(edge.licence):
            yield edge, edge.licence.copies.name_prefix, "its weights are in the release"
    for edge in case.outputs:
        if edge.licence and edge.licence.outputs.name_prefix and edge.ran_weights and not case.own(edge.licence):
            yield edge, edge.licence.outputs.name_prefix, "the releaser ran it, and its outputs trained the release"


def r5_names(case: Case) -> Iterator[Finding]:
    """R5: a name that does not begin as it has to. Folded letters are a near miss, and the card's title is not seen."""
    if case.dataset:
        return
    names = release_names(case.lineage.release)
    for edge, rule, why in _required(case):
        answers = {name: begins_with(name, rule.prefix) for name in names}
        for name, found in answers.items():
            fix = f'rename {name} to "{rule.prefix.replace(" ", "-")}-{name}" or the like'
            if found in ("no", "near"):
                said = f'{why}, and the name "{name}" does not begin with "{rule.prefix}"'
                code = f"V-NAME-PREFIX:{rule.prefix}"
                yield finding(code, said, edge=edge, licence=edge.licence, cite=rule, fix=fix)
            if found in ("near", "near-yes"):
                said = f'"{name}" has "{rule.prefix}" only as letters of a longer word'
                code = "W-NAME-NEAR-MISS"
                yield finding(code, said, edge=edge, licence=edge.licence, cite=rule, fix=fix, level="held")
        if len({found in ("no", "near") for found in answers.values()}) > 1:
            said = f'of its names {", ".join(names)}, not all begin with "{rule.prefix}"'
            fix = "give the release one name, in its address and on its card"
            code = "W-SLUG-VS-MODEL-NAME"
            yield finding(code, said, edge=edge, licence=edge.licence, cite=rule, fix=fix, level="held")


def trademarks(case: Case) -> Iterator[Finding]:
    """A name that uses a mark of which the licence grants none. What is usual in describing an origin is allowed."""
    for edge in case.roots:
        marks = edge.licence.copies.no_marks if edge.licence and not case.own(edge.licence) else None
        for word in marks.words if marks else ():
            if any(word.casefold() in name.casefold() for name in release_names(case.lineage.release)):
                why = f'the licence grants no right in the mark "{word}", and the name of the release uses it'
                fix = "use it only to say what the model was made from"
                code = f"W-TRADEMARK:{word}"
                yield finding(code, why, edge=edge, licence=edge.licence, cite=marks, fix=fix, level="held")
