"""From a recipe to its dry run: the same recipe with stand-ins for models, devices and data sets of the hub.

**Kept**: templates, special tokens, positions; prompt templates, system prompts, examples; policies, verification,
labels, filters by content; the method of training; persona; licenses; the release's texts. **Replaced**: what
``DryRecipe.replaced`` lists, in words, for the user. **Compared** before anything runs: every length with the
positions of the real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config.parallel import ParallelConfig
from distill.config.recipe import EvaluateConfig, RandomBase, Recipe, ReleaseConfig, RequireConfig, StudentConfig
from distill.config.train import LogitsTeacher, TrainConfig
from distill.dry_run.models import ModelDescription, describe, write_stand_in
from distill.dry_run.problems import Part, stand_in_prompts, stand_in_traces
from distill.models.positions import position_limit, with_rope_scaling
from distill.models.random_model import write_random_base
from licensing.errors import InputError
from publish.push import DRY_RUN
from synth.curate.config import CurateConfig
from synth.distributed.config import LocalEngine
from synth.labels.config import LabelConfig
from synth.persona.config import PersonaConfig
from synth.problems.config import HubPrompts, ImportedTraces, PromptsConfig
from synth.sampling.config import SAMPLING_OPTIONS, FixedPolicy, SampleConfig, TeacherSampling
from synth.teachers.config import (
    FakeTeacher,
    OfflineTeacher,
    OpenAITeacher,
    TeacherConfig,
    TeacherFields,
    VllmServerTeacher,
)
from synth.teachers.mixture import TeacherMixture, TeachersConfig
from synth.teachers.teacher import teacher_messages
from synth.verify.config import VerifyConfig

NOTICE = "DRY RUN: random weights and made-up answers; nothing here is a result."

_LONGEST_NAME = 96
_ACCURACY = 0.75  # so that a handful of problems leaves some rows to train on
_FEW_SAMPLES = 2
_FEW_PROBES = 4
_FEW_STEPS = 2
_FEW_SELECTED = 2
_NEW_TOKENS = 24
_QUESTION = "What is the sum of one and one?"


@dataclass(frozen=True)
class DryRecipe:
    """``replaced``: what stands in for what, a line each. ``notes``: what the recipe should be told anyway."""

    recipe: Recipe
    replaced: tuple[str, ...]
    notes: tuple[str, ...]


def dry_recipe(recipe: Recipe, folder: Path) -> DryRecipe:
    """Write the stand-ins into ``folder`` and return the recipe that uses them.

    Raises InputError for a model that nothing is known of, and for a length that does not fit a model's positions.
    """
    student, base = recipe.student, None
    if not isinstance(student.base, RandomBase):
        base = describe(student.base, student.revision, student.public_id, "student.base")
    _check_student(recipe, base)
    build = _Builder(recipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "name": f"dry-run-{recipe.name}"[:64],
        "description": f"{NOTICE} {recipe.description or ''}".strip(),
        "engine": LocalEngine(),
        "teacher": build.teacher,
        "sample": build.sample(),
        "prompts": build.prompts(),
        "verify": build.verify(),
        "persona": build.persona(),
        "label": build.label(),
        "curate": build.curate(),
        "student": build.student(base),
        "train": build.train(base),
        "evaluate": build.evaluate(),
        "release": build.release(),
    }
    if recipe.replay is not None:  # rows of answers that end by themselves, as those of random weights do not
        values["replay"] = None
        build.replaced.append("replay: none; random weights end no answer by themselves")
    built = recipe.model_copy(update=values)
    return DryRecipe(Recipe.model_validate(built.model_dump()), tuple(build.replaced), tuple(build.notes))


# --- lengths -----------------------------------------------------------------------------------------------------


def _check_student(recipe: Recipe, base: ModelDescription | None) -> None:
    """`evaluate` and training against the student's positions. Raises InputError."""
    config: Mapping[str, Any] = base.config if base else {}
    if isinstance(recipe.student.base, RandomBase):
        rotary = {"rope_parameters": {"rope_type": "default"}}
        config = {**rotary, "max_position_embeddings": recipe.student.base.max_position_embeddings}
    limit = position_limit(with_rope_scaling(config, recipe.student.rope_scaling, "student.base"))
    max_model_len = recipe.evaluate.engine_args.get("max_model_len")
    wrapped = recipe.student.prompt_template
    prompt = 0
    if base is not None:
        turns = [{"role": "user", "content": _QUESTION}]
        prompt = base.tokens(str((wrapped.wrapped(turns, "math") if wrapped else turns)[0]["content"]))
    lengths = {
        "student.max_length": (recipe.student.max_length, limit),
        "evaluate.engine_args.max_model_len": (max_model_len, limit),
        "evaluate.max_new_tokens": (recipe.evaluate.max_new_tokens + prompt + 1, _least(limit, max_model_len)),
    }
    if (between := recipe.student_sampling) is not None:
        longest = (between.escalate or between).max_new_tokens
        lengths["train.student_sample.max_new_tokens"] = (longest + prompt + 1, _least(limit, max_model_len))
    for field, (length, room) in lengths.items():
        if isinstance(length, int) and room is not None and length > room:
            what = f"{length:,} tokens with a prompt, and there is room for {room:,}"
            raise InputError(what, where=field, hint="lower it")


def _check_teacher(teacher: TeacherConfig, described: ModelDescription, sample: TeacherSampling, prompt: int) -> None:
    own = getattr(teacher, "max_model_len", None)
    positions = described.positions
    if own is not None and positions is not None and own > positions:
        what = f"{own:,}, and {teacher.public_id} has {positions:,} positions"
        raise InputError(what, where="teacher.max_model_len", hint="lower it")
    room = _least(own, positions)
    limits = {"sample.max_new_tokens": sample.max_new_tokens}
    if sample.escalate is not None:
        limits["sample.escalate.max_new_tokens"] = sample.escalate.max_new_tokens
    for field, limit in limits.items():
        if room is not None and limit + prompt > room:
            what = f"{limit:,} new tokens after a prompt of {prompt:,}, and {teacher.public_id} has room for {room:,}"
            raise InputError(what, where=field, hint="lower it, or raise teacher.max_model_len")


def _least(*limits: Any) -> int | None:
    return min((limit for limit in limits if isinstance(limit, int)), default=None)


# --- sections ----------------------------------------------------------------------------------------------------


class _Builder:
    """The sections of the dry run, and in words what was replaced."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self._recipe, self._folder = recipe, folder
        self.replaced: list[str] = []
        self.notes: list[str] = []
        self.teacher: TeachersConfig = self._teachers()

    def _teachers(self) -> TeachersConfig:
        section = self._recipe.teacher
        if not isinstance(section, TeacherMixture):
            return self._teacher(section)
        entries = [entry.model_copy(update={"teacher": self._teacher(entry.teacher)}) for entry in section.teachers]
        return section.model_copy(update={"teachers": tuple(entries)})

    def _teacher(self, teacher: TeacherConfig) -> TeacherConfig:
        """The fake teacher in the place of one: its names, prompts and tags, in the form that its template gives."""
        if isinstance(teacher, OfflineTeacher | FakeTeacher):
            return teacher
        # Of an endpoint, only the recipe says what is there.
        think_open = teacher.think_open if isinstance(teacher, OpenAITeacher) else self._look_at(teacher)
        self.replaced.append(f"teacher {teacher.public_id}: a fake one, right and wrong by turns")
        return _fake(teacher, think_open)

    def _look_at(self, teacher: TeacherConfig) -> str:
        """Compare lengths with the teacher's positions, and render its chat; returns what opens its thinking."""
        from synth.problems.problem import Prompt

        described = describe(teacher.model, teacher.revision, teacher.public_id, "teacher.model")
        problem = Prompt(id="dry-run", prompt=_QUESTION, kind="open", source="dry run")  # type: ignore[call-arg]
        prompt = described.tokens(described.prompt([dict(turn) for turn in teacher_messages(teacher, problem)]))
        if isinstance(self._recipe.sample, TeacherSampling):
            _check_teacher(teacher, described, self._recipe.sample, prompt)
        if isinstance(teacher, VllmServerTeacher) and teacher.reasoning_parser is not None:
            return teacher.think_open  # its thinking comes apart, and is joined by the recipe's tags
        opening = described.think_open(teacher.think_open)
        if not opening and teacher.think_open.strip():
            tag = teacher.think_open.strip()
            self.notes.append(
                f"the template of {teacher.public_id} has already written {tag}: set teacher.think_open: ''"
            )
        return opening

    def prompts(self) -> PromptsConfig | None:
        config = self._recipe.prompts
        return config and self._stand_ins("prompts", config, "train")

    def _stand_ins(self, section: str, config: PromptsConfig, part: Part) -> PromptsConfig:
        made = stand_in_prompts(config, part, self._folder / f"{section}.jsonl", self._recipe.release.license)
        if isinstance(config, HubPrompts) and not isinstance(made, HubPrompts):
            self.replaced.append(f"{section}: problems of our own for {config.dataset}; its columns are not read")
        return made

    def sample(self) -> SampleConfig:
        sample = self._recipe.sample
        if isinstance(sample, ImportedTraces):
            self.replaced.append("sample: the first rows, or traces of our own for those of the hub")
            return stand_in_traces(sample, self._folder / "traces.jsonl", self._recipe.release.license)
        few: dict[str, Any] = {"budget": None, "reuse": ()}
        if sample.logprobs is not None:
            few["logprobs"] = None
            self.replaced.append("sample.logprobs: none; a fake teacher has no tokens")
        if sample.policy.kind == "fixed":
            few["num_samples"] = min(sample.num_samples, _FEW_SAMPLES)
        return sample.model_copy(update=few)

    def verify(self) -> VerifyConfig:
        verify = self._recipe.verify
        judge = verify.judge
        if judge is not None:
            judge = judge.model_copy(update={"teacher": self._fake_auxiliary("judge", judge.teacher), "budget": None})
        return verify.model_copy(update={"workers": min(verify.workers, 2), "judge": judge})

    def persona(self) -> PersonaConfig | None:
        persona = self._recipe.persona
        if persona is None or persona.rewriter is None:
            return persona
        few = {"teacher": self._fake_auxiliary("rewriter", persona.rewriter.teacher), "budget": None}
        return persona.model_copy(update={"rewriter": persona.rewriter.model_copy(update=few)})

    def _fake_auxiliary(self, role: str, teacher: TeacherConfig) -> FakeTeacher:
        self.replaced.append(f"{role} {teacher.public_id}: a fake one")
        return _fake(teacher, teacher.think_open)

    def label(self) -> LabelConfig:
        label = self._recipe.label
        sets = tuple(one for one in label.decontaminate.against if _is_here(one))
        if len(sets) < len(label.decontaminate.against):
            self.replaced.append("label.decontaminate: only the test sets on this machine, and the held-out problems")
        overlap = label.decontaminate.model_copy(update={"against": sets})
        return label.model_copy(update={"workers": 1, "decontaminate": overlap})

    def curate(self) -> CurateConfig:
        curate = self._recipe.curate
        lengths = ("min_tokens", "max_tokens", "min_pass_rate", "max_pass_rate")
        off = [name for name in lengths if getattr(curate.filters, name) is not None]
        if off or curate.quota is not None:
            names = [*(f"filters.{name}" for name in off), *(["quota"] if curate.quota else [])]
            self.replaced.append(f"curate: without {', '.join(names)}, which a handful of made-up traces cannot meet")
        filters = curate.filters.model_copy(update=dict.fromkeys(lengths))
        return curate.model_copy(update={"filters": filters, "quota": None})

    def student(self, base: ModelDescription | None) -> StudentConfig:
        student = self._recipe.student
        few: dict[str, Any] = {"num_train_epochs": 1, "batch_size": 4, "micro_batch_size": 2, "optimizer": "adamw"}
        few["parallel"] = ParallelConfig(processes=1)
        if base is not None:
            folder = self._folder / "base"
            write_stand_in(base, folder)
            few |= {"base": str(folder), "name": student.public_id}
            stand_in = "a tiny random model with its template, special tokens and positions"
            self.replaced.append(f"student {student.public_id}: {stand_in}")
        return student.model_copy(update=few)

    def train(self, base: ModelDescription | None) -> TrainConfig:
        train = self._recipe.train
        if train.select is not None:
            select = train.select.model_copy(update={"problems": _FEW_SELECTED, "checkpoints": _FEW_SELECTED})
            train = train.model_copy(update={"select": select})
            self.replaced.append(f"train.select: {_FEW_SELECTED} problems, {_FEW_SELECTED} checkpoints")
        if (between := self._recipe.student_sampling) is not None:
            once = {"policy": FixedPolicy(), "num_samples": 1, "budget": None, "escalate": None, "reuse": ()}
            once["max_new_tokens"] = min(between.max_new_tokens, _NEW_TOKENS)
            train = train.model_copy(update={"student_sample": between.model_copy(update=once)})
            self.replaced.append(f"train.student_sample: one answer to each problem, {_NEW_TOKENS} new tokens")
        if train.logits is not None:
            stages = tuple(stage for stage in train.stages if stage != "logits")
            train = train.model_copy(update={"stages": stages, "logits": None})
            self.replaced.append("train.logits: none; a fake teacher has no log-probabilities")
        if train.on_policy is None:
            return train
        few: dict[str, Any] = {
            "steps": _FEW_STEPS,
            "batch_size": 4,
            "micro_batch_size": 2,
            "max_new_tokens": min(train.on_policy.max_new_tokens, _NEW_TOKENS),
        }
        teachers = [*train.on_policy.logits_teachers.values()]
        if not teachers:
            return train.model_copy(update={"on_policy": train.on_policy.model_copy(update=few)})
        folder = self._folder / "logits_teacher"
        if base is not None:
            write_stand_in(base, folder)
        elif isinstance(self._recipe.student.base, RandomBase):
            folder.mkdir()
            write_random_base(self._recipe.student.base, folder)
        names = [one.public_id for one in teachers]
        self.replaced.append(f"the teacher of train.on_policy, {' and '.join(names)}: the student's stand-in")
        origin = teachers[0].model_dump(include={"revision", "license"})
        few |= {"teacher": LogitsTeacher(model=str(folder), name=names[0], **origin), "teachers": ()}
        return train.model_copy(update={"on_policy": train.on_policy.model_copy(update=few)})

    def evaluate(self) -> EvaluateConfig:
        evaluate = self._recipe.evaluate
        self.replaced.append(f"evaluate: transformers on the CPU, greedy, {_NEW_TOKENS} new tokens")
        if evaluate.suites:
            self.replaced.append(f"evaluate.suites: none of {', '.join(evaluate.suites)}")
        return evaluate.model_copy(
            update={
                "prompts": self._stand_ins("evaluate.prompts", evaluate.prompts, "held_out"),
                "engine": "transformers",
                "engine_args": {},
                "batch_size": 8,
                "num_samples": 1,
                "suites": (),
                "max_new_tokens": min(evaluate.max_new_tokens, _NEW_TOKENS),
                "persona_probes": min(evaluate.persona_probes, _FEW_PROBES),
                # The release is tried again, and a random model that is sampled stops now and not then.
                "sampling": "recipe",
                "temperature": 0.0,
                **dict.fromkeys(SAMPLING_OPTIONS),
            }
        )

    def release(self) -> ReleaseConfig:
        release = self._recipe.release
        self.replaced.append("release.require: nothing, since a random model meets no gate")
        if release.formats:
            self.replaced.append("release.formats: none; a tiny model has no other format worth the while")
        return release.model_copy(
            update={
                "name": _marked(release.name),
                "data_name": _marked(release.data_set) if release.data_set else None,
                "description": f"{NOTICE} {release.description or ''}".strip(),
                "limitations": (NOTICE, *release.limitations),
                "require": RequireConfig(stop_rate=0.0),
                "formats": (),
                "benchmark_task": None,
            }
        )


def _fake(teacher: TeacherConfig, think_open: str) -> FakeTeacher:
    fields = teacher.model_dump(include=set(TeacherFields.model_fields) - {"think_open"})
    return FakeTeacher(**fields, think_open=think_open, accuracy=_ACCURACY, latency_s=0, concurrency=8)


def _marked(name: str) -> str:
    """A name of the hub that ends as those of dry runs do, no longer than one may be."""
    owner, slash, own = name.rpartition("/")
    return f"{owner}{slash}{own[: _LONGEST_NAME - len(DRY_RUN)]}{DRY_RUN}"


def _is_here(test_set: str | HubPrompts) -> bool:
    return Path(test_set if isinstance(test_set, str) else test_set.dataset).exists()
