"""What the licence and notice files of the release hold, where they were read: copies, notice lines, the tag's text."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.license_files import Paper, Papers
from licensing.rules.context import Case, Edge, Finding, finding
from licensing.schema import Licence


def texts_read(case: Case) -> Iterator[Finding]:
    """Owed copies and lines by content, and a LICENSE that is another licence than the tag says.

    A file that was not recognised may be the copy that is owed: it makes a warning of what would be a violation.
    """
    if case.papers is None:
        return
    held = {licence for paper in case.papers.licences for licence in _labels(case, paper.licences)}
    unread = [paper for paper in case.papers.licences if not paper.licences and not paper.mentions]
    for edge in case.roots:
        licence = edge.licence
        if licence is None or case.own(licence):
            continue
        if licence.copies.licence_copy is not None and not _met(case, licence, held):
            if not (case.dataset and licence.copies.licence_copy.by_link):
                yield _copy(edge, licence, case.papers, unread)
        elif licence.copies.copyright_notice is not None and not _met(case, licence, held):
            why = f"no file holds the text of {licence.name}, so its copyright line and permission notice are not there"
            fix = f"ship the upstream LICENSE of {edge.input.id}"
            cite = licence.copies.copyright_notice
            code = "W-AGREEMENT-COPY-NOT-SEEN"
            yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
        yield from _notice(case, edge, licence, case.papers)
    yield from _declared(case, case.papers)


def _labels(case: Case, ids: tuple[str, ...]) -> set[str]:
    """Labels and SPDX ids of the texts: a licence counts as held by either."""
    known = [case.catalogue.entries.get(name) for name in ids]
    labels = {part for entry in known if entry for part in (entry.label, entry.spdx) if part}
    return labels | {name for name, entry in zip(ids, known, strict=True) if entry is None}


def _met(case: Case, licence: Licence, held: set[str]) -> bool:
    return licence.label in held or (licence.spdx is not None and licence.spdx in held)


def _copy(edge: Edge, licence: Licence, papers: Papers, unread: list[Paper]) -> Finding:
    fix = f"ship the text of {licence.name} as a file"
    cite = licence.copies.licence_copy
    if unread:
        names = ", ".join(paper.name for paper in unread)
        why = f"no file was recognised as {licence.name}; {names} may be it"
        code = "W-APACHE-TEXT-NOT-SEEN" if licence.spdx == "Apache-2.0" else "W-AGREEMENT-COPY-NOT-SEEN"
        return finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
    why = f"the release holds no copy of {licence.name}"
    if papers.licences:
        why += "; its licence files were read: " + "; ".join(
            f"{paper.name} {_said(paper)}" for paper in papers.licences
        )
    code = f"V-LICENCE-COPY-MISSING:{licence.label}"
    return finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix)


def _said(paper: Paper) -> str:
    if paper.licences:
        return f"is {' and '.join(paper.licences)}"
    if paper.near:
        return f"is like {paper.near} with words of its own"
    return f"only names {' or '.join(paper.mentions)}"


def _notice(case: Case, edge: Edge, licence: Licence, papers: Papers) -> Iterator[Finding]:
    rule = licence.copies.notice
    if rule is None or case.dataset:
        return
    line = rule.text or f"the notice of {licence.name}"
    fix = f"put this line in NOTICE: {line}"
    if papers.notice is None:
        why = "the release holds no notice file"
    elif rule.text and not papers.holds(rule.text):
        why = "the notice file does not hold the line that this licence asks for"
    else:
        return
    code = f"V-NOTICE-MISSING:{licence.label}"
    yield finding(code, why, edge=edge, licence=licence, cite=rule, fix=fix)


def _declared(case: Case, papers: Papers) -> Iterator[Finding]:
    """The LICENSE beside the card against the card's tag. An upstream's text kept there is no contradiction."""
    tag = case.declared
    paper = next((paper for paper in papers.licences if paper.principal), None)
    if tag is None or paper is None:
        return
    everywhere = {name for other in papers.licences for name in _labels(case, other.licences)}
    if tag.label in everywhere or (tag.spdx and tag.spdx in everywhere):
        return
    if paper.near and case.catalogue.resolve(paper.near) in (tag, None):
        why = f"{paper.name} is like {paper.near}, which the tag names, with words of its own: terms were put in or out"
        fix = "read what was changed, and declare `license: other` with a name for it if it limits anything"
        yield finding("W-CARD-CONTRADICTS", why, fix=fix, level="held")
    if not paper.licences:
        return
    found = case.catalogue.entries.get(paper.licences[0])
    upstream = {text.label for edge in case.roots for text in edge.reading.licences}
    if found is not None and found.permissive and found.label in upstream:
        return  # the upstream's copy, as it is owed; the tag is the release's own to choose
    name = found.label if found else paper.licences[0]
    why = f"the tag says {tag.label}, and {paper.name} is the text of {found.name if found else name}"
    fix = f"declare {name}, or ship the text of {tag.name} as {paper.name}"
    if found is not None and found.permissive and any(edge.reading.unknown for edge in case.roots):
        why = f"{why}; it may be the copy of an upstream whose licence is not known"
        yield finding("W-CARD-CONTRADICTS", why, licence=found, fix=fix, level="held")
        return
    yield finding(f"V-TAG-WRONG:{tag.label}!={name}", why, licence=found, fix=fix)
