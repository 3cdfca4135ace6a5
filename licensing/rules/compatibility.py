"""R2: the declared license against the licenses inside the release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from licensing.rules.context import AuditContext, Dependency, Finding, Level, bare_code, covers, finding
from licensing.schema import Fact, License


def r2_compatibility(ctx: AuditContext) -> Iterator[Finding]:
    """R2: the declared license may be stricter than what is inside, never looser."""
    if ctx.dataset:
        return  # rows of a data set: R10
    roots: dict[str, list[tuple[Dependency, License]]] = {}  # by license: most findings are the same for all of them
    for root, license in ctx.upstream_licenses:
        roots.setdefault(license.id, []).append((root, license))
    for group in roots.values():
        yield from _of_license(ctx, group[0][1], [root for root, _ in group])


def _of_license(ctx: AuditContext, license: License, roots: list[Dependency]) -> Iterator[Finding]:
    """The declared license against one license; ``roots``: what is under it."""
    if any(denied.label == license.label for denied in ctx.denies):
        why = f'the metadata names "{ctx.tag}", the weights are under {license.label}'
        breaches = [_Breach(f"V-TAG-WRONG:{license.label}", why, license.copies.licence_copy)]
        fix = f"declare {license.card_tag}"
    elif any(covers(declared, license) for declared in (*ctx.possible, *ctx.tag_names)):
        if ctx.declared is not None:
            for root in roots:
                yield from _added_exceptions(ctx, ctx.declared, license, root)
        return
    elif license.permissive:
        breaches = list(_over_permissive(ctx.declared, license)) if ctx.declared is not None else []
        fix = f"ship the text of {license.name} beside your own"
    else:
        breaches, fix = _breaches(ctx, license), f"declare {ctx.limiting_tags}"
    for code, why, cite, level, note in breaches:
        for root in roots:
            yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level=level, note=note)


def _level(declared: License) -> Level:
    """The terms of a license that was not read are not known as a fact."""
    return "held" if declared.verified == "no" else "fact"


def _added_exceptions(ctx: AuditContext, declared: License, license: License, root: Dependency) -> Iterator[Finding]:
    """An exception in the declaration that the upstream did not give: more permission than the releaser has."""
    exceptions = ", ".join(sorted(ctx.parsed_tag.exceptions - root.parsed.exceptions))
    if exceptions and license.terms:
        code = f"V-RELICENSE-WEAKER:{license.label}->{declared.label} WITH {exceptions}"
        why = f"the declared license adds the exception {exceptions}, which {root.input.id} does not give"
        fix = f"declare {license.card_tag} without the exception"
        yield finding(code, why, dependency=root, license=license, cite=license.copies.share_alike, fix=fix)


class _Breach(NamedTuple):
    """What a declaration leaves out of a license: the code, the reason, and the clause."""

    code: str
    why: str
    cite: Fact | None = None
    level: Level = "fact"
    note: str = ""


def _over_permissive(declared: License, license: License) -> Iterator[_Breach]:
    if declared.terms:
        why = f"{declared.label} is stricter than {license.label}: allowed, and the upstream's notices still travel"
        yield _Breach("W-STRICTER-DECLARED", why, level="held")
    elif license.copies.licence_copy or license.copies.copyright_notice:
        why = "one permissive license replaces another: lawful as long as the upstream's text and notices stay"
        cite = license.copies.licence_copy or license.copies.copyright_notice
        yield _Breach(f"W-RELICENSE-PERMISSIVE:{license.label}->{declared.label}", why, cite, "held")


def _breaches(ctx: AuditContext, license: License) -> list[_Breach]:
    """What holds for every text that the declaration can mean."""
    first, *others = [list(_breaches_of(ctx, declared, license)) for declared in ctx.possible] or [[]]
    if not others:
        return first
    label, tag = ctx.possible[0].label, ctx.tag or ""
    common = []
    for breach in first:
        bare = bare_code(breach.code)
        if breach.code[0] == "V" and all(any(bare_code(one.code) == bare for one in other) for other in others):
            code = breach.code.replace(f"->{label}", f"->{tag}").replace(f":{label}!=", f":{tag}!=")
            note = f'; so it is with every text that "{tag}" can mean'
            common.append(breach._replace(code=code, note=note))
    return common


def _breaches_of(ctx: AuditContext, declared: License, license: License) -> Iterator[_Breach]:
    """What ``declared`` leaves out of ``license``."""
    c, pair = license.copies, f"{license.label}->{declared.label}"
    cite = c.non_commercial or c.research_only or c.use_restrictions or c.share_alike or c.licence_copy
    weaker = license.non_commercial and not declared.non_commercial
    drops_restrictions = bool(c.use_restrictions) and "use-restrictions" not in declared.terms
    is_in_prose = license.label in ctx.prose_labels
    custom = ctx.own(declared) or ctx.is_vendor(declared)
    if "share-alike" in license.terms and (declared.terms or custom):
        why = f"what is made from work under {license.name} has to be under the same; {declared.label} is another"
        others = [label for label in sorted(ctx.root_labels) if label != license.label]
        if others:
            why += f"; it cannot be met together with {', '.join(others)}, which is in the release too"
        code = f"V-LICENCE-REPLACED:{pair}"
        yield _Breach(code, why, c.share_alike)
    if weaker or (not declared.terms and not custom):
        why = f"declared {declared.label} gives more than {license.name} lets the releaser give"
        yield _Breach(f"V-RELICENSE-WEAKER:{pair}", why, cite)
        if weaker:
            why = f"{license.name} is non-commercial, and the release is declared {declared.label}"
            nc = c.non_commercial or c.research_only
            yield _Breach("V-NC-DROPPED", why, nc)
    elif "share-alike" in license.terms:
        pass  # reported above
    elif declared.label in ctx.root_labels or (is_in_prose and (custom or declared.non_commercial)):
        why = f"{declared.label} is one of several licenses that govern; {license.label} is another"
        code = f"W-TAG-INCOMPLETE:{license.label}"
        yield _Breach(code, why, level="held")
    elif declared.non_commercial or (license.terms == {"use-restrictions"} and not drops_restrictions):
        why = f"{declared.label} is no looser than {license.label}, whose terms still travel"
        if declared.non_commercial:
            yield _Breach("W-STRICTER-DECLARED", why, level="held")
        code = f"W-TAG-INCOMPLETE:{license.label}"
        yield _Breach(code, why, level="held")
    elif custom:
        why = f"the releaser's own {declared.label} replaces {license.name} and does not carry its terms"
        code, level = f"V-LICENCE-REPLACED:{pair}", _level(declared)
        yield _Breach(code, why, c.licence_copy, level)
    else:
        why = f"the metadata says {declared.label}, the weights are under {license.label}"
        code = f"V-TAG-WRONG:{declared.label}!={license.label}"
        yield _Breach(code, why, c.licence_copy)
    if drops_restrictions:
        why = f"{license.name} requires that its use restrictions are passed on; {declared.label} does not carry them"
        code = f"V-USE-RESTR-DROPPED:{license.label}"
        yield _Breach(code, why, c.use_restrictions)
