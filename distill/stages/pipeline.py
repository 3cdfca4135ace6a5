"""The story: read ``run`` top to bottom and you have read the project.

Each line is a stage: a name, the function that does it (``distill/stages/work.py``, ``distill/release/``),
and everything
that it may depend on. The ledger runs it, or finds it done. Push is not a stage: an act that cannot be undone has its
own verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.release.audit import write_audit
from distill.release.facts import ReleaseStages
from distill.release.lineage import count_sources, planned_lineage
from distill.release.package import write_package
from distill.release.training_data import check_data
from distill.runs.keys import (
    base_fingerprint,
    fingerprint,
    pinned_teacher,
    pinned_verify,
    prompts_fingerprint,
    test_sets_fingerprint,
)
from distill.runs.store import Artefact, Ledger, StageContext, UntilReached, Watcher
from distill.stages.work import do_curate, do_evaluate, do_export, do_label, do_prepare, do_sample, do_train, do_verify
from licensing.audit import audit
from licensing.files import read_rows
from synth.sampling.config import ImportedTraces, TeacherSampling
from synth.teachers.mixture import TeachersConfig


def _audit(place: StageContext, recipe: Recipe, start: Artefact, raw: Artefact, weights: Artefact,
           checked: Artefact) -> dict[str, Any]:  # fmt: skip
    sources = count_sources(read_rows(raw.path / "prompts.jsonl"))
    return write_audit(place.out, recipe, start, raw, checked, sources) | {"weights": weights.digest}


def _package(place: StageContext, recipe: Recipe, teacher: TeachersConfig, *artefacts: Artefact) -> dict[str, Any]:
    done = {artefact.stage: artefact for artefact in artefacts}
    sources = count_sources(read_rows(done["sample"].path / "prompts.jsonl"))
    stages = ReleaseStages(**done, sources=sources)
    return write_package(
        place.out, place.scratch, recipe, teacher, stages, read_rows(done["curate"].path / "train.jsonl")
    )


STAGES = ("prepare", "sample", "verify", "label", "curate", "train", "export", "evaluate", "audit", "package")


def run(recipe: Recipe, runs: Path, *, watcher: Watcher | None = None, until: str | None = None) -> Artefact:
    """Run a recipe below ``runs``, or go on where an earlier run of it stopped; returns the last stage's artefact.

    Raises:
        Refused: the licences do not allow the release, no trace is left, a check failed.
        InputError: something that the recipe names is wrong, or another process holds the run.
        MissingDependency: an extra, a model's weights, or disk is missing.
    """
    planned = planned_lineage(recipe)
    audit(planned, allow=recipe.release.allow).raise_if_blocked()  # before any GPU is spent
    if recipe.release.data:
        check_data(recipe, planned)
    with Ledger.open(runs, recipe, watcher=watcher, until=until) as led:
        try:
            return _stages(led, recipe)
        except UntilReached as reached:
            return reached.artefact


def _stages(led: Ledger, recipe: Recipe) -> Artefact:
    student, teacher, sample, verify = recipe.student, pinned_teacher(recipe), recipe.sample, pinned_verify(recipe)
    problems = [prompts_fingerprint(recipe.prompts), prompts_fingerprint(recipe.evaluate.prompts)]
    if isinstance(sample, ImportedTraces):
        problems.append(fingerprint(Path(sample.path)))
    base = base_fingerprint(student)
    pinned = recipe.model_copy(update={"teacher": teacher, "verify": verify})

    start = led.stage("prepare", do_prepare, student.base_only(), recipe.persona, base)
    # Only adaptive sampling looks at verdicts, and only then do the verifier's settings make other samples.
    adaptive = isinstance(sample, TeacherSampling) and sample.policy.kind == "adaptive"
    judged: list[object] = [verify.rules(layout=True)] if adaptive else []
    if verify.majority is not None:  # problems may lack an answer
        judged = [*(judged or [None]), True]
    raw = led.stage("sample", do_sample, recipe.prompts, recipe.evaluate.prompts, teacher, recipe.engine, sample,
                    problems, *judged, in_place=True)  # fmt: skip
    checked = led.stage("verify", do_verify, verify, raw)
    labels = led.stage("label", do_label, recipe.label, recipe.evaluate.prompts,
                       [problems[1], *test_sets_fingerprint(recipe.label.decontaminate)], checked)  # fmt: skip
    data = led.stage("curate", do_curate, recipe.curate, checked, labels)
    trained = led.stage("train", do_train, student, "student", start, data)
    weights = led.stage("export", do_export, start, trained)
    control = None
    if recipe.curate.control_arm:  # the same steps on as many unverified traces: what did verifying buy?
        trained_control = led.stage("train_control", do_train, student, "control", start, data)
        control = led.stage("export_control", do_export, start, trained_control)
    scores = led.stage("evaluate", do_evaluate, recipe.evaluate, verify.rules(), teacher, problems[1],
                       start, weights, control, data)  # fmt: skip
    audited = led.stage("audit", _audit, pinned, start, raw, weights, checked)
    return led.stage("package", _package, recipe, teacher, start, raw, checked, data, trained, weights, scores, audited,
                     version=2)  # fmt: skip
