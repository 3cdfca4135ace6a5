"""R9 and R10: rows trained on, and rows passed on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from licensing.rules.context import USER_CONTENT, Case, Edge, Finding, covers, finding
from licensing.schema import Fact, Licence


def r9_data_to_weights(case: Case) -> Iterator[Finding]:
    """R9: whether a data licence reaches weights is contested. `text` warns; `strict` lets it flow.

    Strict also where the release itself says non-commercial: it took that reading.
    """
    if case.dataset:
        return
    for edge in case.data:
        licence = edge.governing
        if licence is not None and licence.results_free:
            continue
        strict = case.policy == "strict" or case.accepts_non_commercial
        limited = edge.reading.non_commercial or (licence is not None and licence.non_commercial)
        if limited:
            yield from _non_commercial(case, edge, strict)
        if licence is None or licence.kind == "service":
            continue
        if licence.copies.credit and (case.policy == "strict" or not limited):
            why = (
                "rows under this licence trained the weights; whether credit is owed for that is open, and it is cheap"
            )
            fix = f"name {edge.input.id}, its creator and its licence on the card"
            cite = licence.copies.credit
            yield finding("O-CREDIT-DATA", why, edge=edge, licence=licence, cite=cite, fix=fix, level="contested")
        yield from _conditions(case, edge, licence)
        if case.policy == "strict" and "share-alike" in licence.terms and not limited:
            yield from _share_alike(case, edge, licence)


def _conditions(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    """Rows offered under a model's licence: most often that model wrote them, and its text speaks of outputs."""
    if (licence.label in case.root_labels and not case.dataset) or case.own(licence):
        return
    outputs, later = licence.outputs, " (downstream)" if case.dataset else ""
    prefix, phrase = outputs.name_prefix, outputs.attribution
    rules: list[tuple[Fact, str, str]] = (
        [(prefix, prefix.prefix, f'begin the name with "{prefix.prefix}"')] if prefix else []
    )
    if phrase and phrase.owed_for(edge.input.id):
        rules.append((phrase, phrase.phrases[0], f'show "{phrase.phrases[0]}" ({phrase.where})'))
    for cite, said, fix in rules:
        why = "rows under a licence that asks this of models trained on outputs"
        fix = "say so on the data card" if later else f"{fix}, or record who ran the model that wrote the rows"
        code = f"W-OUTPUT-NAME-RULE:{said}{later}"
        yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
    if outputs.derivative == "yes":
        why = "rows under a licence that calls models trained on outputs derivatives; who accepted it is not known"
        fix = f"record who ran the model that wrote the rows, and ship the terms of {licence.name} if that was you"
        code = f"W-DISTIL-DERIVATIVE-CONTESTED:{licence.label}{later}"
        there = outputs.derivative_cite
        yield finding(code, why, edge=edge, licence=licence, cite=there, fix=fix, level="contested")
    if outputs.train == "no":
        why = "rows under a licence that bars training other models on outputs; it binds whoever ran the model"
        fix = "drop these rows, or record who ran the model that wrote them"
        code = f"W-TOS-THIRD-PARTY:{licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=outputs.cite, fix=fix, level="held")


def _share_alike(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    declared = case.declared
    if declared is None or covers(declared, licence):
        return
    code = f"V-RELICENSE-WEAKER:{licence.label}->{declared.label}"
    why = "share-alike rows trained the weights; the strict policy lets the term flow to them"
    fix = f"declare {licence.label}, or drop these rows"
    yield finding(code, why, edge=edge, licence=licence, cite=licence.copies.share_alike, fix=fix, level="held")


def _non_commercial(case: Case, edge: Edge, strict: bool) -> Iterator[Finding]:
    licence = edge.governing
    cite = (licence.copies.non_commercial or licence.copies.research_only) if licence else None
    fix = f"drop the rows of {edge.input.id}, or declare a non-commercial licence"
    if strict:
        why = "non-commercial rows trained the weights, and the term is taken to flow to them"
        yield finding("O-NC", why, edge=edge, licence=licence, cite=cite, fix=fix, level="contested")
        if case.commercial:
            why = f"{why}; the release is declared commercial"
            yield finding("V-NC-DROPPED", why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
    elif not (case.declared and case.declared.non_commercial):
        why = "non-commercial rows trained the weights; whether that binds the weights is contested"
        yield finding("W-NC-DATA-TO-WEIGHTS", why, edge=edge, licence=licence, cite=cite, fix=fix, level="contested")


def r10_data_set(case: Case) -> Iterator[Finding]:
    """R10: you license only what you own. Third parties' rows keep their licence inside a data set."""
    labels = {e.governing.label for e in case.roots if e.governing and e.governing.kind == "licence"}
    mixed = [e for e in case.data if e.reading.mixed or e.several or (e.reading.unknown and e.governing)]
    if case.dataset and (mixed or len(labels) > 1):
        why = "rows under several licences stand beneath one tag"
        fix = "carry `license` on every row, and list the parts on the card"
        yield finding("W-MIXED-DATA", why, edge=mixed[0] if len(mixed) == 1 else None, fix=fix, level="held")
    for edge in case.data:
        if case.dataset and edge.licence:
            yield from _conditions(case, edge, edge.licence)
        if edge.reading.mixed and not case.dataset:
            why = "this data set is itself put together from others under licences of their own"
            fix = f"list the sources of {edge.input.id} as inputs"
            yield finding("W-RECURSE-DATA", why, edge=edge, fix=fix, level="held")
        for name in USER_CONTENT:
            if re.search(name.replace("-", r"[-_ ]?"), edge.input.id, re.IGNORECASE):
                why = "text that users typed: their rights and their privacy are not settled by a licence tag"
                fix = "check consent and personal data"
                yield finding(f"W-USER-CONTENT:{name}", why, edge=edge, fix=fix, level="held")
        if case.dataset:
            yield from _passed_on(case, edge)
    if case.dataset and case.discloses_parts:
        why = "the card itself says that some rows are non-commercial"
        fix = "mark these rows, and keep the term on them"
        yield finding("O-NC", why, fix=fix)
        yield finding("O-CREDIT-DATA", why, fix="name creators and licences of the parts")
        yield finding("W-NC-DATA", why, fix=fix, level="held")


def _passed_on(case: Case, edge: Edge) -> Iterator[Finding]:
    licence, declared = edge.governing, case.declared
    if licence is None or licence.kind == "service" or declared is None or declared.label == licence.label:
        return
    lost = licence.terms & {"non-commercial", "share-alike", "no-derivatives", "use-restrictions"} - declared.terms
    if not lost:
        return
    c = licence.copies
    cite = c.non_commercial or c.research_only or c.share_alike or c.no_derivatives or c.use_restrictions
    if case.discloses_parts and lost == {"non-commercial"}:
        return  # the collection's tag, with the parts named: r10_data_set warns
    if edge.several or edge.reading.unknown:
        why = "some of these rows may be non-commercial or share-alike; the tag does not say so"
        yield finding("W-NC-DATA", why, edge=edge, licence=licence, cite=cite, fix="settle it row by row", level="held")
        return
    why = f"rows under {licence.name} are offered under {declared.label}, which their owner did not give"
    fix = f"declare {licence.label} for these rows, or drop them"
    code = f"V-DATA-RELICENSE:{licence.label}->{declared.label}"
    yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix)
