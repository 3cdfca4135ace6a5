"""R1, the redistribution half of R4, and R13: duties of the licenses inside the release, and whom they exclude."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from licensing.rules.context import AuditContext, Certainty, Dependency, Finding, Level, finding
from licensing.schema import Fact, License


class _Duty(NamedTuple):
    """A duty of a license: its code, the clause, what it asks for, and how to meet it. ``certainty``: where it is not
    that of the input's license; ``note`` ends the reason."""

    code: str
    cite: Fact
    asks: str
    fix: str
    certainty: Certainty | None = None
    note: str = ""

    def finding(self, license: License, dependency: Dependency, why: str) -> Finding:
        """``why``: how the material of ``license`` comes to be in the release."""
        reason = f"{why}; if you redistribute it, {license.name} asks you to {self.asks}"
        return finding(
            self.code, reason, dependency=dependency, license=license, cite=self.cite, fix=self.fix,
            certainty=self.certainty, note=self.note,
        )  # fmt: skip


def redistribution_duties(license: License, dependency: Dependency, why: str) -> list[Finding]:
    """Every duty that ``license`` puts on a model that holds weights under it. ``why``: how they come to be inside."""
    return [duty.finding(license, dependency, why) for duty in _duties(license, dependency, weights=True)]


def _duties(license: License, dependency: Dependency, *, weights: bool) -> list[_Duty]:
    """Every duty that ``license`` puts on whoever redistributes its material. ``weights``: the release is a model."""
    c, name, model = license.copies, license.label, dependency.input.id
    regions = [f"parties in {', '.join(g.excluded)} ({g.scope})" for g in license.geography if g.reaches(model)]
    excluded = "; ".join(f"it gives no rights to {region}" for region in regions)
    duties: list[_Duty] = []

    def duty(code: str, cite: Fact | None, text: str, fix: str) -> None:
        if cite is not None:
            duties.append(_Duty(code, cite, text, fix))

    duty(
        f"O-SHIP-LICENCE:{name}",
        c.licence_copy,
        "give every recipient a copy of it" + (f"; {excluded}" if excluded else ""),
        f"ship the text of {license.name}" + (", and tell recipients whom it excludes" if excluded else ""),
    )
    duty(
        f"O-COPYRIGHT-NOTICE:{name}",
        c.copyright_notice,
        "keep its copyright line and permission notice",
        f"ship the upstream LICENSE of {model} with its copyright line",
    )
    if c.notice is not None:
        line = f"put this line in NOTICE: {c.notice.text}" if c.notice.text else "ship the upstream's notice file"
        duty(f"O-NOTICE:{name}", c.notice, "ship a notice file", line)
    if c.attribution is not None and c.attribution.applies_to(model):
        phrase = c.attribution.phrases[0]
        fix = f'show "{phrase}" on the card ({c.attribution.where})'
        duty(f"O-ATTR:{phrase}", c.attribution, "show a phrase", fix)
    if c.name_prefix is not None and weights:
        prefix = c.name_prefix.prefix
        fix = f'begin the name of the release with "{prefix}"'
        duty(f"O-NAME-PREFIX:{prefix}", c.name_prefix, "begin the name of the model with a word", fix)
    if weights or c.credit is None:  # the credit for rows says what was changed
        duty("O-STATE-CHANGES", c.state_changes, "say what you changed", "say in NOTICE what was changed")
    duty(
        "O-DOCS-SAME-QUALITY",
        c.same_documentation,
        "document it as well as the upstream does",
        "write a card that covers at least what the upstream card covers",
    )
    if weights:
        fix = f"credit {dependency.owner} on the card, with a link to the license"
        duty(f"O-CREDIT:{dependency.owner}", c.credit, "credit the licensor", fix)
    else:
        fix = f"name {model}, its creator, its license with a link, and your changes"
        duty("O-CREDIT-DATA", c.credit, "credit the licensor", fix)
    duty(f"O-PASS-AUP:{name}", c.use_policy, "pass on its use policy", "ship the use policy as a file, or link to it")
    duty(
        f"O-PASS-USE-RESTR:{name}",
        c.use_restrictions,
        "pass on its use restrictions",
        f"release under {name}, or make its use restrictions a term of your license",
    )
    duty("O-NC", c.non_commercial, "keep it non-commercial", f"declare {name} or another non-commercial license")
    duty("O-RESEARCH-ONLY", c.research_only, "keep it to research", f"declare {name}")
    for limit in c.threshold:
        when = f" (measured: {limit.measured})" if limit.measured else ""
        fix = f"state the limit of {limit.label}{when} on the card"
        duty(f"O-THRESHOLD:{limit.label}", limit, f"heed a limit: {limit.effect}", fix)
    if license.outputs.tell_recipients:
        fix = "tell recipients that outputs may not train other models"
        duty(f"O-OUTPUT-BAR:{name}", license.outputs.cite, "tell recipients that it bars training on outputs", fix)
    return duties


def r1_redistribution(ctx: AuditContext) -> Iterator[Finding]:
    """R1: weights of a model and rows of a data set carry every duty of their license."""
    inside = "its rows are in the data set" if ctx.dataset else "its weights are in the release"
    for root in ctx.roots:
        duties = [
            [(license, duty) for duty in _duties(license, root, weights=not ctx.dataset)] for license in root.applying
        ]
        shared = root.shared and duties  # the texts of a shared name can all be terms of services
        for license, duty in _of_shared_name(root, duties) if shared else itertools.chain.from_iterable(duties):
            yield duty.finding(license, root, inside)
    for root, license in ctx.root_licenses:
        yield from _upstream_notice(ctx, root, license, inside)


def _of_shared_name(root: Dependency, duties: list[list[tuple[License, _Duty]]]) -> list[tuple[License, _Duty]]:
    """Duties of texts that share a name: those that all of them have are certain, whichever of them governs."""
    labels = {license.label for license in root.applying}

    def common(duty: _Duty) -> str:
        bare, colon, argument = duty.code.partition(":")
        return f"{bare}{colon}{root.stated}" if argument in labels else duty.code

    certain = set.intersection(*({common(duty) for _, duty in group} for group in duties))
    note = f"; so do all that it can be: {', '.join(license.name for license in root.applying)}"
    open_points = [one for one in itertools.chain.from_iterable(duties) if common(one[1]) not in certain]
    return open_points + [
        (license, duty._replace(code=common(duty), certainty="established", note=note))
        for license, duty in duties[0]
        if common(duty) in certain
    ]


def _upstream_notice(ctx: AuditContext, root: Dependency, license: License, inside: str) -> Iterator[Finding]:
    """The NOTICE file that came with an input has to travel on (Apache-2.0 4(d)). Where nobody looked, it may have one:
    a warning that asks for a look."""
    rule, files = license.copies.keep_notice_file, ctx.upstream_files.get(root.input.id)
    if rule is None or ctx.own(license):
        return
    if files is None and not rule.known:
        why = f"{license.name} asks to pass on the NOTICE file of {root.input.id}; whether it has one was not looked at"
        fix = "copy its NOTICE, if it has one, into yours (`--cards DIR`: a folder with its repository, to look there)"
        code = f"W-NOTICE-NOT-SEEN:{license.label}"
        yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix, level="held")
    if not (rule.known or (files and files.notice)):
        return
    why = f"{inside}, and it came with a NOTICE file: {license.name} asks to pass its notices on"
    fix = f"copy the NOTICE of {root.input.id} into yours, without lines on parts that the release does not hold"
    yield finding(f"O-NOTICE:{license.label}", why, dependency=root, license=license, cite=rule, fix=fix)


def removed_guardrails(ctx: AuditContext) -> Iterator[Finding]:
    """An act on the weights that the license bars. Where only the name of the release tells of it: a warning."""
    if ctx.dataset:
        return
    for root, license in ctx.upstream_licenses:
        rule = license.copies.no_guardrail_removal
        if rule is None or "abliterated" not in ctx.changes(root):
            continue
        stated = "abliterated" in (root.input.changes or ())
        why = f"{'the lineage' if stated else 'the name of the release'} says that safety measures of {root.input.id} "
        why += f"were removed, and {license.name} bars that"
        fix = "take the safety measures back in, or a base whose license allows this"
        code = f"{'V' if stated else 'W'}-USE-POLICY-BROKEN:{license.label}"
        level: Level = "fact" if stated else "held"
        yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix, level=level)


def r13_geography(ctx: AuditContext) -> Iterator[Finding]:
    """R13, and licenses that forbid redistribution: the releaser has no right to give."""
    domicile = ctx.lineage.releaser.domicile if ctx.lineage.releaser else None
    for root, license in ctx.upstream_licenses:
        code = f"V-REDISTRIBUTION-RIGHT:{license.label}"
        if license.copies.no_redistribution:
            why = f"{license.name} forbids redistribution of the material"
            fix = "take another base, or get the licensor's permission in writing"
            cite = license.copies.no_redistribution
            yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix)
        for rule in license.geography:
            if rule.excludes(domicile, root.input.id):
                why = f"{license.name} gives no rights to a party in {domicile}: {rule.scope}"
                fix = "take another base, or get the licensor's permission in writing"
                yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix)
