"""``ReleaseFacts``, ``DatasetFacts`` and ``FormatFacts``: everything that the three cards state.

A fact that was not measured or recorded is ``None`` or empty; the card leaves it out or calls it unknown. Texts are
untrusted: the cards escape them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Value = str | int | float | bool | None


def check_language(tag: str) -> str:
    """An ISO 639 code, alone or as the first part of a BCP 47 tag. Raises ValueError for anything else."""
    import pycountry

    code = tag.partition("-")[0]
    language = re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", tag) and (
        pycountry.languages.get(**{"alpha_2" if len(code) == 2 else "alpha_3": code})
    )
    if not language:
        raise ValueError(
            f"{tag!r} is no ISO 639 code, such as en or yue, nor a tag that begins with one, such as pt-BR"
        )
    return tag


Languages = Annotated[
    tuple[Annotated[str, AfterValidator(check_language)], ...], Field(description="ISO 639 or BCP 47")
]


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


class ProbeScore(Facts):
    """What a model answers when it is asked who it is: shares of ``n`` answers, the first with its 95 % interval.

    ``right``: names itself and claims nothing wrong; ``leaks``: claims to be another maker's, in thinking or answer.
    """

    model: str
    n: int = Field(ge=1)
    right: float
    low: float
    high: float
    leaks: float
    refuses: float


class PersonaFacts(Facts):
    """Who the model says it is; ``system`` and ``policy`` are the template's (see publish/chat_template.py). ``rows``:
    training rows about its identity."""

    name: str
    maker: str | None = None
    system: str
    policy: Literal["replace", "compose"] = "replace"
    rows: int = Field(0, ge=0)
    probes: tuple[ProbeScore, ...] = ()


class TrainingFacts(Facts):
    """How the weights were trained. ``tokens`` and ``rows`` count one pass over the data.

    ``parameters`` counts the whole model, ``trained_parameters`` those that got gradients. ``base_flops``: the training
    compute of the base, where its makers state it.
    """

    method: str
    hyperparameters: dict[str, Value] = Field(default_factory=dict)
    rows: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    epochs: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=0)
    logits_tokens: int | None = Field(
        None, ge=0, description="Of all steps on the teacher's log-probabilities of its traces."
    )
    on_policy_tokens: int | None = Field(None, ge=0, description="Of the student's answers that it was trained on.")
    hardware: str | None = None
    parameters: int | None = Field(None, ge=1)
    trained_parameters: int | None = Field(None, ge=1)
    base_flops: float | None = Field(None, gt=0)

    @property
    def flops(self) -> float | None:
        """Estimated training compute: 6 x parameters x tokens over all epochs and stages.

        Source: Kaplan et al., Scaling Laws for Neural Language Models, arXiv 2001.08361, section 2.1; the European
        Commission's guidelines C(2025) 7719 final take the same formula (Annex A.2.2). An upper bound where adapters
        are trained: the gradients of frozen weights, a third of it, are not computed. Not counted: the teacher's
        sampling, evaluation, recomputed activations, attention's part that grows with the context.
        """
        if self.parameters is None or self.tokens is None or self.epochs is None:
            return None
        tokens = self.tokens * self.epochs + (self.logits_tokens or 0) + (self.on_policy_tokens or 0)
        return 6.0 * self.parameters * tokens


class SamplingFacts(Facts):
    """How the teacher was sampled; ``settings`` are temperature, top_p and so on."""

    settings: dict[str, Value] = Field(default_factory=dict)
    samples: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0, description="Generated tokens.")


class FirstStudent(Facts):
    """The student of a first round, of whose answers the verified ones are training rows of this release.

    ``trained_rows``: those that it was trained on; ``samples`` and ``tokens``: its answers; ``rows``: those among the
    training rows, where ``id`` names it.
    """

    id: str = Field(min_length=1)
    revision: str = Field(description="Digest of its weights.")
    base: str = Field(min_length=1, description="The model that it was trained from.")
    license: str | None = Field(None, description="That of its base.")
    trained_rows: int = Field(ge=0)
    settings: dict[str, Value] = Field(default_factory=dict)
    samples: int = Field(ge=0)
    tokens: int = Field(ge=0)
    engine: str | None = Field(None, description="Name and version of its inference engine.")
    rows: int = Field(ge=0)


class WaterfallStep(Facts):
    """What remains after one step of curation."""

    step: str
    rows: int = Field(ge=0)
    problems: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    mean_difficulty: float | None = Field(
        None, ge=0, le=1, description="1 - pass rate of the problem, mean over traces."
    )


class ScoredModel(Facts):
    """A model that was evaluated, and how it answered: ``engine`` is name and version, the shares are in 0..1;
    ``mean_thinking_chars`` and ``mean_answer_chars`` count characters inside and after the think block."""

    role: Literal["release", "earlier", "base", "teacher", "control", "quantized", "model"]
    id: str = Field(min_length=1, description="The hub's id, or a name where it has none.")
    engine: str | None = None
    served: bool = Field(False, description="A service of others answered.")
    stop_rate: float | None = Field(None, ge=0, le=1, description="Answers that end on a stop token.")
    truncated: float | None = Field(None, ge=0, le=1, description="Answers that were cut at the limit.")
    mean_tokens: float | None = Field(None, ge=0)
    mean_thinking_chars: float | None = Field(None, ge=0)
    mean_answer_chars: float | None = Field(None, ge=0)
    dtype: str | None = Field(None, description="Type of the weights that answered.")
    sampling: dict[str, float] = Field(
        default_factory=dict, description="Its temperature and the like; empty: those of the evaluation."
    )


class Interval(Facts):
    """The bounds of a value, in order; both or neither."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"an interval cannot end ({self.high}) before it begins ({self.low})")
        return self


class Score(Interval):
    """One model, one metric; ``low`` and ``high`` bound its interval, ``n`` counts problems, ``num_samples`` the
    samples of each. ``standard_error``: where a harness gives that in place of an interval. ``unit``: "proportion" is
    in 0..1, None unknown."""

    model: str = Field(description="The name for people.")
    about: ScoredModel
    metric: str
    value: float
    n: int = Field(ge=1)
    num_samples: int = Field(1, ge=1)
    standard_error: float | None = Field(None, ge=0)
    unit: Literal["proportion"] | None = "proportion"
    lower_is_better: bool = False


MAY_BE_CHANCE = "may be chance"


def reading_of(low: float | None, high: float | None, p: float | None = None) -> str:
    """What a difference with this interval says; ``p``: of its test, corrected for all comparisons where there are
    several. Both have to exclude chance."""
    if low is None or high is None:
        return "no interval"
    if low <= 0 <= high or (p is not None and p >= 0.05):
        return MAY_BE_CHANCE
    return "higher" if low > 0 else "lower"


def chance_text(effect: float, needed: int | None, n: int) -> str:
    """What stands beside a difference that may be chance: the smallest that such an evaluation of ``n`` problems finds,
    and how many problems find one as large as the measured one (None where that is 0)."""
    text = f"differences from {effect:.3f} are noticed here"
    if needed:
        text += f"; {f'about {needed:,}' if tells(needed, n) else f'more than {n:,}'} problems would tell"
    return text


def tells(needed: int, n: int) -> bool:
    """Whether ``needed``, by the normal approximation, is an answer where ``n`` problems did not tell. Few problems
    have few outcomes, so that the exact test can need more."""
    return needed > n


def trained_on_text(recall: Mapping[str, float | None]) -> str:
    """What the column "Trained on" of a table of suites counts; ``recall`` by kind of planted copy."""
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in recall.items() if share is not None)
    return (
        "Trained on: training prompts that hold a problem of the suite. The search finds these shares of planted "
        f"copies: {shares or 'none planted'}."
    )


def p_text(p: float | None) -> str:
    """Three significant digits, a small p as a bound, and none as 0; empty where it is not known."""
    return "" if p is None else "below 0.0001" if p < 0.0001 else f"{p:.3g}"


class Comparison(Interval):
    """``difference`` is ``b`` minus ``a`` on the same problems.

    ``p_adjusted`` is Holm's over all comparisons; ``minimum_detectable_effect`` the smallest true difference that the
    evaluation finds in 80 % of cases, ``items_to_detect`` how many problems find one as large as ``difference``.
    """

    a: str
    b: str
    difference: float
    p: float | None = None
    p_adjusted: float | None = None
    minimum_detectable_effect: float | None = None
    items_to_detect: int | None = None

    @property
    def reading(self) -> str:
        return reading_of(self.low, self.high, self.p_adjusted)


class SuiteChange(Comparison):
    """A suite before (``a``) and after training (``b``), on the same ``n`` problems."""

    suite: str
    about: str
    n: int = Field(ge=1)
    before: float
    after: float
    trained_on: int | None = None


class EvaluationFacts(Facts):
    """What was measured. ``dataset``, ``split`` and ``revision`` name a data set of the hub.

    ``sampling``: temperature, top_p, max_new_tokens, seed. ``items``: the problems, the release's answers and the
    verdicts are files of the release.
    """

    benchmark: str = Field(min_length=1)
    dataset: str | None = Field(None, pattern=r"^([\w.-]+/)?[\w.-]+$")
    split: str | None = None
    revision: str | None = None
    task: str | None = Field(None, description="Task id of `dataset`, where the hub lists it as a benchmark.")
    license: str | None = Field(None, description="Of the problems.")
    held_out: str | None = Field(None, description="What keeps the problems out of the training set, in one sentence.")
    n: int = Field(ge=1)
    decoding: str
    sampling: dict[str, Value] = Field(default_factory=dict)
    scores: tuple[Score, ...]
    other_scores: tuple[Score, ...] = Field((), description="The same models on other metrics, such as pass@8.")
    comparisons: tuple[Comparison, ...] = ()
    suites: tuple[SuiteChange, ...] = ()
    planted_recall: dict[str, float | None] | None = Field(None, description="Of problems of the suites, by copy.")
    interval: str | None = Field(None, description="Method and level, such as 'Wilson, 95 %'.")
    items: bool = False

    @property
    def release(self) -> Score | None:
        """The score of the weights that ship."""
        return next((score for score in self.scores if score.about.role == "release"), None)


class Duty(Facts):
    """What a license asks of everyone who redistributes: ``what`` completes "you must"."""

    what: str
    code: str = Field(description="The audit's code.")
    source: str | None = Field(None, description="The input whose license asks for it.")


class OriginFacts(Facts):
    """What the cards of a model and of its data set both state: where the data are from, and under which terms."""

    name: str = Field(min_length=1, description="owner/name, or a bare name before it has an owner.")
    version: str | None = None
    license: LicenseFacts
    languages: Languages = ()
    teachers: tuple[TeacherFacts, ...] = ()
    prompt_sources: tuple[PromptSource, ...] = ()
    sampling: SamplingFacts | None = None
    first_student: FirstStudent | None = None
    verification: str | None = Field(None, description="How traces were verified, in one line; None: not at all.")
    waterfall: tuple[WaterfallStep, ...] = ()
    duties: tuple[Duty, ...] = ()
    allowed: tuple[str, ...] = Field((), description="Findings of the audit that the releaser waives, and why.")
    notice: tuple[str, ...] = Field((), description="Lines of attribution, as NOTICE holds them.")
    limitations: tuple[str, ...] = ()
    code_revision: str | None = None
    gated_prompt: str | None = Field(None, description="What the hub shows to whoever asks for access.")


class ReleaseFacts(OriginFacts):
    """Everything that the model card needs."""

    description: str | None = Field(None, description="First paragraph of the card.")
    base: BaseFacts
    persona: PersonaFacts | None = None
    training: TrainingFacts | None = None
    evaluation: EvaluationFacts | None = None
    generation: dict[str, Any] = Field(default_factory=dict, description="Sampling values of generation_config.json.")
    openness: tuple[str, ...] = Field(
        (), description="How open the release is, by which definition, a sentence a line."
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Library -> version that made the release.")
    dirty: bool | None = Field(None, description="The code had uncommitted changes.")
    template_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    tags: tuple[str, ...] = ()
    data_name: str | None = Field(None, description="The data set of its training rows, owner/name or a bare name.")
    sections: str | None = Field(None, description="The releaser's own Markdown for the card; not escaped.")


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


class DatasetFacts(OriginFacts):
    """Everything that the card of a data set of traces needs."""

    model: str | None = Field(None, description="The model that was trained on it, owner/name or a bare name.")
    rows: int = Field(ge=0)
    problems: int = Field(ge=0)
    not_trained: dict[str, int] = Field(default_factory=dict, description="Rows that training left out, by reason.")
    tokens: int | None = Field(None, ge=0)
    groups: dict[str, tuple[Group, ...]] = Field(default_factory=dict, description="By source, teacher, difficulty ...")
    lengths: dict[str, float] = Field(default_factory=dict, description="Quantiles of tokens a trace.")
    length_edges: tuple[int, ...] = Field((), description="Lower edges of the bins of `length_counts`, in tokens.")
    length_counts: tuple[int, ...] = Field((), description="Rows by tokens; the last bin is open.")
    decontamination: DecontaminationFacts | None = None
    near_duplicates: str | None = Field(None, description="Clusters, in one line.")
    persona_rows: int = Field(0, ge=0, description="Rows about the model's identity, beside the traces.")
    replayed_rows: int = Field(0, ge=0, description="The base's own answers to general prompts, beside the traces.")
    optional_columns: tuple[str, ...] = Field((), description="Names out of `OPTIONAL_COLUMNS`.")


class QuantizedFile(Facts):
    """One file of a release in another format."""

    file: str
    type: str = Field(description="Type of the weights, as the format calls it, such as Q8_0.")
    weights: dict[str, int] = Field(description="Weights of each type in the file: a mixture, whatever its name says.")
    bytes: int = Field(ge=0)


class FormatFacts(Facts):
    """Everything that the card of a release in another format needs.

    ``evaluation``: the release and each of the files on the same problems.
    """

    name: str = Field(min_length=1, description="Of this repository: owner/name, or a bare name.")
    release: ReleaseFacts
    files: tuple[QuantizedFile, ...]
    converter: str = Field(description="Name and version of the program that wrote the files.")
    quantizer: str | None = Field(None, description="Of the program that made those with fewer bits of a bf16 file.")
    compression: Literal["fp8", "w8a8", "w4a16", "awq"] | None = Field(None, description="What vLLM reads; None: GGUF.")
    calibration_rows: int | None = Field(None, description="Training rows on which the weights were chosen.")
    evaluation: EvaluationFacts
