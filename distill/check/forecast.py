"""Hours and money of the stages that take GPUs, by multiplication, from what the recipe's section `forecast` expects.

**Model.** A share `solved` of the problems has correct samples, each sample of theirs with probability `correct`
and independently; of the others none. Every trace has `tokens_per_trace` tokens, and so has every answer of on-policy
distillation, up to its limit; prompts count nothing. The student of a first round answers as the teacher does, which is
more than it will. So it is as good as these figures: ``distill check --pilot`` measures them with the real teacher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from distill.check.finding import Finding
from distill.config.forecast import ForecastConfig, StageRate
from distill.config.recipe import Recipe
from distill.evaluate.run import scored_teachers
from licensing.errors import InputError
from synth.problems.config import HubPrompts, PromptsConfig
from synth.sampling.config import AdaptivePolicy, SampleConfig, TeacherSampling

__all__ = ["StageForecast", "check_forecast", "forecast"]


@dataclass(frozen=True)
class StageForecast:
    """What one stage takes; ``money`` is in the currency of the prices."""

    stage: str
    tokens: float
    hours: float
    gpus: int
    money: float

    def __str__(self) -> str:
        on = f" on {self.gpus} GPUs" if self.gpus else ""
        return f"{self.stage}: {self.tokens:.2g} tokens, {self.hours:,.3g} hours{on}, cost {self.money:,.0f}"


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
    if expected.sample is not None and isinstance(recipe.sample, TeacherSampling):
        traces = _problems(recipe, expected) * _samples(recipe.sample, expected)
        stages.append(_stage("sample", traces * expected.tokens_per_trace, expected.sample))
    student = recipe.student_sampling
    if expected.evaluate is not None and student is not None:
        traces = _problems(recipe, expected) * _samples(student, expected)
        stages.append(_stage("sample_2", traces * expected.tokens_per_trace, expected.evaluate))
    if expected.train is not None:
        rows = [_rows(recipe, expected, recipe.sample)]
        if student is not None:
            both = rows[0] + _rows(recipe, expected, student)
            rows.append(min(both, recipe.curate.max_traces_per_problem or both))
        rows += rows[-1:] * recipe.curate.control_arm
        tokens = _problems(recipe, expected) * sum(rows) * expected.tokens_per_trace
        stages.append(_stage("train", tokens * recipe.student.num_train_epochs, expected.train))
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


def _stage(name: str, tokens: float, rate: StageRate) -> StageForecast:
    hours = tokens / rate.tokens_per_second / 3600
    money = hours * rate.gpus * rate.price_per_gpu_hour + tokens / 1e6 * rate.price_per_million_tokens
    return StageForecast(name, tokens, hours, rate.gpus, money)


def _samples(sampling: TeacherSampling, expected: ForecastConfig) -> float:
    """Mean samples of a problem. An adaptive policy draws while fewer than its target are correct."""
    policy = sampling.policy
    if not isinstance(policy, AdaptivePolicy):
        return sampling.num_samples
    least = max(policy.first or 0, policy.target_correct)
    of_solved = sum(
        1.0 if drawn < least else 1 - _at_least(policy.target_correct, drawn, expected.correct)
        for drawn in range(policy.max_samples)
    )
    return expected.solved * of_solved + (1 - expected.solved) * policy.max_samples


def _rows(recipe: Recipe, expected: ForecastConfig, sampling: SampleConfig) -> float:
    """Mean training rows of a problem: its correct samples, up to the limit of curation and the policy's target."""
    most = sampling.most_samples if isinstance(sampling, TeacherSampling) else 1
    limit = min(recipe.curate.max_traces_per_problem or most, most)
    if not recipe.curate.filters.correct:
        return limit
    if isinstance(sampling, TeacherSampling) and isinstance(sampling.policy, AdaptivePolicy):
        limit = min(limit, sampling.policy.target_correct)
    return expected.solved * sum(_at_least(count, most, expected.correct) for count in range(1, limit + 1))


def _at_least(count: int, draws: int, probability: float) -> float:
    """P(X >= count) for X binomial."""
    return sum(
        math.comb(draws, hits) * probability**hits * (1 - probability) ** (draws - hits)
        for hits in range(count, draws + 1)
    )


def _problems(recipe: Recipe, expected: ForecastConfig) -> int:
    """Problems that are sampled."""
    select = recipe.train.select
    return max(
        0, _count(recipe.prompts, expected.problems, "problems") - (select.problems if select is not None else 0)
    )


def _count(prompts: PromptsConfig | None, given: int | None, field: str) -> int:
    from distill.release.lineage import is_on_hub
    from synth.problems.problem import load_prompts

    if given is not None:
        return given
    if prompts is None or (isinstance(prompts, HubPrompts) and is_on_hub(prompts)):
        raise InputError("the number of problems is not known here", where=f"forecast.{field}", hint="set it")
    return len(load_prompts(prompts, answerless=True).prompts)
