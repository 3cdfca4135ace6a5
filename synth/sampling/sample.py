"""Draw every sample that the policy asks for and that the run's store does not hold yet.

The store is the state (``synth.sampling.store``), the policy decides how often a problem is asked
(``synth.sampling.policy``), the sampler keeps the teachers at capacity (``synth.sampling.sampler``), the budget stops
it (``synth.sampling.budget``). Killed at any moment and run again, with any policy, sampling ends with the rows and
the digest of a run left alone, and draws no sample twice; unless a budget stopped it: how far that reaches depends on
time. Another recipe in the same run draws only what is new. Requests that failed in an earlier call are sent again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synth.parquet_files import write_parquet
from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AdaptivePolicy, CascadePolicy, TeacherSampling
from synth.sampling.online_verification import OnlineVerification, SampleVerifier
from synth.sampling.policy import Adaptive, Cascade, Fixed, Outcome, Policy
from synth.sampling.requests import RequestPlan
from synth.sampling.sampler import Progress, Sampler
from synth.sampling.samples_table import PROBLEM_STOPS, problem_stops_schema
from synth.sampling.selection import SampleSummary, Selection, TeacherSummary, write_samples
from synth.sampling.store import SampleStore
from synth.teachers.mixture import TeachersConfig
from synth.teachers.router import TeacherRouter, read_engine_info, write_engine_info
from synth.teachers.teacher import Teacher

ENGINES = "engines.jsonl"
"""What each engine that answered settled on (``Teacher.engine_info``): name and version, the revision of
its weights, its resolved configuration. In the store, of every engine that ever ran for it; in the folder of a sample
stage, of those whose samples it lists. Not there where no engine has anything to say."""


def sample(
    prompts: Sequence[Prompt],
    teacher: Teacher | TeacherRouter,
    teacher_config: TeachersConfig,
    config: TeacherSampling,
    out: Path,
    store: Path,
    *,
    verifier: SampleVerifier | None = None,
    budget: BudgetTracker | None = None,
    progress: Progress | None = None,
) -> SampleSummary:
    """Sample until the policy is satisfied or the budget is spent; the caller closes the teacher.

    Texts go into the folder ``store``. Into the folder ``out`` go samples.parquet, engines.jsonl and, with a policy
    that goes by verdicts, problem_stops.parquet (``synth.sampling.samples_table``).

    Args:
        verifier: For the policies adaptive and cascade, which cannot do without. With the policy fixed it gives the
            verdicts that stage verify then finds in its store: as many as it can while samples are drawn.
        budget: For a caller that wants to watch it; has to be made from the same config.

    A request that fails is a row with ``finish_reason`` "error" and its reason.

    Held in memory, of the samples: about 45 bytes each, no text; of the problems: 40 bytes each beside their prompts.

    Raises InputError where two problems ask the same; MissingDependency where the disk is full or a verifier is not
    installed, with everything so far kept; what the engine raises goes through.
    """
    plan = RequestPlan(prompts, teacher_config, config)
    policy: Policy
    if config.goes_by_verdicts and verifier is None:
        raise ValueError(f"the policy {config.policy.kind} needs a verifier")
    # Nothing but a vote over all its samples can say what is right of a problem without a gold answer.
    without_gold = [number for number, prompt in enumerate(prompts) if prompt.lacks_gold]
    if isinstance(config.policy, AdaptivePolicy):
        policy = Adaptive(len(prompts), config.policy, without_gold)
    elif isinstance(config.policy, CascadePolicy):
        policy = Cascade(len(prompts), config.policy, without_gold)
    else:
        policy = Fixed(len(prompts), config.num_samples)
    escalation_tokens = config.escalate.tokens if config.escalate is not None else None
    router = teacher if isinstance(teacher, TeacherRouter) else TeacherRouter([teacher])
    budget = budget or BudgetTracker(config.budget, escalation_tokens=escalation_tokens)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        samples = stack.enter_context(SampleStore(store))
        verification: OnlineVerification | None = None
        if verifier is not None:
            online = OnlineVerification(verifier, plan, samples, required=config.goes_by_verdicts)
            verification = stack.enter_context(online)
        sampler = Sampler(plan, policy, router, samples, budget, verification, progress)
        sampler.run()
        summary = write_samples(out, _rows(plan, samples, policy))
        summary.reused, summary.stopped, summary.damaged = sampler.reused, sampler.stopped, samples.damaged
        if sampler.stopped is not None:
            summary.awaited, summary.abandoned = sampler.awaited, sampler.abandoned
    engines = read_engine_info(store / ENGINES)
    if engines:
        pairs = {(name, engine) for name, drawn in summary.teachers.items() for engine in drawn.engines}
        write_engine_info(out / ENGINES, [row for row in engines if (row["model"], row["engine"]) in pairs])
    if isinstance(policy, Adaptive):
        stops = [_stop(prompt, policy.outcome(problem)) for problem, prompt in enumerate(prompts)]
        write_parquet(out / PROBLEM_STOPS, problem_stops_schema(), stops)
        summary.problems_stopped = dict(sorted(Counter(row["stopped"] for row in stops).items()))
    elif isinstance(policy, Cascade):
        names = [member.public_id for member in plan.teachers]
        stops = [
            {**_stop(prompt, policy.outcome(problem, step)), "step": step, "teacher": names[step]}
            for problem, prompt in enumerate(prompts)
            for step in policy.teachers_of(problem)
        ]
        write_parquet(out / PROBLEM_STOPS, problem_stops_schema(cascade=True), stops)
        last = {row["problem_id"]: row["stopped"] for row in stops}
        summary.problems_stopped = dict(sorted(Counter(last.values()).items()))
        for row in stops:
            drawn = summary.teachers.setdefault(row["teacher"], TeacherSummary())
            drawn.problems += row["n_samples"] > 0
            drawn.solved += row["n_correct"] > 0
    return summary


def _rows(plan: RequestPlan, samples: SampleStore, policy: Policy) -> Iterator[dict[str, Any]]:
    """The selected samples, in the order of problems and sample indices, with their texts."""
    selection = Selection(plan, samples)
    for problem, prompt in enumerate(plan.prompts):
        for index in policy.issued(problem):
            slot = (problem, index)
            row_id = selection.selected(slot)
            if row_id is None:
                continue  # the budget did not reach it
            row, teacher = samples.row(row_id), plan.teacher(slot)
            yield {
                **row,
                "problem_id": prompt.id,
                "sample_index": index,
                "teacher": teacher.public_id,
                "reasoning_tokens": row.get("reasoning_tokens"),
                "think_open": teacher.think_open,
                "think_close": teacher.think_close,
                "escalated": row["request_id"] != plan.request_id(slot),
                "other_model": teacher.other_model((row.get("provenance") or {}).get("model")),
            }


def _stop(prompt: Prompt, outcome: Outcome) -> dict[str, Any]:
    """A row of problem_stops.parquet."""
    verifiable = prompt.kind != "open"  # of kind open, sampling looks at no more than whether a sample is finished
    estimate = outcome.pass_rate if verifiable else None
    return {
        "problem_id": prompt.id,
        "n_samples": outcome.samples,
        "n_judged": outcome.judged if verifiable else 0,
        "n_correct": outcome.correct if verifiable else 0,
        "estimate": None if estimate is None else round(estimate, 6),
        "stopped": outcome.stopped,
        "suspect_gold": outcome.stopped == "suspect_gold",
    }
