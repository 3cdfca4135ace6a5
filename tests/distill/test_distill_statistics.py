"""Statistics of an evaluation: intervals that cover, tests that hold their level, the same numbers as other tools."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy  # scipy.stats is loaded where it is used: half a second of every worker
from bench.interval_coverage import (
    Families,
    Pairs,
    attainable_coverage,
    mean_coverage,
    paired_coverage,
    wilson_coverage,
    wilson_interval,
)

from distill.evaluate.statistics import (
    holm,
    mean_interval,
    minimum_detectable_effect,
    paired_difference,
    pass_at_k,
    proportion_interval,
)

NEMO = Path(__file__).with_name("nemo_reference.json")  # by nemo_reference.py


def rows(n: int, seed: int = 0, gain: float = 0.1) -> tuple[Any, Any]:
    """Two models' verdicts on the same problems, one sample each."""
    draw = np.random.default_rng(seed)
    level = draw.random(n)
    return (draw.random(n) < level * 0.6).astype(float), (draw.random(n) < level * 0.6 + gain).astype(float)


# --- intervals ---------------------------------------------------------------------------------------------------


def test_no_success_is_not_a_score_of_exactly_zero() -> None:
    low, high = mean_interval([0.0] * 152)
    assert low == pytest.approx(0, abs=1e-15)
    assert high == pytest.approx(1.96**2 / (152 + 1.96**2), rel=1e-3)  # Wilson's bound in closed form
    assert mean_interval([1.0] * 152) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("n", "p"), [(50, 0.005), (50, 0.02), (150, 0.005)])
def test_where_few_successes_are_expected_the_interval_of_a_score_covers_as_nearly_as_any(n: int, p: float) -> None:
    attainable = attainable_coverage(scipy.stats.binom.pmf(np.arange(n + 1), n, p))
    assert wilson_coverage(n, p) == pytest.approx(attainable, abs=1e-12)
    assert (n > 50) == (0.93 <= attainable <= 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 150, 500])
def test_the_interval_of_a_score_covers_the_truth_in_95_percent_on_average(n: int) -> None:
    shares = [wilson_coverage(n, p / 1000) for p in range(5, 996, 5)]
    assert 0.94 < float(np.mean(shares)) < 0.965
    assert min(shares) > 0.9, "exact binomial coverage swings; nowhere as low as the 0.54 of a percentile bootstrap"


def test_one_sample_a_problem_has_the_interval_of_a_proportion() -> None:
    for successes in (0, 1, 37, 150, 152):
        verdicts = [1.0] * successes + [0.0] * (152 - successes)
        assert proportion_interval(successes, 152) == pytest.approx(wilson_interval(successes, 152), abs=1e-12)
        assert mean_interval(verdicts) == pytest.approx(proportion_interval(successes, 152), abs=1e-12)


@pytest.mark.parametrize(
    "families",
    [
        Families(n=150, p=0.3, samples=4, item_icc=0.5),
        Families(n=500, p=0.05, size=5, icc=0.3),
        Families(n=500, p=0.3, size=10, icc=0.7),
        Families(n=150, p=0.9, size=5, icc=0.7),
    ],
    ids=str,
)
def test_the_interval_of_a_mean_of_families_covers_the_truth(families: Families) -> None:
    assert 0.925 < mean_coverage(families, 600, seed=1) < 0.98


def test_independent_problems_would_cover_far_less_where_families_are_alike() -> None:
    alike = Families(n=500, p=0.3, size=10, icc=0.7)
    assert mean_coverage(alike, 300, seed=1, ignore_families=True) < 0.65


def test_without_any_success_a_family_counts_as_one_problem() -> None:
    family = [at // 10 for at in range(100)]
    assert mean_interval([0.0] * 100, family) == pytest.approx(wilson_interval(0, 10))
    alone, together = paired_difference([0] * 100, [0] * 100), paired_difference([0] * 100, [0] * 100, family)
    assert together.high > 3 * alone.high


@pytest.mark.slow
@pytest.mark.parametrize(
    "pairs",
    [
        Pairs(n=150, gained=0.1, lost=0.05),
        Pairs(n=500, gained=0.2, lost=0.1, size=10, icc=0.5),
        Pairs(n=150, gained=0.2, lost=0.1, size=5, icc=0.5, samples=4, item_icc=0.5),
    ],
    ids=str,
)
def test_the_interval_of_a_difference_covers_the_truth_and_its_test_keeps_its_level(pairs: Pairs) -> None:
    assert 0.93 < paired_coverage(pairs, 250, seed=2).covered < 0.985
    null = replace(pairs, lost=pairs.gained)
    assert paired_coverage(null, 250, seed=3).rejected < 0.075


def test_two_models_that_solve_nothing_may_differ() -> None:
    nothing = paired_difference([0] * 152, [0] * 152)
    assert (nothing.difference, nothing.p, nothing.items_to_detect) == (0, 1, None)
    assert nothing.low < -0.01 < 0.01 < nothing.high
    assert 0 < nothing.minimum_detectable_effect < 0.1


# --- the same numbers as other tools -----------------------------------------------------------------------------


def evalsig() -> Any:
    """It imports scipy.stats, too."""
    import evalsig.inference

    return evalsig.inference


@pytest.mark.parametrize("n", [40, 400])
def test_mcnemar_agrees_with_evalsig(n: int) -> None:
    a, b = rows(n)
    ours = paired_difference(a, b)
    theirs = evalsig().mcnemar_test(a, b, exact_threshold=10**6)
    assert ours.test == "McNemar, exact"
    assert (ours.p, ours.difference) == (pytest.approx(theirs.p_value), pytest.approx(theirs.delta))
    # theirs is the Wald interval without the two added problems: the same to the order of 1 / n
    assert (ours.low, ours.high) == (pytest.approx(theirs.ci[0], abs=3 / n), pytest.approx(theirs.ci[1], abs=3 / n))


def nemo() -> tuple[Any, dict[str, Any], list[int]]:
    """Of ``nemo_reference.json``: correct samples by model and number of samples, values, families."""
    reference = json.loads(NEMO.read_text())
    rows = {
        model: {int(n): np.array([*map(int, counts)]) for n, counts in of_model.items()}
        for model, of_model in reference["rows"].items()
    }
    return rows, reference["values"], [at // reference["family_size"] for at in range(len(rows["baseline"][1]))]


def test_tests_agree_with_nemo_evaluator() -> None:
    rows, theirs, family = nemo()
    one, four = ((rows["baseline"][n] / n, rows["candidate"][n] / n) for n in (1, 4))
    ours = paired_difference(*one)
    assert ours.test == "McNemar, exact"
    # theirs are one-sided, and rounded to six digits
    assert (ours.p, -ours.difference) == pytest.approx(
        (2 * theirs["mcnemar"]["p_value"], theirs["mcnemar"]["effect_size"]), abs=2e-6
    )
    for result, name in ((paired_difference(*four), "permutation"),
                         (paired_difference(*four, family), "permutation_of_families")):  # fmt: skip
        assert result.test == "sign permutation, 9,999 draws"
        assert result.p == pytest.approx(2 * theirs[name]["p_value"], abs=0.02)  # two draws of 10,000 signs
    [(discordant, share)] = theirs["detectable_share_of_discordant"].items()
    assert minimum_detectable_effect(1, int(discordant)) == pytest.approx(share, rel=1e-3)  # they round 2.802 to 2.8


def test_intervals_agree_with_nemo_evaluator() -> None:
    rows, theirs, family = nemo()
    score, (before, after) = rows["baseline"][1], (rows[model][4] / 4 for model in ("candidate", "baseline"))
    mcnemar = paired_difference(rows["candidate"][1], score)
    assert (mcnemar.low, mcnemar.high) == pytest.approx(
        (theirs["mcnemar"]["ci_lower"], theirs["mcnemar"]["ci_upper"]), abs=3 / len(score)
    )
    for name in ("score", "score_by_bootstrap", "score_of_families"):
        interval = mean_interval(score, family if name == "score_of_families" else None)
        assert interval == pytest.approx((theirs[name]["ci_lower"], theirs[name]["ci_upper"]), abs=0.003)
    # theirs are Wald intervals: ours are wider by the problems and the family that are added
    for result, name in ((paired_difference(before, after), "difference"),
                         (paired_difference(before, after, family), "difference_of_families")):  # fmt: skip
        assert result.difference == pytest.approx(theirs[name]["mean"], abs=1e-12)
        assert 1 < result.standard_error / theirs[name]["se"] < 1.1


def test_pass_at_k_agrees_with_nemo_evaluator() -> None:
    rows, theirs, _ = nemo()
    for k, value in theirs["pass_at_k"].items():
        ours = [pass_at_k(int(correct), 4, int(k)) for correct in rows["baseline"][4]]
        assert np.mean(ours) == pytest.approx(value, abs=1e-12)


def test_several_samples_agree_with_evalsig_and_scipy() -> None:
    draw = np.random.default_rng(5)
    a, b = draw.binomial(4, 0.4, 200) / 4, draw.binomial(4, 0.47, 200) / 4
    ours, theirs = paired_difference(a, b), evalsig().paired_permutation_test(a, b)
    assert ours.p == pytest.approx(theirs.p_value, abs=0.02)  # two draws of 10,000 signs
    t = scipy.stats.ttest_rel(b, a).confidence_interval()
    assert (ours.low, ours.high) == (pytest.approx(t.low, abs=0.01), pytest.approx(t.high, abs=0.01))


def test_families_agree_with_the_cluster_bootstrap_of_evalsig() -> None:
    draw = np.random.default_rng(7)
    family = np.repeat(np.arange(60), 8)
    shift = draw.normal(0.1, 0.3, 60)[family]
    a, b = (draw.random(480) < 0.4).astype(float), (draw.random(480) < np.clip(0.4 + shift, 0, 1)).astype(float)
    ours = paired_difference(a, b, list(family))
    theirs = evalsig().cluster_bootstrap_ci(a, b, family, n_resamples=2000)
    assert ours.clusters == theirs.n_clusters == 60
    assert (ours.low, ours.high) == (pytest.approx(theirs.ci[0], abs=0.02), pytest.approx(theirs.ci[1], abs=0.02))
    assert ours.high - ours.low > 1.3 * (paired_difference(a, b).high - paired_difference(a, b).low)


def test_the_minimum_detectable_effect_agrees_with_evalsig_and_is_found_in_80_percent() -> None:
    effect = minimum_detectable_effect(0.5, 200)
    assert effect == pytest.approx(evalsig().mde(0.5, 200).mde)
    pairs = Pairs(n=200, gained=(0.25 + effect) / 2, lost=(0.25 - effect) / 2)  # sd of the differences about 0.5
    assert paired_coverage(pairs, 400, seed=4).rejected == pytest.approx(0.8, abs=0.07)


def test_a_permutation_of_few_signs_is_the_share_of_all_patterns() -> None:
    differences = np.array([0.5, 0.25, -0.25, 0.75, 0.5])
    patterns = [np.dot(signs, differences) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean(np.abs(patterns) >= abs(differences.sum()) - 1e-9)
    result = paired_difference([0.25] * 5, 0.25 + differences)
    assert (result.test, result.p) == ("sign permutation, exact", pytest.approx(expected))


def test_p_is_never_zero() -> None:
    assert paired_difference([0] * 400, [1] * 400).p == pytest.approx(2 / 2**400)
    assert paired_difference([0] * 4000, [1] * 4000).p > 0
    assert paired_difference([0] * 400, [1, 0.5] * 200).p == 1 / 10_000


# --- several comparisons, several samples, bad input -------------------------------------------------------------


def test_holm_multiplies_the_smallest_p_by_all_and_never_reorders() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pass_at_k_is_the_share_of_subsets_with_a_success() -> None:
    verdicts = [1, 1, 0, 0, 0]
    for k in range(1, 6):
        expected = np.mean([any(subset) for subset in itertools.combinations(verdicts, k)])
        assert pass_at_k(2, 5, k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="pass@6"):
        pass_at_k(2, 5, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([0, 1], [1]), "a has 2 problems, b has 1"),
        (lambda: paired_difference([], []), "one or more problems"),
        (lambda: paired_difference([0, 2], [0, 1]), r"0\.\.1"),
        (lambda: paired_difference([0, math.nan], [0, 1]), "one number"),
        (lambda: paired_difference([0, 1], [1, 1], ["x", "x"]), "one family tells nothing"),
        (lambda: mean_interval([0.5, 0.5], ["x"]), "1 families for 2 problems"),
        (lambda: proportion_interval(3, 2), "3 successes of 2 trials"),
        (lambda: proportion_interval(0, 0), "0 successes of 0 trials"),
    ],
)
def test_input_that_means_nothing_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
