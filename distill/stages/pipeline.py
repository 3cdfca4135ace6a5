"""The pipeline: read ``_pipeline`` from top to bottom and you have read the project.

Each stage is an object whose fields are all that it may depend on (one file a stage beside this one). The run directory
runs it, or finds it done. Push is not a stage: an act that cannot be undone has its own verb.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill.check.export import require_exportable
from distill.check.pair import require_turns, teacher_base
from distill.check.student import require_trainable
from distill.config.recipe import EvaluationSettings, Recipe
from distill.evaluate.run import check_engine, check_sampling
from distill.evaluate.suites.suite import find_suites
from distill.models.folder import MODEL, local_folder, read_base
from distill.models.vocabulary import require_shared, same_texts
from distill.release.evaluation_items import check_evaluation_items
from distill.release.formats import check_formats, check_stop_rates
from distill.release.gate import decide
from distill.release.lineage import planned_lineage
from distill.release.package import check_release_texts
from distill.release.training_data import check_data
from distill.runs.artefact import SECOND_ROUND, Artefact
from distill.runs.facts import (
    ExportFacts,
    LogitsFacts,
    LogprobsFacts,
    OnPolicyFacts,
    PackageFacts,
    SampleFacts,
    SelectFacts,
    TrainFacts,
)
from distill.runs.keys import (
    base_content,
    base_license_content,
    fingerprint,
    pinned_rewriter,
    pinned_teacher,
    pinned_train,
    pinned_verify,
    prompts_fingerprint,
    test_sets_fingerprint,
)
from distill.runs.stage import Watcher
from distill.runs.store import LastStage, Run, has_artefact
from distill.stages.audit import Audit
from distill.stages.compress import Compress
from distill.stages.curate import Curate
from distill.stages.evaluate import Evaluate
from distill.stages.export import Export
from distill.stages.formats import Formats
from distill.stages.label import Label
from distill.stages.logits import Logits
from distill.stages.logprobs import Logprobs
from distill.stages.on_policy import OnPolicy
from distill.stages.package import Package
from distill.stages.prepare import Prepare
from distill.stages.replay import Replay
from distill.stages.sample import Sample
from distill.stages.sample_student import SampleStudent
from distill.stages.select import Select
from distill.stages.train import Arm, Train
from distill.stages.verify import Verify
from distill.train.distillation import require_trl
from distill.train.launch import check_keeps_checkpoints
from distill.train.logits import require_aligned
from distill.train.routes import require_routes, routes_digest
from distill.train.self_teacher import check_examples_are_no_test_items, check_examples_fit
from licensing.audit import audit
from licensing.errors import InputError
from licensing.files import read_rows
from publish.formats.compressed import check_compressible
from synth.benchmarks import items_of
from synth.problems.config import ImportedTraces
from synth.problems.problem import canonical_json
from synth.sampling.config import TeacherSampling
from synth.sampling.samples_table import PROBLEMS
from synth.section import key_dump

STAGES = (
    "prepare", "sample", "verify", "label", "replay", "curate", "logprobs", "train", "select", "logits", "on_policy",
    "export", "sample_2", "verify_2", "label_2", "curate_2", "train_2", "select_2", "export_2",
    "train_control", "select_control", "export_control", "evaluate", "audit", "package", "formats", "compress",
)  # fmt: skip
"""In the order in which they run. `replay` needs a section `replay`, `logprobs` `sample.logprobs`, `logits` and
`on_policy` their names in `train.stages`, `select` (and beside a control `select_control`) `train.select`,
`train_control` and `export_control` `curate.control_arm`, `formats` GGUF among `release.formats`, `compress` any
other there; those of the second round, which end in `_2`, `train.rounds: 2`, and `logits` and `on_policy` then run
after `train_2`."""


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """The stages among ``STAGES`` that a recipe has."""
    train, control = recipe.train, recipe.curate.control_arm
    absent = {
        *([] if recipe.replay is not None else ["replay"]),
        *([] if getattr(recipe.sample, "logprobs", None) is not None else ["logprobs"]),
        *(stage for stage in ("logits", "on_policy") if stage not in train.stages),
        *([] if recipe.release.gguf_types else ["formats"]),
        *([] if recipe.release.compressed_types else ["compress"]),
        *(stage for stage in STAGES if stage.startswith("select") and train.select is None),
        *(stage for stage in STAGES if stage.endswith("_control") and not control),
        *(stage for stage in STAGES if stage.endswith(SECOND_ROUND) and train.rounds == 1),
    }
    return tuple(stage for stage in STAGES if stage not in absent)


def run(
    recipe: Recipe, runs: Path, *, watcher: Watcher | None = None, until: str | None = None, only: str | None = None
) -> Artefact[Any]:
    """Run a recipe below ``runs``, or go on where an earlier run of it stopped; returns the last stage's artefact.

    ``until`` names the last stage to run, ``only`` the one stage to run, for which all stages before it are finished.

    Raises:
        Refused: the licenses do not allow the release, no trace is left, a check failed.
        InputError: something that the recipe names is wrong, or another process holds the run.
        MissingDependency: an extra, a model's weights, memory, or disk is missing.
    """
    for option, stage in (("--until", until), ("--only", only)):
        if stage is not None and stage not in (names := stages_of(recipe)):
            hint = f"it has {', '.join(names)}"
            raise InputError(f"the recipe has no stage {stage}", where=option, hint=hint)
    planned = planned_lineage(recipe)
    audit(planned, allow=recipe.release.allow).raise_if_blocked()  # before any GPU is spent
    check_release_texts(recipe)
    if recipe.release.data:
        check_data(recipe, planned)
    last = STAGES.index(until) + 1 if until is not None else len(STAGES)
    planned_stages = STAGES[:last] if only is None else (only,)
    check_formats(recipe, planned_stages)
    check_keeps_checkpoints(recipe)
    distillations = {"logits", "on_policy"}.intersection(stages_of(recipe), planned_stages)
    if not all(has_artefact(runs / recipe.run_name(), stage) for stage in distillations):
        require_trl("train.stages")
    check_engine(recipe.evaluate)
    if recipe.release.evaluation_items:
        check_evaluation_items(recipe)
    with Run.open(runs, recipe, watcher=watcher, until=until, only=only) as stages:
        try:
            return _pipeline(stages, recipe)
        except LastStage as last:
            return last.artefact


def _pipeline(run: Run, recipe: Recipe) -> Artefact[PackageFacts]:
    student, sampling = recipe.student, recipe.sample
    teacher, verify, train = pinned_teacher(recipe), pinned_verify(recipe), pinned_train(recipe)
    held_out_content = prompts_fingerprint(recipe.evaluate.prompts)
    suites_content = suite_contents(recipe.evaluate.suites)
    contents = [prompts_fingerprint(recipe.prompts), held_out_content]
    if isinstance(sampling, ImportedTraces):
        contents.append(fingerprint(Path(sampling.path or sampling.dataset)) or sampling.revision)

    persona = recipe.persona.template_only() if recipe.persona else None
    template = _content(student.chat_template)
    prepared = run.stage(Prepare(student.base_only(), persona, base_content(student), template))
    _require_fit(run, recipe, prepared.path / MODEL)
    samples = teacher_samples = run.stage(
        Sample(
            prompts=recipe.prompts,
            held_out=recipe.evaluate.prompts,
            teacher=teacher,
            engine=recipe.engine,
            sample=sampling,
            contents=contents,
            verify=verify.rules(layout=True),
            allow_missing_gold=verify.majority is not None,
            selection_problems=train.select.problems if train.select is not None else None,
            on_policy=train.on_policy,
        )
    )
    routes = {}
    if train.on_policy is not None:
        routes = require_routes(train.on_policy.teachers, read_rows(samples.path / PROBLEMS))
    test_sets = [held_out_content, *test_sets_fingerprint(recipe.label.decontaminate)]
    verdicts = run.stage(Verify(verify, samples))
    labels = run.stage(Label(recipe.label, recipe.evaluate.prompts, test_sets, samples, verdicts))
    engine = EvaluationSettings(**recipe.evaluate.model_dump(include={"engine", "engine_args", "batch_size"}))
    replay = None
    if recipe.replay is not None:
        replay = run.stage(
            Replay(
                replay=recipe.replay,
                base=student.public_id,
                settings=engine,
                prompts_content=prompts_fingerprint(recipe.replay.prompts),
                held_out=recipe.evaluate.prompts,
                held_out_content=held_out_content,
                prepared=prepared,
            )
        )
    own, rewriter = recipe.persona_with_origins, pinned_rewriter(recipe)
    identity = own.identity_only(rewriter) if own is not None and own.identity_talk != "keep" else None
    curate = partial(
        Curate,
        curate=recipe.curate,
        persona=identity,
        verify=verify.rules() if identity is not None and identity.identity_talk == "rewrite" else None,
        rows_persona=own,
        replay=replay,
    )
    data = run.stage(curate(samples=samples, verdicts=verdicts, labels=labels))
    tables = (samples, verdicts, labels, data)

    captured: Artefact[LogprobsFacts] | None = None
    if isinstance(sampling, TeacherSampling) and sampling.logprobs is not None:
        row_fields = student.base_only().model_copy(
            update={"prompt_template": student.prompt_template, "max_length": student.max_length}
        )
        captured = run.stage(Logprobs(*tables, row_fields, sampling.logprobs, prepared))
        if train.logits is not None:
            require_aligned(captured.facts.rows_out, captured.facts.left_out or {}, train.logits.batch_size)
    checkpoints = train.select.checkpoints if train.select is not None else None
    trained = run.stage(Train(*tables, student, "student", prepared, checkpoints=checkpoints))
    sampling_values = recipe.evaluate.generation_config()

    def selected(arm: Arm, trained: Artefact[TrainFacts]) -> Artefact[SelectFacts] | None:
        if train.select is None:
            return None
        return run.stage(
            Select(
                arm=arm,
                rule=train.select.rule,
                settings=recipe.evaluate.settings,
                sampling=sampling_values,
                prompt_template=student.prompt_template,
                verify=verify.rules(),
                prepared=prepared,
                samples=teacher_samples,
                trained=trained,
            )
        )

    checkpoint = selected("student", trained)
    student_samples: Artefact[SampleFacts] | None = None
    first_trained: Artefact[TrainFacts] | None = None
    first_weights: Artefact[ExportFacts] | None = None
    if (student_sampling := recipe.student_sampling) is not None:
        first_trained = trained
        first_weights = run.stage(Export("student", sampling_values, prepared, trained, selected=checkpoint))
        samples = student_samples = run.stage(
            SampleStudent(
                settings=engine,
                prompt_template=student.prompt_template,
                sample=student_sampling,
                verify=verify.rules(layout=True),
                samples=teacher_samples,
                weights=first_weights,
            )
        )
        verdicts = run.stage(Verify(verify, samples))
        labels = run.stage(Label(recipe.label, recipe.evaluate.prompts, test_sets, samples, verdicts))
        data = run.stage(curate(samples=samples, verdicts=verdicts, labels=labels))
        tables = (samples, verdicts, labels, data)
        trained = run.stage(Train(*tables, student, "student", prepared, checkpoints=checkpoints))
        checkpoint = selected("student", trained)
    logits: Artefact[LogitsFacts] | None = None
    if train.logits is not None:
        assert captured is not None, "the recipe has checked it"
        logits = run.stage(Logits(student, train.logits, prepared, captured, trained))
    on_policy: Artefact[OnPolicyFacts] | None = None
    if train.on_policy is not None:
        digest = routes_digest(routes) if routes else None
        on_policy = run.stage(OnPolicy(*tables, student, train.on_policy, prepared, trained, logits, digest))
    weights = run.stage(Export("student", sampling_values, prepared, trained, on_policy, checkpoint, logits))
    control: Artefact[ExportFacts] | None = None
    if recipe.curate.control_arm:  # the same steps on as many unverified traces: what did verifying buy?
        trained_control = run.stage(Train(*tables, student, "control", prepared, trained.facts.samples, checkpoints))
        control_checkpoint = selected("control", trained_control)
        control = run.stage(Export("control", sampling_values, prepared, trained_control, selected=control_checkpoint))
    scores = run.stage(
        Evaluate(
            *tables,
            evaluate=recipe.evaluate,
            prompt_template=student.prompt_template,
            verify=verify.rules(),
            teacher=teacher,
            problems_content=held_out_content,
            suites_content=suites_content,
            prepared=prepared,
            weights=weights,
            control=control,
            first=first_weights,
            persona=recipe.persona_with_origins if recipe.evaluate.persona_probes else None,
        )
    )

    pinned = recipe.model_copy(update={"teacher": teacher, "verify": verify, "train": train})
    if recipe.persona is not None:
        pinned_persona = recipe.persona.model_copy(update={"rewriter": rewriter})
        pinned = pinned.model_copy(update={"persona": pinned_persona})
    audited = run.stage(
        Audit(
            recipe=pinned,
            license_file_content=_content(recipe.release.license_file),
            base_license_content=base_license_content(student),
            prepared=prepared,
            samples=teacher_samples,
            weights=weights,
            judged=verdicts if verify.judge is not None else None,
            rewritten=data if rewriter is not None else None,
            replay=replay,
        )
    )
    decide(recipe.release.require, scores.facts.as_json()).raise_if_no_go("no release is built")
    packaged = run.stage(
        Package(
            recipe=recipe,
            card_sections_content=_content(recipe.release.card_sections),
            teacher=teacher,
            prepared=prepared,
            samples=teacher_samples,
            student_samples=student_samples,
            verdicts=verdicts,
            labels=labels,
            data=data,
            first_trained=first_trained,
            first_weights=first_weights,
            trained=trained,
            logits=logits,
            on_policy=on_policy,
            replay=replay,
            selected=checkpoint,
            weights=weights,
            scores=scores,
            audit=audited,
        )
    )
    if recipe.release.gguf_types:
        formats = run.stage(
            Formats(
                types=recipe.release.gguf_types,
                evaluate=recipe.evaluate,
                prompt_template=student.prompt_template,
                stop_rate=recipe.release.require.stop_rate,
                verify=verify.rules(),
                scan_allow=recipe.release.scan_allow,
                prepared=prepared,
                scores=scores,
                package=packaged,
            )
        )
        check_stop_rates(formats.facts.scores, recipe.release.require.stop_rate)
    if recipe.release.compressed_types:
        assert recipe.release.compressor is not None, "check_formats has checked it"
        compressed = run.stage(
            Compress(
                *tables,
                types=recipe.release.compressed_types,
                compressor=recipe.release.compressor,
                student=student,
                evaluate=recipe.evaluate,
                stop_rate=recipe.release.require.stop_rate,
                verify=verify.rules(),
                scan_allow=recipe.release.scan_allow,
                scores=scores,
                package=packaged,
            )
        )
        check_stop_rates(compressed.facts.scores, recipe.release.require.stop_rate)
    return packaged


def _require_fit(run: Run, recipe: Recipe, base: Path) -> None:
    """What can be checked once the base is there, before a teacher is asked: does it train, export, and go with the
    teachers, examples and formats of the recipe?

    Raises:
        InputError: It does not.
    """
    student, sampling, on_policy = recipe.student, recipe.sample, recipe.train.on_policy
    model = read_base(base)
    findings = require_trainable(recipe, model)
    if isinstance(student.base, str) and local_folder(student.base) is None:  # `distill check` did not have it
        if not has_artefact(run.root, "train"):
            findings += require_exportable(student, base)
        for finding in findings:
            run.watcher.note("prepare", f"{finding.what} ({finding.hint})" if finding.hint else finding.what)
    check_sampling(recipe.evaluate, base)
    if recipe.release.compressed_types:
        check_compressible(model.config)
    if on_policy is not None:
        if on_policy.examples:
            check_examples_fit(model, on_policy, student.max_length)
            if recipe.curate.filters.contaminated:
                items = items_of(recipe.label.decontaminate, recipe.evaluate.prompts)
                check_examples_are_no_test_items(on_policy.examples, items)
        for where, logits_teacher in on_policy.logits_teachers.items():
            folder = Path(logits_teacher.model).expanduser()
            if on_policy.across_tokenizers:
                same_texts(model, read_base(folder))
            else:
                require_shared(base, folder, f"{where}.model")
    if isinstance(sampling, TeacherSampling) and sampling.logprobs is not None:
        for one in recipe.teachers:
            if (folder := Path(one.model)).is_dir():
                require_shared(base, folder, "sample.logprobs")
                if recipe.train.logits is not None:
                    require_turns(model, teacher_base(one, folder))


def suite_contents(names: Sequence[str]) -> list[str | None]:
    """Content of the problems of each suite, then, of those that are recipes, where theirs come from and the text that
    they are put in: the name of another suite says as much."""
    contents = [prompts_fingerprint(suite.source) for suite in find_suites(names)]
    for name in names:
        if Path(name).suffix in (".yaml", ".yml"):
            (suite,) = find_suites([name])
            contents.append(canonical_json([key_dump(suite.source), key_dump(suite.prompt_template)]))
    return contents


def _content(path: str | None) -> str | None:
    return fingerprint(Path(path).expanduser()) if path else None
