"""R2: the declared license against the licenses inside the release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from licensing.rules.context import AuditContext, Dependency, Finding, Level, covers, finding
from licensing.schema import License


def r2_compatibility(ctx: AuditContext) -> Iterator[Finding]:
    """R2: the declared license may be stricter than what is inside, never looser."""
    if ctx.dataset:
        return  # rows of a data set: R10
    for root, license in ctx.upstream_licenses:
        if any(denied.label == license.label for denied in ctx.denies):
            why = f'the metadata names "{ctx.tag}", the weights are under {license.label}'
            fix = f"declare {license.card_tag}"
            code = f"V-TAG-WRONG:{license.label}"
            yield finding(code, why, dependency=root, license=license, cite=license.copies.licence_copy, fix=fix)
        elif any(covers(declared, license) for declared in ctx.possible):
            if ctx.declared is not None:
                yield from _added_exceptions(ctx, ctx.declared, license, root)
        elif license.permissive:
            if ctx.declared is not None:
                yield from _over_permissive(ctx.declared, license, root)
        else:
            yield from _over_restricted_by_all(ctx, license, root)


def _level(declared: License) -> Level:
    """The terms of a license that was not read are not known as a fact."""
    return "held" if declared.verified == "no" else "fact"


def _added_exceptions(ctx: AuditContext, declared: License, license: License, root: Dependency) -> Iterator[Finding]:
    """An exception in the declaration that the upstream did not give: more permission than the releaser has."""
    added = ", ".join(sorted(ctx.parsed_tag.exceptions - root.parsed.exceptions))
    if added and license.terms:
        code = f"V-RELICENSE-WEAKER:{license.label}->{declared.label} WITH {added}"
        why = f"the declared license adds the exception {added}, which {root.input.id} does not give"
        fix = f"declare {license.card_tag} without the exception"
        yield finding(code, why, dependency=root, license=license, cite=license.copies.share_alike, fix=fix)


def _over_permissive(declared: License, license: License, root: Dependency) -> Iterator[Finding]:
    fix = f"ship the text of {license.name} beside your own"
    if declared.terms:
        why = f"{declared.label} is stricter than {license.label}: allowed, and the upstream's notices still travel"
        yield finding("W-STRICTER-DECLARED", why, dependency=root, license=license, fix=fix, level="held")
    elif license.copies.licence_copy or license.copies.copyright_notice:
        code = f"W-RELICENSE-PERMISSIVE:{license.label}->{declared.label}"
        why = "one permissive license replaces another: lawful as long as the upstream's text and notices stay"
        cite = license.copies.licence_copy or license.copies.copyright_notice
        yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")


def _over_restricted_by_all(ctx: AuditContext, license: License, root: Dependency) -> Iterator[Finding]:
    """What holds for every text that the declaration can mean."""
    results = [list(_over_restricted(ctx, declared, license, root)) for declared in ctx.possible]
    if len(results) == 1:
        yield from results[0]
        return
    for result in results[0] if results else ():
        if result.code[0] == "V" and all(any(f.bare == result.bare for f in other) for other in results[1:]):
            label, tag = ctx.possible[0].label, ctx.tag or ""
            code = result.code.replace(f"->{label}", f"->{tag}").replace(f":{label}!=", f":{tag}!=")
            why = f'{result.why}; so it is with every text that "{tag}" can mean'
            yield replace(result, code=code, why=why)


def _over_restricted(ctx: AuditContext, declared: License, license: License, root: Dependency) -> Iterator[Finding]:
    c, pair = license.copies, f"{license.label}->{declared.label}"
    fix = f"declare {ctx.limiting_tags}"
    cite = c.non_commercial or c.research_only or c.use_restrictions or c.share_alike or c.licence_copy
    weaker = license.non_commercial and not declared.non_commercial
    dropped = bool(c.use_restrictions) and "use-restrictions" not in declared.terms
    named = license.label in ctx.prose_labels
    custom = ctx.own(declared) or ctx.is_vendor(declared)
    if "share-alike" in license.terms and (declared.terms or custom):
        why = f"what is made from work under {license.name} has to be under the same; {declared.label} is another"
        others = [label for label in sorted(ctx.root_labels) if label != license.label]
        if others:
            why += f"; it cannot be met together with {', '.join(others)}, which is in the release too"
        code = f"V-LICENCE-REPLACED:{pair}"
        yield finding(code, why, dependency=root, license=license, cite=c.share_alike, fix=fix)
    if weaker or (not declared.terms and not custom):
        why = f"declared {declared.label} gives more than {license.name} lets the releaser give"
        yield finding(f"V-RELICENSE-WEAKER:{pair}", why, dependency=root, license=license, cite=cite, fix=fix)
        if weaker:
            why = f"{license.name} is non-commercial, and the release is declared {declared.label}"
            nc = c.non_commercial or c.research_only
            yield finding("V-NC-DROPPED", why, dependency=root, license=license, cite=nc, fix=fix)
    elif "share-alike" in license.terms:
        pass  # reported above
    elif declared.label in ctx.root_labels or (named and (custom or declared.non_commercial)):
        why = f"{declared.label} is one of several licenses that govern; {license.label} is another"
        code = f"W-TAG-INCOMPLETE:{license.label}"
        yield finding(code, why, dependency=root, license=license, fix=fix, level="held")
    elif declared.non_commercial or (license.terms == {"use-restrictions"} and not dropped):
        why = f"{declared.label} is no looser than {license.label}, whose terms still travel"
        if declared.non_commercial:
            yield finding("W-STRICTER-DECLARED", why, dependency=root, license=license, fix=fix, level="held")
        code = f"W-TAG-INCOMPLETE:{license.label}"
        yield finding(code, why, dependency=root, license=license, fix=fix, level="held")
    elif custom:
        why = f"the releaser's own {declared.label} replaces {license.name} and does not carry its terms"
        code, level = f"V-LICENCE-REPLACED:{pair}", _level(declared)
        yield finding(code, why, dependency=root, license=license, cite=c.licence_copy, fix=fix, level=level)
    else:
        why = f"the metadata says {declared.label}, the weights are under {license.label}"
        code = f"V-TAG-WRONG:{declared.label}!={license.label}"
        yield finding(code, why, dependency=root, license=license, cite=c.licence_copy, fix=fix)
    if dropped:
        why = f"{license.name} requires that its use restrictions are passed on; {declared.label} does not carry them"
        code = f"V-USE-RESTR-DROPPED:{license.label}"
        yield finding(code, why, dependency=root, license=license, cite=c.use_restrictions, fix=fix)
