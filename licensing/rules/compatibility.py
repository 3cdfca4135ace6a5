"""R2: the declared licence against what is inside the release."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.rules.context import Case, Edge, Finding, Level, covers, finding
from licensing.schema import Licence


def r2_strictest(case: Case) -> Iterator[Finding]:
    """R2: the declared licence may be stricter than what is inside, never looser."""
    if case.dataset:
        return  # rows of a data set: R10
    for edge in case.roots:
        licence = edge.licence
        if licence is None or case.own(licence):
            continue
        if any(denied.label == licence.label for denied in case.denies):
            why = f'the metadata names "{case.tag}", the weights are under {licence.label}'
            fix = f"declare {_tag(licence)}"
            code = f"V-TAG-WRONG:{licence.label}"
            yield finding(code, why, edge=edge, licence=licence, cite=licence.copies.licence_copy, fix=fix)
        elif case.declared is not None and not covers(case.declared, licence):
            if licence.permissive:
                yield from _over_permissive(case.declared, licence, edge)
            else:
                yield from _over_restricted(case, case.declared, licence, edge)


def _tag(licence: Licence) -> str:
    name = licence.hub_license_name
    return f"license: other, license_name: {name}" if name else licence.hub_license or licence.label


def _level(declared: Licence) -> Level:
    """What a licence that was not read carries is not known as a fact."""
    return "held" if declared.verified == "no" else "fact"


def _over_permissive(declared: Licence, licence: Licence, edge: Edge) -> Iterator[Finding]:
    fix = f"ship the text of {licence.name} beside your own"
    if declared.terms:
        why = f"{declared.label} is stricter than {licence.label}: allowed, and the upstream's notices still travel"
        yield finding("W-STRICTER-DECLARED", why, edge=edge, licence=licence, fix=fix, level="held")
    elif licence.copies.licence_copy or licence.copies.copyright_notice:
        code = f"W-RELICENSE-PERMISSIVE:{licence.label}->{declared.label}"
        why = "one permissive licence put for another: lawful so long as the upstream's text and notices stay"
        cite = licence.copies.licence_copy or licence.copies.copyright_notice
        yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")


def _over_restricted(case: Case, declared: Licence, licence: Licence, edge: Edge) -> Iterator[Finding]:
    c, pair = licence.copies, f"{licence.label}->{declared.label}"
    fix = f"declare {_tag(licence)}"
    cite = c.non_commercial or c.research_only or c.use_restrictions or c.share_alike or c.licence_copy
    weaker = licence.non_commercial and not declared.non_commercial
    dropped = bool(c.use_restrictions) and "use-restrictions" not in declared.terms
    named = licence.label in {entry.label for entry in case.prose}
    custom = case.own(declared) or case.is_vendor(declared)
    if "share-alike" in licence.terms and (declared.terms or custom):
        why = f"{licence.name} asks for itself on what is made from it; {declared.label} is another licence"
        others = [label for label in sorted(case.root_labels) if label != licence.label]
        if others:
            why += f"; it cannot be met together with {', '.join(others)}, which is in the release too"
        yield finding(f"V-LICENCE-REPLACED:{pair}", why, edge=edge, licence=licence, cite=c.share_alike, fix=fix)
    if weaker or (not declared.terms and not custom):
        why = f"declared {declared.label} gives more than {licence.name} lets the releaser give"
        yield finding(f"V-RELICENSE-WEAKER:{pair}", why, edge=edge, licence=licence, cite=cite, fix=fix)
        if weaker:
            why = f"{licence.name} is non-commercial, and the release is declared {declared.label}"
            nc = c.non_commercial or c.research_only
            yield finding("V-NC-DROPPED", why, edge=edge, licence=licence, cite=nc, fix=fix)
    elif "share-alike" in licence.terms:
        pass  # said above
    elif declared.label in case.root_labels or (named and (custom or declared.non_commercial)):
        why = f"{declared.label} is one of several licences that govern; {licence.label} is another"
        yield finding(f"W-TAG-INCOMPLETE:{licence.label}", why, edge=edge, licence=licence, fix=fix, level="held")
    elif declared.non_commercial or (licence.terms == {"use-restrictions"} and not dropped):
        why = f"{declared.label} is no looser than {licence.label}, whose terms still travel"
        if declared.non_commercial:
            yield finding("W-STRICTER-DECLARED", why, edge=edge, licence=licence, fix=fix, level="held")
        yield finding(f"W-TAG-INCOMPLETE:{licence.label}", why, edge=edge, licence=licence, fix=fix, level="held")
    elif custom:
        why = f"the releaser's own {declared.label} stands in place of {licence.name} and does not carry its terms"
        code, level = f"V-LICENCE-REPLACED:{pair}", _level(declared)
        yield finding(code, why, edge=edge, licence=licence, cite=c.licence_copy, fix=fix, level=level)
    else:
        why = f"the metadata says {declared.label}, the weights are under {licence.label}"
        code = f"V-TAG-WRONG:{declared.label}!={licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=c.licence_copy, fix=fix)
    if dropped:
        why = f"{licence.name} hands its use restrictions on; {declared.label} does not carry them"
        code = f"V-USE-RESTR-DROPPED:{licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=c.use_restrictions, fix=fix)
