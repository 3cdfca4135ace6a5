"""Unknown is never permissive: a license that is missing, not in the registry, not read or questioned is a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import OUTPUT_ROLES, AuditContext, Dependency, Finding, finding

_NOT_NAMED = re.compile(r"\b(unknown|undisclosed|unnamed|not (named|disclosed|stated)|unspecified)\b", re.IGNORECASE)


def unknown_inputs(ctx: AuditContext) -> Iterator[Finding]:
    """Blocks for base models, teachers and data; judges and seeds add no text of their own, so they only warn.

    Exception for data that only trained the weights, because whether its license reaches weights is contested: rows
    that are not published, mixed sources, and a permissive license with a question mark warn, and block only under
    policy `strict`.
    """
    for dependency in ctx.dependencies:
        yield from _unread_on_outputs(ctx, dependency)
        served = dependency.input.role == "base" and dependency.license is None
        if not (dependency.open_question or served) or dependency.certainty == "conflict":
            continue  # `exact_repository` reports a conflict
        if dependency.terms is not None and dependency.terms.verified == "no" and not served:
            continue  # R7 reports the endpoint's unread terms, and blocks
        why = f"the license of this {dependency.input.role} is {_state(dependency)}; unknown is not permissive"
        fix = f"find the license of {dependency.input.id} at the revision taken, and write its id in `licence:`"
        role = dependency.input.role
        if role in OUTPUT_ROLES and names_nobody(dependency):
            yield finding("W-GENERATOR-UNDISCLOSED", why, dependency=dependency, fix=fix, level="held", blocks=True)
        elif role == "data":
            blocks = ctx.dataset or ctx.policy == "strict" or not _harmless(dependency)
            yield finding("W-RIGHTS-UNCLEAR", why, dependency=dependency, fix=fix, level="held", blocks=blocks)
        else:
            blocks = role not in ("judge", "seed")
            yield finding("W-UPSTREAM-UNKNOWN", why, dependency=dependency, fix=fix, level="held", blocks=blocks)


def _unread_on_outputs(ctx: AuditContext, dependency: Dependency) -> Iterator[Finding]:
    """A teacher, or rows, under a license of a model of which only what it says of copies was read."""
    if dependency.input.role not in (*OUTPUT_ROLES, "data") or dependency.certainty == "unknown":
        return
    for license in dependency.applying:
        if license.outputs.train == "unknown" and not ctx.own(license):
            why = f"what {license.name} says of outputs was not read; unknown is not permissive"
            fix = f"read the LICENSE of {dependency.input.id} on outputs, or take another whose license is known"
            yield finding(
                "W-UPSTREAM-UNKNOWN", why, dependency=dependency, license=license, fix=fix, level="held", blocks=True
            )


def nothing_named(ctx: AuditContext) -> Iterator[Finding]:
    """A release that names no weights, no teacher and no rows has them all the same, unless it says `from_scratch`."""
    if not (ctx.roots or ctx.outputs or ctx.lineage.from_scratch):
        why = "the release names nothing that it was made from; what is not named is not free of duties"
        fix = "name the base model and the teachers, or write `from_scratch: true` in its lineage.yaml"
        yield finding("W-UPSTREAM-UNKNOWN", why, fix=fix, level="held", blocks=True)


def names_nobody(dependency: Dependency) -> bool:
    """The id says that the model is not disclosed."""
    return bool(_NOT_NAMED.search(dependency.input.id))


def _harmless(dependency: Dependency) -> bool:
    """No limit on the weights is known of, though the license is uncertain."""
    parsed = dependency.parsed
    permissive = parsed.questioned and parsed.complete and all(license.permissive for license in parsed.licenses)
    return permissive or parsed.unpublished or (parsed.mixed and not parsed.non_commercial)


def _state(dependency: Dependency) -> str:
    stated = f'"{dependency.stated}"' if dependency.input.licenses else "missing"
    if not dependency.input.licenses and dependency.repository_license:
        return f"missing; this repository is known to be under {dependency.repository_license.name}"
    if dependency.parsed.questioned:
        return f"given with a question mark ({stated})"
    if dependency.shared:
        names = ", ".join(license.name for license in dependency.applying)
        return f"given by a name that different texts share ({stated}: {names})"
    if dependency.terms and dependency.license is None and dependency.input.role == "base":
        return f"given as the terms of a service ({dependency.terms.name}), which license no weights"
    if dependency.governing is None:
        return f"not known ({stated})"
    return (
        f"known only in part ({stated})"
        if dependency.ambiguous
        else f"known by name, but not what it asks for ({stated})"
    )
