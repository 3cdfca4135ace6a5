from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_driver import drive

from synth.sampling.config import AdaptivePolicy
from synth.sampling.policy import UNJUDGED_LIMIT, Adaptive, Fixed, Grade, pass_rate_at_stop
from synth.section import key_dump


def sample_counts(policy: Adaptive, truth: list[list[bool]], answers: list[list[str]], seed: int) -> list[int]:
    return [len(indices) for indices in drive(policy, truth, seed, answers)]


def one_by_one(truth: list[bool], config: AdaptivePolicy) -> int:
    """How many samples asking one after another takes, suspicion aside."""
    first = min(config.first or config.target_correct, config.max_samples)
    for count in range(first, config.max_samples + 1):
        correct = sum(truth[:count])
        unlikely = config.min_chance is not None and (correct + 1) / (count + 2) < config.min_chance
        if correct >= config.target_correct or (correct > 0 and unlikely):
            return count
    return config.max_samples


def test_the_fixed_policy_gives_every_slot_once_problem_by_problem() -> None:
    policy = Fixed(3, 2)
    assert list(iter(policy.next, None)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert policy.next() is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_timing_a_problem_gets_the_samples_that_asking_one_by_one_takes(data: st.DataObject) -> None:
    target = data.draw(st.integers(1, 4))
    most = data.draw(st.integers(target, 12))
    first = data.draw(st.none() | st.integers(1, most))
    chance = data.draw(st.none() | st.floats(0.05, 0.95))
    config = AdaptivePolicy(target_correct=target, max_samples=most, first=first, suspect_after=None, min_chance=chance)
    truth = data.draw(st.lists(st.lists(st.booleans(), min_size=most, max_size=most), min_size=1, max_size=6))
    answers = [["x"] * most] * len(truth)
    wanted = [one_by_one(row, config) for row in truth]
    for seed in range(3):
        assert sample_counts(Adaptive(len(truth), config), truth, answers, seed) == wanted


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_suspicion_does_not_depend_on_timing_either(data: st.DataObject) -> None:
    config = AdaptivePolicy(target_correct=2, max_samples=12, suspect_after=data.draw(st.integers(2, 5)))
    row = st.lists(st.sampled_from([True, False, False, False]), min_size=12, max_size=12)
    truth = data.draw(st.lists(row, min_size=1, max_size=5))
    answer = st.lists(st.sampled_from("aaab"), min_size=12, max_size=12)
    answers = data.draw(st.lists(answer, min_size=len(truth), max_size=len(truth)))
    found = set()
    for seed in range(4):
        policy = Adaptive(len(truth), config)
        counts = sample_counts(policy, truth, answers, seed)
        found.add((*counts, *(policy.outcome(problem).stopped for problem in range(len(truth)))))
    assert len(found) == 1


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_samples_that_cannot_be_judged_do_not_make_timing_matter(data: st.DataObject) -> None:
    most, target = 12, data.draw(st.integers(1, 3))
    first = data.draw(st.none() | st.integers(1, 6))
    config = AdaptivePolicy(
        target_correct=target, max_samples=most, first=first, suspect_after=data.draw(st.none() | st.integers(2, 5)),
        min_chance=data.draw(st.none() | st.floats(0.1, 0.9)),
    )  # fmt: skip
    course = st.lists(st.sampled_from("cwuuu"), min_size=most, max_size=most)
    courses = data.draw(st.lists(course, min_size=1, max_size=4))
    outcomes = set()
    for seed in range(4):
        policy, rng = Adaptive(len(courses), config), random.Random(seed)
        waiting: list[tuple[int, int]] = []
        while True:
            while (slot := policy.next()) is not None:
                waiting.append(slot)
                if rng.random() < 0.4:
                    break
            if not waiting:
                break
            problem, index = waiting.pop(rng.randrange(len(waiting)))
            mark = courses[problem][index]
            policy.record((problem, index), Grade(mark == "c", "7" if mark == "w" else None, judged=mark != "u"))
        found = [policy.outcome(problem) for problem in range(len(courses))]
        for outcome, marks in zip(found, courses, strict=True):
            drawn = marks[: outcome.samples]
            assert outcome.judged == len(drawn) - drawn.count("u")
            assert outcome.correct == drawn.count("c")
            assert (outcome.pass_rate is None) == (outcome.judged == 0)
            if outcome.stopped == "unjudged":
                assert outcome.samples == max(UNJUDGED_LIMIT, first or target)
                assert set(drawn) == {"u"}
            if outcome.stopped == "max_samples":
                assert outcome.samples == most
        outcomes.add(tuple(found))
    assert len(outcomes) == 1


def test_a_sample_that_cannot_be_judged_does_not_lift_the_gate_of_a_suspect_gold() -> None:
    config = AdaptivePolicy(target_correct=3, max_samples=9, suspect_after=2)
    for order in ([0, 1, 2], [2, 1, 0]):
        policy = Adaptive(1, config)
        assert [policy.next() for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
        for index in order:
            policy.record((0, index), Grade(False, "7" if index else None, judged=index > 0))
            assert policy.next() is None
        assert policy.outcome(0).stopped == "suspect_gold"


def test_one_judged_sample_among_the_first_lets_a_problem_go_on() -> None:
    policy = Adaptive(2, AdaptivePolicy(target_correct=1, max_samples=9, suspect_after=None))
    while (slot := policy.next()) is not None:
        judged = slot == (1, 3)
        policy.record(slot, Grade(False, judged=judged))
    assert [len(policy.issued(problem)) for problem in (0, 1)] == [UNJUDGED_LIMIT, 9]
    assert [policy.outcome(problem).stopped for problem in (0, 1)] == ["unjudged", "max_samples"]


def test_a_problem_whose_samples_agree_and_never_with_the_gold_is_given_up() -> None:
    config = AdaptivePolicy(target_correct=2, max_samples=16, suspect_after=4)
    policy = Adaptive(2, config)
    truth = [[False] * 16, [False] * 16]
    answers = [["7"] * 16, [str(n) for n in range(16)]]  # one wrong gold, one hard problem
    assert sample_counts(policy, truth, answers, 1) == [4, 16]
    assert [policy.outcome(n).stopped for n in (0, 1)] == ["suspect_gold", "max_samples"]


def test_one_correct_sample_clears_the_gold() -> None:
    policy = Adaptive(1, AdaptivePolicy(target_correct=2, max_samples=16, suspect_after=4))
    truth = [[False, False, True, *[False] * 13]]
    assert sample_counts(policy, truth, [["7"] * 16], 1) == [16]
    assert policy.outcome(0).stopped == "max_samples"


def test_samples_without_an_answer_do_not_agree() -> None:
    policy = Adaptive(1, AdaptivePolicy(target_correct=2, max_samples=8, suspect_after=2))
    while (slot := policy.next()) is not None:
        policy.record(slot, Grade(False))
    assert len(policy.issued(0)) == 8


def test_untouched_problems_come_first_then_those_nearest_to_their_target() -> None:
    policy = Adaptive(3, AdaptivePolicy(target_correct=2, max_samples=9, suspect_after=None))
    for slot in [(0, 0), (0, 1), (1, 0)]:
        assert policy.next() == slot
    policy.record((0, 0), Grade(False, "1"))
    policy.record((0, 1), Grade(False, "2"))
    assert [policy.next() for _ in range(3)] == [(1, 1), (2, 0), (2, 1)]
    policy.record((1, 0), Grade(True))
    policy.record((1, 1), Grade(False, "1"))
    assert policy.next() == (1, 2)  # half of its samples were right: one more is likely to do
    assert policy.next() == (0, 2)


def test_a_solved_problem_stops_where_its_next_sample_is_unlikely_to_be_correct_and_an_unsolved_one_does_not() -> None:
    config = AdaptivePolicy(target_correct=3, max_samples=12, suspect_after=None, min_chance=0.25)
    policy = Adaptive(2, config)
    truth = [[True, *[False] * 11], [False] * 12]
    assert sample_counts(policy, truth, [["x"] * 12] * 2, 1) == [7, 12], "(1 + 1) / (7 + 2) is the first below 0.25"
    assert [policy.outcome(problem).stopped for problem in (0, 1)] == ["min_chance", "max_samples"]


def test_an_absent_min_chance_is_in_no_key() -> None:
    assert "min_chance" not in key_dump(AdaptivePolicy())
    assert key_dump(AdaptivePolicy(min_chance=0.2))["min_chance"] == 0.2


def test_a_problem_that_the_budget_cut_off_says_so() -> None:
    policy = Adaptive(1, AdaptivePolicy(target_correct=2, max_samples=9))
    slots = [policy.next(), policy.next()]
    policy.record((0, 0), Grade(True))
    assert slots[1] is not None
    policy.skip(slots[1])
    outcome = policy.outcome(0)
    assert (outcome.samples, outcome.correct, outcome.stopped, outcome.pass_rate) == (1, 1, "budget", 1.0)


@pytest.mark.parametrize(
    ("target", "first", "most", "min_chance"),
    [
        (1, 1, 4, None), (2, 2, 6, None), (3, 1, 7, None), (2, 5, 8, None), (3, 3, 3, None), (1, 4, 6, None),
        (2, 2, 9, 0.3), (4, 4, 9, 0.35), (3, 1, 8, 0.4), (2, 4, 8, 0.3), (4, 2, 9, 0.6),
    ],
)  # fmt: skip
def test_the_pass_rate_is_unbiased_summed_over_every_course_that_sampling_can_take(
    target: int, first: int, most: int, min_chance: float | None
) -> None:
    config = AdaptivePolicy(
        target_correct=target, max_samples=most, first=first, suspect_after=None, min_chance=min_chance
    )
    for rate in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)):
        mean = naive = Fraction(0)
        for course in itertools.product((True, False), repeat=most):
            chance = Fraction(1)
            for right in course:
                chance *= rate if right else 1 - rate
            samples = one_by_one(list(course), config)
            correct = sum(course[:samples])
            estimate = pass_rate_at_stop(samples, correct, config, first=first)
            mean += chance * Fraction(estimate).limit_denominator(999)
            naive += chance * Fraction(correct, samples)
        assert mean == rate
        if first < most and target < most:
            assert naive != rate  # what would have been reported without the correction


def test_settings_that_cannot_be_reached_are_refused() -> None:
    for wrong in ({"target_correct": 5, "max_samples": 4}, {"first": 20, "max_samples": 4}):
        with pytest.raises(ValueError, match=r"max_samples|lower it"):
            AdaptivePolicy.model_validate(wrong)


def test_of_equally_hard_problems_the_one_with_short_answers_comes_first() -> None:
    policy = Adaptive(3, AdaptivePolicy(target_correct=1, max_samples=4, suspect_after=None))
    slots = [policy.next() for _ in range(3)]
    for slot, tokens in zip(slots, (900, 30, 300), strict=True):
        assert slot is not None
        policy.record(slot, Grade(False), tokens=tokens)
    assert [policy.next() for _ in range(3)] == [(1, 1), (2, 1), (0, 1)]
