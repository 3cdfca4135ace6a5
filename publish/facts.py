"""``ReleaseFacts``: all that a model card says, and nothing that it could not know.

A fact that was not measured or recorded is ``None`` or empty, and the card leaves it out or calls it unknown. Texts are
free (names, system prompts, licence lines): whoever prints them escapes them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "BaseFacts",
    "Comparison",
    "DatasetFacts",
    "DecontaminationFacts",
    "EvaluationFacts",
    "Group",
    "LicenceFacts",
    "PersonaFacts",
    "PromptSource",
    "ReleaseFacts",
    "SamplingFacts",
    "Score",
    "TeacherFacts",
    "TrainingFacts",
    "WaterfallStep",
]

Value = str | int | float | bool | None


class Facts(BaseModel):
    """Base: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LicenceFacts(Facts):
    """The release's own licence: our id, and the tags that the hub reads."""

    id: str = Field(min_length=1)
    license: str = Field(min_length=1, description="The hub's `license:` tag.")
    license_name: str | None = Field(None, description="Needed where the tag is `other`.")
    license_link: str | None = Field(None, description="Needed where the tag is `other`; `LICENSE` is the file.")

    @model_validator(mode="after")
    def _other_has_a_name(self) -> LicenceFacts:
        if self.license == "other" and not (self.license_name and self.license_link):
            raise ValueError("license: other needs license_name and license_link")
        return self


class BaseFacts(Facts):
    """The model that the weights come from. ``relation`` is the hub's word for what was done to it."""

    id: str = Field(min_length=1)
    revision: str | None = None
    licence: str | None = None
    relation: Literal["finetune", "adapter", "merge", "quantized"] = "finetune"


class TeacherFacts(Facts):
    """A model whose outputs were learned from."""

    id: str = Field(min_length=1)
    revision: str | None = None
    licence: str | None = None
    ran_by: Literal["releaser", "third-party"] | None = None
    engine: str | None = Field(None, description="Name and version of what ran it.")


class PromptSource(Facts):
    """Where prompts came from, and how many problems each place gave. ``dataset`` is a hub id, if there is one."""

    name: str = Field(min_length=1)
    licence: str | None = None
    problems: int | None = Field(None, ge=0)
    dataset: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")


class PersonaFacts(Facts):
    """Who the model says it is; ``mode`` is the template's (see publish/chat_template.py)."""

    name: str
    developer: str | None = None
    system_prompt: str
    mode: Literal["default", "compose"] = "default"


class TrainingFacts(Facts):
    """How the weights were trained. ``tokens`` and ``rows`` count one pass over the data, ``seconds`` is wall time."""

    method: str
    hyperparameters: dict[str, Value] = Field(default_factory=dict)
    rows: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=0)
    seconds: float | None = Field(None, ge=0)
    hardware: str | None = None


class SamplingFacts(Facts):
    """How the teacher was sampled; ``settings`` are temperature, top_p and their like."""

    settings: dict[str, Value] = Field(default_factory=dict)
    samples: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0, description="Tokens that the teacher wrote.")
    seconds: float | None = Field(None, ge=0)


class WaterfallStep(Facts):
    """What is left after one step of curation."""

    step: str
    rows: int = Field(ge=0)
    problems: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    mean_difficulty: float | None = Field(
        None, ge=0, le=1, description="1 - pass rate of the problem, mean over traces."
    )


class Score(Facts):
    """One model, one metric; ``low`` and ``high`` bound its interval, ``n`` counts problems."""

    model: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=1)

    @model_validator(mode="after")
    def _interval_in_order(self) -> Score:
        _check_interval(self.low, self.high)
        return self


class Comparison(Facts):
    """``difference`` is ``b`` minus ``a`` on the same problems."""

    a: str
    b: str
    difference: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _interval_in_order(self) -> Comparison:
        _check_interval(self.low, self.high)
        return self


class EvaluationFacts(Facts):
    """What was measured. ``stop_rate`` is the share of this release's generations that ended by themselves, in 0..1."""

    measured_on: str
    n: int = Field(ge=1)
    decoding: str
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...] = ()
    interval: str | None = Field(None, description="Method and level, such as 'paired bootstrap over problems, 95 %'.")
    stop_rate: float | None = Field(None, ge=0, le=1)


class ReleaseFacts(Facts):
    """Everything that the model card needs."""

    name: str = Field(min_length=1, description="owner/name, or a bare name before it has an owner.")
    version: str | None = None
    licence: LicenceFacts
    languages: tuple[str, ...] = Field((), description="ISO 639 codes.")
    base: BaseFacts
    teachers: tuple[TeacherFacts, ...] = ()
    prompt_sources: tuple[PromptSource, ...] = ()
    persona: PersonaFacts | None = None
    training: TrainingFacts | None = None
    sampling: SamplingFacts | None = None
    verification: str | None = Field(None, description="How the traces were verified, in one line.")
    waterfall: tuple[WaterfallStep, ...] = ()
    evaluation: EvaluationFacts | None = None
    generation: dict[str, Any] = Field(default_factory=dict, description="Sampling values of generation_config.json.")
    obligations: tuple[str, ...] = Field((), description="What whoever passes this release on has to do.")
    allowed: tuple[str, ...] = Field((), description="Findings of the audit that the releaser answers for, and why.")
    notice: tuple[str, ...] = Field((), description="Lines of attribution, as NOTICE holds them.")
    openness: tuple[str, ...] = Field(
        (), description="How open the release is, by which definition, a sentence a line."
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Library -> version that made the release.")
    code_revision: str | None = None
    dirty: bool | None = Field(None, description="The code held changes that no commit holds.")
    template_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    limitations: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def _check_interval(low: float | None, high: float | None) -> None:
    if (low is None) != (high is None):
        raise ValueError("an interval needs both low and high")
    if low is not None and high is not None and low > high:
        raise ValueError(f"an interval cannot end ({high}) before it begins ({low})")


class Group(Facts):
    """One part of a data set; ``name`` is None where rows do not say."""

    name: str | None
    rows: int = Field(ge=0)
    tokens: int | None = Field(None, ge=0)


class DecontaminationFacts(Facts):
    """What training prompts were compared with, and how well overlaps are found: on planted test items, by kind."""

    sets: dict[str, int] = Field(description="Test set -> items.")
    prompts: int = Field(ge=0)
    found: int = Field(ge=0)
    left_out: bool
    recall: dict[str, float | None] = Field(default_factory=dict)
    false_positive_rate: float | None = None


class DatasetFacts(Facts):
    """Everything that the card of a data set of traces needs."""

    name: str = Field(min_length=1)
    version: str | None = None
    licence: LicenceFacts
    languages: tuple[str, ...] = ()
    rows: int = Field(ge=0)
    problems: int = Field(ge=0)
    tokens: int | None = Field(None, ge=0)
    groups: dict[str, tuple[Group, ...]] = Field(default_factory=dict, description="By source, teacher, difficulty ...")
    lengths: dict[str, float] = Field(default_factory=dict, description="Quantiles of tokens a trace.")
    teachers: tuple[TeacherFacts, ...] = ()
    prompt_sources: tuple[PromptSource, ...] = ()
    sampling: SamplingFacts | None = None
    verification: str | None = None
    waterfall: tuple[WaterfallStep, ...] = ()
    decontamination: DecontaminationFacts | None = None
    near_duplicates: str | None = Field(None, description="What was found, in one line.")
    obligations: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    notice: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    code_revision: str | None = None
    columns_beside: tuple[str, ...] = Field((), description="Columns that not every data set has.")
    shards: tuple[str, ...] = Field(description="File names of the Parquet shards, in order.")
