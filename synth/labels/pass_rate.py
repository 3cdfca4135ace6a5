"""The pass rate of a problem, from the verdicts of its traces, with an interval."""

from __future__ import annotations

from functools import lru_cache

_TAIL = 0.025  # of 95 % confidence


@lru_cache(maxsize=65536)
def exact_interval(correct: int, samples: int) -> tuple[float, float]:
    """Clopper and Pearson's interval (Biometrika 26, 1934, 404-413) of a rate: covers it with at least 95 %.

    Also where sampling stopped at a number of correct samples: the exact bounds for such a plan lie inside these, the
    upper one for s correct of n being that of s - 1 of n - 1.
    """
    from scipy.special import betaincinv

    if not 0 <= correct <= samples or samples < 1:
        raise ValueError(f"{correct} correct of {samples} samples")
    low = betaincinv(correct, samples - correct + 1, _TAIL) if correct else 0.0
    high = betaincinv(correct + 1, samples - correct, 1 - _TAIL) if correct < samples else 1.0
    return round(float(low), 6), round(float(high), 6)
