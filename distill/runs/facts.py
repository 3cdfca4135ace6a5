"""What each stage says of itself: counts and digests, in its manifest and in its artefact's digest.

Facts hold no time and no path, so that a killed and resumed run ends with the facts of a run left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from distill.config.train import FIRST_STUDENT as FIRST_STUDENT
from licensing.audit import Allowance
from publish import facts as card


class Facts(BaseModel):
    """Base of every stage's facts: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """For the manifest: what a stage has nothing to say of is left out."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


class Counts(Facts):
    """Rows that a stage read, rows that it kept or wrote, and tokens generated or trained on."""

    rows_in: int
    rows_out: int
    tokens: int


class BaseFacts(Facts):
    """The base model. ``content`` is the digest of a local folder, which has no revision; ``files_digest`` is sha256
    over name and sha256 of each file used."""

    id: str
    revision: str | None = None
    files_digest: str
    weights_bytes: int
    content: str | None = None


class PrepareFacts(Facts):
    template_digest: str
    stop_token_ids: tuple[int, ...]
    stop_tokens: tuple[str, ...]
    pad_token: str
    pad_token_id: int
    pad_is_stop: bool
    persona_policy: str | None = None
    persona_renders_once: bool | None = None
    base: BaseFacts


class TeacherShare(Facts):
    """One entry of a teacher mixture. Of a cascade also the ``problems`` that it was asked, and those ``solved``, with
    a correct sample of its own."""

    rows_out: int
    tokens: int
    prompt_tokens: int | None = None
    engines: tuple[str, ...]
    problems: int | None = None
    solved: int | None = None


class SampleFacts(Counts):
    """``samples_digest``: sha256 over the selected samples in the order of problems and sample indices, text included.
    ``problems_stopped``: problems by the reason for which a policy that goes by verdicts stopped, in a cascade the last
    teacher that was asked; ``stopped_by_budget`` names the limit that ended sampling early: of time with
    ``awaited`` requests answered in the drain before it, and ``abandoned`` ones in flight at the limit. ``left_out``:
    rows of the source by the condition that they do not meet. ``first_failure``: why the first failed request failed;
    ``finish_reasons`` has their number. ``other_models``: names that endpoints gave in their responses, of other models
    than the recipe's. ``selection_problems``: taken out for choosing a checkpoint. ``student``: in the second round,
    those of the samples that the student of the first one gave."""

    prompt_tokens: int
    problems: int
    duplicate_problems: int
    held_out_problems: int
    bad_rows: int
    left_out: dict[str, int] = {}
    finish_reasons: dict[str, int]
    engines: tuple[str, ...]
    samples_digest: str | None = None
    teachers: dict[str, TeacherShare] | None = None
    stopped_by_budget: str | None = None
    awaited: int | None = None
    abandoned: int | None = None
    problems_stopped: dict[str, int] | None = None
    first_failure: str | None = None
    other_models: tuple[str, ...] | None = None
    escalated: int | None = None
    selection_problems: int | None = None
    student: TeacherShare | None = None


def notes_of(facts: Mapping[str, Any]) -> list[str]:
    """What a stage's facts, as JSON, have to say to a user in words: what failed, what ended it early, what was left
    out, what each teacher of a cascade did, and what the files of other formats score."""
    notes = []
    failed = (facts.get("finish_reasons") or {}).get("error", 0)
    if failed:
        note = f"{failed:,} of {facts['rows_out']:,} requests failed"
        if (failure := facts.get("first_failure")) is not None:  # imported traces have none
            note += f", the first: {failure}"
            note += "" if facts.get("stopped_by_budget") else " (--retry-failed sends them again)"
        notes.append(note)
    for name, share in (facts.get("teachers") or {}).items():
        if "problems" in share:
            notes.append(
                f"teacher {name}: {share['problems']:,} problems, {share['solved']:,} of them solved, "
                f"{share['rows_out']:,} samples, {share['tokens']:,} tokens"
            )
    if facts.get("stopped_by_budget"):
        note = f"stopped by the budget ({facts['stopped_by_budget']}), with {facts['rows_out']:,} samples"
        if facts.get("awaited") or facts.get("abandoned"):
            awaited, abandoned = facts.get("awaited", 0), facts.get("abandoned", 0)
            note += f"; {awaited:,} requests were awaited before the limit, {abandoned:,} in flight then were abandoned"
        notes.append(note)
    if facts.get("other_models"):
        notes.append(f"other models answered: {', '.join(facts['other_models'])}")
    if facts.get("rule"):
        steps = ", ".join(f"{step:,}" for step in facts["steps"])
        notes.append(f"step {facts['step']:,} was chosen ({facts['rule']}), of the checkpoints of steps {steps}")
    if facts.get("vocabulary") and facts.get("left_out"):
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in [*facts["left_out"].items()][:3])
        left_out = facts["rows_in"] - facts["rows_out"]
        notes.append(f"{left_out:,} of {facts['rows_in']:,} selected traces are without log-probabilities ({reasons})")
    if (rows := facts.get("student_rows")) is not None:
        notes.append(f"the student of the first round wrote {rows:,} of {facts['rows_out']:,} training rows")
    if facts.get("folders"):  # a release in other formats
        notes += [
            f"{score['model']}: {score['metric']} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}), "
            f"stop rate {score['stop_rate']:.3f}"
            for score in facts["scores"]
        ]
    return notes


class SandboxFacts(Facts):
    """Where programs ran. `in_process`: those whose tests ran in one process with them. `packages`: what they found,
    ``name==version``, with what the recipe's packages need; none of an image, which brings its own."""

    runtime: str
    programs: int
    in_process: int
    packages: tuple[str, ...] = ()


class AuxiliaryFacts(Facts):
    """A model that a stage asked: its distinct questions, its answers, and their tokens. ``stopped_by_budget``: the
    limit that ended the asking."""

    model: str
    questions: int
    answers: int
    finish_reasons: dict[str, int]
    tokens: int
    prompt_tokens: int
    stopped_by_budget: str | None = Field(None, exclude_if=lambda value: value is None)


class JudgeFacts(AuxiliaryFacts):
    """``said``: of rows with each verdict of the rules, what the judge said. ``counts``: whose word counts
    (`verify.judge.counts`); ``counts_as``: rows by the verdict that counts."""

    said: dict[str, dict[str, int]]
    counts: str
    counts_as: dict[str, int]


class RewriterFacts(AuxiliaryFacts):
    """``traces``: those that the rewriter got, by what came of them."""

    traces: dict[str, int]


class VerifyFacts(Facts):
    """`format`, `majority`, `judge`, `disagreements` and `sandbox` are there where the recipe asks for them or programs
    ran. How many verdicts were computed and how many reused depends on where a run was killed, so it is no fact; the
    lines of the run's store/verdicts.jsonl say it."""

    rows_in: int
    rows_out: int
    verdicts: dict[str, int]
    tokens: int | None = None
    sandbox: SandboxFacts | None = None
    format: dict[str, int] | None = None
    majority: dict[str, int] | None = None
    judge: JudgeFacts | None = None
    disagreements: dict[str, int] | None = None


class LabelFacts(Facts):
    rows_in: int
    rows_out: int
    problems: int
    near_duplicates: dict[str, int] | None = None
    contaminated: int


class CurateFacts(Facts):
    """``waterfall``: the steps of ``synth.curate.select``. ``control_rows``: rows of the control arm, where the recipe
    has one; it may have fewer rows than the training set. ``texts_digest``: of the texts of the
    selected rows (``synth.curate.curate.Curation``). ``added``: rows beside the selected ones, "persona" and "replay";
    ``added_digest``: sha256 over them. ``rewriter``: the model that rewrites identity talk. ``student_rows``: in the
    second round, how many selected rows the student of the first one wrote."""

    rows_in: int
    rows_out: int
    tokens: int | None = None
    waterfall: tuple[card.WaterfallStep, ...]
    control_rows: int | None = None
    texts_digest: str | None = None
    added: dict[str, int] | None = None
    added_digest: str | None = None
    rewriter: RewriterFacts | None = None
    student_rows: int | None = None


class LogprobsFacts(Counts):
    """``tokens``: positions with the log-probabilities of ``logprobs`` tokens each, of a ``vocabulary`` of so many.
    ``left_out``: traces by the reason for which they are no row."""

    logprobs: int
    vocabulary: int
    left_out: dict[str, int] | None = None


class ReplayFacts(Counts):
    """``left_out``: answers by the reason for which they are no row; ``rows_digest``: sha256 over the rows."""

    left_out: dict[str, int]
    rows_digest: str


class OptimiserFacts(Counts):
    """What the stages have in common that change weights. ``first_loss`` and ``last_loss``: of the first and the last
    logged optimiser step."""

    steps: int
    dtype: str
    trained_parameters: int
    first_loss: float | None = None
    last_loss: float | None = None
    template_digest: str


class ProblemStep(Facts):
    """A step that the loss guard named, what was wrong with it, and the ids of its rows."""

    step: int
    problem: str
    rows: tuple[str, ...]


class TrainFacts(OptimiserFacts):
    """``tokens`` and ``trained_tokens`` count one pass over the rows, without padding; ``samples`` are the rows of all
    steps. ``left_out``: rows by the reason for which they were not trained on, and by their source. ``layout`` of the
    micro batches: packed, padded or single; ``layouts_refused``: those that gave other losses. ``liger``: "used",
    or why its kernels were not. ``problem_steps``: steps that the loss guard named."""

    trained_tokens: int
    method: str
    samples: int | None = None
    layout: str | None = None
    layouts_refused: tuple[str, ...] = ()
    liger: str | None = None
    problem_steps: tuple[ProblemStep, ...] = ()
    left_out: dict[str, int]
    left_out_sources: dict[str, int] = {}


class LogitsFacts(OptimiserFacts):
    """Over all steps, ``tokens`` are those of prompts and answers, and ``trained_tokens`` those of the answers, each
    with the log-probabilities of ``logprobs`` tokens. The losses are divergences, in nats a token."""

    trained_tokens: int
    logprobs: int


class RouteFacts(Facts):
    """One of several served teachers. ``engine``: name and version of its server. ``problems``: those whose answers it
    scored."""

    teacher: str
    revision: str | None = None
    engine: str
    problems: int


class OnPolicyFacts(OptimiserFacts):
    """``tokens``: of all answers of the student. ``vocabulary``: tokens over which its distribution and the teacher's
    are compared. The losses are divergences, in nats a token; the lengths are mean tokens of an answer.
    ``teacher_engine``: name and version of the server of a served teacher. ``routes``: in place of both, several served
    teachers."""

    answers: int
    vocabulary: int
    first_mean_length: float | None = None
    last_mean_length: float | None = None
    teacher_revision: str | None = None
    teacher_engine: str | None = None
    routes: tuple[RouteFacts, ...] | None = None


class ExportFacts(Facts):
    method: str
    dtype: str
    template_digest: str
    parameters: int
    bytes: int
    files: tuple[str, ...]


STUDENT = "student_after"
"""The name of the rows and scores of the model that ships."""


class Estimate(Facts):
    """A value with its 95 % interval; ``n`` where it is of other problems than the score beside which it stands."""

    value: float
    low: float
    high: float
    n: int | None = Field(None, exclude_if=lambda value: value is None)


class Score(Facts):
    """One model. ``value`` is the mean over ``n`` problems of the share of correct samples, ``num_samples`` each;
    ``clusters`` counts the families of problems that the interval takes as its units (None: each problem is one).

    ``stop_rate``, ``truncated`` and ``errors`` are shares of all samples, in 0..1: ended on a stop token by itself, cut
    at max_new_tokens, not answered. ``mean_tokens`` counts generated tokens, ``mean_thinking_chars`` and
    ``mean_answer_chars`` the characters inside and after the think block. ``other_metrics``: pass@k and maj@k, and
    "pass@1, finished", of the samples that were not cut. ``sampling`` is what the model was sampled with.
    """

    model: str
    metric: str = "pass@1"
    value: float
    low: float
    high: float
    n: int
    stop_rate: float
    truncated: float
    errors: float
    mean_tokens: float | None
    engine: str
    dtype: str | None = None
    num_samples: int = 1
    clusters: int | None = None
    mean_thinking_chars: float | None = None
    mean_answer_chars: float | None = None
    other_metrics: dict[str, Estimate] = {}
    sampling: dict[str, float] = {}

    def on_card(self, name: str, **about: Any) -> tuple[card.Score, ...]:
        """As cards and records state it, of the model ``name``: the score, then the other metrics. ``about``: its role
        and id, and whether a service of others answered."""
        how = set(card.ScoredModel.model_fields) & set(type(self).model_fields)
        model = card.ScoredModel(**about, **self.model_dump(include=how))
        values = {self.metric: self.model_dump(include={"value", "low", "high"})}
        values |= {metric: one.model_dump() for metric, one in self.other_metrics.items()}
        of_all = {"n": self.n, "num_samples": self.num_samples}
        return tuple(
            card.Score(model=name, about=model, metric=metric, **(of_all | value)) for metric, value in values.items()
        )


class Comparison(Facts):
    """``difference`` is the value of ``b`` minus that of ``a`` on the same problems.

    ``p`` is that of ``test``; ``p_adjusted`` is Holm's, over all comparisons of one evaluation. Beside it the smallest
    true difference that the evaluation would find in 80 % of cases, and about how many problems would find one as large
    as ``difference`` (None where it is 0).
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float | None = None
    test: str = "McNemar, exact"
    n: int | None = None
    clusters: int | None = None
    minimum_detectable_effect: float | None = None
    items_to_detect: int | None = None


class SelectFacts(Counts):
    """Which checkpoint ships. ``step``: the one that ``rule`` chose, of ``steps``; ``scores``: all of them on the
    selection problems, as models "step N"; ``comparisons``: the best minus each other."""

    rule: str
    step: int
    steps: tuple[int, ...]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    interval: str


class SideEffect(Comparison):
    """One suite before (``a``) and after training (``b``); ``p_adjusted`` is Holm's over all suites. ``trained_on``:
    training prompts that hold a problem of the suite; None where no training set was looked at. ``interval``: that of
    both scores, in words."""

    suite: str
    about: str
    before: Score
    after: Score
    trained_on: int | None = None
    interval: str | None = None


class ProbeRates(Facts):
    """What one model says when it is asked who it is (``distill.evaluate.persona_probes``).

    ``n`` answers to probes of so many ``families``, by which the intervals are clustered. ``answer`` and ``thinking``:
    the share that is right (names itself and nothing is wrong), names itself, leaks another maker, denies being an AI,
    refuses, or takes the persona for a fake; ``thinking`` is empty where no answer has any. ``leaks``: answers that
    claim another maker in thinking or answer.
    """

    model: str
    n: int
    families: int
    answer: dict[str, Estimate]
    thinking: dict[str, Estimate]
    leaks: int
    leak_rate: Estimate
    leaks_by_maker: dict[str, int]
    stop_rate: float
    engine: str | None = None
    dtype: str | None = None


class PersonaProbes(Facts):
    """``leaks`` of ``n`` answers of the student, and the upper end of its interval: what a release is gated by.
    ``changes``: its share of right answers beside every other model's, on the same probes."""

    leaks: int
    n: int
    high: float
    rates: tuple[ProbeRates, ...]
    changes: tuple[Comparison, ...]


class EvaluateFacts(Counts):
    """``planted_recall``: the share of copies of the suites' problems, planted in training prompts, that is found, by
    kind of copy."""

    template_digest: str
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    interval: str
    persona_probes: PersonaProbes | None = None
    side_effects: tuple[SideEffect, ...] = ()
    planted_recall: dict[str, float | None] | None = None


class AuditFacts(Facts):
    verdict: str
    obligations: tuple[str, ...]
    violations: tuple[str, ...]
    warnings: tuple[str, ...]
    allowed: tuple[Allowance, ...]
    weights: str


class PackageFacts(Facts):
    """``folder``: the model's release folder; ``data_folder``: that of its data set, if there is one; ``loads``: what
    came of the load check, a line an engine."""

    folder: str
    data_folder: str | None = None
    template_digest: str
    loads: tuple[str, ...] = ()


class FormatsFacts(Counts):
    """``folders``: one for each format. ``scores``: the release as it was evaluated, then each file or model."""

    folders: tuple[str, ...]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
