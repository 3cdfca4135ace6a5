"""How often the intervals of ``distill.evaluate.statistics`` hold the truth, and how often a true null is rejected.

    python tests/bench/interval_coverage.py [--json] [--repeats N]

Scores: one sample a problem is exact, from the binomial distribution. Otherwise each family draws its rate from the
Beta distribution with mean p and intra-class correlation ICC, each problem of several samples its own from another Beta
around it with `item_icc`, and the samples are coins. Differences: a sample is gained, lost or neither with rates that
each family draws from a Dirichlet distribution, so that the differences have the ICC, and each problem of several
samples from another one around it. Nominal coverage is 0.95.

A binomial of few expected successes has few outcomes, and no interval covers it in 0.93 to 0.97: at n = 50, p = 0.005
zero successes alone have probability 0.78. So the table has the mean over p beside the smallest and largest, and beside
these two the nearest to 0.95 that an interval attains there which goes by the score alone (``attainable_coverage``). A
score covered in less than 0.93 is simulated anew with eight times the repeats, since the least of many is low by
chance. At n = 50 families are of 5: with fewer than six families no interval over families is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import scipy  # scipy.stats is loaded where it is used: half a second of every worker of the tests

from distill.evaluate.statistics import LEVEL, mean_interval, paired_difference

SIZES = (50, 150, 500)
FAMILIES = ((50, 5), (150, 5), (500, 5), (150, 10), (500, 10))  # problems, and problems of a family
LARGEST = ((50, 5), (150, 10), (500, 10))
ICCS = (0.0, 0.3, 0.7)
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
    """``n`` problems in families of ``size``, each with ``samples``; the true difference is ``gained`` minus ``lost``,
    the ICC that of the differences."""

    n: int
    gained: float
    lost: float
    size: int = 1
    icc: float = 0.0
    samples: int = 1
    item_icc: float = 0.0

    def __str__(self) -> str:
        families = f"size={self.size} icc={self.icc} samples={self.samples}"
        return f"n={self.n} gained={self.gained} lost={self.lost} {families}"

    @property
    def family(self) -> list[int]:
        return [at // self.size for at in range(self.n)]


@dataclass(frozen=True)
class Outcome:
    """Shares of the repeats: the interval held the true difference; p was below 0.05."""

    covered: float
    rejected: float


def wilson_coverage(n: int, p: float) -> float:
    """Exact coverage of Wilson's interval, which ``mean_interval`` is for one sample a problem."""
    covered = [low <= p <= high for low, high in _wilson(n)]
    return float(scipy.stats.binom.pmf(np.arange(n + 1), n, p)[covered].sum())


def attainable_coverage(probabilities: Any) -> float:
    """The nearest to 0.95 that an interval attains which holds the truth for successive values of the measured score or
    difference. ``probabilities``: of these values, in order."""
    below = np.append(0.0, np.cumsum(probabilities))
    sums = (below[None, :] - below[:, None])[np.triu_indices(len(below), 1)]
    return float(sums[np.abs(sums - LEVEL).argmin()])


def _attainable(measured: Iterable[float]) -> float:
    counts = np.unique(np.round([*measured], 9), return_counts=True)[1]
    return attainable_coverage(counts / counts.sum())


def _of_binomial(cell: Families) -> float:
    return attainable_coverage(scipy.stats.binom.pmf(np.arange(cell.n + 1), cell.n, cell.p))


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval as scipy has it, for ``successes`` of ``n`` trials."""
    interval = scipy.stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


@cache
def _wilson(n: int) -> list[tuple[float, float]]:
    return [wilson_interval(successes, n) for successes in range(n + 1)]


def mean_coverage(families: Families, repeats: int, seed: int = 0, *, ignore_families: bool = False) -> float:
    """Coverage of ``mean_interval``; ``ignore_families``: as if all problems were independent."""
    clusters = families.family if families.size > 1 and not ignore_families else None
    covered = 0
    for items in _scores(families, repeats, np.random.default_rng(seed)):
        low, high = mean_interval(items, clusters, samples=families.samples)
        covered += low <= families.p <= high
    return covered / repeats


def pass_coverage(families: Families, repeats: int, seed: int = 0) -> float:
    """Coverage of the interval of pass@k, k all ``samples`` of a problem, of problems without families."""
    concentration = (1 - families.item_icc) / families.item_icc
    wrong = (1 - families.p) * concentration
    truth = 1 - float(np.prod([(wrong + at) / (concentration + at) for at in range(families.samples)]))
    covered = 0
    for items in _scores(families, repeats, np.random.default_rng(seed)):
        low, high = mean_interval((items > 0).astype(float), samples=families.samples)
        covered += low <= truth <= high
    return covered / repeats


def paired_coverage(pairs: Pairs, repeats: int, seed: int = 0) -> Outcome:
    """Coverage and rejections of ``paired_difference``."""
    clusters = pairs.family if pairs.size > 1 else None
    covered = rejected = 0
    for before, after in _pairs(pairs, repeats, np.random.default_rng(seed)):
        result = paired_difference(before, after, clusters)
        covered += result.low <= pairs.gained - pairs.lost <= result.high
        rejected += result.p < 0.05
    return Outcome(covered / repeats, rejected / repeats)


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
        drawn = np.tile(rates, (pairs.n, 1))
        if pairs.icc:
            drawn = _dirichlet(draw, np.tile(rates, (family[-1] + 1, 1)), pairs.icc)[family]
        if pairs.item_icc:
            drawn = _dirichlet(draw, drawn, pairs.item_icc)
        counts = draw.multinomial(pairs.samples, drawn) / pairs.samples
        yield counts[:, 1], counts[:, 0]


def _dirichlet(draw: np.random.Generator, mean: Any, icc: float) -> Any:
    gammas = draw.standard_gamma(np.maximum(mean, 1e-6) * (1 - icc) / icc)
    return gammas / gammas.sum(axis=1, keepdims=True)


def _table(repeats: int) -> Iterator[dict[str, Any]]:
    one: dict[str, Any] = {}
    several: dict[str, Any] = {"samples": 4, "item_icc": 0.5}

    def coverage_of(coverage: Callable[..., float], cell: Families) -> float:
        share = coverage(cell, repeats)
        return share if share >= 0.93 else coverage(cell, 8 * repeats, seed=1)

    def drawn(draws: Callable[..., Iterator[Any]], cell: Any) -> Iterator[Any]:
        return draws(cell, repeats, np.random.default_rng(0))  # of its first simulation

    def of_score(cell: Families) -> float:
        return _attainable(items.mean() for items in drawn(_scores, cell))

    def of_pass(cell: Families) -> float:
        return _attainable((items > 0).mean() for items in drawn(_scores, cell))

    def of_difference(cell: Pairs) -> float:
        return _attainable((after - before).mean() for before, after in drawn(_pairs, cell))

    for n in SIZES:
        cells = [Families(n, p) for p in RATES]
        yield _row("score, one sample", cells, [wilson_coverage(n, p) for p in RATES], _of_binomial)
    for n in SIZES:
        cells = [Families(n, p, **several) for p in RATES]
        yield _row("score, four samples", cells, [coverage_of(mean_coverage, cell) for cell in cells], of_score)
    for n in SIZES:
        cells = [Families(n, p, **several) for p in RATES]
        yield _row("pass@4", cells, [coverage_of(pass_coverage, cell) for cell in cells], of_pass)
    for what, sizes, samples in (("", FAMILIES, one), (", four samples", LARGEST, several)):
        for (n, size), icc in product(sizes, ICCS):
            cells = [Families(n, p, size, icc, **samples) for p in RATES]
            yield _row(f"score, families{what}", cells, [coverage_of(mean_coverage, cell) for cell in cells], of_score)
    for what, samples in (("", one), (", four samples", several)):
        for n, size, icc in [(n, 1, 0.0) for n in SIZES] + [
            (n, size, icc) for (n, size), icc in product(LARGEST, ICCS)
        ]:
            pairs = [Pairs(n, *rates, size, icc, **samples) for rates in DISCORDANT]
            shares = [paired_coverage(pair, repeats).covered for pair in pairs]
            equal = [Pairs(n, p, p, size, icc, **samples) for p in (0.1, 0.3)]
            null = [paired_coverage(pair, repeats, seed=1).rejected for pair in equal]
            yield {**_row(f"difference{what}", pairs, shares, of_difference), "rejected_nulls": max(null)}


def _row(
    what: str, cells: Sequence[Any], shares: Sequence[float], attainable: Callable[[Any], float]
) -> dict[str, Any]:
    """``shares``: the coverage of each cell; ``attainable``: see ``attainable_coverage``, of one of them."""
    least, most = int(np.argmin(shares)), int(np.argmax(shares))
    values: dict[str, Any] = {
        "mean": np.mean(shares),
        "least": shares[least],
        "attainable_there": attainable(cells[least]),
        "most": shares[most],
        "attainable_at_most": attainable(cells[most]),
    }
    rounded = {name: round(float(value), 3) for name, value in values.items()}
    return {"interval": what, "n": cells[0].n, "family_size": cells[0].size, "icc": cells[0].icc, **rounded}


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
