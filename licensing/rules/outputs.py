"""R3, the output half of R4, and R11: teachers whose outputs trained or are the release, judges, and seeds."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.registry import fold
from licensing.rules.context import AuditContext, Dependency, Finding, Level, finding
from licensing.rules.redistribution import redistribution_duties
from licensing.schema import License


def r3_outputs(ctx: AuditContext) -> Iterator[Finding]:
    """R3: outputs carry what the teacher's license says of outputs, and nothing where it is silent.

    Naming and display conditions bind whoever accepted the license: a duty where the releaser ran the weights or the
    card takes the terms on, a warning elsewhere. A data set only passes the warning on to those who train on it.
    """
    for dependency, license in ((d, license) for d in ctx.outputs for license in d.applying):
        if ctx.own(license):
            continue
        yield from _barred(ctx, dependency, license)
        if license.label in ctx.root_labels and not ctx.dataset:
            continue  # its weights are in the release, and R1 asks for more
        yield from _conditions(ctx, dependency, license)
        yield from _derivative(ctx, dependency, license)
        if license.non_commercial and ctx.commercial:
            code = "W-NC-DATA" if ctx.dataset else "W-NC-DATA-TO-WEIGHTS"
            why = (
                "a non-commercial teacher; running it for a commercial release is a commercial use on the usual reading"
            )
            fix = "take a teacher that allows it, or declare a non-commercial license"
            yield finding(
                code, why, dependency=dependency, license=license, cite=license.outputs.cite, fix=fix, level="contested"
            )


def _barred(ctx: AuditContext, dependency: Dependency, license: License) -> Iterator[Finding]:
    inside = license.label in ctx.root_labels and not ctx.dataset
    every = license.outputs.train == "no"
    free = not every and license.outputs.train != "not-competitors"
    if free or (inside and license.outputs.same_line_free):
        return
    fix = "drop these rows, or take a teacher whose license allows training on outputs"
    why = f"the license bars using outputs to train {'other models' if every else 'models that compete'}"
    cite = license.outputs.cite
    if every and dependency.ran_weights and not ctx.dataset and not inside:
        code, reason = f"V-OUTPUT-BARRED:{license.label}", f"{why}, and the releaser ran it"
        yield finding(code, reason, dependency=dependency, license=license, cite=cite, fix=fix)
    elif dependency.input.ran_by == "third-party":
        code, reason = f"W-TOS-THIRD-PARTY:{license.label}", f"{why}; somebody else ran it and accepted that"
        yield finding(code, reason, dependency=dependency, license=license, cite=cite, fix=fix, level="held")
    else:
        open_point = "whether a model of the same line is another one is open" if inside else "it binds whoever ran it"
        code = f"W-TOS-{'ANY-TRAINING' if every else 'COMPETE'}:{license.label}"
        reason = f"{why}; {open_point}"
        yield finding(code, reason, dependency=dependency, license=license, cite=cite, fix=fix, level="contested")


def _conditions(ctx: AuditContext, dependency: Dependency, license: License) -> Iterator[Finding]:
    accepted = dependency.ran_weights or license.label in ctx.accepted
    who = "the releaser ran it" if dependency.ran_weights else "the card takes the terms on"
    third = dependency.input.ran_by == "third-party"
    level: Level = "contested" if third else "fact"
    binds = "that binds whoever ran it; a party that only took the rows is usually read as free" if third else (
        "that binds whoever accepted the license"
    )  # fmt: skip
    prefix, phrase = license.outputs.name_prefix, license.outputs.attribution
    if prefix and ctx.dataset:
        why = "whoever trains on these rows and is bound by the license has to name the model so"
        code = f"W-OUTPUT-NAME-RULE:{prefix.prefix} (downstream)"
        yield finding(code, why, dependency=dependency, license=license, cite=prefix, fix="say so on the data card")
    elif prefix and accepted:
        why = f"outputs trained the release, and {who}"
        fix = f'begin the name of the release with "{prefix.prefix}"'
        yield finding(
            f"O-NAME-PREFIX:{prefix.prefix}", why, dependency=dependency, license=license, cite=prefix, fix=fix
        )
    elif prefix and not any(required.startswith(fold(prefix.prefix)) for required in ctx.root_prefixes):
        why = f"outputs trained the release; {binds}"
        fix = f'begin the name with "{prefix.prefix}", or record `ran_by: third-party`'
        code = f"W-OUTPUT-NAME-RULE:{prefix.prefix}"
        yield finding(code, why, dependency=dependency, license=license, cite=prefix, fix=fix, level=level)
    if not phrase or not phrase.applies_to(dependency.input.id):
        return
    fix, code = f'show "{phrase.phrases[0]}" ({phrase.where})', f"W-OUTPUT-NAME-RULE:{phrase.phrases[0]}"
    if ctx.dataset:
        why = "whoever trains on these rows and is bound by the license has to show this phrase"
        fix = "say so on the data card"
        yield finding(f"{code} (downstream)", why, dependency=dependency, license=license, cite=phrase, fix=fix)
    elif accepted:
        why = f"outputs trained the release, and {who}"
        yield finding(f"O-ATTR:{phrase.phrases[0]}", why, dependency=dependency, license=license, cite=phrase, fix=fix)
    else:
        why = f"outputs trained the release; {binds}"
        yield finding(
            code,
            why,
            dependency=dependency,
            license=license,
            cite=phrase,
            fix=fix,
            level="contested" if third else "held",
        )


def _derivative(ctx: AuditContext, dependency: Dependency, license: License) -> Iterator[Finding]:
    outputs, name = license.outputs, license.label
    if outputs.derivative != "yes":
        return
    gate = f"; {outputs.gate}" if outputs.gate else ""
    why = f"the license calls a model trained on its outputs a derivative{gate}"
    fix = f"ship the terms of {license.name} as well, or take another teacher"
    if ctx.dataset:
        code = f"W-DISTIL-DERIVATIVE:{name} (downstream)"
        yield finding(
            code,
            why,
            dependency=dependency,
            license=license,
            cite=outputs.derivative_cite,
            fix="say so on the data card",
        )
        return
    third = dependency.input.ran_by == "third-party"
    if name in ctx.accepted:
        yield from redistribution_duties(license, dependency, "the card takes these terms on")
    elif outputs.use_restrictions and not third and dependency.input.role in ("generator", "logits"):
        duty = f"the text names distillation, and its use restrictions go with what was made by it{gate}"
        duty = f"{duty}; that is the text, and whether it reaches this release is contested"
        terms = f"make the use restrictions of {license.name} a term of your license, or take another teacher"
        cite = outputs.use_restrictions
        code = f"O-PASS-USE-RESTR:{name}"
        yield finding(code, duty, dependency=dependency, license=license, cite=cite, fix=terms)
    code = f"W-DISTIL-DERIVATIVE-CONTESTED:{name}" if third else f"W-DISTIL-DERIVATIVE:{name}"
    if third:
        why += "; the releaser never accepted it"
    level: Level = "contested" if third else "fact"
    yield finding(code, why, dependency=dependency, license=license, cite=outputs.derivative_cite, fix=fix, level=level)


def r11_roles(ctx: AuditContext) -> Iterator[Finding]:
    """R11: a judge adds no text; whether filtering by it is "using output to develop" is open. Seeds have sources."""
    for dependency in ctx.dependencies:
        if dependency.input.role == "judge":
            yield from _judge(ctx, dependency)
        elif dependency.input.role == "seed":
            yield from _seed(ctx, dependency)
    if ctx.dataset and len({e.governing.label if e.governing else e.input.id for e in ctx.outputs}) > 1:
        why = "several teachers under different terms: which one wrote a row has to be known row by row"
        yield finding("W-PER-ROW-GENERATOR", why, fix="add a column that names the teacher", level="held")


def _judge(ctx: AuditContext, dependency: Dependency) -> Iterator[Finding]:
    fix = "grade with a verifier or an open model"
    for license in (dependency.terms, dependency.license):
        if license is None or ctx.own(license):
            continue
        outputs = license.outputs
        asks = bool(
            outputs.name_prefix or (outputs.attribution and outputs.attribution.applies_to(dependency.input.id))
        )
        if outputs.train not in ("no", "not-competitors") and not asks:
            continue
        what = "asks something of models that its output improved" if asks else "bars training on its output"
        why = f"only graded or filtered rows; its text {what}, and whether a grade is such a use is open"
        code = f"W-JUDGE-USE:{license.id if license.kind == 'service' else license.label}"
        yield finding(code, why, dependency=dependency, license=license, cite=outputs.cite, fix=fix, level="contested")


def _seed(ctx: AuditContext, dependency: Dependency) -> Iterator[Finding]:
    """Seeds leave the verdict open (level contested) where they would as rows: not known; non-commercial; in a data
    set, also share-alike and no derivatives. A term that the release keeps is met."""
    license = dependency.license
    limits = {"non-commercial", "share-alike", "no-derivatives"} - (ctx.declared.terms if ctx.declared else set())
    lost = license.terms & limits if license else frozenset[str]()
    if not dependency.open_question and not lost:
        return
    why = "seeds of generated data have sources of their own"
    if lost and license:
        why = f"seeds under {license.name}: how much of them is in the generated text is open"
    fix = (
        f"find the license of {dependency.input.id}"
        if dependency.open_question
        else "take other seeds, or keep the term on the release"
    )
    contested = dependency.open_question or ctx.dataset or "non-commercial" in lost
    level: Level = "contested" if contested else "held"
    yield finding("W-RECURSE-DATA", why, dependency=dependency, license=license, fix=fix, level=level)
