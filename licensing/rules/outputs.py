"""R3, the output half of R4, and R11: models whose writing trained, or became, the release, and graders and seeds."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.registry import fold
from licensing.rules.context import Case, Edge, Finding, Level, finding
from licensing.rules.redistribution import owed
from licensing.schema import Licence


def r3_outputs(case: Case) -> Iterator[Finding]:
    """R3: outputs carry what the teacher's text says of them, and no more. A silent text lets nothing flow.

    Naming and display conditions bind whoever accepted the licence: a duty where the releaser ran the weights or the
    card takes the terms on, a warning elsewhere. A data set only hands the warning on to those who train on it.
    """
    for edge in case.outputs:
        licence = edge.licence
        if licence is None or case.own(licence):
            continue
        yield from _barred(case, edge, licence)
        if licence.label in case.root_labels and not case.dataset:
            continue  # its own copies are in the release, and R1 asks for more
        yield from _conditions(case, edge, licence)
        yield from _derivative(case, edge, licence)
        if licence.non_commercial and case.commercial:
            code = "W-NC-DATA" if case.dataset else "W-NC-DATA-TO-WEIGHTS"
            why = (
                "a non-commercial teacher; running it for a commercial release is a commercial use on the usual reading"
            )
            fix = "take a teacher that allows it, or declare a non-commercial licence"
            yield finding(code, why, edge=edge, licence=licence, cite=licence.outputs.cite, fix=fix, level="contested")


def _barred(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    inside = licence.label in case.root_labels and not case.dataset
    if licence.outputs.train != "no" or (inside and licence.outputs.same_line_free):
        return
    fix = "drop these rows, or take a teacher whose licence allows training on outputs"
    why, cite = "the licence bars using outputs to train other models", licence.outputs.cite
    if edge.ran_weights and not case.dataset and not inside:
        code, said = f"V-OUTPUT-BARRED:{licence.label}", f"{why}, and the releaser ran it"
        yield finding(code, said, edge=edge, licence=licence, cite=cite, fix=fix)
    elif edge.input.ran_by == "third-party":
        code, said = f"W-TOS-THIRD-PARTY:{licence.label}", f"{why}; somebody else ran it and accepted that"
        yield finding(code, said, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
    else:
        open_point = "whether a model of the same line is another one is open" if inside else "it binds whoever ran it"
        code, said = f"W-TOS-ANY-TRAINING:{licence.label}", f"{why}; {open_point}"
        yield finding(code, said, edge=edge, licence=licence, cite=cite, fix=fix, level="contested")


def _conditions(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    accepted = edge.ran_weights or licence.label in case.accepted
    who = "the releaser ran it" if edge.ran_weights else "the card takes the terms on"
    third = edge.input.ran_by == "third-party"
    level: Level = "contested" if third else "fact"
    binds = "whoever ran it owes that; a party that only took the rows is usually read as free" if third else (
        "whoever accepted the licence owes that"
    )  # fmt: skip
    prefix, phrase = licence.outputs.name_prefix, licence.outputs.attribution
    if prefix and case.dataset:
        why = "whoever trains on these rows and is bound by the licence has to name the model so"
        code = f"W-OUTPUT-NAME-RULE:{prefix.prefix} (downstream)"
        yield finding(code, why, edge=edge, licence=licence, cite=prefix, fix="say so on the data card")
    elif prefix and accepted:
        why = f"outputs trained the release, and {who}"
        fix = f'begin the name of the release with "{prefix.prefix}"'
        yield finding(f"O-NAME-PREFIX:{prefix.prefix}", why, edge=edge, licence=licence, cite=prefix, fix=fix)
    elif prefix and not any(asked.startswith(fold(prefix.prefix)) for asked in case.root_prefixes):
        why = f"outputs trained the release; {binds}"
        fix = f'begin the name with "{prefix.prefix}", or record `ran_by: third-party`'
        code = f"W-OUTPUT-NAME-RULE:{prefix.prefix}"
        yield finding(code, why, edge=edge, licence=licence, cite=prefix, fix=fix, level=level)
    if not phrase or not phrase.owed_for(edge.input.id):
        return
    fix, code = f'show "{phrase.phrases[0]}" ({phrase.where})', f"W-OUTPUT-NAME-RULE:{phrase.phrases[0]}"
    if case.dataset:
        why = "whoever trains on these rows and is bound by the licence has to show this phrase"
        fix = "say so on the data card"
        yield finding(f"{code} (downstream)", why, edge=edge, licence=licence, cite=phrase, fix=fix)
    elif accepted:
        why = f"outputs trained the release, and {who}"
        yield finding(f"O-ATTR:{phrase.phrases[0]}", why, edge=edge, licence=licence, cite=phrase, fix=fix)
    else:
        why = f"outputs trained the release; {binds}"
        yield finding(
            code, why, edge=edge, licence=licence, cite=phrase, fix=fix, level="contested" if third else "held"
        )


def _derivative(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    outputs, name = licence.outputs, licence.label
    if outputs.derivative != "yes":
        return
    gate = f"; {outputs.gate}" if outputs.gate else ""
    why = f"the licence calls a model trained on its outputs a derivative{gate}"
    fix = f"ship the terms of {licence.name} as well, or take another teacher"
    if case.dataset:
        code = f"W-DISTIL-DERIVATIVE:{name} (downstream)"
        yield finding(
            code, why, edge=edge, licence=licence, cite=outputs.derivative_cite, fix="say so on the data card"
        )
        return
    if name in case.accepted:
        yield from owed(licence, edge, "the card takes these terms on", weights=True)
    third = edge.input.ran_by == "third-party"
    code = f"W-DISTIL-DERIVATIVE-CONTESTED:{name}" if third else f"W-DISTIL-DERIVATIVE:{name}"
    if third:
        why += "; the releaser never accepted it"
    level: Level = "contested" if third else "fact"
    yield finding(code, why, edge=edge, licence=licence, cite=outputs.derivative_cite, fix=fix, level=level)


def r11_roles(case: Case) -> Iterator[Finding]:
    """R11: a judge puts no text in; whether filtering by it is "using output to develop" is open. Seeds recurse."""
    for edge in case.edges:
        if edge.input.role == "judge":
            yield from _judge(case, edge)
        elif edge.input.role == "seed":
            yield from _seed(edge)
    if case.dataset and len({e.governing.label if e.governing else e.input.id for e in case.outputs}) > 1:
        why = "several teachers under different terms: which one wrote a row has to be known row by row"
        yield finding("W-PER-ROW-GENERATOR", why, fix="add a column that names the teacher", level="held")


def _judge(case: Case, edge: Edge) -> Iterator[Finding]:
    fix = "grade with a verifier or an open model"
    for text in (edge.terms, edge.licence):
        if text is None or case.own(text):
            continue
        outputs = text.outputs
        asks = bool(outputs.name_prefix or (outputs.attribution and outputs.attribution.owed_for(edge.input.id)))
        if outputs.train not in ("no", "not-competitors") and not asks:
            continue
        what = "asks something of models that its output improved" if asks else "bars training on its output"
        why = f"only graded or filtered rows; its text {what}, and whether a grade is such a use is open"
        code = f"W-JUDGE-USE:{text.id if text.kind == 'service' else text.label}"
        yield finding(code, why, edge=edge, licence=text, cite=outputs.cite, fix=fix, level="contested")


def _seed(edge: Edge) -> Iterator[Finding]:
    licence = edge.licence
    limited = licence is not None and bool(licence.terms & {"non-commercial", "share-alike", "no-derivatives"})
    if not edge.open_question and not limited:
        return
    why = "seeds of generated data have sources of their own"
    if limited and licence:
        why = f"seeds under {licence.name}: how much of them is left in what was generated is open"
    fix = f"find the licence of {edge.input.id}" if edge.open_question else "take other seeds, or keep the term"
    yield finding("W-RECURSE-DATA", why, edge=edge, licence=licence, fix=fix, level="held")
