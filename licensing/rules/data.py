"""R9 and R10: rows that the release was trained on, and rows that it redistributes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import USER_CONTENT, AuditContext, Dependency, Finding, covers, finding
from licensing.schema import Fact, License


def r9_data_to_weights(ctx: AuditContext) -> Iterator[Finding]:
    """R9: whether a data license reaches weights is contested. Policy `text` warns, policy `strict` applies it.

    It also applies where the release calls itself non-commercial, since the releaser reads it that way then.
    """
    if ctx.dataset:
        return
    for dependency in ctx.data:
        license = dependency.governing
        if license is not None and license.results_free:
            continue
        strict = ctx.policy == "strict" or ctx.accepts_non_commercial
        limited = dependency.parsed.non_commercial or (license is not None and license.non_commercial)
        if limited:
            yield from _non_commercial(ctx, dependency, strict)
        if license is None or license.kind == "service":
            continue
        if license.copies.credit and (ctx.policy == "strict" or not limited):
            why = "rows under this license trained the weights; whether that asks for credit is open"
            fix = f"name {dependency.input.id}, its creator and its license on the card"
            cite = license.copies.credit
            yield finding(
                "O-CREDIT-DATA", why, dependency=dependency, license=license, cite=cite, fix=fix, level="contested"
            )
        yield from _conditions(ctx, dependency, license)
        if ctx.policy == "strict" and "share-alike" in license.terms and not limited:
            yield from _share_alike(ctx, dependency, license)


def _conditions(ctx: AuditContext, dependency: Dependency, license: License) -> Iterator[Finding]:
    """Rows offered under a model's licence: most often that model wrote them, and its text speaks of outputs."""
    if (license.label in ctx.root_labels and not ctx.dataset) or ctx.own(license):
        return
    outputs, later = license.outputs, " (downstream)" if ctx.dataset else ""
    prefix, phrase = outputs.name_prefix, outputs.attribution
    rules: list[tuple[Fact, str, str]] = (
        [(prefix, prefix.prefix, f'begin the name with "{prefix.prefix}"')] if prefix else []
    )
    if phrase and phrase.applies_to(dependency.input.id):
        rules.append((phrase, phrase.phrases[0], f'show "{phrase.phrases[0]}" ({phrase.where})'))
    for cite, requirement, fix in rules:
        why = "rows under a license that asks this of models trained on outputs"
        fix = "say so on the data card" if later else f"{fix}, or record who ran the model that wrote the rows"
        code = f"W-OUTPUT-NAME-RULE:{requirement}{later}"
        yield finding(code, why, dependency=dependency, license=license, cite=cite, fix=fix, level="held")
    if outputs.derivative == "yes":
        why = "rows under a license that calls models trained on outputs derivatives; who accepted it is not known"
        fix = f"record who ran the model that wrote the rows, and ship the terms of {license.name} if that was you"
        code = f"W-DISTIL-DERIVATIVE-CONTESTED:{license.label}{later}"
        there = outputs.derivative_cite
        yield finding(code, why, dependency=dependency, license=license, cite=there, fix=fix, level="contested")
    if outputs.train == "no":
        why = "rows under a license that bars training other models on outputs; it binds whoever ran the model"
        fix = "drop these rows, or record who ran the model that wrote them"
        code = f"W-TOS-THIRD-PARTY:{license.label}"
        yield finding(code, why, dependency=dependency, license=license, cite=outputs.cite, fix=fix, level="held")


def _share_alike(ctx: AuditContext, dependency: Dependency, license: License) -> Iterator[Finding]:
    declared = ctx.declared
    if declared is None or covers(declared, license):
        return
    code = f"V-RELICENSE-WEAKER:{license.label}->{declared.label}"
    why = "share-alike rows trained the weights; the strict policy applies the term to them"
    fix = f"declare {license.label}, or drop these rows"
    yield finding(
        code, why, dependency=dependency, license=license, cite=license.copies.share_alike, fix=fix, level="held"
    )


def _non_commercial(ctx: AuditContext, dependency: Dependency, strict: bool) -> Iterator[Finding]:
    license = dependency.governing
    cite = (license.copies.non_commercial or license.copies.research_only) if license else None
    fix = f"drop the rows of {dependency.input.id}, or declare a non-commercial license"
    if strict:
        why = "non-commercial rows trained the weights, and the term is taken to apply to them"
        yield finding("O-NC", why, dependency=dependency, license=license, cite=cite, fix=fix, level="contested")
        if ctx.commercial:
            why = f"{why}; the release is declared commercial"
            yield finding("V-NC-DROPPED", why, dependency=dependency, license=license, cite=cite, fix=fix, level="held")
    elif not (ctx.declared and ctx.declared.non_commercial):
        why = "non-commercial rows trained the weights; whether that binds the weights is contested"
        yield finding(
            "W-NC-DATA-TO-WEIGHTS", why, dependency=dependency, license=license, cite=cite, fix=fix, level="contested"
        )


def r10_data_set(ctx: AuditContext) -> Iterator[Finding]:
    """R10: a releaser licenses only its own work; rows of third parties keep their license inside a data set."""
    labels = {d.governing.label for d in ctx.roots if d.governing and d.governing.kind == "licence"}
    mixed = [d for d in ctx.data if d.parsed.mixed or d.ambiguous or (not d.parsed.complete and d.governing)]
    if ctx.dataset and (mixed or len(labels) > 1):
        why = "rows under several licenses share one tag"
        fix = "carry `license` on every row, and list the parts on the card"
        yield finding("W-MIXED-DATA", why, dependency=mixed[0] if len(mixed) == 1 else None, fix=fix, level="held")
    for dependency in ctx.data:
        if ctx.dataset and dependency.license:
            yield from _conditions(ctx, dependency, dependency.license)
        if dependency.parsed.mixed and not ctx.dataset:
            why = "this data set is itself a collection of others under licenses of their own"
            fix = f"list the sources of {dependency.input.id} as inputs"
            yield finding("W-RECURSE-DATA", why, dependency=dependency, fix=fix, level="held")
        for name in USER_CONTENT:
            if re.search(name.replace("-", r"[-_ ]?"), dependency.input.id, re.IGNORECASE):
                why = "text that users typed: their rights and their privacy are not settled by a license tag"
                fix = "check consent and personal data"
                yield finding(f"W-USER-CONTENT:{name}", why, dependency=dependency, fix=fix, level="held")
        if ctx.dataset:
            yield from _relicensed_rows(ctx, dependency)
    if ctx.dataset and ctx.discloses_parts:
        why = "the card itself says that some rows are non-commercial"
        fix = "mark these rows, and keep the term on them"
        yield finding("O-NC", why, fix=fix)
        yield finding("O-CREDIT-DATA", why, fix="name creators and licenses of the parts")
        yield finding("W-NC-DATA", why, fix=fix, level="held")


def _relicensed_rows(ctx: AuditContext, dependency: Dependency) -> Iterator[Finding]:
    license, declared = dependency.governing, ctx.declared
    if license is None or license.kind == "service" or declared is None or declared.label == license.label:
        return
    lost = license.terms & {"non-commercial", "share-alike", "no-derivatives", "use-restrictions"} - declared.terms
    if not lost:
        return
    c = license.copies
    cite = c.non_commercial or c.research_only or c.share_alike or c.no_derivatives or c.use_restrictions
    if ctx.discloses_parts and lost == {"non-commercial"}:
        return  # the card names the parts: r10_data_set warns
    if dependency.ambiguous or not dependency.parsed.complete:
        why = "some of these rows may be non-commercial or share-alike; the tag does not say so"
        yield finding(
            "W-NC-DATA",
            why,
            dependency=dependency,
            license=license,
            cite=cite,
            fix="find the license of each row",
            level="held",
        )
        return
    why = f"rows under {license.name} are offered under {declared.label}, which their owner did not give"
    fix = f"declare {license.label} for these rows, or drop them"
    code = f"V-DATA-RELICENSE:{license.label}->{declared.label}"
    yield finding(code, why, dependency=dependency, license=license, cite=cite, fix=fix)
