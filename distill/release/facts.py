"""The facts that the cards of a release state, from the manifests and files of a run's stages.

Versions, device and code revision are those in the manifests of the stages, never those of the process that packages.
No times are stated, so that equal runs give equal cards.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluateConfig, LoraMethod, Recipe
from distill.evaluate.suites.suite import find_suites
from distill.models.folder import MODEL, base_path, public_name
from distill.release.audit import read_text
from distill.release.endpoints import governing
from distill.release.lineage import Sources, base_revision, count_sources, replayed_sources
from distill.release.public import Redaction, is_local_path
from distill.runs.artefact import Artefact
from distill.runs.facts import (
    FIRST_STUDENT,
    STUDENT,
    AuditFacts,
    CurateFacts,
    EvaluateFacts,
    ExportFacts,
    LogitsFacts,
    OnPolicyFacts,
    PrepareFacts,
    ReplayFacts,
    SampleFacts,
    SandboxFacts,
    Score,
    SelectFacts,
    TrainFacts,
)
from distill.runs.provenance import PROJECT
from distill.runs.tables import TrainingTables
from licensing.files import read_json, read_rows
from licensing.registry import resolve
from publish import facts as card
from synth.persona.config import PersonaConfig
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.problems.preset import find_preset
from synth.sampling.config import TeacherSampling
from synth.sampling.sample import ENGINES
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.config import OpenAITeacher, TeacherConfig, content_revision
from synth.teachers.mixture import TeacherMixture, TeachersConfig, teacher_configs
from synth.teachers.router import read_engine_info
from synth.verify.config import VerifyConfig

MIN_LANGUAGE_SHARE = 0.05
"""A language with a smaller share of the training rows is not a language of the model."""


@dataclass(frozen=True, kw_only=True)
class ReleaseStages(TrainingTables):
    """The finished stages that a release is made of.

    ``samples`` are the teacher's. Where there is a second round, ``student_samples`` are those and the samples of the
    first round's student, which ``first_trained`` and ``first_weights`` made.
    """

    prepared: Artefact[PrepareFacts]
    trained: Artefact[TrainFacts]
    weights: Artefact[ExportFacts]
    scores: Artefact[EvaluateFacts]
    audit: Artefact[AuditFacts]
    logits: Artefact[LogitsFacts] | None = None
    on_policy: Artefact[OnPolicyFacts] | None = None
    replay: Artefact[ReplayFacts] | None = None
    selected: Artefact[SelectFacts] | None = None
    student_samples: Artefact[SampleFacts] | None = None
    first_trained: Artefact[TrainFacts] | None = None
    first_weights: Artefact[ExportFacts] | None = None

    @cached_property
    def sources(self) -> Sources:
        """The sources of the problems that were sampled."""
        return count_sources(read_rows(self.samples.path / PROBLEMS))

    @property
    def trainings(self) -> tuple[Artefact[Any], ...]:
        """The stages that changed the weights, in order."""
        stages = (self.trained, self.logits, self.on_policy)
        return tuple(stage for stage in stages if stage is not None)

    @property
    def first_round(self) -> tuple[Artefact[Any], ...]:
        """The stages between the teacher's samples and those of the second round; none where there is one round."""
        first = (self.first_trained, self.first_weights, self.student_samples)
        return tuple(stage for stage in first if stage is not None)


def release_facts(recipe: Recipe, teacher: TeachersConfig, stages: ReleaseStages) -> card.ReleaseFacts:
    """Everything that the cards say, without local paths and private addresses. ``teacher``: the pinned section."""
    student, release, sampling = recipe.student, recipe.release, recipe.sample
    revision, dirty = _code(stages)
    statistics = read_json(stages.data.path / "statistics.json")
    facts = card.ReleaseFacts(
        name=release.name,
        version=release.version,
        description=release.description,
        license=license_facts(release.license, release.license_name, release.license_link),
        languages=release.languages if release.languages is not None else _languages(statistics),
        base=card.BaseFacts(id=public_name(student), revision=base_revision(stages.prepared), license=student.license),
        teachers=teacher_facts(recipe, teacher, stages.samples),
        prompt_sources=_prompt_sources(recipe, stages.sources, replayed_sources(recipe, stages.replay)),
        persona=_persona(recipe.persona, stages) if recipe.persona else None,
        training=_training(recipe, stages),
        sampling=card.SamplingFacts(
            settings=_settings(sampling.model_dump(exclude={"source", "budget"}) | _shares(teacher))
            if isinstance(sampling, TeacherSampling)
            else {},
            samples=stages.samples.facts.rows_out,
            tokens=stages.samples.facts.tokens,
        ),
        first_student=_first_student(recipe, stages),
        verification=verification_text(recipe.verify, statistics, stages.verdicts.facts.sandbox),
        waterfall=stages.data.facts.waterfall,
        evaluation=_evaluation(recipe, stages),
        generation=read_json(stages.weights.path / MODEL / "generation_config.json"),
        duties=duties(read_json(stages.audit.path / "audit.json")["findings"]),
        allowed=tuple(f"{one.code}: {one.because}" for one in stages.audit.facts.allowed),
        notice=tuple((stages.audit.path / "NOTICE").read_text(encoding="utf-8").splitlines()),
        versions=versions_by_stage(stages),
        code_revision=revision,
        dirty=dirty,
        template_digest=stages.prepared.facts.template_digest,
        limitations=release.limitations,
        tags=("distillation", "reasoning"),
        data_name=release.data_set,
        sections=card_sections(recipe),
        gated_prompt=release.gated_prompt,
    )
    return card.ReleaseFacts.model_validate(Redaction(recipe).value(facts.model_dump()))


def license_facts(declared: str, name: str | None = None, link: str | None = None) -> card.LicenseFacts:
    """A declared license with its tag on the hub; ``name`` and ``link`` are the recipe's own."""
    entry = resolve(declared)
    tag = (entry.hub_license if entry else None) or declared
    if tag == "other":
        name, link = name or (entry.hub_license_name if entry else None) or declared, link or "LICENSE"
    return card.LicenseFacts(id=entry.id if entry else declared, hub_tag=tag, license_name=name, license_link=link)


# --- from manifests ----------------------------------------------------------------------------------------------


def _makers(stages: ReleaseStages) -> dict[str, dict[str, Any]]:
    """Stage -> manifest, of the stages whose code and libraries decide what the release is."""
    selected = () if stages.selected is None else (stages.selected,)
    made = (stages.samples, *stages.first_round, stages.verdicts, *stages.trainings, *selected)
    makers = (*made, stages.weights, stages.scores)
    return {artefact.stage: artefact.manifest for artefact in makers}


def _by_stage(values: Mapping[str, str]) -> str:
    """``stage -> value`` in one line: the value where all stages agree, else each value with its stages."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for stage, value in values.items():
        groups[value].append(stage)
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())


def versions_by_stage(stages: ReleaseStages) -> dict[str, str]:
    """Library -> the version that the stages ran with; where they differ, each version with its stages."""
    versions: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for stage, manifest in _makers(stages).items():
        own = {PROJECT: manifest["code"]["version"]} if manifest["code"].get("version") else {}
        for library, version in (manifest["versions"] | own).items():
            versions[library][stage] = version
    return {library: _by_stage(values) for library, values in sorted(versions.items())}


def _code(stages: ReleaseStages) -> tuple[str | None, bool | None]:
    """Revision of the code of the stages, and whether it had uncommitted changes; None where a stage's is unknown."""
    codes = {stage: manifest["code"] for stage, manifest in _makers(stages).items()}
    if any(code.get("revision") is None for code in codes.values()):
        return None, None
    revision = _by_stage({stage: code["revision"] for stage, code in codes.items()})
    return revision, any(code["dirty"] for code in codes.values())


def _hardware(stage: Artefact[Any]) -> str | None:
    """The device that a manifest records, such as "8 x NVIDIA H200, Intel Xeon (x86_64)"."""
    device = stage.manifest.get("device")
    if not device:
        return None
    gpus = [f"{count} x {name}" for name, count in collections.Counter(device["gpus"]).items()]
    machine = device["machine"]
    cpu = device.get("cpu") or machine
    return ", ".join([*gpus, cpu if cpu == machine else f"{cpu} ({machine})"])


# --- from recipe and facts ---------------------------------------------------------------------------------------


def _languages(statistics: Mapping[str, Any]) -> tuple[str, ...]:
    """ISO 639-1 codes of the languages that were measured in the training rows, the most frequent first."""
    groups = sorted((group for group in statistics["by_language"] if group["name"]), key=lambda group: -group["rows"])
    return tuple(group["name"] for group in groups if group["rows"] >= MIN_LANGUAGE_SHARE * statistics["rows"])


def _prompt_sources(recipe: Recipe, sources: Sources, replayed: Sources) -> tuple[card.PromptSource, ...]:
    """The sources of the problems, and of the prompts that the base answered for replayed rows."""
    section = recipe.sample if isinstance(recipe.sample, ImportedTraces) else recipe.prompts
    facts = [
        card.PromptSource(name=name, license=text, problems=count, dataset=_trained_dataset(section))
        for (name, text), count in sorted(sources.items(), key=str)
    ]
    dataset = _trained_dataset(recipe.replay.prompts if recipe.replay is not None else None)
    facts += [
        card.PromptSource(name=name, license=text, dataset=dataset)
        for name, text in sorted(replayed.keys() - sources.keys(), key=str)
    ]
    return tuple(facts)


def _hub_dataset(prompts: PromptsConfig | ImportedTraces | None) -> str | None:
    """The hub id of the data set that the problems, or imported traces, are fetched from."""
    if not isinstance(prompts, HubPrompts | ImportedTraces) or not prompts.dataset:
        return None
    if base_path(prompts.dataset) is not None or is_local_path(prompts.dataset):
        return None
    return prompts.dataset


def _trained_dataset(prompts: PromptsConfig | ImportedTraces | None) -> str | None:
    """``_hub_dataset``; of a local copy that is read by a preset that of the preset. The recipe says that it is this
    data set, whose source and license its rows have, too; nobody compares the content."""
    preset = None if isinstance(prompts, ReasoningGymPrompts) or prompts is None else prompts.preset
    return _hub_dataset(prompts) or (find_preset(preset).dataset if preset is not None else None)


def _hub_source(prompts: PromptsConfig | None) -> dict[str, str | None]:
    """Data set, split and revision of problems of the hub."""
    of_hub = prompts.model_dump(include={"split", "revision"}) if isinstance(prompts, HubPrompts) else {}
    return {"dataset": _hub_dataset(prompts), **of_hub}


def _shares(section: TeachersConfig) -> dict[str, Any]:
    """The share of the samples of each teacher of a mixture; none of a cascade."""
    if not isinstance(section, TeacherMixture) or section.shares is None:
        return {}
    return {f"share of {entry.teacher.public_id}": entry.share for entry in section.teachers}


def _is_base(teacher: TeacherConfig, recipe: Recipe) -> bool:
    base = recipe.student.base
    return isinstance(base, str) and (teacher.model == base or teacher.public_id == recipe.student.public_id)


def _persona(persona: PersonaConfig, stages: ReleaseStages) -> card.PersonaFacts:
    probes = stages.scores.facts.persona_probes
    names = {
        "base": "base under its own template",
        "student_before": "base under this template",
        STUDENT: "student (this release)",
    }
    return card.PersonaFacts(
        name=persona.name,
        maker=persona.maker,
        system=persona.default_system,
        policy=persona.policy,
        rows=(stages.data.facts.added or {}).get("persona", 0)
        - stages.trained.facts.left_out_sources.get("persona", 0),
        probes=tuple(
            card.ProbeScore(
                model=names[row.model],
                n=row.n,
                right=row.answer["right"].value,
                low=row.answer["right"].low,
                high=row.answer["right"].high,
                leaks=row.leak_rate.value,
                refuses=row.answer["refuses"].value,
            )
            for row in (probes.rates if probes else ())
        ),
    )


def teacher_facts(
    recipe: Recipe, section: TeachersConfig, samples: Artefact[SampleFacts]
) -> tuple[card.TeacherFacts, ...]:
    """The teachers with their engines; a revision is the pinned one, or that of the weights which an engine loaded."""
    engine_rows = read_engine_info(samples.path / ENGINES)
    facts = []
    for teacher in teacher_configs(section):
        shares = samples.facts.teachers
        engines = shares[teacher.public_id].engines if shares else samples.facts.engines
        loaded = {row["revision"] for row in engine_rows if row["model"] == teacher.public_id and row["revision"]}
        facts.append(
            card.TeacherFacts(
                id=teacher.public_id,
                revision=teacher.revision or ", ".join(sorted(loaded)) or None,
                license=governing(teacher),
                ran_by=teacher.ran_by,
                engine=", ".join(engines) or None,
                is_base=_is_base(teacher, recipe),
                worked_examples=len(teacher.examples),
                system_prompt=teacher.system_prompt is not None,
            )
        )
    return tuple(facts)


def _first_student(recipe: Recipe, stages: ReleaseStages) -> card.FirstStudent | None:
    """The student of the first round; None where there is one round."""
    if stages.first_trained is None or stages.student_samples is None:
        return None
    share, sampling = stages.student_samples.facts.student, recipe.student_sampling
    assert stages.first_weights is not None
    assert share is not None
    assert sampling is not None
    return card.FirstStudent(
        id=FIRST_STUDENT,
        revision=content_revision(stages.first_weights.digest),
        base=public_name(recipe.student),
        license=recipe.student.license,
        trained_rows=stages.first_trained.facts.rows_out,
        settings=_settings(sampling.model_dump(exclude={"source", "budget"})),
        samples=share.rows_out,
        tokens=share.tokens,
        engine=", ".join(share.engines) or None,
        rows=stages.data.facts.student_rows or 0,
    )


def duties(findings: Iterable[Mapping[str, Any]]) -> tuple[card.Duty, ...]:
    """The duties among the findings of an audit (as JSON), each once, in words."""
    duties = [
        card.Duty(what=f["fix"] or f["why"], code=f["code"], source=f["input"])
        for f in findings
        if f["code"].startswith("O-")
    ]
    return tuple(dict.fromkeys(duties))


def card_sections(recipe: Recipe) -> str | None:
    """The releaser's own sections of the card, without local paths and private addresses. Raises InputError where the
    file cannot be read."""
    path = recipe.release.card_sections
    return path and Redaction(recipe).text(read_text(Path(path).expanduser(), "release.card_sections"))


def _training(recipe: Recipe, stages: ReleaseStages) -> card.TrainingFacts:
    student, trained, on_policy = recipe.student, stages.trained, stages.on_policy
    fields = ("num_train_epochs", "batch_size", "max_length", "lr_scheduler", "warmup_ratio", "weight_decay", "seed")
    settings = {**student.method.model_dump(), **student.model_dump(include=set(fields))}
    method = "LoRA, merged into the weights" if isinstance(student.method, LoraMethod) else "full fine-tuning"
    method = f"{method}; loss on the answers only"
    if stages.logits is not None and recipe.train.logits is not None:
        facts = stages.logits.facts
        teachers = " and ".join(one.public_id for one in recipe.teachers)
        method += (
            f". Then distillation on logits: {facts.rows_out:,} of the traces in {facts.steps:,} steps, on which it "
            f"learnt the distribution of {teachers} over its {facts.logprobs} likeliest tokens"
        )
        settings |= {f"logits.{key}": value for key, value in recipe.train.logits.model_dump().items()}
    if on_policy is not None and (config := recipe.train.on_policy) is not None:
        routes = [f"{one.teacher} (on {one.problems:,} problems)" for one in on_policy.facts.routes or ()]
        teachers = " and ".join(routes or [one.public_id for one in config.logits_teachers.values()])
        learnt = (
            f"its own distribution with worked examples in its prompt ({len(config.examples)})" if config.examples
            else f"the distribution of {teachers}"
        )  # fmt: skip
        method += (
            f". Then on-policy distillation: {on_policy.facts.answers:,} answers of the student in "
            f"{on_policy.facts.steps:,} steps, on which it learnt {learnt}"
        )
        options = config.model_dump(exclude={"teacher", "teachers", "examples"})
        settings |= {f"on_policy.{key}": value for key, value in options.items()}
    if stages.selected is not None:
        method += f". {_selection_text(stages.selected.facts)}"
    return card.TrainingFacts(
        method=method,
        hyperparameters=_settings({key: value for key, value in settings.items() if key != "kind"}),
        rows=trained.facts.rows_out,
        tokens=trained.facts.tokens,
        epochs=student.num_train_epochs,
        steps=trained.facts.steps,
        logits_tokens=stages.logits.facts.tokens if stages.logits is not None else None,
        on_policy_tokens=on_policy.facts.tokens if on_policy is not None else None,
        hardware=_hardware(trained),
        parameters=stages.weights.facts.parameters,
        trained_parameters=trained.facts.trained_parameters,
        base_flops=recipe.release.base_training_flops,
    )


def _selection_text(facts: SelectFacts) -> str:
    """Which checkpoint ships, and why. In words alone: the card shows marks of Markdown as they are."""
    rule = facts.rule.replace("_", " ")
    scores = "; ".join(
        f"{one.model} of {facts.steps[-1]:,}: {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in facts.scores
    )
    return (
        f"The release is the checkpoint of step {facts.step:,}, by the rule {rule} on {facts.rows_in:,} problems "
        f"that were neither trained on nor held out; the share of correct answers there with its 95 % interval: "
        f"{scores}. The score of a checkpoint that was chosen for it is optimistic; the held-out problems were asked "
        "after the choice"
    )


def _settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings for the card, one a line: a section's own under ``section.key``, behind its ``kind`` under its name."""
    flat: dict[str, Any] = {}
    for key, value in sorted(values.items(), key=lambda item: item[0] != "kind"):
        name = prefix.rstrip(".") if prefix and key == "kind" else f"{prefix}{key}"
        if isinstance(value, tuple) and value and isinstance(value[0], Mapping):
            value = {str(number): entry for number, entry in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= _settings(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            flat[name] = value
        elif value not in (None, ()):
            flat[name] = str(value)
    return flat


_VERIFIERS = {
    "math": "mathematical answers are read as typed values and compared by value",
    "choice": "choices are compared by their letters",
    "reasoning_gym": "reasoning-gym's own scorers judge its tasks",
}


def verification_text(config: VerifyConfig, statistics: Mapping[str, Any], sandbox: SandboxFacts | None) -> str | None:
    """How the training rows were verified, in one line. None: they were not.

    ``sandbox``: where stage verify ran programs, which are named only then.
    """
    kinds = {group["name"] for group in statistics["by_kind"]}
    parts = [text for kind, text in _VERIFIERS.items() if kind in kinds]
    if sandbox is not None:
        places = {"bubblewrap": "in a sandbox (bubblewrap)", "none": "without a sandbox"}
        place = places.get(sandbox.runtime, f"in containers ({sandbox.runtime})")
        packages = f" with {', '.join(sandbox.packages)}" if sandbox.packages else ""
        parts.append(f"programs run against their tests {place}{packages}")
        if sandbox.in_process:
            parts.append(
                f"the tests of {sandbox.in_process:,} of them ran in the program's process, where it can fake a pass"
            )
    if config.judge is not None:
        effect = {
            "rules": "whose verdict decides nothing",
            "judge": "whose verdict counts where it gives one",
            "either": "and an answer counts as correct where either verdict is",
        }[config.judge.counts]
        when = " or ".join(config.judge.when)
        parts.append(f"where the rules say {when}, the model {config.judge.teacher.public_id} judges too, {effect}")
    if config.majority is not None:
        parts.append("problems without a reference answer were verified against the answer of most of their samples")
    if parts and "open" in kinds:
        parts.append("open questions were not verified")
    return "; ".join(parts) or None


# --- evaluation --------------------------------------------------------------------------------------------------


_STUDENTS = {
    "student_before": ("base", "base", ""),
    STUDENT: ("release", "student (this release)", ""),
    FIRST_STUDENT: ("earlier", "student of the first round", "-round-1"),
    "student_control": ("control", "control student (unverified traces)", "-control"),
}
"""Model -> its role, its name for people, and what stands in its id behind that of the release (or of the base)."""


def _evaluation(recipe: Recipe, stages: ReleaseStages) -> card.EvaluationFacts:
    config, facts = recipe.evaluate, stages.scores.facts
    names = {score.model: model_name(score.model, recipe) for score in facts.scores}
    comparison = set(card.Comparison.model_fields) - {"a", "b"}
    return card.EvaluationFacts(
        benchmark=_benchmark(config.prompts),
        **_hub_source(config.prompts),
        task=recipe.release.benchmark_task,
        license=config.prompts.license,
        held_out=_held_out(recipe, stages.data),
        n=facts.scores[0].n,
        decoding=_decoding(config),
        sampling=config.model_dump(include={"num_samples", "max_new_tokens", "seed"}) | _sampling(facts.scores, config),
        **_card_scores(facts.scores, recipe),
        comparisons=tuple(
            card.Comparison(a=names[pair.a], b=names[pair.b], **pair.model_dump(include=comparison))
            for pair in facts.comparisons
        ),
        suites=tuple(
            card.SuiteChange(
                before=effect.before.value,
                after=effect.after.value,
                **effect.model_dump(include=set(card.SuiteChange.model_fields) - {"before", "after"}),
            )
            for effect in facts.side_effects
        ),
        planted_recall=facts.planted_recall,
        interval=facts.interval,
        items=recipe.release.evaluation_items,
    )


def suite_evaluations(
    recipe: Recipe, evaluation: card.EvaluationFacts, scores: Artefact[EvaluateFacts]
) -> list[card.EvaluationFacts]:
    """Each suite of the recipe, base and release, under the settings of ``evaluation``, that of the held-out problems;
    without its problems and answers."""
    suites = {suite.name: suite.source for suite in find_suites(recipe.evaluate.suites)}
    evaluations = []
    for effect in scores.facts.side_effects:
        source = suites[effect.suite]
        one = card.EvaluationFacts(
            benchmark=effect.suite,
            **_hub_source(source),
            n=effect.n,
            decoding=evaluation.decoding,
            sampling=evaluation.sampling,
            **_card_scores((effect.before, effect.after), recipe),
            interval=effect.interval,
        )
        evaluations.append(card.EvaluationFacts.model_validate(Redaction(recipe).value(one.model_dump())))
    return evaluations


def _card_scores(scores: Iterable[Score], recipe: Recipe) -> dict[str, tuple[card.Score, ...]]:
    """The fields `scores` and `other_scores` of an evaluation on the card."""
    on_card = [one.on_card(model_name(one.model, recipe), **_scored_model(one.model, recipe)) for one in scores]
    first, others = tuple(one[0] for one in on_card), tuple(other for one in on_card for other in one[1:])
    return {"scores": first, "other_scores": others}


def _decoding(config: EvaluateConfig) -> str:
    if config.sampling == "model":
        how = "sampled as each model's own generation_config.json says"
    elif config.temperature == 0:
        how = "greedy"
    else:
        how = f"temperature {config.temperature}, top_p {config.top_p}"
    how += "".join(f", {name} {value:g}" for name, value in config.sampling_options.items())
    samples = f", {config.num_samples} samples a problem" if config.num_samples > 1 else ""
    return f"{how}, at most {config.max_new_tokens} new tokens{samples}"


def _sampling(scores: Iterable[Score], config: EvaluateConfig) -> dict[str, float]:
    """The sampling values of the release: those of the recipe, or of its generation_config.json."""
    if config.sampling == "model":
        return next(score.sampling for score in scores if score.model == STUDENT)
    return {"temperature": config.temperature, "top_p": config.top_p, **config.sampling_options}


def _scored_model(model: str, recipe: Recipe) -> dict[str, Any]:
    """Role and id of an evaluated model; of a teacher whether a service answered."""
    if model in _STUDENTS:
        role, _, ending = _STUDENTS[model]
        return {"role": role, "id": recipe.student.public_id if role == "base" else recipe.release.name + ending}
    (teacher,) = _teachers_called(model, recipe)
    served = isinstance(teacher, OpenAITeacher) and teacher.is_public
    return {"role": "teacher", "id": teacher.public_id, "served": served}


def _teachers_called(model: str, recipe: Recipe) -> list[TeacherConfig]:
    return [one for one in recipe.teachers if model in ("teacher", f"teacher {one.public_id}")]


def _benchmark(prompts: PromptsConfig) -> str:
    match prompts:
        case ReasoningGymPrompts():
            return f"reasoning-gym {prompts.task}"
        case JsonlPrompts():
            return prompts.source or prompts.path
        case HubPrompts():
            return prompts.data_source
    raise AssertionError("one of three kinds")


def model_name(model: str, recipe: Recipe) -> str:
    """The name of an evaluated model for people."""
    if model in _STUDENTS:
        return _STUDENTS[model][1]
    teachers = _teachers_called(model, recipe)
    if len(teachers) == 1 and _is_base(teachers[0], recipe):
        how = " with worked examples" if teachers[0].examples else ""
        return f"{model} (the base{how})"
    return model


def _held_out(recipe: Recipe, data: Artefact[CurateFacts]) -> str:
    """How the held-out problems are kept out of the training set; near copies count only where decontamination ran."""
    overlap = read_json(data.path / "decontamination.json")
    if "evaluate" not in overlap.get("sets", {}):
        return "no training problem is an exact copy of one of them; near copies were not looked for"
    count, recall = f"{overlap['contaminated']:,} of {overlap['prompts']:,}", overlap.get("recall", {})
    shares = ", ".join(f"{100 * share:.0f} % of {kind}" for kind, share in recall.items() if share is not None)
    searched = f" (the search finds, of planted copies, {shares})" if shares else ""
    if recipe.curate.filters.contaminated:
        fate = f"problems that overlap with a test item, {count}, were left out{searched}"
    else:
        fate = f"problems that overlap with a test item, {count}, were trained on{searched}"
    return f"no training problem is an exact copy of one of them, and {fate}"
