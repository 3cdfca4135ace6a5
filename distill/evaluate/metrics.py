"""Scores and paired comparisons of models, from their answers to the same problems.

pass@1 is the mean over problems of the share of correct samples (avg@n); pass@k the unbiased estimate; maj@n the share
of problems whose most frequent answer is correct, a tie counting in part. All correct samples of a problem are one
answer, wrong ones are compared as they are written, so two writings of one wrong answer are two.

A failed request and a verdict `timeout` or `error` count as not correct: all models are scored on the same problems and
samples. (Pass rates of traces leave these out: ``synth.verify.verdict.judged``.)
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from distill.evaluate.families import families_of
from distill.evaluate.statistics import holm, mean_interval, paired_difference, pass_at_k
from distill.runs.facts import STUDENT, Comparison, Estimate, Score
from licensing.errors import InputError
from synth.problems.problem import Prompt

MIN_FAMILIES = 6
"""With fewer families their variance cannot be estimated, and no permutation of five signs is significant at 5 %: the
interval then holds for problems of these families."""

_REASONS = ("stop", "length", "error")

Row = Mapping[str, Any]


class EvalReport(BaseModel):
    """Scores in the order of the models given; comparisons of every other model with one of them."""

    model_config = ConfigDict(frozen=True)

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    interval: str


def summarise(
    rows_by_model: Mapping[str, Sequence[Row]], problems: Sequence[Prompt] = (), *, with_best: bool = False
) -> EvalReport:
    """Scores and paired comparisons from the rows of ``run_model``, all models on the same problems in the same order.

    Others are compared with the student after training, or with the last model where it is not there; ``with_best``:
    with the one of the highest score, of equal ones the first. ``problems`` say the families and which are programs;
    without them every problem is its own family. Problems without a verdict (kind ``open``) count for nothing but rates
    and lengths. Raises InputError where no problem has a verdict, ValueError where the models answered different
    problems.
    """
    answers = {name: _by_problem(rows) for name, rows in rows_by_model.items()}
    names = list(answers)
    ids = list(answers[names[0]])
    for name in names:
        if list(answers[name]) != ids:
            raise ValueError(f"{name} and {names[0]} were not asked the same problems in the same order")
    verified = [
        one for one in ids if all(row["verdict"] is not None for model in answers.values() for row in model[one])
    ]
    if not verified:
        raise InputError("no held-out problem has a verdict", where="evaluate.prompts", hint="use ones with answers")
    families = families_of(problems)
    clusters = [families.get(one, one) for one in verified]
    number = len(set(clusters))
    if number == len(verified) or number == 1:
        units = "problems"
    elif number < MIN_FAMILIES:
        units = f"problems of these {number} families, which are too few to stand for others"
    else:
        units = f"{number} families of problems"
    of = clusters if MIN_FAMILIES <= number < len(verified) else None
    votes = all(problem.kind != "code" for problem in problems)
    scores = [_score(name, rows, answers[name], verified, of, votes) for name, rows in rows_by_model.items()]
    reference = STUDENT if STUDENT in names else names[-1]
    if with_best:
        reference = max(scores, key=lambda score: score.value).model
    comparisons = compare({name: _correct(answers[name], verified) for name in names}, reference, of)
    interval = f"95 %, over {units}: Wilson's for scores, adjusted Wald for paired differences"
    return EvalReport(scores=tuple(scores), comparisons=tuple(comparisons), interval=interval)


# --- one model ---------------------------------------------------------------------------------------------------


def _by_problem(rows: Iterable[Row]) -> dict[str, list[Row]]:
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(row["prompt_id"], []).append(row)
    return problems


def _correct(answers: Mapping[str, Sequence[Row]], verified: Sequence[str]) -> list[float]:
    return [_share(row["verdict"] == "correct" for row in answers[one]) for one in verified]


def _score(
    name: str,
    rows: Sequence[Row],
    answers: Mapping[str, Sequence[Row]],
    verified: Sequence[str],
    clusters: Sequence[str] | None,
    votes: bool,
) -> Score:
    samples = len(answers[verified[0]])

    def estimate(values: Sequence[float], of: Sequence[str] | None = clusters) -> Estimate:
        low, high = mean_interval(values, of, samples=samples)
        return Estimate(value=_round(np.mean(values)), low=_round(low), high=_round(high))

    others = {}
    if samples > 1:
        right = [sum(row["verdict"] == "correct" for row in answers[one]) for one in verified]
        for k in sorted({2**power for power in range(1, samples.bit_length()) if 2**power <= samples} | {samples}):
            others[f"pass@{k}"] = estimate([pass_at_k(count, samples, k) for count in right])
        if votes:
            others[f"maj@{samples}"] = estimate([_majority(answers[one]) for one in verified])
    finished = {one: [row for row in answers[one] if row["finish_reason"] != "length"] for one in verified}
    finished_at = [at for at, one in enumerate(verified) if finished[one]]
    if finished_at and any(len(finished[one]) < len(answers[one]) for one in verified):
        values = _correct(finished, [verified[at] for at in finished_at])
        finished_clusters = [clusters[at] for at in finished_at] if clusters is not None else []
        of_finished = estimate(values, finished_clusters if len(set(finished_clusters)) > 1 else None)
        others["pass@1, finished"] = of_finished.model_copy(update={"n": len(finished_at)})
    shares = {reason: _round(_share(row["finish_reason"] == reason for row in rows)) for reason in _REASONS}
    return Score(
        model=name,
        **estimate(_correct(answers, verified)).model_dump(),
        n=len(verified),
        stop_rate=shares["stop"],
        truncated=shares["length"],
        errors=shares["error"],
        mean_tokens=_mean(rows, "completion_tokens"),
        engine=str(rows[0]["engine"]),
        dtype=rows[0].get("dtype"),
        num_samples=samples,
        clusters=len(set(clusters)) if clusters else None,
        mean_thinking_chars=_mean(rows, "thinking_chars"),
        mean_answer_chars=_mean(rows, "answer_chars"),
        other_metrics=others,
        sampling=rows[0].get("sampling") or {},
    )


def _majority(rows: Sequence[Row]) -> float:
    """The chance that the most frequent answer of a problem's samples is correct, ties broken at random."""
    counts: collections.Counter[str] = collections.Counter()
    right = 0
    for row in rows:
        if row["verdict"] == "correct":
            right += 1
        elif row["extracted"] is not None:
            counts[" ".join(str(row["extracted"]).casefold().split())] += 1
    most = max(counts.values(), default=0)
    if right == 0 or right < most:
        return 0.0
    return 1 / (1 + sum(count == right for count in counts.values()))


# --- two models --------------------------------------------------------------------------------------------------


def compare(correct: Mapping[str, Sequence[float]], b: str, clusters: Sequence[str] | None) -> list[Comparison]:
    """Model ``b`` minus each other one, on the same problems in the same order; Holm's correction is over them all.

    ``correct``: (problems,) item means of each model. ``clusters``: the family of each problem.
    """
    pairs = {a: paired_difference(correct[a], correct[b], clusters) for a in correct if a != b}
    adjusted = holm([pair.p for pair in pairs.values()])
    return [
        Comparison(
            a=a,
            b=b,
            difference=_round(pair.difference),
            low=_round(pair.low),
            high=_round(pair.high),
            p=_significant(pair.p),
            p_adjusted=_significant(p),
            test=pair.test,
            n=pair.n,
            clusters=pair.clusters,
            minimum_detectable_effect=_round(pair.minimum_detectable_effect),
            items_to_detect=pair.items_to_detect,
        )
        for (a, pair), p in zip(pairs.items(), adjusted, strict=True)
    ]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return _round(sum(values) / len(values)) if values else None


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values)


def _round(value: Any) -> float:
    return round(float(value), 6)


def _significant(p: float) -> float:
    return float(f"{p:.6g}")  # six decimals would make a small one 0
