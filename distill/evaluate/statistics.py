"""Intervals and tests for scores of one set of problems. Level 95 %, power 80 %, everywhere.

Units: a value is the mean over the samples of one problem, in 0..1. Problems of one family (a generator's template and
difficulty, a subject, a passage) are alike, so that they count for less than as many independent ones: the variance of
a mean is then estimated from the residuals summed by family (Miller, arXiv 2411.00640), and its ratio to the variance
of independent observations is the design effect.

    one score, one sample a problem      Wilson's score interval
    a mean of item means                 Wilson's interval for the effective sample size (Dean and Pagano, J. Survey
                                         Stat. Methodol. 3, 2015)
    a paired difference                  adjusted Wald interval: one problem gained and one lost are added (Bonett and
                                         Price, J. Educ. Behav. Stat. 37, 2012)
    its test                             McNemar's exact test where each problem has one sample; else the permutation of
                                         signs of the differences, of whole families where there are any

An estimated design effect is too small where few families hold a success. So one family is added to the estimate whose
problems are all alike: with no success at all, a family counts as one observation. Coverage by simulation:
``tests/bench/interval_coverage.py``, table in docs/evaluation.md. Not covered: problems drawn from a small finite set,
and families of which a few hold most problems.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Values = NDArray[np.float64]

LEVEL = 0.95
_Z, _Z_POWER = NormalDist().inv_cdf((1 + LEVEL) / 2), NormalDist().inv_cdf(0.8)
_FLIPS = 9_999
_ENUMERATED = 13  # units up to which every pattern of signs is tried: 2^13 = 8,192
_SEED = 20_240_229

Test = Literal["McNemar, exact", "sign permutation, exact", "sign permutation, 9,999 draws"]


def proportion_interval(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a proportion, from ``successes`` of ``n`` independent trials: real numbers, as an
    effective sample size is one. Raises ValueError unless 0 <= successes <= n and n > 0."""
    if not (0 <= successes <= n and n > 0):
        raise ValueError(f"no proportion: {successes} successes of {n} trials")
    mean = successes / n
    center = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def mean_interval(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, *, samples: int = 1
) -> tuple[float, float]:
    """95 % interval for the mean over the problems that these are drawn from. ``values``: one in 0..1 a problem, the
    mean of ``samples``. ``clusters``: the family of each problem. Raises ValueError for other values or lengths."""
    items = _values(values, "values")
    mean, families = float(items.mean()), _family_numbers(clusters, len(items))
    rare = items if mean <= 0.5 else 1 - items
    trials = len(items) * samples
    independent = mean * (1 - mean) / trials
    effect = _design_effect(items, families, independent, rare > 0, samples)
    effective = trials / effect
    return proportion_interval(mean * effective, effective)


@dataclass(frozen=True)
class PairedDifference:
    """``difference`` is the mean of b minus a, ``low`` and ``high`` its 95 % interval, ``p`` two-sided.

    ``n`` problems in ``clusters`` families (None: independent). ``standard_error`` is that of the interval, which is
    centred on a value slightly nearer to 0 than ``difference``.
    """

    difference: float
    low: float
    high: float
    p: float
    test: Test
    n: int
    clusters: int | None
    standard_error: float

    @property
    def minimum_detectable_effect(self) -> float:
        """The smallest true difference that as many problems tell from 0 in 80 % of evaluations."""
        return min(1.0, (_Z + _Z_POWER) * self.standard_error)

    @property
    def items_to_detect(self) -> int | None:
        """About how many such problems would tell a true difference of ``difference`` from 0 in 80 % of evaluations;
        None where it is 0."""
        if self.difference == 0:
            return None
        return math.ceil(self.n * ((_Z + _Z_POWER) * self.standard_error / self.difference) ** 2)


def paired_difference(a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None) -> PairedDifference:
    """b minus a on the same problems in the same order: (problems,) item means in 0..1.

    ``clusters``: the family of each problem, two or more families in all. Raises ValueError where the shapes do
    not fit, a value is no number in 0..1, or there is only one family.
    """
    before, after = _values(a, "a"), _values(b, "b")
    if len(before) != len(after):
        raise ValueError(f"a has {len(before)} problems, b has {len(after)}: give the same ones in the same order")
    families = _family_numbers(clusters, len(before))
    differences = after - before
    n, mean = len(differences), float(differences.mean())
    effect = _design_effect(differences, families, float(differences.var()) / n, differences != 0, 1)
    effective = n / effect  # a gained and a lost problem are added to as many
    center = mean * effective / (effective + 2)
    variance = (effective * float(np.square(differences).mean()) + 2) / (effective + 2) - center**2
    error = math.sqrt(variance / (effective + 2))
    binary = np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()
    if binary and families is None:
        p, test = _mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
    else:
        p, test = _sign_permutation(differences if families is None else _sums(families, differences))
    return PairedDifference(
        difference=mean,
        low=max(-1.0, center - _Z * error),
        high=min(1.0, center + _Z * error),
        p=p,
        test=test,
        n=n,
        clusters=None if families is None else int(families.max()) + 1,
        standard_error=error,
    )


def minimum_detectable_effect(standard_deviation: float, n: int) -> float:
    """The smallest true difference of two models that a two-sided test at 5 % finds in 80 % of evaluations:
    (z_0.975 + z_0.8) * standard deviation of the paired differences / sqrt(n). At most 1. ``n``: problems, at least 1.

    For two models with one sample a problem that disagree on a share q of the problems, the deviation is about sqrt(q).
    Normal approximation (Miller, arXiv 2411.00640, section 5).
    """
    return min(1.0, (_Z + _Z_POWER) * standard_deviation / math.sqrt(n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of each of several tests (Scand. J. Stat. 6, 1979): the family-wise error stays below the
    level, however the tests depend on each other."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def pass_at_k(correct: int, n: int, k: int) -> float:
    """The unbiased estimate of the chance that at least one of ``k`` samples is correct, from ``correct`` of ``n``
    samples of one problem: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374). Raises ValueError unless
    0 <= correct <= n and 1 <= k <= n."""
    if not (0 <= correct <= n and 1 <= k <= n):
        raise ValueError(f"no pass@{k} from {correct} correct of {n} samples")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


# --- variance ----------------------------------------------------------------------------------------------------


def _design_effect(
    items: Values, families: NDArray[np.intp] | None, independent: float, hit: Any, samples: int
) -> float:
    """Variance of the mean of ``items`` by family residuals, over ``independent``, that of independent observations.

    Between 1 and the effect of families all alike, and drawn towards that by one family; ``hit`` marks the items that
    tell anything of the variance. Without families each item is one, of ``samples`` observations.
    """
    n = len(items)
    if families is None:
        if samples == 1:
            return 1.0
        families = np.arange(n)
    sizes = np.bincount(families)
    alike = float(np.square(sizes).sum()) / n * samples
    effect = alike
    if independent > 0 and len(sizes) > 1:
        residuals = _sums(families, items - items.mean())
        # CR2, which a mean makes one factor a family (Bell and McCaffrey, Survey Methodology 28, 2002)
        effect = float((np.square(residuals) / (1 - sizes / n)).sum()) / n**2 / independent
    weight = int((np.bincount(families, hit) > 0).sum())
    return (weight * min(max(effect, 1.0), alike) + alike) / (weight + 1)


def _sums(families: NDArray[np.intp], items: Values) -> Values:
    """The sum of the items of each family."""
    return np.bincount(families, items).astype(np.float64)


# --- tests -------------------------------------------------------------------------------------------------------


def _mcnemar(gained: int, lost: int) -> tuple[float, Test]:
    """McNemar's exact test (Psychometrika 12, 1947): the discordant problems against a fair coin."""
    from scipy.stats import binomtest

    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return max(p, sys.float_info.min), "McNemar, exact"  # beyond 1,000 problems 2^-n is no float


def _sign_permutation(units: Values) -> tuple[float, Test]:
    """How often the sum of ``units`` with signs by chance is as far from 0: every pattern of signs for few units, else
    9,999 random ones and the observed one, so that p is never 0 (Phipson and Smyth, 2010)."""
    units = units[units != 0]
    observed = abs(units.sum()) - 1e-9  # sums of the same values in another order
    if len(units) <= _ENUMERATED:
        signs = 1 - 2 * (np.arange(2 ** len(units))[:, None] >> np.arange(len(units)) & 1)
        return float((np.abs(signs @ units) >= observed).mean()), "sign permutation, exact"
    draw = np.random.default_rng(_SEED)
    signs = 1 - 2 * draw.integers(0, 2, (_FLIPS, len(units)), dtype=np.int8)
    extreme = int((np.abs(signs @ units) >= observed).sum())
    return (extreme + 1) / (_FLIPS + 1), "sign permutation, 9,999 draws"


# --- input -------------------------------------------------------------------------------------------------------


def _values(values: ArrayLike, name: str) -> Values:
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1 or not len(items) or not np.isfinite(items).all():
        raise ValueError(f"{name}: one number for each of one or more problems")
    if items.min() < 0 or items.max() > 1:
        raise ValueError(f"{name}: all lie in 0..1")
    return items


def _family_numbers(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.intp] | None:
    """0, 1, ... for each family in order of appearance; None where every problem is its own."""
    if clusters is None:
        return None
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} families for {n} problems: give one for each")
    numbers: dict[Hashable, int] = {}
    families = np.array([numbers.setdefault(family, len(numbers)) for family in clusters], dtype=np.intp)
    if len(numbers) == 1 and n > 1:
        raise ValueError("one family tells nothing of the variance between families: leave clusters out")
    return None if len(numbers) == n else families
