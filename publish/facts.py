"""``ReleaseFacts`` and ``DatasetFacts``: everything that the two cards state.

A fact that was not measured or recorded is ``None`` or empty; the card leaves it out or calls it unknown. Texts are
untrusted: the cards escape them.
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
    "LicenseFacts",
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


class LicenseFacts(Facts):
    """The license of the release: its id here, and the tags that the hub reads."""

    id: str = Field(min_length=1)
    hub_tag: str = Field(min_length=1, description="The hub's `license:` tag.")
    license_name: str | None = Field(None, description="Needed where the tag is `other`.")
    license_link: str | None = Field(None, description="Needed where the tag is `other`; `LICENSE` is the file.")

    @model_validator(mode="after")
    def _other_has_a_name(self) -> LicenseFacts:
        if self.hub_tag == "other" and not (self.license_name and self.license_link):
            raise ValueError("license: other needs license_name and license_link")
        return self


class BaseFacts(Facts):
    """The model that was fine-tuned."""

    id: str = Field(min_length=1)
    revision: str | None = None
    license: str | None = None


class TeacherFacts(Facts):
    """A model on whose outputs the release was trained."""

    id: str = Field(min_length=1)
    revision: str | None = None
    license: str | None = None
    ran_by: Literal["releaser", "third-party"] | None = None
    engine: str | None = Field(None, description="Name and version of its inference engine.")
    is_base: bool = Field(False, description="The teacher is the base model itself.")
    worked_examples: int = Field(0, ge=0, description="Examples in its prompt, which the student does not see.")
    system_prompt: bool = Field(False, description="It had a system prompt that the student does not see.")


class PromptSource(Facts):
    """Where prompts come from, and the number of problems from there. ``dataset`` is a hub id, if there is one."""

    name: str = Field(min_length=1)
    license: str | None = None
    problems: int | None = Field(None, ge=0)
    dataset: str | None = Field(None, pattern=r"^([\w.-]+/)?[\w.-]+$")


class PersonaFacts(Facts):
    """Who the model says it is; ``mode`` is the template's (see publish/chat_template.py)."""

    name: str
    developer: str | None = None
    system_prompt: str
    mode: Literal["default", "compose"] = "default"


class TrainingFacts(Facts):
    """How the weights were trained. ``tokens`` and ``rows`` count one pass over the data."""

    method: str
    hyperparameters: dict[str, Value] = Field(default_factory=dict)
    rows: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=0)
    hardware: str | None = None


class SamplingFacts(Facts):
    """How the teacher was sampled; ``settings`` are temperature, top_p and so on."""

    settings: dict[str, Value] = Field(default_factory=dict)
    samples: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0, description="Generated tokens.")


class WaterfallStep(Facts):
    """What remains after one step of curation."""

    step: str
    rows: int = Field(ge=0)
    problems: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    mean_difficulty: float | None = Field(
        None, ge=0, le=1, description="1 - pass rate of the problem, mean over traces."
    )


class Score(Facts):
    """One model, one metric; ``low`` and ``high`` bound its interval, ``n`` counts problems."""

    model: str = Field(description="The name for people.")
    is_release: bool = Field(False, description="The weights that ship; its value goes into the card's model-index.")
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
    """What was measured. ``stop_rate`` is the share of this release's generations that end on a stop token, in 0..1.
    ``dataset``, ``split`` and ``revision`` name a data set of the hub."""

    benchmark: str = Field(min_length=1)
    dataset: str | None = Field(None, pattern=r"^([\w.-]+/)?[\w.-]+$")
    split: str | None = None
    revision: str | None = None
    held_out: str | None = Field(None, description="What keeps the problems out of the training set, in one sentence.")
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
    license: LicenseFacts
    languages: tuple[str, ...] = Field((), description="ISO 639 codes or BCP 47 tags.")
    base: BaseFacts
    teachers: tuple[TeacherFacts, ...] = ()
    prompt_sources: tuple[PromptSource, ...] = ()
    persona: PersonaFacts | None = None
    training: TrainingFacts | None = None
    sampling: SamplingFacts | None = None
    verification: str | None = Field(None, description="How traces were verified, in one line; None: not at all.")
    waterfall: tuple[WaterfallStep, ...] = ()
    evaluation: EvaluationFacts | None = None
    generation: dict[str, Any] = Field(default_factory=dict, description="Sampling values of generation_config.json.")
    obligations: tuple[str, ...] = Field((), description="Duties of everyone who redistributes it.")
    allowed: tuple[str, ...] = Field((), description="Findings of the audit that the releaser waives, and why.")
    notice: tuple[str, ...] = Field((), description="Lines of attribution, as NOTICE holds them.")
    openness: tuple[str, ...] = Field(
        (), description="How open the release is, by which definition, a sentence a line."
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Library -> version that made the release.")
    code_revision: str | None = None
    dirty: bool | None = Field(None, description="The code had uncommitted changes.")
    template_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    limitations: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def _check_interval(low: float | None, high: float | None) -> None:
    if (low is None) != (high is None):
        raise ValueError("an interval needs both low and high")
    if low is not None and high is not None and low > high:
        raise ValueError(f"an interval cannot end ({high}) before it begins ({low})")


class Group(Facts):
    """One group of rows of a data set; ``name`` is None for rows without a value."""

    name: str | None
    rows: int = Field(ge=0)
    tokens: int | None = Field(None, ge=0)


class DecontaminationFacts(Facts):
    """Overlap of training prompts with test sets. ``recall``: of planted test items, by kind of change."""

    sets: dict[str, int] = Field(description="Test set -> items.")
    prompts: int = Field(ge=0)
    overlapping: int = Field(ge=0, description="Prompts that overlap with a test set.")
    dropped: bool = Field(description="They are not in the data.")
    recall: dict[str, float | None] = Field(default_factory=dict)
    false_positive_rate: float | None = None


class DatasetFacts(Facts):
    """Everything that the card of a data set of traces needs."""

    name: str = Field(min_length=1)
    version: str | None = None
    license: LicenseFacts
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
    near_duplicates: str | None = Field(None, description="Clusters, in one line.")
    obligations: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    notice: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    code_revision: str | None = None
    optional_columns: tuple[str, ...] = Field((), description="Names out of `OPTIONAL_COLUMNS`.")
    shards: tuple[str, ...] = Field(description="File names of the Parquet shards, in order.")
