"""The pass rate of a problem, from the verdicts of its traces, with an interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, lgamma, log

__all__ = ["exact_interval"]


@lru_cache(maxsize=65536)
def exact_interval(correct: int, samples: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval (Biometrika 26, 1934, 404-413) of a rate: covers it with at least ``level``.

    Also where sampling stopped at a number of correct samples: the exact bounds for such a plan lie inside these, the
    upper one for s correct of n being that of s - 1 of n - 1.
    """
    if not 0 <= correct <= samples or samples < 1:
        raise ValueError(f"{correct} correct of {samples} samples")
    tail = (1 - level) / 2
    low = 0.0 if correct == 0 else _solve(lambda p: 1 - _at_most(correct - 1, samples, p) - tail)
    high = 1.0 if correct == samples else _solve(lambda p: tail - _at_most(correct, samples, p))
    return round(low, 6), round(high, 6)


def _at_most(count: int, samples: int, rate: float) -> float:
    """Probability of at most ``count`` successes, 0 < rate < 1."""
    terms = (
        lgamma(samples + 1) - lgamma(k + 1) - lgamma(samples - k + 1) + k * log(rate) + (samples - k) * log(1 - rate)
        for k in range(count + 1)
    )
    return sum(map(exp, terms))


def _solve(rises: Callable[[float], float]) -> float:
    """Where a rising function of (0, 1) is zero."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if rises(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
