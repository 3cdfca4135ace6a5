"""The recipe: one frozen pydantic model for each section, and the rules that tie them together.

``distill/config/loader.py`` reads one from YAML. ``Recipe.digest()`` is the identity of the whole recipe; a stage is
keyed by its own sections only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import AfterValidator, BaseModel, Field, model_validator

from distill.config.forecast import ForecastConfig
from distill.config.parallel import ParallelConfig
from distill.config.train import FIRST_STUDENT, TrainConfig
from licensing.audit import Allowance
from publish.facts import check_language
from publish.formats.compressed import CompressedType
from publish.formats.gguf import GgufType
from publish.push import check_tag
from synth.curate.config import CurateConfig
from synth.distributed.config import EngineConfig, LocalEngine, RayEngine
from synth.distributed.placement import check_placement
from synth.labels.config import LabelConfig
from synth.persona.config import TAUGHT_LANGUAGES, PersonaConfig
from synth.persona.replay import ReplayConfig
from synth.problems.config import HubPrompts, ImportedTraces, PromptsConfig
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.config import AuxiliaryModel, CascadePolicy, SampleConfig, SamplingOptions, TeacherSampling
from synth.section import Operational, Section, key_dump
from synth.teachers.config import (
    AutoTeacher,
    FakeTeacher,
    OfflineTeacher,
    OpenAITeacher,
    TeacherConfig,
    VllmServerTeacher,
    VllmTeacher,
    without_speed_only,
)
from synth.teachers.mixture import TeacherMixture, TeachersConfig, teacher_configs
from synth.verify.config import VerifyConfig

# --- sections that this module reads ------------------------------------------------------------------------------


class RandomBase(Section):
    """A tiny random Llama with a byte-level tokenizer, made on the spot: for trying a recipe without a model."""

    kind: Literal["random"] = "random"
    seed: int = 0
    hidden_size: int = Field(64, ge=8, multiple_of=8)
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(4, ge=1)
    max_position_embeddings: int = Field(2048, ge=64)


class LoraMethod(Section):
    """Low-rank adapters. Defaults follow published practice: all linear layers, rate about ten times full tuning."""

    kind: Literal["lora"] = "lora"
    r: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Adapters are scaled by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters, in training.")
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) instead of alpha / r.")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="Names of the layers that get an adapter, or all-linear: all but the output layer."
    )
    target_parameters: tuple[str, ...] = Field(
        (), description="Names of parameters that get an adapter but belong to no linear layer, such as fused experts."
    )
    modules_to_save: tuple[str, ...] = Field((), description="Modules that are trained whole, for example `lm_head`.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate.")


class FullMethod(Section):
    """All weights are trained."""

    kind: Literal["full"] = "full"
    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate.")


Method = Annotated[LoraMethod | FullMethod, Field(discriminator="kind")]


class RopeScaling(Section):
    """YaRN (arXiv:2309.00071): rotary positions for sequences longer than those that the base was trained on."""

    rope_type: Literal["yarn"]
    factor: float = Field(gt=1, description="New positions over original ones.")
    original_max_position_embeddings: int | None = Field(
        None, ge=1, description="Positions that the base was trained on; those of its config.json if absent."
    )


class StudentConfig(Section):
    base: str | RandomBase = Field(description="Local folder or hub id of the base model, or {kind: random}.")
    name: str | None = Field(None, description="Public id (owner/name) for lineage where `base` is a folder.")
    revision: str | None = Field(None, description="Commit of the base on the hub.")
    license: str | None = Field(None, description="Licence of the base's weights, by its id (`distill licences`).")
    chat_template: str | None = Field(
        None, description="In place of the base's own template: chatml, or a file that holds a Jinja template."
    )
    rope_scaling: RopeScaling | None = Field(
        None,
        description="More positions than the base has, in training, evaluation and the released config.json (below).",
        exclude_if=lambda value: value is None,  # a recipe without it has the key that it had
    )
    method: Method = Field(
        LoraMethod(),
        description="What is trained: adapters (lora), which are merged afterwards, or all weights (full).",
    )
    prompt_template: PromptTemplate | None = Field(
        None,
        description="Text around the question in training and evaluation, by kind of problem; the teacher has its own.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Type of the weights in training; auto: bfloat16 where the device has it."
    )
    max_length: int = Field(4096, ge=16, description="Most tokens of a training row; a longer one is never cut.")
    on_long_row: Literal["drop", "fail"] = Field(
        "drop",
        description="drop: a row over max_length is left out with a reason. fail: training does not begin with one.",
        exclude_if=lambda value: value == "drop",  # a recipe without it has the key that it had
    )
    num_train_epochs: float = Field(3, gt=0, description="Passes over the training rows.")
    batch_size: int = Field(16, ge=1, description="Rows in one optimiser step.")
    micro_batch_size: int = Operational(
        4,
        ge=1,
        description="Rows of the longest length in one forward pass; shorter rows fill up to as many tokens.",
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate goes on after the warm-up."
    )
    min_lr_ratio: float = Field(0.0, ge=0, lt=1, description="Final learning rate, as a share of the peak.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises to its peak."
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"] = Field(
        "adamw",
        description="The 8-bit ones need bitsandbytes; paged: moments move to the host's memory under pressure.",
    )
    liger: bool = Field(
        False,
        description="SFT with Liger's Triton kernels for norms and gated MLPs, on GPUs, where they give the losses and "
        "gradients of the model's own modules.",
        exclude_if=lambda value: not value,  # a recipe without it has the key that it had
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which larger gradients are scaled down.")
    parallel: ParallelConfig = Operational(ParallelConfig(), description="Processes and GPUs that train together.")
    on_bad_step: Literal["skip", "stop"] = Field(
        "skip",
        description="skip: a step whose loss or gradient norm is not finite changes no weight, a spike is logged. "
        "stop: either ends the training.",
    )
    save_steps: int = Operational(50, ge=1, description="Optimiser steps between checkpoints.")
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = Operational(
        (), description="Trackers that get the metrics of each step, beside the run's own file."
    )
    seed: int = Field(0, description="Seed of new weights and of the order of the rows.")
    trust_remote_code: bool = Field(False, description="Has to be false: a base with code of its own is refused.")

    @model_validator(mode="after")
    def _no_remote_code(self) -> StudentConfig:
        if self.trust_remote_code:
            raise ValueError(
                "trust_remote_code: a student with code of its own would train but cannot be merged, "
                "exported and scored yet: take a base whose architecture is part of transformers"
            )
        return self

    @model_validator(mode="after")
    def _a_final_rate_needs_a_cosine(self) -> StudentConfig:
        if self.min_lr_ratio and self.lr_scheduler != "cosine":
            raise ValueError("min_lr_ratio needs lr_scheduler: cosine; leave it out, or change the scheduler")
        return self

    @model_validator(mode="after")
    def _zero3_has_an_optimizer_of_single_weights(self) -> StudentConfig:
        if self.parallel.strategy == "zero3" and self.optimizer != "adamw":
            raise ValueError(
                f"strategy zero3 divides weights as one row of numbers, where {self.optimizer} works on matrices or "
                "blocks: set optimizer: adamw, or student.parallel.strategy: fsdp2"
            )
        return self

    def base_only(self) -> StudentConfig:
        """The same base with every training field at its default: all that `prepare` may depend on."""
        return StudentConfig(
            base=self.base,
            name=self.name,
            revision=self.revision,
            license=self.license,
            chat_template=self.chat_template,
            rope_scaling=self.rope_scaling,
            trust_remote_code=self.trust_remote_code,
        )

    def training_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A training row with the student's text around its question."""
        if self.prompt_template is None:
            return dict(row)
        return {**row, "messages": self.prompt_template.wrapped(row["messages"], row.get("kind"))}

    @property
    def public_id(self) -> str:
        """The id that cards and lineage use."""
        return self.name or (self.base if isinstance(self.base, str) else "random-llama")


class EvaluationSettings(SamplingOptions):
    """How a model is asked: engine and sampling."""

    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="What answers: vLLM, or transformers; auto: vLLM where it is installed."
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="Further vLLM engine arguments by name, where vLLM answers."
    )
    batch_size: int = Operational(32, ge=1, description="Problems in one batch, where transformers answers.")
    num_samples: int = Field(1, ge=1, description="Answers to each problem; several need a temperature above 0.")
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens of one answer, thinking included.")
    sampling: Literal["recipe", "model"] = Field(
        "recipe",
        description="recipe: temperature, top_p and the like as set here; model: as each model's own "
        "generation_config.json has them.",
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0: greedy decoding.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: draw from the most probable tokens of this total probability."
    )
    seed: int = Field(0, description="Seed of sampling, and of the problems that `suite_limit` leaves.")

    def key_fields(self) -> dict[str, Any]:
        """Without arguments that change only speed, as a teacher's."""
        return super().key_fields() | {"engine_args": without_speed_only(self.engine_args)}

    @model_validator(mode="after")
    def _sampling_has_one_source(self) -> Self:
        if self.sampling == "model":
            own = {"temperature": self.temperature != 0, "top_p": self.top_p != 1, **self.sampling_options}
            if names := ", ".join(name for name, is_set in own.items() if is_set):
                raise ValueError(
                    f"sampling: model takes {names} from the model: remove it here, or set sampling: recipe"
                )
        elif self.num_samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.num_samples} samples at temperature 0 are equal: raise temperature, or set num_samples: 1"
            )
        return self

    def generation_config(self) -> dict[str, Any] | None:
        """The sampling values of transformers' generation_config.json under which models generate as evaluated; None
        for the base's own."""
        if self.sampling == "model":
            return None
        values: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            values = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return values | self.sampling_options


class EvaluateConfig(EvaluationSettings):
    @property
    def settings(self) -> EvaluationSettings:
        """How models are asked, without what they are asked."""
        return EvaluationSettings.model_validate(self.model_dump(include=set(EvaluationSettings.model_fields)))

    persona_probes: int = Field(
        48, ge=0, description="Held-out questions about the student's identity, where the recipe has a persona."
    )
    prompts: PromptsConfig = Field(
        description="Held-out problems; those of them among the training prompts are not sampled."
    )
    suites: tuple[str, ...] = Field(
        (),
        description="Suites on which the student before training is compared with the one after it, named as in "
        "`distill eval`.",
    )
    suite_limit: int | None = Field(None, ge=1, description="At most so many problems of each suite, chosen by `seed`.")
    teacher: bool | str = Field(
        True, description="Score the teacher on the same problems; of a mixture true scores each one, a name that one."
    )
    inspect_log: bool = Operational(
        False, description="Also write logs for `inspect view` into RUN/logs/inspect, while the models are scored."
    )


Format = Literal[
    "gguf-bf16", "gguf-f16", "gguf-q8_0", "gguf-q6_k", "gguf-q5_k_m", "gguf-q5_k_s", "gguf-q4_k_m", "gguf-q4_k_s",
    "gguf-q4_0", "gguf-q3_k_l", "gguf-q3_k_m", "gguf-q3_k_s", "gguf-q2_k", "fp8", "w8a8", "w4a16", "awq",
]  # fmt: skip


class RequireConfig(Section):
    """What the measurements must show before a release: decides, and is part of no stage's key."""

    stop_rate: float = Operational(
        0.95, ge=0, le=1, description="Least share of the student's samples that end on a stop token."
    )
    gain_over_base: float | None = Operational(
        None,
        ge=-1,
        le=1,
        description="Least gain in score over the student before training, by the lower bound of its interval.",
    )
    side_effects: float | None = Operational(
        None,
        ge=0,
        le=1,
        description="Most that the score on a suite may fall below the student's before training, by the lower bound "
        "of its interval.",
    )
    leak_rate: float | None = Operational(
        None,
        ge=0,
        le=1,
        description="Largest share of persona probes whose answers claim another maker, by the upper bound of its "
        "interval.",
    )


def _check_version(version: str) -> str:
    check_tag(f"v{version}")
    return version


class ReleaseConfig(Section):
    name: str = Field(description="Name of the release, with or without an owner: NS/NAME or NAME.")
    license: str = Field(description="Licence declared for the release, by its id (`distill licences`).")
    license_name: str | None = Field(None, description="Name of the licence, with `license: other`.")
    license_link: str | None = Field(
        None, description="Address of the licence, with `license: other`; the release's file LICENSE if absent."
    )
    copyright: str | None = Field(None, description="Copyright line of a licence that has one, such as MIT.")
    license_file: str | None = Field(None, description="File with the text of the licence, where distill ships none.")
    data: bool = Field(True, description="Release the training data as a data set beside the model.")
    data_name: str | None = Field(None, description="Name of the data set; NAME-traces if absent.")
    data_license: str | None = Field(None, description="Licence of the data; that of the release if absent.")
    allow: tuple[Allowance, ...] = Field(
        (),
        description="Findings of the audit that are waived: {code, because}; recorded in audit.json and the card.",
    )
    evaluation_items: bool = Field(
        True, description="Ship the held-out problems with the release's answers, so that others can score them again."
    )
    benchmark_task: str | None = Field(
        None, description="Task id of the held-out set, where the hub lists it as a benchmark: writes .eval_results/."
    )
    version: Annotated[str, AfterValidator(_check_version)] = Field(
        "0.1.0", description="Version of the release; a push tags it with v and this."
    )
    description: str | None = Field(None, description="First paragraph of the card.")
    languages: tuple[Annotated[str, AfterValidator(check_language)], ...] | None = Field(
        None, description="ISO 639 codes or BCP 47 tags for the cards; those measured in the training rows if absent."
    )
    limitations: tuple[str, ...] = Field((), description="Sentences for the card's section on limitations.")
    card_sections: str | None = Field(None, description="A Markdown file whose sections follow the card's limitations.")
    gated_prompt: str | None = Field(
        None, description="What the hub shows to whoever asks for access, where a push says `--gated`."
    )
    base_training_flops: float | None = Field(
        None, gt=0, description="Training compute of the base in FLOPs, where its makers state it."
    )
    scan_allow: tuple[str, ...] = Field(
        (),
        description="Findings of the scan for secrets, local paths and private addresses that may ship all the same: "
        "path, address or FILE:LINE, as its message shows them.",
    )
    require: RequireConfig = Operational(
        RequireConfig(), description="The gate: what must be measured before `package` builds the release."
    )
    formats: tuple[Format, ...] = Operational(
        (),
        description="Other formats of the model (GGUF for llama.cpp; fp8, w8a8, w4a16, awq for vLLM), each in a "
        "repository of its own and scored like the release.",
    )
    compressor: str | None = Operational(
        None,
        description="Path of the Python interpreter of an environment with llmcompressor, for the formats fp8, w8a8, "
        "w4a16 and awq.",
    )
    eu_summary: bool = Field(
        False, description="Write eu_summary.md, a draft of the public summary of training content (AI Act, 53(1)(d))."
    )

    @property
    def gguf_types(self) -> tuple[GgufType, ...]:
        """The types of GGUF files among ``formats``, each once."""
        names = (name for name in dict.fromkeys(self.formats) if name.startswith("gguf-"))
        return tuple(cast("GgufType", name.removeprefix("gguf-")) for name in names)

    @property
    def compressed_types(self) -> tuple[CompressedType, ...]:
        """The types for vLLM among ``formats``, each once."""
        names = (name for name in dict.fromkeys(self.formats) if name in get_args(CompressedType))
        return tuple(cast("CompressedType", name) for name in names)

    @property
    def data_set(self) -> str | None:
        """Name of the data set, under the model's owner if it names none; None where no data set is released."""
        if not self.data:
            return None
        owner, slash, name = self.name.rpartition("/")
        data_name = self.data_name or f"{name}-traces"
        return data_name if "/" in data_name else f"{owner}{slash}{data_name}"

    @model_validator(mode="after")
    def _hub_names(self) -> ReleaseConfig:
        for field, name in (("name", self.name), ("data_name", self.data_set)):
            if name is None:
                continue
            if not re.fullmatch(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}", name) or ".." in name:
                raise ValueError(f"{field} {name!r} is not a hub name: 96 letters, digits, '-', '_', '.', one '/'")
        if self.data_set and self.data_set.rpartition("/")[2].casefold() == self.name.rpartition("/")[2].casefold():
            raise ValueError("data_name must differ from name: both are folders of one release")
        if self.license == "other" and not self.license_name:
            raise ValueError("license: other needs release.license_name")
        return self


class Recipe(Section):
    """One run, whole. See ``recipes/`` for named ones and ``distill recipes --schema`` for the JSON schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="Names the run directory.")
    description: str | None = Field(
        None, description="What the recipe is for; `distill recipes` and the report show it."
    )
    prompts: PromptsConfig | None = Field(None, description="Problems to sample; absent with sample.source: traces.")
    teacher: TeachersConfig = Field(
        description="The model, or mixture of models, whose answers the student is trained on."
    )
    engine: EngineConfig = Field(
        LocalEngine(), description="Where the teacher's engines run: in this process, or on a Ray cluster."
    )
    sample: SampleConfig = Field(
        TeacherSampling(),
        description="How many answers the teacher gives, and with which settings; or which traces are imported.",
    )
    verify: VerifyConfig = Field(VerifyConfig(), description="How answers are verified.")
    label: LabelConfig = Field(LabelConfig(), description="What is measured on every trace.")
    curate: CurateConfig = Field(CurateConfig(), description="Which traces the student is trained on.")
    student: StudentConfig = Field(description="The base model, and how it is fine-tuned.")
    train: TrainConfig = Field(
        TrainConfig(), description="Which stages of training follow each other, and which checkpoint ships."
    )
    persona: PersonaConfig | None = Field(None, description="Who the student says it is.")
    replay: ReplayConfig | None = Field(
        None, description="The base's own answers to general prompts, as training rows."
    )
    evaluate: EvaluateConfig = Field(description="What the models are scored on, and how they are sampled for it.")
    release: ReleaseConfig = Field(description="Name, licence and content of the release.")
    forecast: ForecastConfig | None = Operational(None, description="Expected rates, for `distill check`.")

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Recipe:
        is_import = isinstance(self.sample, ImportedTraces)
        if is_import and self.prompts is not None:
            raise ValueError("sample.source: traces brings its own problems: remove the section prompts")
        if not is_import and self.prompts is None:
            raise ValueError("prompts is missing: set prompts.kind, or sample.source: traces and sample.path")
        if is_import != isinstance(self.teacher, OfflineTeacher):
            raise ValueError("teacher.kind: offline and sample.source: traces go together: set both or neither")
        if isinstance(self.teacher, OfflineTeacher) and self.evaluate.teacher:
            raise ValueError("an offline teacher cannot be scored: set evaluate.teacher: false")
        for teacher in self.teachers:
            if isinstance(teacher, AutoTeacher | VllmTeacher) and "seed" in teacher.engine_args:
                raise ValueError("teacher.engine_args.seed: set sample.seed instead")
        return self

    @model_validator(mode="after")
    def _student_can_be_sampled(self) -> Recipe:
        if self.train.rounds == 1:
            return self
        sampling = self.train.student_sample or self.sample
        if isinstance(sampling, ImportedTraces):
            raise ValueError("train.rounds: imported traces do not say how to sample: set train.student_sample")
        if isinstance(sampling.policy, CascadePolicy):
            raise ValueError("train.rounds: one student is no cascade: set another train.student_sample.policy")
        if FIRST_STUDENT in (teacher.public_id for teacher in self.teachers):
            raise ValueError(f"train.rounds: {FIRST_STUDENT} is the student: give the teacher another name")
        return self

    @model_validator(mode="after")
    def _logits_can_train(self) -> Recipe:
        if self.train.logits is not None and getattr(self.sample, "logprobs", None) is None:
            raise ValueError(
                "the stage logits trains on the log-probabilities of the teacher's traces: set sample.logprobs, or "
                "leave it out of train.stages"
            )
        return self

    @model_validator(mode="after")
    def _distillation_follows_sft(self) -> Recipe:
        if self.train.stages == ("sft",):
            return self
        if self.curate.control_arm:
            raise ValueError(
                "curate.control_arm compares two students of SFT alone: set it to false, or train.stages to [sft]"
            )
        if self.train.on_policy is not None and self.train.on_policy.max_new_tokens >= self.student.max_length:
            raise ValueError("train.on_policy.max_new_tokens leaves no room for a prompt in student.max_length")
        if isinstance(self.student.method, LoraMethod):
            modules = self.student.method.target_modules
            names = {*self.student.method.modules_to_save, *([] if isinstance(modules, str) else modules)}
            if ends := {name for name in names if name.rpartition(".")[2] in ("lm_head", "embed_tokens", "wte")}:
                raise ValueError(
                    f"student.method adapts {min(ends)}, and distillation does not cover an adapter there: leave it "
                    "out, or set kind: full"
                )
        return self

    @model_validator(mode="after")
    def _persona_hides_no_origin(self) -> Recipe:
        self.persona_with_origins  # noqa: B018 - raises where a text of the persona hides the base or a teacher
        return self

    @model_validator(mode="after")
    def _sampling_options_reach_the_engines(self) -> Recipe:
        sampling = self.sample if isinstance(self.sample, TeacherSampling) else None
        options = sampling.sampling_options if sampling else {}
        for teacher in self.teachers:
            if twice := sorted(options.keys() & getattr(teacher, "extra_body", {}).keys()):
                raise ValueError(f"{twice[0]} is set twice: take it out of teacher.extra_body, or out of sample")
        return self

    @model_validator(mode="after")
    def _persona_speaks_what_rows_are_in(self) -> Recipe:
        if self.persona is not None and (self.persona.rows or self.evaluate.persona_probes):
            missing = [language for language in self.persona.spoken if language not in TAUGHT_LANGUAGES]
            if missing:
                raise ValueError(
                    f"there are no identity rows and probes in {', '.join(missing)}: set persona.languages to some of "
                    f"{', '.join(TAUGHT_LANGUAGES)}, or persona.rows and evaluate.persona_probes to 0"
                )
        return self

    @model_validator(mode="after")
    def _scored_teachers_have_files(self) -> Recipe:
        if self.evaluate.sampling == "model":
            for teacher in self.teachers:
                scored = self.evaluate.teacher in (True, teacher.public_id)
                if scored and isinstance(teacher, OpenAITeacher | FakeTeacher):
                    raise ValueError(
                        f"evaluate.sampling: model needs the generation_config.json of {teacher.public_id}, which kind "
                        f"{teacher.kind} has not: set evaluate.teacher: false, or evaluate.sampling: recipe"
                    )
        return self

    @model_validator(mode="after")
    def _benchmark_is_whole_and_on_the_hub(self) -> Recipe:
        held_out = self.evaluate.prompts
        if self.release.benchmark_task and not (isinstance(held_out, HubPrompts) and held_out.limit is None):
            raise ValueError("release.benchmark_task needs evaluate.prompts.kind: hub, without a limit")
        return self

    @model_validator(mode="after")
    def _teachers_are_there(self) -> Recipe:
        names = [teacher.public_id for teacher in self.teachers]
        priced = self.sample.budget.prices if isinstance(self.sample, TeacherSampling) and self.sample.budget else {}
        expected = self.forecast.teachers if self.forecast is not None else {}
        named = [
            ("evaluate.teacher", self.evaluate.teacher),
            *(("sample.budget.prices", name) for name in priced),
            *(("forecast.teachers", name) for name in expected),
        ]
        for where, name in named:
            if isinstance(name, str) and name not in names:
                raise ValueError(f"{where}: there is no teacher {name}: the recipe has {', '.join(names)}")
        if isinstance(self.engine, RayEngine):
            check_placement(self.engine, self.teachers)
        return self

    @model_validator(mode="after")
    def _teachers_fit_the_policy(self) -> Recipe:
        policy = self.sample.policy if isinstance(self.sample, TeacherSampling) else None
        shares = self.teacher.shares if isinstance(self.teacher, TeacherMixture) else None
        if not isinstance(policy, CascadePolicy):
            if isinstance(self.teacher, TeacherMixture) and shares is None:
                raise ValueError("teacher.teachers have no shares: set share on each, or sample.policy.kind: cascade")
            if self.forecast is not None and self.forecast.teachers:
                raise ValueError(
                    "forecast.teachers is for sample.policy.kind: cascade: remove it, or change the policy"
                )
            return self
        if not isinstance(self.teacher, TeacherMixture):
            raise ValueError(
                "sample.policy.kind: cascade asks several teachers: set teacher.kind: mixture, the cheapest one first, "
                "or policy.kind: adaptive"
            )
        if shares is not None:
            raise ValueError(
                "in a cascade the verdicts decide which teacher draws a sample: remove share from teacher.teachers, or "
                "set another sample.policy.kind"
            )
        if len(policy.steps) != len(self.teachers):
            raise ValueError(
                f"sample.policy.steps: there are {len(policy.steps)} for {len(self.teachers)} teachers: give each "
                "teacher one, in their order"
            )
        return self

    @model_validator(mode="after")
    def _engines_give_logprobs(self) -> Recipe:
        count = self.sample.logprobs if isinstance(self.sample, TeacherSampling) else None
        if count is None:
            return self
        for teacher in self.teachers:
            if not isinstance(teacher, AutoTeacher | VllmTeacher | VllmServerTeacher | OpenAITeacher):
                raise ValueError(
                    f"sample.logprobs: kind {teacher.kind} gives no log-probabilities: set teacher.kind to vllm, "
                    "vllm_server, or openai for a vLLM server elsewhere"
                )
            if isinstance(teacher, OpenAITeacher):
                if not teacher.stream:
                    raise ValueError("sample.logprobs needs streamed answers: leave out teacher.stream")
                continue
            needed = count + isinstance(teacher, VllmServerTeacher)
            limit = teacher.engine_args.get("max_logprobs", needed)
            if not isinstance(limit, int) or 0 <= limit < needed:
                raise ValueError(
                    f"sample.logprobs {count} needs teacher.engine_args.max_logprobs {needed}: leave it out there"
                )
            if teacher.engine_args.get("logprobs_mode", "raw_logprobs") != "raw_logprobs":
                raise ValueError(
                    "teacher.engine_args.logprobs_mode: sample.logprobs are those of the model's own distribution "
                    "(raw_logprobs): leave it out"
                )
        return self

    @model_validator(mode="after")
    def _answers_fit_the_context(self) -> Recipe:
        limits = {}
        if isinstance(self.sample, TeacherSampling):
            limits["sample.max_new_tokens"] = self.sample.max_new_tokens
            if self.sample.escalate is not None:
                limits["sample.escalate.max_new_tokens"] = self.sample.escalate.max_new_tokens
        for teacher in self.teachers:
            room = getattr(teacher, "max_model_len", None)  # None: the model's own, which only the engine knows
            for where, limit in limits.items():
                if room is not None and limit >= room:
                    raise ValueError(
                        f"{where} {limit} leaves no room for a prompt in teacher.max_model_len {room}: "
                        "lower the one or raise the other"
                    )
        return self

    @property
    def persona_with_origins(self) -> PersonaConfig | None:
        """The persona that names the student's base and the teachers; a folder by its last name only. Without its
        rewriter, which is a model of stage curate (``distill.runs.keys.pinned_rewriter``)."""
        if self.persona is None:
            return None
        base, *teachers = (name.rstrip("/").rpartition("/")[2] for name in self._origins)
        persona = self.persona.with_origins(base, tuple(dict.fromkeys(name for name in teachers if name != base)))
        return persona.model_copy(update={"rewriter": None})

    @property
    def _origins(self) -> tuple[str, ...]:
        teachers = [teacher.public_id for teacher in self.teachers]
        if self.train.on_policy is not None:
            teachers += [one.public_id for one in self.train.on_policy.logits_teachers.values()]
        return (self.student.public_id, *teachers)

    @property
    def auxiliary_models(self) -> dict[str, AuxiliaryModel]:
        """The models that stages ask beside the teachers, by their sections."""
        models: dict[str, AuxiliaryModel] = {}
        if self.verify.judge is not None:
            models["verify.judge"] = self.verify.judge
        if self.persona is not None and self.persona.rewriter is not None:
            models["persona.rewriter"] = self.persona.rewriter
        return models

    @property
    def student_sampling(self) -> TeacherSampling | None:
        """How the student of the first round is sampled; None where there is one round."""
        if self.train.rounds == 1 or self.train.student_sample is not None:
            return self.train.student_sample
        assert isinstance(self.sample, TeacherSampling), "the recipe's schema asks for train.student_sample"
        return self.sample.model_copy(update={"budget": None, "logprobs": None})

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """The teachers of the section `teacher`."""
        return teacher_configs(self.teacher)

    def digest(self) -> str:
        """sha256 of the canonical JSON of the whole recipe, defaults included."""
        data = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def run_name(self) -> str:
        """``<name>-<hash8>``: the same name, student and teacher are one run, whatever else of the recipe changes.

        A changed section so lands in the same directory and re-runs its own stage and those behind it, no more.
        """
        base = self.student.base if isinstance(self.student.base, str) else self.student.base.model_dump(mode="json")
        teachers = [part for teacher in self.teachers for part in (teacher.model, teacher.revision)]
        identity = json.dumps([self.name, base, self.student.revision, *teachers])
        return f"{self.name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def key_digest(section: BaseModel) -> str:
    """sha256 hex of a section without its operational fields: equal where it asks for the same result."""
    return hashlib.sha256(json.dumps(key_dump(section), sort_keys=True, ensure_ascii=False).encode()).hexdigest()
