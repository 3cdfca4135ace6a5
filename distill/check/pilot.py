"""What sampling will cost: bounds from the recipe alone, and a forecast from a pilot of a few problems."""

from __future__ import annotations

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.runs.keys import pinned_teacher
from licensing.errors import InputError
from synth.sampling.budget import Spend, price
from synth.sampling.config import AdaptiveBounds, AuxiliaryModel, BudgetConfig, CascadePolicy, TeacherSampling
from synth.sampling.store import SampleStore
from synth.teachers.logprobs import record_bytes
from synth.verify.config import JudgeConfig

_Z95 = 1.96


@dataclass(frozen=True)
class Forecast:
    """What the whole run would take, as the pilot went.

    ``tokens`` are generated ones, with a 95 % interval over problems (normal approximation; few problems make it
    rough, and it knows nothing of problems unlike those drawn). ``hours`` is at the pilot's speed after its first
    answer: a small pilot does not fill a large engine, so it is an upper bound there. ``money`` is None without a
    price. The recipe's budget is left out: it would cut the run off where it says. ``failed`` of the pilot's ``drawn``
    samples are failed requests, the first for the reason ``failure``. ``estimated``: an endpoint counted no tokens, and
    its texts count at a token a byte.
    """

    problems: int
    piloted: int
    samples: float
    tokens: float
    tokens_low: float
    tokens_high: float
    prompt_tokens: float
    hours: float
    money: float | None
    solved: float | None
    drawn: int
    failed: int
    failure: str | None
    estimated: bool

    def __str__(self) -> str:
        cost = "" if self.money is None else f", cost {self.money:,.2f}"
        share = "" if self.solved is None else f", {self.solved:.0%} of the problems solved"
        if self.estimated:
            share += "; the endpoint counts no tokens, so at a token a byte of text"
        if self.failed:
            share += f"; {self.failed:,} of {self.drawn:,} requests failed, the first: {self.failure}"
        return (
            f"pilot of {self.piloted} problems: {self.samples:,.0f} samples, {self.tokens:,.0f} teacher tokens "
            f"({self.tokens_low:,.0f} to {self.tokens_high:,.0f}), {self.hours:,.3g} hours{cost}{share}"
        )


def bounds(sampling: TeacherSampling, problems: int) -> str:
    """What a run takes at most, in one line, and the limits that its budget sets."""
    policy, most = sampling.policy, problems * sampling.most_samples
    tokens = most * sampling.max_new_tokens
    bounds_of = policy.steps[0] if isinstance(policy, CascadePolicy) else policy
    if isinstance(bounds_of, AdaptiveBounds):
        least = problems * min(bounds_of.first or bounds_of.target_correct, bounds_of.max_samples)
        samples = f"{least:,} to {most:,} samples"
    else:
        samples = f"{most:,} samples"
    parts = [f"{samples}, at most {tokens:,} teacher tokens"]
    if sampling.escalate is not None:
        own = most * sampling.escalate.max_new_tokens
        parts.append(f"escalations at most {min(own, sampling.escalate.tokens or own):,} tokens more")
    if sampling.budget is not None:
        limits = ("tokens", "hours", "gpu_hours", "money")
        set_ones = [f"{getattr(sampling.budget, name):,} {name}" for name in limits if getattr(sampling.budget, name)]
        if set_ones:
            parts.append(f"the budget stops it at {', '.join(set_ones)}")
        dearest = [sampling.budget.price_per_million_tokens]
        dearest += [own.per_million_tokens for own in sampling.budget.prices.values()]
        worst = tokens / 1e6 * max(dearest)
        if worst:
            parts.append(f"generated tokens cost at most {worst:,.2f}")
    return "; ".join(parts)


def text_bytes(sampling: TeacherSampling, problems: int) -> int:
    """The most that the store of a run takes on the disk: four bytes a token, as of English text, and one KiB a row."""
    return 4 * _most_tokens(sampling, problems) + 1024 * problems * sampling.most_samples


def logprobs_bytes(sampling: TeacherSampling, problems: int) -> int:
    """The most that log-probabilities take on the disk, in the store and once more for the selected traces."""
    if sampling.logprobs is None:
        return 0
    samples = problems * sampling.most_samples
    return 2 * record_bytes(sampling.logprobs, _most_tokens(sampling, problems), samples)


def _most_tokens(sampling: TeacherSampling, problems: int) -> int:
    tokens = problems * sampling.most_samples * sampling.max_new_tokens
    if sampling.budget is not None and sampling.budget.tokens is not None:
        tokens = min(tokens, sampling.budget.tokens)
    return tokens


def model_bounds(model: AuxiliaryModel, rows: int) -> str:
    """What a judge or rewriter takes at most for so many rows: each of them one question, and all different."""
    when = "asked about sentences that rules cannot rewrite; with one in every trace"
    if isinstance(model, JudgeConfig):
        when = f"asked where the rules say {' or '.join(model.when)}"
    return f"{when}: {bounds(model.sampling, rows).replace('samples', 'questions').replace('teacher', model.role)}"


def run_pilot(recipe: Recipe, count: int) -> Forecast:
    """Sample ``count`` of the recipe's problems for real, with its policy, in a folder that is then thrown away.

    The problems are those with the lowest content hashes, so they are spread over the set and the same each time.
    Raises InputError for a recipe that samples nothing, and whatever the teacher raises.
    """
    from synth.distributed.open import open_router
    from synth.parquet_files import read_parquet
    from synth.problems.problem import load_prompts
    from synth.sampling.sample import sample
    from synth.sampling.samples_table import PROBLEM_STOPS
    from synth.verify.trace_verifier import TraceVerifier

    sampling = recipe.sample
    if not isinstance(sampling, TeacherSampling) or recipe.prompts is None:
        raise InputError("imported traces need no pilot", where="--pilot", hint="leave --pilot out")
    held_out = load_prompts(recipe.evaluate.prompts, section="evaluate.prompts").prompts
    kept_out = {prompt.content_hash for prompt in held_out}
    whole = [
        prompt
        for prompt in load_prompts(recipe.prompts, allow_missing_gold=recipe.verify.majority is not None).prompts
        if prompt.content_hash not in kept_out
    ]
    chosen = sorted(whole, key=lambda prompt: prompt.content_hash)[:count]
    if not chosen:
        raise InputError("every problem is held out", where="prompts", hint="choose other evaluate.prompts")
    config = sampling.model_copy(update={"budget": None})
    budget = sampling.budget or BudgetConfig()
    teacher = pinned_teacher(recipe)
    router = open_router(recipe.engine, teacher)
    first: list[float] = []
    started = time.monotonic()

    def progress(done: int, total: int, generated: int, failed: int) -> None:
        if not first:
            first.extend((time.monotonic(), generated))

    with tempfile.TemporaryDirectory(prefix="distill-pilot-") as folder, contextlib.closing(router):
        out, store = Path(folder) / "sample", Path(folder) / "store"
        with contextlib.ExitStack() as stack:
            verifier = None
            if config.goes_by_verdicts:
                verifier = stack.enter_context(TraceVerifier(recipe.verify.rules(layout=True), store))
            summary = sample(chosen, router, teacher, config, out, store, verifier=verifier, progress=progress)
        ended = time.monotonic()
        per_problem, cost, estimated = _spent(out, store, config, budget)
        stops = list(read_parquet(out / PROBLEM_STOPS)) if verifier is not None else []
        solved_ids = {row["problem_id"] for row in stops if row["n_correct"] > 0}
        solved = len(solved_ids) / len(chosen) if verifier is not None else None
    spent = cost.tokens
    seconds = ended - started
    if first and spent > first[1]:  # without the start of the engine
        seconds = (ended - first[0]) * spent / (spent - first[1])
    scale = len(whole) / len(chosen)
    counts = [per_problem.get(prompt.id, 0) for prompt in chosen]
    margin = _Z95 * statistics.stdev(counts) / math.sqrt(len(counts)) * len(whole) if len(counts) > 1 else math.inf
    hours = seconds / 3600 * scale
    money = price(budget, replace(cost, money=cost.money * scale), hours)
    return Forecast(
        problems=len(whole),
        piloted=len(chosen),
        samples=summary.rows * scale,
        tokens=spent * scale,
        tokens_low=max(0.0, spent * scale - margin),
        tokens_high=spent * scale + margin,
        prompt_tokens=cost.prompt_tokens * scale,
        hours=hours,
        money=money or None,
        solved=solved,
        drawn=summary.rows,
        failed=summary.failed,
        failure=summary.failure,
        estimated=estimated,
    )


def _spent(
    out: Path, store: Path, sampling: TeacherSampling, budget: BudgetConfig
) -> tuple[dict[str, int], Spend, bool]:
    """Generated tokens by problem, what was spent in all, cut traces that were escalated included, and whether texts
    without a count were charged by their bytes."""
    from synth.parquet_files import read_parquet
    from synth.sampling.samples_table import SAMPLES

    generated: dict[str, int] = {}
    spend, estimated = Spend(), False
    most = sampling.escalate.max_new_tokens if sampling.escalate is not None else sampling.max_new_tokens
    with SampleStore(store, read_only=True) as samples:

        def add(row: Mapping[str, Any], problem_id: str, teacher: str) -> None:
            nonlocal estimated
            tokens = row["completion_tokens"]
            if tokens is None:
                size = len(samples.row(_row_id(samples, row["request_id"]))["text"].encode())
                tokens, estimated = min(most, size), estimated or size > 0
            generated[problem_id] = generated.get(problem_id, 0) + tokens
            spend.add(budget, tokens, row["prompt_tokens"] or 0, teacher=teacher)

        for row in read_parquet(out / SAMPLES):
            add(row, row["problem_id"], row["teacher"])
            if row["escalated"]:
                escalated = samples.row(_row_id(samples, row["request_id"]))
                if not escalated["continued"]:  # otherwise the tokens of the cut trace are in the longer one
                    cut = samples.row(_row_id(samples, escalated["escalated_from"]))
                    add(cut, row["problem_id"], row["teacher"])
    return generated, spend, estimated


def _row_id(samples: SampleStore, request_id: str) -> int:
    row_id = samples.find(request_id)
    assert row_id is not None, "a sample just drawn is in the store"
    return row_id
