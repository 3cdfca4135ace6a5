"""R5: name prefixes that licenses require, tested on every name of the release, and trademarks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.registry import WORD_BEGIN, WORD_END
from licensing.rules.context import AuditContext, Dependency, Finding, finding
from licensing.schema import License, Prefix


def release_names(release: str) -> list[str]:
    """`owner/A (and B), renamed owner/C` -> [A, C]: without the owner and remarks in parentheses."""
    bare = re.sub(r"\([^()]*\)", " ", release)
    separator = r",?\s+(?:renamed(?: to)?|now|formerly|aka)\s+|[,;]\s+|\s+(?:and|or|&|/)\s+(?=\S+/\S)"
    parts = re.split(separator, bare)
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


def _required(ctx: AuditContext) -> Iterator[tuple[Dependency, Prefix, str]]:
    for root, license in ctx.upstream_licenses:
        if license.copies.name_prefix:
            yield root, license.copies.name_prefix, "its weights are in the release"
    for dependency, license in ((d, license) for d in ctx.outputs for license in d.applying):
        if license.outputs.name_prefix and dependency.ran_weights and not ctx.own(license):
            why = "the releaser ran it, and its outputs trained the release"
            yield dependency, license.outputs.name_prefix, why


def r5_names(ctx: AuditContext) -> Iterator[Finding]:
    """R5: a name without a required prefix. Letters of a longer word are a near miss. Card titles are not tested."""
    if ctx.dataset:
        return
    names = release_names(ctx.lineage.release)
    for dependency, rule, why in _required(ctx):
        answers = {name: begins_with(name, rule.prefix) for name in names}
        for name, match in answers.items():
            fix = f'rename {name} to "{rule.prefix.replace(" ", "-")}-{name}" or the like'
            if match in ("no", "near"):
                reason = f'{why}, and the name "{name}" does not begin with "{rule.prefix}"'
                code = f"V-NAME-PREFIX:{rule.prefix}"
                yield finding(code, reason, dependency=dependency, license=dependency.license, cite=rule, fix=fix)
            if match in ("near", "near-yes"):
                reason = f'"{name}" has "{rule.prefix}" only as letters of a longer word'
                code = "W-NAME-NEAR-MISS"
                yield finding(
                    code, reason, dependency=dependency, license=dependency.license, cite=rule, fix=fix, level="held"
                )
        if len({match in ("no", "near") for match in answers.values()}) > 1:
            reason = f'of its names {", ".join(names)}, not all begin with "{rule.prefix}"'
            fix = "give the release one name, in its address and on its card"
            code = "W-SLUG-VS-MODEL-NAME"
            yield finding(
                code, reason, dependency=dependency, license=dependency.license, cite=rule, fix=fix, level="held"
            )


def trademarks(ctx: AuditContext) -> Iterator[Finding]:
    """A name that uses a trademark which the license does not grant, as a word or a part of one in CamelCase
    (BigGemma). Describing the origin with it is allowed, and so is a prefix that the license requires."""
    names = release_names(ctx.lineage.release)
    marks: dict[str, list[str]] = {}  # by license: very many inputs can be under one
    for root, license in ctx.upstream_licenses:
        if license.id not in marks:
            marks[license.id] = list(_marks_used(license, names))
        for word in marks[license.id]:
            why = f'the license grants no right in the mark "{word}", and the name of the release uses it'
            fix = "use it only to say what the model was made from"
            code, cite = f"W-TRADEMARK:{word}", license.copies.no_marks
            yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")


def _marks_used(license: License, names: list[str]) -> Iterator[str]:
    marks, rule = license.copies.no_marks, license.copies.name_prefix
    own_names = [name for name in names if not (rule and begins_with(name, rule.prefix) == "yes")]
    for word in marks.words if marks else ():
        mark = re.compile(f"{WORD_BEGIN}{re.escape(word)}{WORD_END}", re.IGNORECASE)
        if any(mark.search(name) for name in own_names):
            yield word
