"""R2, R14 and the metadata: the declared licence against what governs the inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.catalogue import Licence, load, mentioned
from licensing.rules.case import Case, Edge, Finding, covers, finding

_EARLIER = re.compile(r"\b(was|were|earlier|formerly|previously|before|until|changed)\b", re.IGNORECASE)
# Prose that speaks of an input's licence does not declare the release's own.
_OF_AN_INPUT = re.compile(
    r"\b(base|based on|train(ed|ing)|outputs?|teacher|generated|derived|upstream|data ?sets?|built|notice)\b",
    re.IGNORECASE,
)


def r2_strictest(case: Case) -> Iterator[Finding]:
    """R2: the declared licence may be stricter than what is inside, never looser."""
    declared = case.declared
    if declared is None or case.dataset:
        return  # rows of a data set: R10
    for edge in case.roots:
        licence = edge.governing
        if licence is None or licence.kind == "service" or covers(declared, licence):
            continue
        if licence.permissive:
            yield from _over_permissive(declared, licence, edge)
        else:
            yield from _over_restricted(case, declared, licence, edge)


def _over_permissive(declared: Licence, licence: Licence, edge: Edge) -> Iterator[Finding]:
    if declared.terms:
        why = f"{declared.label} is stricter than {licence.label}: allowed, and the upstream's notices still travel"
        fix = f"ship the text of {licence.name} beside your own"
        yield finding("W-STRICTER-DECLARED", why, edge=edge, licence=licence, fix=fix, level="held")
    elif licence.copies.licence_copy or licence.copies.copyright_notice:
        code = f"W-RELICENSE-PERMISSIVE:{licence.label}->{declared.label}"
        why = "one permissive licence put for another: lawful so long as the upstream's text and notices stay"
        fix = f"ship the text of {licence.name} beside your own"
        cite = licence.copies.licence_copy or licence.copies.copyright_notice
        yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")


def _over_restricted(case: Case, declared: Licence, licence: Licence, edge: Edge) -> Iterator[Finding]:
    c, pair = licence.copies, f"{licence.label}->{declared.label}"
    fix = f"declare {licence.hub_license_name or licence.hub_license or licence.label}"
    cite = c.non_commercial or c.research_only or c.use_restrictions or c.share_alike or c.licence_copy
    weaker = licence.non_commercial and not declared.non_commercial
    if not declared.terms or weaker:
        why = f"declared {declared.label} gives more than {licence.name} lets the releaser give"
        yield finding(f"V-RELICENSE-WEAKER:{pair}", why, edge=edge, licence=licence, cite=cite, fix=fix)
        if weaker:
            why = f"{licence.name} is non-commercial, and the release is declared {declared.label}"
            nc = c.non_commercial or c.research_only
            yield finding("V-NC-DROPPED", why, edge=edge, licence=licence, cite=nc, fix=fix)
    elif declared.label in case.root_labels:
        why = f"{declared.label} is one of several licences that govern; {licence.label} is another"
        yield finding(f"W-TAG-INCOMPLETE:{licence.label}", why, edge=edge, licence=licence, fix=fix, level="held")
    elif "share-alike" in licence.terms:
        why = f"{licence.name} asks for itself on what is made from it; {declared.label} is another licence"
        yield finding(f"V-LICENCE-REPLACED:{pair}", why, edge=edge, licence=licence, cite=c.share_alike, fix=fix)
    elif declared.non_commercial:
        why = f"{declared.label} is stricter on commerce than {licence.label}, whose terms still travel"
        yield finding("W-STRICTER-DECLARED", why, edge=edge, licence=licence, fix=fix, level="held")
        yield finding(f"W-TAG-INCOMPLETE:{licence.label}", why, edge=edge, licence=licence, fix=fix, level="held")
    else:
        why = f"the metadata says {declared.label}, the weights are under {licence.label}"
        code = f"V-TAG-WRONG:{declared.label}!={licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=c.licence_copy, fix=fix)
    if c.use_restrictions and "use-restrictions" not in declared.terms:
        why = f"{licence.name} hands its use restrictions on; {declared.label} does not carry them"
        code = f"V-USE-RESTR-DROPPED:{licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=c.use_restrictions, fix=fix)


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
    for licence in case.prose:
        if licence.label == declared.label or not licence.terms - declared.terms or case.discloses_parts:
            continue
        governs = {e.governing.label for e in (*case.roots, *case.data) if e.governing}
        sentences = re.split(r"[;\n]|\.(?!\d)", case.lineage.declared.text or "")
        own = [s for s in sentences if not _OF_AN_INPUT.search(s)]
        if not any(licence.label in {hit.label for hit in mentioned(s)} for s in own):
            continue
        fix = "make tag and prose say the same"
        if licence.label in governs:
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
        licence = edge.governing
        if licence is None:
            continue
        later = licence.relicensed
        if later and any(part.casefold() in edge.input.id.casefold() for part in later.models):
            why = f"upstream is under {load()[later.to].name} today; that does not cure a copy taken before"
            fix = f"take the revision under {later.to}, and record it"
            yield finding("W-LATER-RELICENSED", why, edge=edge, cite=later, fix=fix, level="held")
        if licence.code_licence and case.declared and case.declared.label == licence.code_licence:
            why = f"{licence.code_licence} is the licence of the code beside these weights, not of the weights"
            fix = f"declare {licence.label}"
            yield finding("W-CODE-VS-WEIGHTS-LICENCE", why, edge=edge, licence=licence, fix=fix, level="held")
        if case.lineage.kind == "model" and edge.several and not edge.reading.mixed:
            why = f"the licence of this base is given as {edge.said}; a parent's tag can be wrong"
            fix = "walk to the root of this base, and write the licence found there"
            yield finding("W-UPSTREAM-TAG-CONFLICT", why, edge=edge, fix=fix, level="held")
