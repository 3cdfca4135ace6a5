"""How often the intervals of ``distill.evaluate.statistics`` hold the truth, and how often a true null is rejected.

    python tests/bench/interval_coverage.py [--json] [--repeats N]

Scores: one sample a problem is exact, from the binomial distribution. Otherwise each family draws its rate from the
Beta distribution with mean p and intra-class correlation ICC, each problem of several samples its own from another Beta
around it with `item_icc`, and the samples are coins. Differences: a problem is gained, lost or neither with rates that
each family draws from a Dirichlet distribution, so that the differences have the ICC. Nominal coverage is 0.95.

A binomial of few expected successes has few outcomes, and no interval covers it in 0.93 to 0.97: at n = 50, p = 0.005
zero successes alone have probability 0.78. So the table has the mean over p beside the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import binom

from distill.evaluate.statistics import mean_interval, paired_difference, proportion_interval

SIZES = (50, 150, 500)
RATES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)
DISCORDANT = ((0.003, 0.003), (0.02, 0.0), (0.05, 0.02), (0.1, 0.1), (0.3, 0.05), (0.3, 0.3), (0.6, 0.1))


@dataclass(frozen=True)
class Families:
    """``n`` problems in families of ``size``, each with ``samples``; ``p`` is the true score."""

    n: int
    p: float
    size: int = 1
    icc: float = 0.0
    samples: int = 1
    item_icc: float = 0.0

    def __str__(self) -> str:
        return f"n={self.n} p={self.p} size={self.size} icc={self.icc} samples={self.samples}"

    @property
    def family(self) -> list[int]:
        return [at // self.size for at in range(self.n)]


@dataclass(frozen=True)
class Pairs:
    """``n`` problems in families of ``size``; the true difference is ``gained`` minus ``lost``, the ICC that of the
    differences."""

    n: int
    gained: float
    lost: float
    size: int = 1
    icc: float = 0.0

    def __str__(self) -> str:
        return f"n={self.n} gained={self.gained} lost={self.lost} size={self.size} icc={self.icc}"

    @property
    def family(self) -> list[int]:
        return [at // self.size for at in range(self.n)]


@dataclass(frozen=True)
class Outcome:
    """Shares of the repeats: the interval held the true difference; p was below 0.05."""

    covered: float
    rejected: float


def wilson_coverage(n: int, p: float) -> float:
    """Exact coverage of ``proportion_interval``."""
    held = [low <= p <= high for low, high in _wilson(n)]
    return float(binom.pmf(np.arange(n + 1), n, p)[held].sum())


@cache
def _wilson(n: int) -> list[tuple[float, float]]:
    return [proportion_interval(successes, n) for successes in range(n + 1)]


def mean_coverage(families: Families, repeats: int, seed: int = 0, *, ignore_families: bool = False) -> float:
    """Coverage of ``mean_interval``; ``ignore_families``: as if all problems were independent."""
    clusters = families.family if families.size > 1 and not ignore_families else None
    held = 0
    for items in _scores(families, repeats, np.random.default_rng(seed)):
        low, high = mean_interval(items, clusters, samples=families.samples)
        held += low <= families.p <= high
    return held / repeats


def paired_coverage(pairs: Pairs, repeats: int, seed: int = 0) -> Outcome:
    """Coverage and rejections of ``paired_difference``."""
    clusters = pairs.family if pairs.size > 1 else None
    held = rejected = 0
    for before, after in _pairs(pairs, repeats, np.random.default_rng(seed)):
        result = paired_difference(before, after, clusters)
        held += result.low <= pairs.gained - pairs.lost <= result.high
        rejected += result.p < 0.05
    return Outcome(held / repeats, rejected / repeats)


def _scores(families: Families, repeats: int, draw: np.random.Generator) -> Iterator[Any]:
    family = np.array(families.family)
    for _ in range(repeats):
        rate = np.full(families.n, families.p)
        if families.icc:
            rate = _beta(draw, np.full(family[-1] + 1, families.p), families.icc)[family]
        if families.item_icc:
            rate = _beta(draw, rate, families.item_icc)
        yield draw.binomial(families.samples, rate) / families.samples


def _beta(draw: np.random.Generator, mean: Any, icc: float) -> Any:
    mean = np.clip(mean, 1e-9, 1 - 1e-9)
    return draw.beta(mean * (1 - icc) / icc, (1 - mean) * (1 - icc) / icc)


def _pairs(pairs: Pairs, repeats: int, draw: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    family = np.array(pairs.family)
    rates = np.array([pairs.gained, pairs.lost, 1 - pairs.gained - pairs.lost])
    for _ in range(repeats):
        gained, lost = np.full(pairs.n, pairs.gained), np.full(pairs.n, pairs.lost)
        if pairs.icc:
            drawn = draw.dirichlet(np.maximum(rates, 1e-6) * (1 - pairs.icc) / pairs.icc, family[-1] + 1)[family]
            gained, lost = drawn[:, 0], drawn[:, 1]
        coin = draw.random(pairs.n)
        is_gained, is_lost = coin < gained, (coin >= gained) & (coin < gained + lost)
        yield is_lost.astype(float), is_gained.astype(float)


def _table(repeats: int) -> Iterator[dict[str, Any]]:
    for n in SIZES:
        yield _row("score, one sample", n, 1, 0.0, [wilson_coverage(n, p) for p in RATES])
    for n in SIZES:
        shares = [mean_coverage(Families(n, p, samples=4, item_icc=0.5), repeats) for p in RATES]
        yield _row("score, four samples", n, 1, 0.0, shares)
    for size in (5, 10):
        for n in SIZES:
            for icc in (0.0, 0.3, 0.7):
                shares = [mean_coverage(Families(n, p, size, icc), repeats) for p in RATES]
                yield _row("score, families", n, size, icc, shares)
    for size, iccs in ((1, (0.0,)), (10, (0.0, 0.3, 0.7))):
        for n in SIZES:
            for icc in iccs:
                shares = [paired_coverage(Pairs(n, *rates, size, icc), repeats).covered for rates in DISCORDANT]
                null = [paired_coverage(Pairs(n, p, p, size, icc), repeats, seed=1).rejected for p in (0.1, 0.3)]
                yield {**_row("difference", n, size, icc, shares), "rejected_nulls": max(null)}


def _row(what: str, n: int, size: int, icc: float, shares: Sequence[float]) -> dict[str, Any]:
    values = {"mean": np.mean(shares), "least": min(shares), "most": max(shares)}
    rounded = {name: round(float(value), 3) for name, value in values.items()}
    return {"interval": what, "n": n, "family_size": size, "icc": icc, **rounded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    rows = []
    for row in _table(options.repeats):
        rows.append(row)
        print(row, file=sys.stderr)
    if options.json:
        print(json.dumps({"repeats": options.repeats, "rows": rows}))
        return
    columns = list(rows[-1])
    print("| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", sep="\n")
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")


if __name__ == "__main__":
    main()
