"""R5: the naming test, on every name that the release goes by."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.catalogue import Prefix
from licensing.rules.case import Case, Edge, Finding, finding


def release_names(release: str) -> list[str]:
    """`owner/A (and B), renamed owner/C` -> [A, C]: the owner and what stands in parentheses are no part of a name."""
    bare = re.sub(r"\([^()]*\)", " ", release)
    parts = re.split(r",?\s+(?:renamed|now|formerly)\s+|,\s+", bare)
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
        if edge.governing and edge.governing.copies.name_prefix:
            yield edge, edge.governing.copies.name_prefix, "its weights are in the release"
    for edge in case.outputs:
        if edge.governing and edge.governing.outputs.name_prefix and edge.input.ran_by == "releaser":
            yield edge, edge.governing.outputs.name_prefix, "the releaser ran it, and its outputs trained the release"


def r5_names(case: Case) -> Iterator[Finding]:
    """R5: a name that does not begin as it has to. Folded letters are a near miss, and the card's title is not seen."""
    if case.dataset:
        return
    for edge, rule, why in _required(case):
        for name in release_names(case.lineage.release):
            found = begins_with(name, rule.prefix)
            fix = f'rename {name} to "{rule.prefix.replace(" ", "-")}-{name}" or the like'
            if found in ("no", "near"):
                said = f'{why}, and the name "{name}" does not begin with "{rule.prefix}"'
                code = f"V-NAME-PREFIX:{rule.prefix}"
                yield finding(code, said, edge=edge, licence=edge.governing, cite=rule, fix=fix)
            if found in ("near", "near-yes"):
                said = f'"{name}" has "{rule.prefix}" only as letters of a longer word'
                yield finding(
                    "W-NAME-NEAR-MISS", said, edge=edge, licence=edge.governing, cite=rule, fix=fix, level="held"
                )
