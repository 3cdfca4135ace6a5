"""R3, the output half of R4, R7 and R11: models and services whose writing trained, or became, the release."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.catalogue import Licence
from licensing.rules.case import Case, Edge, Finding, Level, finding
from licensing.rules.copies import owed

_ACCOUNT = "terms bind whoever held the account, not the weights"


def r3_outputs(case: Case) -> Iterator[Finding]:
    """R3: outputs carry what the teacher's text says of them, and no more. A silent text lets nothing flow.

    Naming and display conditions bind whoever accepted the licence: a duty where the releaser ran the weights or the
    card takes the terms on, a warning elsewhere. A data set only hands the warning on to those who train on it.
    """
    for edge in case.outputs:
        licence = edge.governing
        if licence is None or licence.kind == "service":
            continue
        if licence.label in case.root_labels and not case.dataset:
            continue  # its own copies are in the release, and R1 asks for more
        yield from _barred(case, edge, licence)
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
    if licence.outputs.train != "no":
        return
    fix = "drop these rows, or take a teacher whose licence allows training on outputs"
    why = "the licence bars using outputs to train other models"
    if edge.input.ran_by == "releaser" and not case.dataset:
        code = f"V-OUTPUT-BARRED:{licence.label}"
        yield finding(
            code, f"{why}, and the releaser ran it", edge=edge, licence=licence, cite=licence.outputs.cite, fix=fix
        )
    else:
        third = edge.input.ran_by == "third-party"
        code = f"W-TOS-THIRD-PARTY:{licence.label}" if third else f"W-TOS-ANY-TRAINING:{licence.label}"
        who = "somebody else ran it and accepted that" if third else "it binds whoever ran the model"
        yield finding(
            code,
            f"{why}; {who}",
            edge=edge,
            licence=licence,
            cite=licence.outputs.cite,
            fix=fix,
            level="held" if third else "contested",
        )


def _conditions(case: Case, edge: Edge, licence: Licence) -> Iterator[Finding]:
    accepted = edge.input.ran_by == "releaser" or licence.label in case.accepted
    prefix, phrase = licence.outputs.name_prefix, licence.outputs.attribution
    who = "the releaser ran it" if edge.input.ran_by == "releaser" else "the card takes the terms on"
    if prefix and case.dataset:
        why = "whoever trains on these rows and is bound by the licence has to name the model so"
        code = f"W-OUTPUT-NAME-RULE:{prefix.prefix} (downstream)"
        yield finding(code, why, edge=edge, licence=licence, cite=prefix, fix="say so on the data card")
    elif prefix and accepted:
        why = f"outputs trained the release, and {who}"
        fix = f'begin the name of the release with "{prefix.prefix}"'
        yield finding(f"O-NAME-PREFIX:{prefix.prefix}", why, edge=edge, licence=licence, cite=prefix, fix=fix)
    elif prefix and prefix.prefix not in case.root_prefixes:
        why = "outputs trained the release; whoever accepted the licence owes the prefix"
        fix = f'begin the name with "{prefix.prefix}", or record `ran_by: third-party`'
        yield finding(f"W-OUTPUT-NAME-RULE:{prefix.prefix}", why, edge=edge, licence=licence, cite=prefix, fix=fix)
    if phrase and not case.dataset:
        fix = f'show "{phrase.phrases[0]}" ({phrase.where})'
        if accepted:
            why = f"outputs trained the release, and {who}"
            yield finding(f"O-ATTR:{phrase.phrases[0]}", why, edge=edge, licence=licence, cite=phrase, fix=fix)
        else:
            why = "outputs trained the release; whoever accepted the licence owes this phrase"
            code = f"W-OUTPUT-NAME-RULE:{phrase.phrases[0]}"
            yield finding(code, why, edge=edge, licence=licence, cite=phrase, fix=fix, level="held")


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


def r7_services(case: Case) -> Iterator[Finding]:
    """R7: a service's terms bind the account holder. They never become a violation on the weights."""
    for edge in (*case.outputs, *case.data):
        terms = edge.governing
        if terms is None or terms.kind != "service":
            continue
        owner = case.lineage.release.split("/")[0].strip().casefold()
        train = terms.outputs.train
        if train == "unknown":
            why = "the terms of this endpoint were not read"
            fix = "read the terms, and record endpoint and date"
            code = f"W-TOS-ENDPOINT:{terms.id}"
            yield finding(code, why, edge=edge, licence=terms, fix=fix, level="held", blocks=True)
            continue
        if train in ("not-competitors", "no"):
            yield _service(edge, terms, private=owner in {*terms.partners, (terms.vendor or "").casefold()})
        if edge.input.endpoint is None and edge.input.role != "data":
            why = "the same model behind another endpoint has other terms, and none is recorded"
            fix = f"write `endpoint:` and `date:` beside {edge.input.id}"
            yield finding(f"W-TOS-ENDPOINT:{terms.id}", why, edge=edge, fix=fix, level="held")


def _service(edge: Edge, terms: Licence, *, private: bool) -> Finding:
    cite = terms.outputs.cite
    if private:
        code = f"W-PRIVATE-AGREEMENT-POSSIBLE:{(terms.vendor or terms.id).casefold()}"
        why = "the releaser may hold an agreement of its own with this vendor; it cannot be seen from here"
        return finding(code, why, edge=edge, licence=terms, fix="record the agreement", level="held")
    if edge.input.ran_by == "third-party" or edge.input.role == "data":
        code = f"W-TOS-THIRD-PARTY:{terms.id}"
        why = f"somebody else's account made these outputs; {_ACCOUNT}"
        return finding(code, why, edge=edge, licence=terms, cite=cite, fix="say so on the card", level="held")
    unknown = "" if edge.input.ran_by else "; whose account it was is not recorded (`ran_by`)"
    if terms.outputs.train == "no":
        code, why = f"W-TOS-ANY-TRAINING:{terms.id}", "the terms bar training any model on outputs without permission"
    else:
        code, why = f"W-TOS-COMPETE:{terms.id}", "the terms bar using outputs for models that compete"
    fix = "take an open teacher, or get the vendor's permission in writing"
    why = f"{why}; {_ACCOUNT}{unknown}"
    return finding(code, why, edge=edge, licence=terms, cite=cite, fix=fix, level="contested")


def r11_roles(case: Case) -> Iterator[Finding]:
    """R11: a judge puts no text in; whether filtering by it is "using output to develop" is open. Seeds recurse."""
    for edge in case.edges:
        role, licence = edge.input.role, edge.governing
        if role == "judge" and licence and licence.outputs.train in ("no", "not-competitors"):
            why = "only graded or filtered rows; whether that uses its output to develop a model is open"
            code = f"W-JUDGE-USE:{licence.id if licence.kind == 'service' else licence.label}"
            fix = "grade with a verifier or an open model"
            yield finding(code, why, edge=edge, licence=licence, cite=licence.outputs.cite, fix=fix, level="contested")
        elif role == "seed" and edge.open_question:
            why = "seeds of generated data have sources of their own"
            yield finding("W-RECURSE-DATA", why, edge=edge, fix=f"find the licence of {edge.input.id}", level="held")
    if case.dataset and len({e.governing.label if e.governing else e.input.id for e in case.outputs}) > 1:
        why = "several teachers under different terms: which one wrote a row has to be known row by row"
        yield finding("W-PER-ROW-GENERATOR", why, fix="add a column that names the teacher", level="held")
