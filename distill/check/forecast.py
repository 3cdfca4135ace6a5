"""Hours and money of the stages that take GPUs, by multiplication, from what the recipe's section `forecast` expects.

**Model.** A share `solved` of the problems has correct samples, each sample of theirs with probability `correct`
and independently; of the others none. In a cascade each teacher solves its own share of the problems that it is asked.
The student of a first round answers as the teacher does, which is more than it will. Every trace has `tokens_per_trace`
tokens, and so has every answer of on-policy distillation, up to its limit; prompts count nothing. So it is as good as
these figures: ``distill check --pilot`` measures them with the real teacher.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distill.check.finding import Finding
from distill.config.forecast import ForecastConfig, StageRate, TeacherForecast
from distill.config.recipe import Recipe
from distill.evaluate.run import scored_teachers
from licensing.errors import InputError
from synth.problems.config import HubPrompts, PromptsConfig
from synth.sampling.config import AdaptiveBounds, AdaptivePolicy, CascadePolicy, SampleConfig, TeacherSampling


@dataclass(frozen=True)
class StageForecast:
    """What one stage takes; ``money`` is in the currency of the prices. ``correct``: tokens of the traces that are
    correct, of sampling."""

    stage: str
    tokens: float
    hours: float
    gpus: int
    money: float
    correct: float | None = None

    def __str__(self) -> str:
        on = f" on {self.gpus} GPUs" if self.gpus else ""
        text = f"{self.stage}: {self.tokens:.2g} tokens, {self.hours:,.3g} hours{on}, cost {self.money:,.0f}"
        if not self.correct:
            return text
        return f"{text}; {self.correct:.2g} tokens of correct traces, {1e6 * self.money / self.correct:,.2f} a million"


def check_forecast(recipe: Recipe) -> Iterator[Finding]:
    """One finding a stage that has a rate, and the sum."""
    stages = forecast(recipe)
    for stage in stages:
        yield Finding("ok", "forecast", str(stage))
    if len(stages) > 1:
        hours, money = sum(stage.hours for stage in stages), sum(stage.money for stage in stages)
        yield Finding("ok", "forecast", f"all: {hours:,.3g} hours, cost {money:,.0f}")


def forecast(recipe: Recipe) -> list[StageForecast]:
    """The stages that have a rate. Raises InputError where problems are neither here nor counted in the recipe."""
    expected = recipe.forecast
    if expected is None:
        return []
    stages = []
    steps, before = _steps(recipe, expected, recipe.sample), 0.0
    for step, (samples, shares) in zip(steps, _until_targets(steps), strict=True):
        after = sum(correct * share for correct, share in shares.items())
        if step.rate is not None:
            tokens = _problems(recipe, expected) * step.tokens_per_trace
            stages.append(_stage(step.name, tokens * samples, step.rate, tokens * (after - before)))
        before = after
    student = recipe.student_sampling
    if expected.evaluate is not None and student is not None:
        means = [mean for mean, _ in _until_targets(_steps(recipe, expected, student))]
        tokens = _problems(recipe, expected) * sum(means) * expected.tokens_per_trace
        stages.append(_stage("sample_2", tokens, expected.evaluate))
    if expected.train is not None:
        rows = [_rows(recipe, expected, recipe.sample)]
        if student is not None:
            both = rows[0] + _rows(recipe, expected, student)
            rows.append(min(both, recipe.curate.max_traces_per_problem or both))
        rows += rows[-1:] * recipe.curate.control_arm
        tokens = _problems(recipe, expected) * sum(rows) * expected.tokens_per_trace
        stages.append(_stage("train", tokens * recipe.student.num_train_epochs, expected.train))
    if expected.logits is not None and (logits := recipe.train.logits) is not None:
        tokens = _problems(recipe, expected) * _rows(recipe, expected, recipe.sample) * expected.tokens_per_trace
        stages.append(_stage("logits", tokens * logits.num_train_epochs, expected.logits))
    if expected.evaluate is not None and (select := recipe.train.select) is not None:
        models = select.checkpoints * (recipe.train.rounds + recipe.curate.control_arm)
        answers = models * select.problems * recipe.evaluate.num_samples
        stages.append(_stage("select", answers * expected.tokens_per_trace, expected.evaluate))
    if expected.on_policy is not None and (config := recipe.train.on_policy) is not None:
        answers = config.steps * config.batch_size
        tokens = answers * min(expected.tokens_per_trace, config.max_new_tokens)
        stages.append(_stage("on_policy", tokens, expected.on_policy))
    if expected.evaluate is not None:
        models = (
            1 + recipe.train.rounds + recipe.curate.control_arm + len(scored_teachers(recipe.evaluate, recipe.teacher))
        )
        problems = _count(recipe.evaluate.prompts, expected.held_out, "held_out")
        answers = models * problems * recipe.evaluate.num_samples
        stages.append(_stage("evaluate", answers * expected.tokens_per_trace, expected.evaluate))
    return stages


def _stage(name: str, tokens: float, rate: StageRate, correct: float | None = None) -> StageForecast:
    hours = tokens / rate.tokens_per_second / 3600
    money = hours * rate.gpus * rate.price_per_gpu_hour + tokens / 1e6 * rate.price_per_million_tokens
    return StageForecast(name, tokens, hours, rate.gpus, money, correct)


@dataclass(frozen=True)
class _Step:
    """One teacher that samples until a target is reached, and what is expected of it."""

    name: str
    bounds: AdaptiveBounds
    solved: float
    correct: float
    tokens_per_trace: float
    rate: StageRate | None


def _steps(recipe: Recipe, expected: ForecastConfig, sampling: SampleConfig) -> list[_Step]:
    """The teachers; without a cascade all count as one, and without a policy that goes by verdicts its bounds are the
    number of samples. None of imported traces."""
    if not isinstance(sampling, TeacherSampling):
        return []
    policy = sampling.policy
    if not isinstance(policy, CascadePolicy):
        most = sampling.most_samples
        fixed = AdaptiveBounds(target_correct=most, max_samples=most)
        one = policy if isinstance(policy, AdaptivePolicy) else fixed
        return [_Step("sample", one, expected.solved, expected.correct, expected.tokens_per_trace, expected.sample)]
    steps = []
    for bounds, teacher in zip(policy.steps, recipe.teachers, strict=True):
        own = expected.teachers.get(teacher.public_id, TeacherForecast())
        steps.append(
            _Step(
                f"sample of {teacher.public_id}",
                bounds,
                expected.solved if own.solved is None else own.solved,
                own.correct or expected.correct,
                own.tokens_per_trace or expected.tokens_per_trace,
                own.sample or expected.sample,
            )
        )
    return steps


def _until_targets(steps: Iterable[_Step]) -> Iterator[tuple[float, dict[int, float]]]:
    """After each step its mean samples of a problem, and the share of the problems by their correct samples so far."""
    shares = {0: 1.0}
    for step in steps:
        mean, after = 0.0, defaultdict[int, float](float)
        for before, share in shares.items():
            if before >= step.bounds.target_correct:
                after[before] += share
                continue
            for part, correct in ((step.solved, step.correct), (1 - step.solved, 0.0)):
                drawn, ends = _one_by_one(step.bounds, correct, before)
                mean += share * part * drawn
                for hits, chance in ends.items():
                    after[before + hits] += share * part * chance
        shares = dict(after)
        yield mean, shares


def _one_by_one(bounds: AdaptiveBounds, correct: float, before: int) -> tuple[float, dict[int, float]]:
    """Mean samples of a problem that has ``before`` correct ones, and the chance of each number of further ones."""
    first = bounds.first or bounds.target_correct - before
    mean, going, ends = 0.0, {0: 1.0}, defaultdict[int, float](float)
    for drawn in range(1, bounds.max_samples + 1):
        mean += sum(going.values())
        next_going = defaultdict[int, float](float)
        for hits, chance in going.items():
            for now, share in ((hits + 1, correct), (hits, 1 - correct)):
                over = drawn == bounds.max_samples or (drawn >= first and bounds.is_enough(drawn, now, before))
                (ends if over else next_going)[now] += chance * share
        going = next_going
    return mean, ends


def _rows(recipe: Recipe, expected: ForecastConfig, sampling: SampleConfig) -> float:
    """Mean training rows of a problem: its correct samples, up to the limit of curation and the policy's target."""
    most = sampling.most_samples if isinstance(sampling, TeacherSampling) else 1
    limit = min(recipe.curate.max_traces_per_problem or most, most)
    if not recipe.curate.filters.correct:
        return limit
    if not isinstance(sampling, TeacherSampling):
        return expected.solved * expected.correct
    *_, (_, shares) = _until_targets(_steps(recipe, expected, sampling))
    return sum(share * min(correct, limit) for correct, share in shares.items())


def _problems(recipe: Recipe, expected: ForecastConfig) -> int:
    """Problems that are sampled."""
    select = recipe.train.select
    return max(
        0, _count(recipe.prompts, expected.problems, "problems") - (select.problems if select is not None else 0)
    )


def _count(prompts: PromptsConfig | None, setting: int | None, field: str) -> int:
    from distill.release.lineage import is_on_hub
    from synth.problems.problem import load_prompts

    if setting is not None:
        return setting
    if prompts is None or (isinstance(prompts, HubPrompts) and is_on_hub(prompts)):
        raise InputError("the number of problems is not known before the run", where=f"forecast.{field}", hint="set it")
    return len(load_prompts(prompts, allow_missing_gold=True).prompts)
