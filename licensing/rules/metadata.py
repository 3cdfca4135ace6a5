"""R14 and the release's own metadata: missing, unreadable, at odds with the card's prose, or out of date."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.registry import sentences
from licensing.rules.context import Case, Edge, Finding, finding
from licensing.schema import Licence

_EARLIER = re.compile(r"\b(was|were|earlier|formerly|previously|before|until|changed)\b", re.IGNORECASE)
# Prose that speaks of an input's licence does not declare the release's own.
_NOTICE = re.compile(r"\bnotices?\b", re.IGNORECASE)
_OF_AN_INPUT = re.compile(
    r"\b(base|based on|train(ed|ing)|outputs?|teacher|generated|derived|upstream|data ?sets?|built)\b",
    re.IGNORECASE,
)


def tag_and_prose(case: Case) -> Iterator[Finding]:
    """The release's own metadata: missing, unreadable, or at odds with its prose."""
    said = case.lineage.declared
    text = (said.text or "").strip()
    if not (said.license or said.license_name) and not text:
        why = "the release names no licence at all"
        yield finding("V-TAG-MISSING", why, fix="set `license:` in the card's metadata")
        return
    if not (said.license or said.license_name):
        why = "the licence stands in the prose only; tools read the metadata and see none"
        missing = case.declared is None
        if missing:
            why = f"{why}; no licence that governs could be read from the prose either"
        fix = "set `license:` in the card's metadata"
        yield finding("W-TAG-INCOMPLETE", why, fix=fix, level="held", blocks=missing)
        return
    if case.denies and case.declared is None:
        return  # what it is not is known, and R2 looks at that
    if case.declared is None:
        tag = said.license_name if (said.license or "").casefold() == "other" else said.license
        what = f'"{tag}" is not in the catalogue' if not case.tag_names else f'"{tag}" can mean several texts'
        names = ", ".join(licence.id for licence in case.tag_names)
        why = f"the declared licence is not known: {what}"
        fix = f"write one of {names}" if names else "write an SPDX id or an id that `distill licences` lists"
        yield finding("W-TAG-INCOMPLETE", why, fix=fix, level="held", blocks=True)
    else:
        yield from _contradiction(case, case.declared)


def _contradiction(case: Case, declared: Licence) -> Iterator[Finding]:
    """A notice counts where its subject is inside. A tag that stands beside the text or is stricter is R2's matter."""
    governs = {e.governing.label for e in (*case.roots, *case.data) if e.governing}
    beside = declared.label in case.root_labels and not declared.permissive
    stands = beside or case.own(declared) or declared.non_commercial
    partial = not case.dataset and stands
    taught = {e.licence.label for e in case.outputs if e.licence}  # a teacher's terms, taken on beside one's own
    pieces = [s for s in sentences(case.lineage.declared.text) if not _OF_AN_INPUT.search(s)]
    for licence in case.prose:
        if licence.label == declared.label or not licence.terms - declared.terms or case.discloses_parts:
            continue
        right = licence.label in governs
        if (right and partial) or (licence.label in taught and not right):
            continue
        own = [s for s in pieces if licence.label in case.root_labels or not _NOTICE.search(s)]
        if not any(licence.label in {hit.label for hit in case.catalogue.mentioned(s)} for s in own):
            continue
        fix = "make tag and prose say the same"
        if right:
            why = f"the tag says {declared.label}, the card's text {licence.label}, and the text is right"
            yield finding("V-CARD-CONTRADICTS", why, licence=licence, fix=fix)
        else:
            why = f"the tag says {declared.label}, the card's text the stricter {licence.label}"
            yield finding("W-CARD-CONTRADICTS", why, licence=licence, fix=fix, level="held")
        return


def r14_changes(case: Case) -> Iterator[Finding]:
    """R14: licences change; the revision that was taken decides. Also a code licence taken for the weights'."""
    tag = case.lineage.declared.license or ""
    if _EARLIER.search(tag):
        why = "the declared licence changed across revisions; copies taken earlier keep the earlier grant"
        yield finding("W-LICENCE-CHANGED-ACROSS-REVISIONS", why, fix="pin the revision", level="held")
    for edge in case.roots:
        licence = edge.licence
        if licence is None:
            continue
        yield from _later(edge, licence)
        if licence.code_licence and case.declared and case.declared.label == licence.code_licence:
            why = f"{licence.code_licence} is the licence of the code beside these weights, not of the weights"
            fix = f"declare {licence.label}"
            yield finding("W-CODE-VS-WEIGHTS-LICENCE", why, edge=edge, licence=licence, fix=fix, level="held")
        if case.lineage.kind == "model" and edge.several and not edge.reading.mixed:
            why = f"the licence of this base is given as {edge.said}; a parent's tag can be wrong"
            fix = "walk to the root of this base, and write the licence found there"
            yield finding("W-UPSTREAM-TAG-CONFLICT", why, edge=edge, fix=fix, level="held")


def _later(edge: Edge, licence: Licence) -> Iterator[Finding]:
    later = licence.relicensed
    if later and any(part.casefold() in edge.input.id.casefold() for part in later.models):
        why = f"upstream is under {later.to} today; that does not cure a copy taken before"
        fix = f"take the revision under {later.to}, and record it"
        yield finding("W-LATER-RELICENSED", why, edge=edge, cite=later, fix=fix, level="held")
        return
    known = edge.known
    first = known.relicensed if known else None
    if known and first and licence.id == first.to and not edge.input.revision:
        why = f"this repository began under {known.label}; which revision was taken is not said"
        fix = f"record the revision that is under {first.to}"
        yield finding("W-LATER-RELICENSED", why, edge=edge, cite=first, fix=fix, level="held")


def exact_repository(case: Case) -> Iterator[Finding]:
    """R1, R14: a repository that is known to be under a stricter text than the lineage gives it. Never by family."""
    for edge in case.edges:
        known = edge.conflict
        if known is None:
            continue
        why = (
            f"the lineage gives {edge.input.id} the licence {edge.said}; this very repository is known to be under "
            f"{known.name}, which asks for more"
        )
        fix = f"look at its LICENSE, and write `licence: {known.id}` if it is that"
        blocks = edge.input.role == "base" or (case.dataset and edge.input.role == "data")
        code = "W-UPSTREAM-TAG-CONFLICT"
        yield finding(code, why, edge=edge, licence=known, fix=fix, level="held", blocks=blocks)
