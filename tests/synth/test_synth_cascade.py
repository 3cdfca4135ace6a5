"""A cascade of teachers: the cheap one first, each further one for what is not solved yet."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_driver import drive
from pydantic import ValidationError
from sample_runs import draw, log_of, problems, rows_of, stored

from synth.parquet_files import read_parquet
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import (
    AdaptiveBounds,
    AdaptivePolicy,
    BudgetConfig,
    CascadePolicy,
    EscalateConfig,
    TeacherSampling,
)
from synth.sampling.policy import UNJUDGED_LIMIT, Cascade, Grade
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import sample
from synth.sampling.samples_table import PROBLEM_STOPS
from synth.sampling.selection import SampleSummary
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.mixture import TeacherMixture
from synth.teachers.router import TeacherRouter
from synth.teachers.teacher import Completion, Request

CHEAP = FakeTeacher(model="fake/cheap", accuracy=0.4, latency_s=0)
STRONG = FakeTeacher(model="fake/strong", accuracy=0.9, latency_s=0)
TEACHERS = TeacherMixture.model_validate({"teachers": [{"teacher": one.model_dump()} for one in (CHEAP, STRONG)]})
STEPS = [{"target_correct": 2, "max_samples": 5}, {"target_correct": 1, "max_samples": 6}]


def cascade(*steps: dict[str, Any], **more: Any) -> TeacherSampling:
    policy = {"kind": "cascade", "steps": steps or STEPS}
    return TeacherSampling.model_validate({"max_new_tokens": 200, "policy": policy, **more})


def router(*engines: FakeEngine) -> TeacherRouter:
    return TeacherRouter(engines or (FakeEngine(CHEAP), FakeEngine(STRONG)))


def run(folder: Path, count: int, config: TeacherSampling, *engines: FakeEngine, **more: Any) -> SampleSummary:
    return draw(folder, problems(count), config, TEACHERS, router(*engines), **more)


def stops(folder: Path) -> list[dict[str, Any]]:
    return list(read_parquet(folder / "out" / PROBLEM_STOPS))


# --- policy ----------------------------------------------------------------------------------------------------------


def one_by_one(course: list[bool], step: AdaptiveBounds, before: int) -> int:
    """How many samples of one teacher drawing one after another takes."""
    for count in range(step.first or step.target_correct - before, step.max_samples):
        correct = sum(course[:count])
        unlikely = step.min_chance is not None and (correct + 1) / (count + 2) < step.min_chance
        if before + correct >= step.target_correct or (before + correct > 0 and unlikely):
            return count
    return step.max_samples


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_the_timing_each_teacher_draws_what_asking_one_after_another_takes(data: st.DataObject) -> None:
    steps = []
    for _ in range(data.draw(st.integers(2, 3))):
        most = data.draw(st.integers(1, 5))
        first = data.draw(st.none() | st.integers(1, most))
        steps.append({"target_correct": data.draw(st.integers(1, min(3, most))), "max_samples": most, "first": first,
                      "suspect_after": None, "min_chance": data.draw(st.none() | st.floats(0.1, 0.9))})  # fmt: skip
    config = CascadePolicy.model_validate({"steps": steps})
    *starts, end = config.starts
    course = st.lists(st.booleans(), min_size=end, max_size=end)
    courses = data.draw(st.lists(course, min_size=1, max_size=4))
    expected = []
    for outcomes in courses:
        correct, indices = 0, []
        for start, step in zip(starts, config.steps, strict=True):
            if correct < step.target_correct:
                own = outcomes[start : start + step.max_samples]
                count = one_by_one(own, step, correct)
                indices += range(start, start + count)
                correct += sum(own[:count])
        expected.append(indices)
    for seed in range(3):
        assert drive(Cascade(len(courses), config), courses, seed) == expected


@pytest.mark.parametrize("min_chance", [None, 0.4])
@pytest.mark.parametrize("correct_before", [0, 1])
def test_the_rate_of_a_later_teacher_is_unbiased_whatever_the_earlier_one_did(
    correct_before: int, min_chance: float | None
) -> None:
    config = CascadePolicy.model_validate(
        {"steps": [{"target_correct": 2, "max_samples": 3, "suspect_after": None},
                   {"target_correct": 3, "max_samples": 5, "suspect_after": None, "min_chance": min_chance}]}
    )  # fmt: skip
    before = [index < correct_before for index in range(3)]
    for rate in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)):
        mean = Fraction(0)
        for course in itertools.product((True, False), repeat=5):
            policy = Cascade(1, config)
            drive(policy, [[*before, *course]], 0)
            estimate = policy.outcome(0, 1).pass_rate
            assert estimate is not None
            chance = Fraction(1)
            for right in course:
                chance *= rate if right else 1 - rate
            mean += chance * Fraction(estimate).limit_denominator(99)
        assert mean == rate


def verdicts(policy: Cascade, answers: list[str | None]) -> None:
    """Record wrong answers, or None for a right one, in the order of the slots."""
    for answer in answers:
        slot = policy.next()
        assert slot is not None
        policy.record(slot, Grade(answer is None, answer))


def test_a_teacher_that_agrees_with_itself_against_the_gold_does_not_end_a_problem_but_the_last_one_does() -> None:
    steps = {"target_correct": 1, "max_samples": 8, "suspect_after": 2}
    policy = Cascade(1, CascadePolicy.model_validate({"steps": [steps, steps]}))
    verdicts(policy, ["7", "7", "7", "7"])
    assert policy.next() is None
    assert policy.issued(0) == [0, 1, 8, 9]
    assert [policy.outcome(0, step).stopped for step in (0, 1)] == ["suspect_gold", "suspect_gold"]


def test_a_gold_that_an_earlier_teacher_matched_is_not_suspected_by_a_later_one() -> None:
    steps = [{"target_correct": 2, "max_samples": 2}, {"target_correct": 2, "max_samples": 6, "suspect_after": 2}]
    policy = Cascade(1, CascadePolicy.model_validate({"steps": steps}))
    verdicts(policy, [None, "7", *["7"] * 6])
    assert policy.next() is None
    assert policy.outcome(0, 1).stopped == "max_samples"


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_sample_is_the_request_of_a_recipe_with_its_teacher_alone() -> None:
    config = cascade(temperatures=(0.6, 1.0), escalate=EscalateConfig(max_new_tokens=400).model_dump())
    plan = RequestPlan(problems(4), TEACHERS, config)
    for teacher, start, count in ((CHEAP, 0, 5), (STRONG, 5, 6)):
        alone = RequestPlan(problems(4), teacher, config.model_copy(update={"policy": AdaptivePolicy()}))
        for problem, index in itertools.product(range(4), range(count)):
            slot, own = (problem, start + index), (problem, index)
            assert plan.teacher(slot) == teacher
            assert plan.request(slot) == alone.request(own)
            assert plan.escalation(slot) == alone.escalation(own)


# --- sampling --------------------------------------------------------------------------------------------------------


def solved(rows: list[dict[str, Any]]) -> set[str]:
    return {row["problem_id"] for row in rows if f"boxed{{{int(row['problem_id'][1:]) + 1}}}" in row["text"]}


def test_the_expensive_teacher_writes_a_fraction_of_its_tokens_at_the_same_problems_solved(tmp_path: Path) -> None:
    alone = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=6), max_new_tokens=200)
    whole = draw(tmp_path / "alone", problems(60), alone, STRONG, FakeEngine(STRONG))
    steps = ({"target_correct": 1, "max_samples": 4}, {"target_correct": 1, "max_samples": 6})
    summary = run(tmp_path / "cascade", 60, cascade(*steps))
    assert solved(rows_of(tmp_path / "cascade")) == solved(rows_of(tmp_path / "alone")) == {f"p{n}" for n in range(60)}
    cheap, strong = summary.teachers["fake/cheap"], summary.teachers["fake/strong"]
    assert (cheap.problems, strong.problems) == (60, 60 - cheap.solved)
    assert strong.solved == strong.problems
    assert 0 < strong.tokens < 0.3 * whole.completion_tokens


def test_the_table_of_stops_has_a_row_for_each_teacher_that_was_asked_and_no_rate_of_both(tmp_path: Path) -> None:
    summary = run(tmp_path, 40, cascade())
    rows, texts = stops(tmp_path), rows_of(tmp_path)
    assert [row["step"] for row in rows if row["teacher"] == "fake/cheap"] == [0] * 40
    assert {row["problem_id"] for row in rows if row["step"] == 1} == {
        row["problem_id"] for row in rows if row["step"] == 0 and row["n_correct"] == 0
    }
    for row in rows:
        own = [one for one in texts if (one["problem_id"], one["teacher"]) == (row["problem_id"], row["teacher"])]
        assert row["n_samples"] == len(own)
        assert row["n_correct"] == len([one for one in own if solved([one])])
    last = {row["problem_id"]: row["stopped"] for row in rows}
    assert summary.problems_stopped == Counter(last.values())


def test_answers_of_runs_with_one_teacher_are_taken_over(tmp_path: Path) -> None:
    one = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=6), max_new_tokens=200)
    first = draw(tmp_path, problems(30), one, CHEAP, FakeEngine(CHEAP), out="cheap")
    second = draw(tmp_path, problems(30), one, STRONG, FakeEngine(STRONG), out="strong")
    summary = run(tmp_path, 30, cascade())
    assert summary.reused == summary.rows
    assert len(stored(tmp_path)) == first.rows + second.rows, "nothing was asked again"
    assert run(tmp_path / "anew", 30, cascade()).samples_digest == summary.samples_digest


def test_a_request_that_one_teacher_refuses_goes_to_the_next(tmp_path: Path) -> None:
    class Refusing(FakeEngine):
        def submit(self, request: Request) -> None:
            super().submit(request)
            for flight in self._in_flight:
                if flight.request_id == request.request_id and request.prompt.id == "p3":
                    flight.completion = Completion(request.request_id, "", "error", None, None, "moderated")

    run(tmp_path, 8, cascade(), Refusing(CHEAP), FakeEngine(STRONG))
    refused, answered = (row for row in stops(tmp_path) if row["problem_id"] == "p3")
    assert (refused["stopped"], refused["n_samples"], refused["estimate"]) == ("unjudged", UNJUDGED_LIMIT, None)
    assert (answered["teacher"], answered["stopped"]) == ("fake/strong", "target")


def test_both_teachers_tokens_count_in_the_budget_and_a_larger_one_goes_on_from_there(tmp_path: Path) -> None:
    config = cascade({"target_correct": 1, "max_samples": 2}, {"target_correct": 1, "max_samples": 6})
    alone = run(tmp_path / "alone", 40, config)
    limit = alone.completion_tokens - 100
    assert limit > alone.teachers["fake/cheap"].tokens + 200
    budget = config.model_copy(update={"budget": BudgetConfig(tokens=limit)})
    summary = run(tmp_path, 40, budget)
    assert summary.stopped == "tokens"
    assert limit - 200 < summary.completion_tokens <= limit
    assert "budget" in {row["stopped"] for row in stops(tmp_path)}
    again = run(tmp_path, 40, budget)
    assert (again.reused, again.rows, again.stopped) == (summary.rows, summary.rows, "tokens")
    whole = run(tmp_path, 40, config)
    assert (whole.reused, whole.samples_digest) == (summary.rows, alone.samples_digest)


def test_each_teacher_has_its_price(tmp_path: Path) -> None:
    prices = {"fake/cheap": {"per_million_tokens": 1.0}, "fake/strong": {"per_million_tokens": 20.0}}
    config = cascade(budget=BudgetConfig.model_validate({"prices": prices}).model_dump())
    tracker = BudgetTracker(config.budget)
    summary = run(tmp_path, 30, config, budget=tracker)
    cost = summary.teachers["fake/cheap"].tokens + 20 * summary.teachers["fake/strong"].tokens
    assert tracker.spend.money == pytest.approx(cost / 1e6)


class Dying(FakeEngine):
    """Dies after some answers, of all engines together."""

    left = 0

    def poll_for(self, seconds: float) -> list[Completion]:
        if Dying.left <= 0:
            raise RuntimeError("it died")
        answers = super().poll_for(seconds)
        Dying.left -= len(answers)
        return answers


@pytest.mark.slow
@pytest.mark.parametrize("latencies", [(0.0, 0.002), (0.002, 0.0)])
def test_a_run_that_dies_again_and_again_ends_with_the_files_of_one_left_alone(
    tmp_path: Path, latencies: tuple[float, float]
) -> None:
    config = cascade(max_new_tokens=30, escalate={"max_new_tokens": 200})
    run(tmp_path / "alone", 8, config)
    rng, deaths = random.Random(str(latencies)), 0
    engines = [
        one.model_copy(update={"latency_s": seconds, "concurrency": 1})
        for one, seconds in zip((CHEAP, STRONG), latencies, strict=True)
    ]
    while True:
        Dying.left = rng.randint(1, 5)
        before = log_of(tmp_path / "died").read_bytes() if deaths else b""
        try:
            run(tmp_path / "died", 8, config, *map(Dying, engines))
            break
        except RuntimeError:
            deaths += 1
            assert log_of(tmp_path / "died").read_bytes().startswith(before)
    assert deaths > 3
    ids = [row["request_id"] for row in stored(tmp_path / "died")]
    assert len(ids) == len(set(ids)) == len(stored(tmp_path / "alone"))
    for file in (tmp_path / "alone" / "out").iterdir():
        assert (tmp_path / "died" / "out" / file.name).read_bytes() == file.read_bytes(), file.name


def test_engines_of_this_process_change_once(tmp_path: Path) -> None:
    story: list[str] = []

    class Observed(FakeEngine):
        def submit(self, request: Request) -> None:
            if story[-1:] != [self.model]:
                story.append(self.model)
            super().submit(request)

    engines = TeacherRouter([Observed(CHEAP), Observed(STRONG)], [True, True])
    draw(tmp_path, problems(30), cascade(), TEACHERS, engines)
    assert story == ["fake/cheap", "fake/strong"]


def test_a_policy_that_goes_by_verdicts_needs_a_verifier(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cascade needs a verifier"):
        sample(problems(1), router(), TEACHERS, cascade(), tmp_path / "out", tmp_path / "store")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"policy": {"kind": "cascade", "steps": STEPS[:1]}}, "at least 2"),
        ({"policy": {"kind": "cascade", "steps": [*STEPS, {"target_correct": 3, "max_samples": 2}]}}, "max_samples"),
        ({"policy": {"kind": "cascade", "steps": STEPS}, "num_samples": 3}, r"max_samples of each of policy\.steps"),
        ({"policy": {"kind": "cascade", "steps": STEPS}, "temperature": 0}, "same trace every time"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TeacherSampling.model_validate(settings)
