"""R14 and the release's own metadata: missing, unknown, contradicted by the card's prose, or out of date."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.published_data import data_license
from licensing.registry import sentences
from licensing.rules.context import AuditContext, Dependency, Finding, finding
from licensing.safe_yaml import printable
from licensing.schema import License

_EARLIER = re.compile(r"\b(was|were|earlier|formerly|previously|before|until|changed)\b", re.IGNORECASE)
_PLACES = re.compile(r"\b(?:card|licen[cs]e(?: file)?)\s*[:)]", re.IGNORECASE)
_NON_COMMERCIAL_USE = re.compile(r"\bnon[- ]?commercial (?:use|purposes?|research)\b", re.IGNORECASE)
_OTHER_USES = re.compile(r"(?<!non-)(?<!non )\bcommercial\b|\b(?:not|no|nor|without|never)\b", re.IGNORECASE)
# Prose that speaks of an input's license does not declare the release's own.
_NOTICE = re.compile(r"\bnotices?\b", re.IGNORECASE)
_OF_AN_INPUT = re.compile(
    r"\b(base|based on|train(ed|ing)|outputs?|teacher|generated|derived|upstream|data ?sets?|built)\b",
    re.IGNORECASE,
)


def tag_and_prose(ctx: AuditContext) -> Iterator[Finding]:
    """The license tag of the card: missing, unknown, or contradicted by the prose."""
    declared = ctx.lineage.declared
    text = (declared.text or "").strip()
    if not (declared.license or declared.license_name) and not text:
        why = "the release names no license at all"
        yield finding("V-TAG-MISSING", why, fix="set `license:` in the card's metadata")
        return
    if not (declared.license or declared.license_name):
        why = "only the prose names a license; tools read the metadata and see none"
        missing = ctx.declared is None
        if missing:
            why = f"{why}; no license that governs could be read from the prose either"
        fix = "set `license:` in the card's metadata"
        yield finding("W-TAG-INCOMPLETE", why, fix=fix, level="held", blocks=missing)
        return
    if ctx.root_labels & {license.label for license in ctx.denies}:
        return  # R2 reports a tag that denies what governs
    if ctx.declared is None:
        what = f'"{ctx.tag}" is not in the registry' if not ctx.tag_names else f'"{ctx.tag}" can mean several texts'
        names = ", ".join(license.id for license in ctx.tag_names)
        why = f"the declared license is not known: {what}"
        fix = f"write one of {names}" if names else "write an SPDX id or an id that `distill licences` lists"
        yield finding("W-TAG-INCOMPLETE", why, fix=fix, level="held", blocks=True)
    else:
        yield from _contradiction(ctx, ctx.declared)


def _contradiction(ctx: AuditContext, declared: License) -> Iterator[Finding]:
    """Prose that names a stricter license than the tag. A notice counts where its subject is inside the release; a tag
    that also governs, or is stricter, is R2's matter."""
    several = len({entry.label for entry in ctx.tag_names}) > 1 or not ctx.parsed_tag.complete
    if several and _PLACES.search(ctx.tag or ""):
        why = f'card and LICENSE file differ, by the declaration itself: "{ctx.tag}"'
        fix = "declare the one that is right, and ship its text as LICENSE"
        yield finding("W-CARD-CONTRADICTS", why, fix=fix, level="held")
        return
    own_words = next(_non_commercial_words(ctx), None) if not declared.non_commercial else None
    if own_words:
        why = f'the tag says {declared.label}, which allows commercial use, and the card says "{own_words}"'
        fix = "declare a non-commercial license, or take the sentence out"
        yield finding("W-CARD-CONTRADICTS", why, fix=fix, level="held")
        return
    governs = frozenset[str]().union(*(d.labels for d in (*ctx.roots, *ctx.data)))
    beside = declared.label in ctx.root_labels and not declared.permissive
    also_governs = beside or ctx.own(declared) or declared.non_commercial
    beside_others = not ctx.dataset and also_governs
    taught = {d.license.label for d in ctx.outputs if d.license}  # terms of a teacher that the release takes on
    own_sentences = [s for s in sentences(ctx.lineage.declared.text) if not _OF_AN_INPUT.search(s)]
    for license in ctx.prose:
        in_tag = license.label in {entry.label for entry in (declared, *ctx.tag_names)}
        if in_tag or not license.terms - declared.terms or ctx.discloses_parts:
            continue
        right = license.label in governs
        if (right and beside_others) or (license.label in taught and not right):
            continue
        own = [s for s in own_sentences if license.label in ctx.root_labels or not _NOTICE.search(s)]
        if not any(license.label in {entry.label for entry in ctx.registry.mentioned(s)} for s in own):
            continue
        fix = "make tag and prose say the same"
        if right:
            why = f"the tag says {declared.label}, the card's text {license.label}, and the text is right"
            yield finding("V-CARD-CONTRADICTS", why, license=license, fix=fix)
        else:
            why = f"the tag says {declared.label}, the card's text the stricter {license.label}"
            yield finding("W-CARD-CONTRADICTS", why, license=license, fix=fix, level="held")
        return


def _non_commercial_words(ctx: AuditContext) -> Iterator[str]:
    """Sentences that limit the release, as a whole and in words of its own, to non-commercial use."""
    if ctx.discloses_parts:
        return
    for sentence in sentences(ctx.lineage.declared.text):
        if not _NON_COMMERCIAL_USE.search(sentence) or _OTHER_USES.search(sentence):
            continue
        if not (_OF_AN_INPUT.search(sentence) or _NOTICE.search(sentence) or ctx.registry.mentioned(sentence)):
            yield printable(sentence.strip())


def r14_changes(ctx: AuditContext) -> Iterator[Finding]:
    """R14: licenses change, and the revision that was taken decides. Also: the code's license declared for weights."""
    tag = ctx.lineage.declared.license or ""
    if _EARLIER.search(tag):
        why = "the declared license changed across revisions; copies taken earlier keep the earlier grant"
        yield finding("W-LICENCE-CHANGED-ACROSS-REVISIONS", why, fix="pin the revision", level="held")
    for root, license in ctx.root_licenses:
        yield from _relicensed(root, license)
        if license.code_licence and ctx.declared and ctx.declared.label == license.code_licence:
            why = f"{license.code_licence} is the license of the code beside these weights, not of the weights"
            fix = f"declare {license.label}"
            yield finding("W-CODE-VS-WEIGHTS-LICENCE", why, dependency=root, license=license, fix=fix, level="held")
    for dependency in (*(() if ctx.dataset else ctx.roots), *ctx.outputs):
        licenses = [license for license in dependency.parsed.licenses if license.kind == "licence"]
        several = dependency.ambiguous and len(licenses) > 1 and not dependency.shared and not dependency.parsed.mixed
        if several and not ctx.card_conflict(dependency):
            why = f"the license of this {dependency.input.role} is given as {dependency.stated}; a tag can be wrong"
            fix = "follow its base models to the first one, and write the license found there"
            yield finding("W-UPSTREAM-TAG-CONFLICT", why, dependency=dependency, fix=fix, level="held")


def _relicensed(dependency: Dependency, license: License) -> Iterator[Finding]:
    later = license.relicensed
    if later and any(part.casefold() in dependency.input.id.casefold() for part in later.models):
        why = f"upstream is under {later.to} today; that does not cure a copy taken before"
        fix = f"take the revision under {later.to}, and record it"
        yield finding("W-LATER-RELICENSED", why, dependency=dependency, cite=later, fix=fix, level="held")
        return
    registered = dependency.repository_license
    first = registered.relicensed if registered else None
    if registered and first and license.id == first.to and not dependency.input.revision:
        why = f"this repository began under {registered.label}; the lineage names no revision"
        fix = f"record the revision that is under {first.to}"
        yield finding("W-LATER-RELICENSED", why, dependency=dependency, cite=first, fix=fix, level="held")


def exact_repository(ctx: AuditContext) -> Iterator[Finding]:
    """R1, R14: a repository that is under a stricter license than the lineage says: by the registry, which knows its
    exact name or that of the model that its name speaks of, or by its own card, LICENSE or bases."""
    code = "W-UPSTREAM-TAG-CONFLICT"
    for dependency in ctx.dependencies:
        stricter = dependency.conflict
        if stricter is None:
            why, strictest = ctx.card_conflict(dependency), dependency.governing
            if why is not None:
                fix = "follow its base models to the first one, and write the license found there in lineage.yaml"
                yield finding(code, why, dependency=dependency, license=strictest, fix=fix, level="held", blocks=True)
            continue
        exact = stricter in (ctx.registry.of_repository(name := dependency.input.id), data_license(name, ctx.registry))
        which = "this exact repository" if exact else "the model that it was made from by its name"
        why = f"the lineage gives {dependency.input.id} the license {dependency.stated}; {which} is "
        unchecked = ctx.registry.is_unchecked(dependency.input.id)
        why += f"{'said' if unchecked else 'known'} to be under {stricter.name}, which asks for more"
        fix = f"look at its LICENSE, and write `licence: {stricter.id}` if it is that"
        if not exact:
            fix += "; where its name speaks only of a teacher, or of another model beside it, waive this and say so"
        yield finding(code, why, dependency=dependency, license=stricter, fix=fix, level="held", blocks=True)
