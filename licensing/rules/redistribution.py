"""R1 and the copy half of R4: what is inside the release brings the duties of its licence along."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.rules.context import Case, Edge, Finding, Level, finding
from licensing.schema import Fact, Licence


def owed(licence: Licence, edge: Edge, why: str, *, weights: bool, level: Level = "fact") -> Iterator[Finding]:
    """Every duty that `licence` lays on whoever passes its material on. `weights`: the release is a model."""
    c, name = licence.copies, licence.label

    def duty(code: str, cite: Fact | None, text: str, fix: str) -> Iterator[Finding]:
        if cite is not None:
            said = f"{why}: {licence.name} {text}"
            yield finding(code, said, edge=edge, licence=licence, cite=cite, fix=fix, level=level)

    closed = "; ".join(f"it gives no rights to parties in {', '.join(g.excluded)} ({g.scope})"
                       for g in licence.geography if g.reaches(edge.input.id))  # fmt: skip
    yield from duty(
        f"O-SHIP-LICENCE:{name}",
        c.licence_copy,
        "goes to every recipient as a copy" + (f"; {closed}" if closed else ""),
        f"ship the text of {licence.name}" + (", and tell recipients whom it shuts out" if closed else ""),
    )
    yield from duty(
        f"O-COPYRIGHT-NOTICE:{name}",
        c.copyright_notice,
        "keeps its copyright line and permission notice",
        f"ship the upstream LICENSE of {edge.input.id} with its copyright line",
    )
    if c.notice is not None:
        line = f"put this line in NOTICE: {c.notice.text}" if c.notice.text else "ship the upstream's notice file"
        yield from duty(f"O-NOTICE:{name}", c.notice, "asks for a notice file", line)
    if c.attribution is not None and c.attribution.owed_for(edge.input.id):
        phrase = c.attribution.phrases[0]
        fix = f'show "{phrase}" on the card ({c.attribution.where})'
        yield from duty(f"O-ATTR:{phrase}", c.attribution, "asks for a phrase to be shown", fix)
    if c.name_prefix is not None and weights:
        prefix = c.name_prefix.prefix
        fix = f'begin the name of the release with "{prefix}"'
        yield from duty(f"O-NAME-PREFIX:{prefix}", c.name_prefix, "rules the name", fix)
    if weights or c.credit is None:  # the credit owed for rows says what was changed
        yield from duty(
            "O-STATE-CHANGES", c.state_changes, "asks for a change notice", "say in NOTICE what was changed"
        )
    yield from duty(
        "O-DOCS-SAME-QUALITY",
        c.same_documentation,
        "asks for documentation as good as the upstream's",
        "write a card that covers at least what the upstream card covers",
    )
    if weights:
        fix = f"credit {edge.owner} on the card, with a link to the licence"
        yield from duty(f"O-CREDIT:{edge.owner}", c.credit, "asks for credit", fix)
    else:
        fix = f"name {edge.input.id}, its creator, its licence with a link, and your changes"
        yield from duty("O-CREDIT-DATA", c.credit, "asks for credit", fix)
    yield from duty(
        f"O-PASS-AUP:{name}", c.use_policy, "comes with a use policy", "ship the use policy as a file, or link to it"
    )
    yield from duty(
        f"O-PASS-USE-RESTR:{name}",
        c.use_restrictions,
        "hands its use restrictions on",
        f"release under {name}, or make its use restrictions a term of your licence",
    )
    yield from duty("O-NC", c.non_commercial, "is non-commercial", f"declare {name} or another non-commercial licence")
    yield from duty("O-RESEARCH-ONLY", c.research_only, "is for research only", f"declare {name}")
    if c.threshold is not None:
        when = f" (measured: {c.threshold.measured})" if c.threshold.measured else ""
        fix = f"state the limit of {c.threshold.label}{when} on the card"
        text = f"has a size limit: {c.threshold.effect}"
        yield from duty(f"O-THRESHOLD:{c.threshold.label}", c.threshold, text, fix)
    if licence.outputs.tell_recipients:
        fix = "tell recipients that outputs may not train other models"
        yield from duty(f"O-OUTPUT-BAR:{name}", licence.outputs.cite, "bars training on outputs", fix)


def r1_copies(case: Case) -> Iterator[Finding]:
    """R1: weights (of a model) and rows (of a data set) carry every duty of their licence."""
    for edge in case.roots:
        if edge.licence is None:
            continue
        inside = "its rows are in the data set" if case.dataset else "its weights are in the release"
        yield from owed(edge.licence, edge, inside, weights=not case.dataset)
        if edge.conflict:  # what the root asks for, if the lineage has its licence wrong
            why = f"{inside}, and it is known to be under {edge.conflict.name}"
            for duty in owed(edge.conflict, edge, why, weights=not case.dataset):
                yield duty.model_copy(update={"footing": "partly"})


def r13_geography(case: Case) -> Iterator[Finding]:
    """R13, and texts that let nothing be passed on at all: the releaser has no right to give."""
    home = case.lineage.releaser.domicile if case.lineage.releaser else None
    for edge in case.roots:
        licence = edge.licence
        if licence is None or case.own(licence):
            continue
        code = f"V-REDISTRIBUTION-RIGHT:{licence.label}"
        if licence.copies.no_redistribution:
            why = f"{licence.name} lets nobody pass the material on"
            fix = "take another base, or get the licensor's permission in writing"
            cite = licence.copies.no_redistribution
            yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix)
        for rule in licence.geography:
            if rule.shuts_out(home, edge.input.id):
                why = f"{licence.name} gives no rights to a party in {home}: {rule.scope}"
                fix = "take another base, or get the licensor's permission in writing"
                yield finding(code, why, edge=edge, licence=licence, cite=rule, fix=fix)
