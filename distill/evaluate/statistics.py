"""Scores and paired comparisons of models on the same problems.

Intervals: percentile bootstrap over problems, 95 %, all models on the same resamples, so that differences are paired
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16). ``p`` is the exact two-sided McNemar
test on problems that one model solves and the other does not (McNemar, Psychometrika 12, 1947). One sample a problem:
pass@1 is the mean over problems. Where a model solves none or all, its interval has no width: read it beside ``n``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, ConfigDict

from distill.config.recipe import EvaluateConfig
from distill.runs.facts import Comparison, Score
from licensing.errors import InputError, MissingDependency

__all__ = ["STUDENT", "EvalReport", "summarise"]

STUDENT = "student_after"
_CHUNK = 2**22  # resampled items in memory at once
_REASONS = ("stop", "length", "error")


class EvalReport(BaseModel):
    """Scores in the order of the models given; comparisons of every other model with the student after training."""

    model_config = ConfigDict(frozen=True)

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    interval: str


def summarise(rows_by_model: Mapping[str, Sequence[Mapping[str, Any]]], config: EvaluateConfig) -> EvalReport:
    """Scores and paired comparisons from the rows of ``run_model``, all models on the same problems in the same order.

    Problems without a verdict (kind ``open``) count for nothing but the stop rate. Raises InputError where no problem
    has a verdict, ValueError where the models answered different problems.
    """
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise MissingDependency("evaluation needs numpy", hint="pip install numpy") from error

    names = list(rows_by_model)
    ids = [row["prompt_id"] for row in rows_by_model[names[0]]]
    for name in names:
        if [row["prompt_id"] for row in rows_by_model[name]] != ids:
            raise ValueError(f"{name} and {names[0]} were not asked the same problems in the same order")
    counted = [at for at in range(len(ids)) if all(rows[at]["verdict"] is not None for rows in rows_by_model.values())]
    if not counted:
        raise InputError("no held-out problem has a verdict", where="evaluate.prompts", hint="use ones with answers")
    # (models, problems), 1.0 where the answer is correct
    correct = np.array([[float(rows[at]["verdict"] == "correct") for at in counted] for rows in rows_by_model.values()])
    means = _resampled_means(correct, config.bootstrap_samples, config.seed)
    scores = []
    for name, solved, resampled in zip(names, correct, means, strict=True):
        low, high = np.percentile(resampled, (2.5, 97.5))
        rows = rows_by_model[name]
        tokens = [row["completion_tokens"] for row in rows if row["completion_tokens"] is not None]
        shares = {reason: sum(row["finish_reason"] == reason for row in rows) / len(rows) for reason in _REASONS}
        scores.append(
            Score(
                model=name,
                value=_round(solved.mean()),
                low=_round(low),
                high=_round(high),
                n=len(counted),
                stop_rate=_round(shares["stop"]),
                truncated=_round(shares["length"]),
                errors=_round(shares["error"]),
                mean_tokens=_round(sum(tokens) / len(tokens)) if tokens else None,
                engine=str(rows[0]["engine"]),
            )
        )
    b = names.index(STUDENT) if STUDENT in names else len(names) - 1
    comparisons = []
    for a in (at for at in range(len(names)) if at != b):
        low, high = np.percentile(means[b] - means[a], (2.5, 97.5))
        gained = int(((correct[b] == 1) & (correct[a] == 0)).sum())
        lost = int(((correct[a] == 1) & (correct[b] == 0)).sum())
        comparisons.append(
            Comparison(
                a=names[a],
                b=names[b],
                difference=_round((correct[b] - correct[a]).mean()),
                low=_round(low),
                high=_round(high),
                p=float(f"{_mcnemar(gained, lost):.6g}"),  # six decimals would print a small one as 0
            )
        )
    interval = f"paired percentile bootstrap over problems, 95 %, {config.bootstrap_samples} resamples"
    return EvalReport(scores=tuple(scores), comparisons=tuple(comparisons), interval=interval)


def _resampled_means(correct: Any, samples: int, seed: int) -> Any:
    """(models, problems) -> (models, samples): the mean of each model over the same resampled problems."""
    import numpy as np

    draw = np.random.default_rng(seed)
    problems = correct.shape[1]
    at_once = max(1, _CHUNK // problems)
    parts = []
    for start in range(0, samples, at_once):
        picked = draw.integers(0, problems, (min(at_once, samples - start), problems))
        parts.append(np.stack([solved[picked].mean(axis=1) for solved in correct]))
    return np.concatenate(parts, axis=1)


def _mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact probability of a split at least this uneven, were both models equally good."""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2.0 * float(Fraction(tail, 2**n)))


def _round(value: float) -> float:
    return round(float(value), 6)
