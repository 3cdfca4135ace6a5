"""Hours and money by multiplication: expectations against every outcome counted out, and what check prints."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.check.forecast import forecast
from distill.config.loader import load_recipe
from licensing.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ONE = ("forecast.tokens_per_trace=1", "forecast.problems=1", "forecast.solved=0.8", "forecast.correct=0.7")
RATE = "{tokens_per_second: 1, gpus: 4, price_per_gpu_hour: 2}"


def tokens(stage: str, *overrides: str) -> float:
    """Of a stage of the smoke recipe, for one problem whose traces have one token."""
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [*ONE, f"forecast.{stage}={RATE}", *overrides])
    (found,) = forecast(recipe)
    assert found.stage == stage
    return found.tokens


def expected(draws: int, of_outcome: Callable[[tuple[bool, ...]], float]) -> float:
    """The mean of ``of_outcome`` over all outcomes of so many samples of a problem that the teacher solves."""
    return sum(
        of_outcome(outcome) * 0.7 ** sum(outcome) * 0.3 ** (draws - sum(outcome))
        for outcome in itertools.product((False, True), repeat=draws)
    )


@pytest.mark.parametrize(
    ("target", "most", "first", "chance"),
    [(1, 4, None, None), (2, 4, None, None), (2, 5, 3, None), (3, 3, None, None), (3, 7, None, 0.4)],
)
def test_an_adaptive_policy_draws_until_its_target_or_its_limit(
    target: int, most: int, first: int | None, chance: float | None
) -> None:
    def drawn(outcome: tuple[bool, ...]) -> int:
        def over(n: int) -> bool:
            correct = sum(outcome[:n])
            return correct >= target or (chance is not None and correct > 0 and (correct + 1) / (n + 2) < chance)

        return next((n for n in range(first or target, most) if over(n)), most)

    policy = (
        f"sample.policy={{kind: adaptive, target_correct: {target}, max_samples: {most}, first: {first or 'null'}, "
        f"min_chance: {chance or 'null'}}}"
    )
    found = tokens("sample", "sample={max_new_tokens: 64}", policy)
    assert found == pytest.approx(0.8 * expected(most, drawn) + 0.2 * most)


def test_a_later_teacher_of_a_cascade_draws_for_what_the_earlier_ones_left() -> None:
    """The cheap one solves 0.5 of the problems, the strong one 0.8 of those that it is asked."""
    recipe = load_recipe(
        ROOT / "recipes" / "smoke.yaml",
        [
            "teacher={kind: mixture, teachers: [{teacher: {kind: fake, model: a}}, {teacher: {kind: fake, model: b}}]}",
            "sample={max_new_tokens: 64, policy: {kind: cascade, steps: "
            "[{target_correct: 2, max_samples: 3}, {target_correct: 2, max_samples: 4}]}}",
            "curate.control_arm=false", "student.num_train_epochs=1",
            *ONE, f"forecast.sample={RATE}", f"forecast.train={RATE}",
            "forecast.teachers={a: {solved: 0.5}, b: {tokens_per_trace: 5, sample: {tokens_per_second: 2}}}",
        ],
    )  # fmt: skip

    def drawn(outcome: tuple[bool, ...], target: int) -> int:
        return next((n for n in range(target, len(outcome)) if sum(outcome[:n]) >= target), len(outcome))

    def means(by_cheap: bool, by_strong: bool) -> tuple[float, float, float]:
        """Samples of each and correct ones of both, where they can solve the problem or not."""

        def counts(outcome: tuple[bool, ...]) -> tuple[int, int, int]:
            cheap, strong = (right if can else (False,) * len(right)
                             for right, can in ((outcome[:3], by_cheap), (outcome[3:], by_strong)))  # fmt: skip
            correct = sum(cheap[: (first := drawn(cheap, 2))])
            second = drawn(strong, 2 - correct) if correct < 2 else 0
            return first, second, correct + sum(strong[:second])

        first, second, correct = (
            expected(7, lambda outcome, at=at: counts(outcome)[at])  # type: ignore[misc]
            for at in range(3)
        )
        return first, second, correct

    cases = [(0.5, 0.8, True, True), (0.5, 0.2, True, False), (0.5, 0.8, False, True), (0.5, 0.2, False, False)]
    weighted = [[p * q * mean for mean in means(one, two)] for p, q, one, two in cases]
    first, second, correct = map(sum, zip(*weighted, strict=True))
    stages = {one.stage: one for one in forecast(recipe)}
    assert stages["sample of a"].tokens == pytest.approx(first)
    assert stages["sample of b"].tokens == pytest.approx(5 * second)
    assert stages["sample of b"].hours == pytest.approx(5 * second / 2 / 3600)
    correct_of = [stages["sample of a"].correct or 0, (stages["sample of b"].correct or 0) / 5]
    assert sum(correct_of) == pytest.approx(correct)
    assert stages["train"].tokens == pytest.approx(correct)


def test_a_fixed_policy_draws_as_many_as_it_says() -> None:
    assert tokens("sample", "sample.num_samples=3") == 3


@pytest.mark.parametrize(("limit", "arms"), [(1, 1), (2, 2)])
def test_training_takes_the_correct_samples_up_to_the_limit_of_curation_in_each_arm(limit: int, arms: int) -> None:
    epochs, control = "student.num_train_epochs=3", f"curate.control_arm={str(arms == 2).lower()}"
    found = tokens("train", f"curate.max_traces_per_problem={limit}", epochs, control, "sample.num_samples=4")
    assert found == pytest.approx(0.8 * expected(4, lambda outcome: min(sum(outcome), limit)) * 3 * arms)
    every = tokens("train", f"curate.max_traces_per_problem={limit}", epochs, control, "curate.filters.correct=false")
    assert every == limit * 3 * arms


@pytest.mark.parametrize(("per_trace", "limit", "of_answer"), [(50, 100, 50), (500, 100, 100)])
def test_answers_of_on_policy_distillation_are_as_long_as_traces_up_to_their_limit(
    per_trace: int, limit: int, of_answer: int
) -> None:
    config = f"train.on_policy={{teacher: {{model: m}}, steps: 5, batch_size: 4, max_new_tokens: {limit}}}"
    stages = ("train.stages=[sft, on_policy]", "curate.control_arm=false", config)
    assert tokens("on_policy", *stages, f"forecast.tokens_per_trace={per_trace}") == 5 * 4 * of_answer


def test_logits_are_trained_on_as_often_as_their_epochs_say() -> None:
    teacher = ("teacher={kind: vllm, model: a/b, license: mit}", "sample.logprobs=8", "curate.control_arm=false")
    trained = tokens("train", *teacher, "student.num_train_epochs=1")
    logits = tokens("logits", *teacher, "train={stages: [sft, logits], logits: {num_train_epochs: 3}}")
    assert logits == pytest.approx(3 * trained)


@pytest.mark.slow
@pytest.mark.parametrize("arms", [1, 2])
def test_every_checkpoint_answers_the_selection_problems_which_nobody_samples(arms: int) -> None:
    recipe = load_recipe(
        ROOT / "recipes" / "smoke.yaml",
        [
            "train.select={problems: 6, checkpoints: 3}", f"curate.control_arm={str(arms == 2).lower()}",
            "forecast.tokens_per_trace=1", "forecast.problems=10", f"forecast.sample={RATE}",
            f"forecast.evaluate={RATE}", "sample.num_samples=5",
        ],
    )  # fmt: skip
    stages = {one.stage: one.tokens for one in forecast(recipe)}
    assert (stages["sample"], stages["select"]) == ((10 - 6) * 5, 3 * 6 * arms)


def test_every_model_answers_every_held_out_problem_as_often_as_it_is_sampled() -> None:
    assert tokens("evaluate", "curate.control_arm=true") == 8 * 4, "student before and after, control, teacher"
    sampled = ("evaluate.num_samples=3", "evaluate.temperature=1")
    assert tokens("evaluate", "curate.control_arm=false", "evaluate.teacher=false", *sampled) == 8 * 2 * 3


def test_a_second_round_takes_the_students_samples_another_training_and_another_scored_model() -> None:
    def stages(*more: str) -> dict[str, float]:
        rates = [f"forecast.{stage}={RATE}" for stage in ("sample", "train", "evaluate")]
        changes = ["sample.num_samples=1", "evaluate.teacher=false", "curate.max_traces_per_problem=3", *more]
        recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [*ONE, *rates, *changes])
        return {one.stage: one.tokens for one in forecast(recipe)}

    one, two = stages(), stages("train.rounds=2", "train.student_sample={num_samples: 5}")
    assert (one["sample"], two["sample"], two["sample_2"]) == (1, 1, 5)
    of_teacher, epochs, arms = 0.8 * 0.7, 2, 2
    of_both = min(3, of_teacher + 0.8 * expected(5, lambda outcome: min(sum(outcome), 3)))
    assert one["train"] == pytest.approx(of_teacher * epochs * arms)
    assert two["train"] == pytest.approx((of_teacher + of_both * arms) * epochs)
    assert two["evaluate"] - one["evaluate"] == 8


def test_hours_and_money_follow_from_rate_gpus_and_prices() -> None:
    overrides = [*ONE, "forecast.tokens_per_trace=1e6", "sample.num_samples=2", f"forecast.sample={RATE}"]
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [*overrides, "forecast.sample.price_per_million_tokens=5"])
    (stage,) = forecast(recipe)
    assert stage.hours == pytest.approx(2e6 / 3600)
    assert stage.money == pytest.approx(2e6 / 3600 * 4 * 2 + 2 * 5)


def test_problems_are_counted_where_they_are_and_asked_for_where_they_are_not() -> None:
    recipe = load_recipe(
        ROOT / "recipes" / "smoke.yaml",
        ["forecast.tokens_per_trace=1", f"forecast.sample={RATE}", "sample.num_samples=1"],
    )
    (stage,) = forecast(recipe)
    assert 0 < stage.tokens <= 24
    large = load_recipe(ROOT / "recipes" / "deepseek-r1-to-qwen3-8b.yaml", ["forecast.problems="])
    with pytest.raises(InputError) as caught:
        forecast(large)
    assert caught.value.where == "forecast.problems"


@pytest.mark.parametrize(
    ("name", "sampling", "training"),
    [
        ("deepseek-r1-to-qwen3-8b", "46 hours, 1,100 USD", "20 hours, 490 USD"),
        ("qwen3-235b-a22b-to-qwen3-8b", "40 hours, 3,800 USD", "20 hours, 490 USD"),
        ("olmo3-32b-think-to-olmo3-7b", "93 hours, 2,200 USD", "13 hours, 320 USD"),
    ],
)
def test_the_comments_of_the_large_recipes_are_what_check_computes(name: str, sampling: str, training: str) -> None:
    path = ROOT / "recipes" / f"{name}.yaml"
    comment = " ".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))
    for stage, told in zip(forecast(load_recipe(path)), (sampling, training), strict=False):
        assert told in " ".join(comment.split())
        hours, money = told.replace(",", "").removesuffix(" USD").split(" hours ")
        assert float(hours) == pytest.approx(stage.hours, rel=0.05)
        assert float(money) == pytest.approx(stage.money, rel=0.05)


def test_the_tables_of_nodes_and_rates_are_what_check_computes() -> None:
    page = (ROOT / "docs" / "check.md").read_text()
    lines = page[page.index("## On 1, 4 and 16 nodes") : page.index("## GPU check")].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.search(r"\d \|$", line)]
    assert len(cells) == 8
    for first, rate, *hours, cost, per_million in cells:
        gpus = 8 * int(first) if first.isdigit() else 8
        rate = re.findall(r"[\d,]+", rate)[-1].replace(",", "")
        overrides = [f"forecast.sample.tokens_per_second={rate}", f"forecast.sample.gpus={gpus}"]
        stage = forecast(load_recipe(ROOT / "recipes" / "deepseek-r1-to-qwen3-8b.yaml", overrides))[0]
        assert f"cost {cost}; " in str(stage)
        assert str(stage).endswith(f" {per_million} a million")
        if hours:
            assert float(hours[0].removesuffix(" hours")) == pytest.approx(stage.hours, rel=0.02)


@pytest.mark.parametrize("policy", [
    "num_samples: 3", "policy: {kind: adaptive, target_correct: 2, max_samples: 4}",
])  # fmt: skip
def test_a_million_tokens_of_correct_traces_have_a_price(policy: str) -> None:
    recipe = load_recipe(
        ROOT / "recipes" / "smoke.yaml", [*ONE, f"forecast.sample={RATE}", f"sample={{max_new_tokens: 64, {policy}}}"]
    )
    (stage,) = forecast(recipe)
    draws, most = (3, 3) if policy.startswith("num") else (4, 2)
    assert stage.correct == pytest.approx(0.8 * expected(draws, lambda outcome: min(most, sum(outcome))))
    assert f"{1e6 * stage.money / stage.correct:,.2f} a million" in str(stage)


@pytest.mark.slow
def test_check_prints_a_line_a_stage_and_the_sum(distill: Any, tmp_path: Path) -> None:
    overrides = ["forecast.tokens_per_trace=100", f"forecast.sample={RATE}", f"forecast.train={RATE}"]
    sets = [word for override in overrides for word in ("--set", override)]
    lines = distill("check", "smoke", "--runs", tmp_path, *sets).out.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("ok    forecast")] == ["sample:", "train:", "all:"]
