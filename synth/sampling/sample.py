"""Bring the commit log to what the policy asks for: every sample of every problem that is not in it yet.

The log is the state (``synth/sampling/store.py`` says how a sample is committed), the policy says who is asked
(``synth/sampling/policy.py``), the loop keeps the teacher full (``synth/sampling/sampler.py``), the meter stops it
(``synth/sampling/budget.py``). **End**: when all is in, the log is rewritten in the order of problems and sample
indices and
renamed into place, so that runs with equal answers end in equal bytes. Killed at any moment and run again, with either
policy, it ends with the samples of a run left alone, unless a budget stopped it: how far that reaches depends on time.

Verdicts are not kept. A resumed adaptive run finds those of the rows in its log again, while the teacher goes on; a
row at the very edge of ``verify.timeout_s`` may get another verdict then.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.online_verification import OnlineVerifier
from synth.sampling.policy import Adaptive, Fixed, Outcome
from synth.sampling.requests import RequestPlan
from synth.sampling.sampler import TOKEN_IDS, Progress, Sampler, chosen
from synth.sampling.store import SampleStore, replace_lines, row_line
from synth.teachers.mixture import TeachersConfig
from synth.teachers.router import TeacherRouter, read_engine_info, write_engine_info
from synth.teachers.teacher import Teacher
from synth.verify.config import VerifyConfig
from synth.verify.verifier import Verifier

__all__ = ["ENGINES", "ESCALATED", "PROBLEMS", "Progress", "SampleSummary", "harvest", "sample"]

PROBLEMS = "problems.jsonl"
"""Written beside the log by the adaptive policy: one row a problem, in order: {"prompt_id", "samples", "correct",
"pass_rate", "stopped": "target" | "max_samples" | "suspect_gold" | "budget", "labels": ["suspect_gold"] or []}.
``pass_rate`` is the unbiased estimate of ``synth.sampling.policy.pass_rate_at_stop``, not correct / samples."""

ESCALATED = "escalated.jsonl"
"""Beside the log, in a recipe that escalates: the traces that were cut off, token ids and all, whether an escalation
stands for them now or its budget did not reach them. They were paid for; a changed recipe goes on from there."""

ENGINES = "engines.jsonl"
"""Beside the log: what each engine that answered settled on (``Teacher.engine_info``): name and
version, the
revision of its weights, its resolved configuration. Not there where no engine has anything to say."""


@dataclass(frozen=True)
class SampleSummary:
    """What the log holds at the end. Token sums leave out rows without a count.

    ``reused`` samples were there before; ``damaged`` lines could not be read and were asked for again. ``escalated``
    rows stand for a trace that was cut off. ``stopped`` names the limit of the budget that ended it, or is None.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int
    finish_reasons: dict[str, int]
    reused: int
    damaged: int
    escalated: int = 0
    stopped: str | None = None
    problems_stopped: dict[str, int] | None = None


def sample(
    prompts: Sequence[Prompt],
    teacher: Teacher | TeacherRouter,
    teacher_config: TeachersConfig,
    config: TeacherSampling,
    log: Path,
    *,
    verify: VerifyConfig | None = None,
    meter: BudgetTracker | None = None,
    progress: Progress | None = None,
) -> SampleSummary:
    """Ask until the policy is content or the budget spent, and put the log in order. The caller closes the teacher.

    A request that fails is a row with ``finish_reason`` "error" and its reason, and is not asked again here. Rows that
    this run does not want are left out at the end. ``verify`` is for the adaptive policy. ``meter`` is for a caller
    that wants to watch it; one that is given must have been made from the same config.

    Held in memory, of the samples: about 45 bytes each, no text; of the problems: 40 bytes each beside their prompts.

    Raises InputError where two problems ask the same; MissingDependency where the disk is full or a verifier is not
    installed, with everything so far kept; what the engine raises goes through.
    """
    whole = RequestPlan(prompts, teacher_config, config)
    policy = Adaptive(len(prompts), config.policy) if isinstance(config.policy, AdaptivePolicy) else None
    own = config.escalate.tokens if config.escalate is not None else None
    team = teacher if isinstance(teacher, TeacherRouter) else TeacherRouter([teacher])
    meter = meter or BudgetTracker(config.budget, escalation_tokens=own)
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(SampleStore(log))
        _take_back(rows, log.with_name(ESCALATED))
        grader = None
        if policy is not None:
            verify = verify or VerifyConfig()
            grader = OnlineVerifier(stack.enter_context(Verifier(verify)), whole, rows, verify.format)
        rounds = Sampler(whole, policy or Fixed(len(prompts), config.num_samples), team, rows, meter, grader, progress)
        rounds.run()
        given = policy.issued if policy is not None else lambda problem: config.num_samples
        summary = _finish(whole, rows, [given(problem) for problem in range(len(prompts))], rounds)
    if policy is None:
        return summary
    outcomes = [policy.outcome(problem) for problem in range(len(prompts))]
    replace_lines(log.with_name(PROBLEMS), (row_line(_label(*pair)) for pair in zip(prompts, outcomes, strict=True)))
    stopped = Counter(outcome.stopped for outcome in outcomes)
    return SampleSummary(**{**vars(summary), "problems_stopped": dict(sorted(stopped.items()))})


def _finish(whole: RequestPlan, rows: SampleStore, given: Sequence[int], rounds: Sampler) -> SampleSummary:
    """Put the log in order; cut traces that were escalated go into a file of their own."""
    reasons: Counter[str] = Counter()
    engines: set[tuple[str, str]] = set()
    tokens = prompt_tokens = escalated = 0

    def ordered() -> Iterator[bytes]:
        nonlocal tokens, prompt_tokens, escalated
        for problem, prompt in enumerate(whole.prompts):
            for index in range(given[problem]):
                place = chosen(whole, rows, (problem, index))
                if place is None:
                    continue  # the budget did not reach it
                row = rows.row(place)
                row.pop(TOKEN_IDS, None)
                # Ids and names may have changed since the row was written, without another question being asked.
                row.update(prompt_id=prompt.id, model=whole.teacher((problem, index)).public_id)
                engines.add((row["model"], row["engine"]))
                reasons[row["finish_reason"]] += 1
                tokens += rows.completion_tokens(place)
                prompt_tokens += rows.prompt_tokens(place)
                escalated += "escalated_from" in row
                yield row_line(row)

    def cut() -> Iterator[bytes]:
        for problem, count in enumerate(given):
            for index in range(count):
                first = rows.find(whole.request_id((problem, index)))
                if first is not None and rows.finish_reason(first) == "length":
                    yield row_line(rows.row(first))

    if whole.config.escalate is not None:
        replace_lines(rows.path.with_name(ESCALATED), cut())
    replace_lines(rows.path, ordered())
    known = read_engine_info(rows.path.with_name(ENGINES))
    if known:
        write_engine_info(
            rows.path.with_name(ENGINES), [row for row in known if (row["model"], row["engine"]) in engines]
        )
    return SampleSummary(
        rows=reasons.total(),
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        finish_reasons=dict(sorted(reasons.items())),
        reused=rounds.reused,
        damaged=rows.damaged,
        escalated=escalated,
        stopped=rounds.stopped,
    )


def _label(prompt: Prompt, outcome: Outcome) -> dict[str, object]:
    labels = ["suspect_gold"] if outcome.stopped == "suspect_gold" else []
    return {
        "prompt_id": prompt.id,
        "samples": outcome.samples,
        "correct": outcome.correct,
        "pass_rate": None if outcome.pass_rate is None else round(outcome.pass_rate, 6),
        "stopped": outcome.stopped,
        "labels": labels,
    }


def _take_back(rows: SampleStore, cut: Path) -> None:
    """Rows that the end of an earlier try had put aside, so that a kill right there loses none."""
    if cut.is_file():
        with SampleStore(cut, read_only=True) as aside:
            for place in range(len(aside)):
                row = aside.row(place)
                if row["request_id"] not in rows:
                    rows.append(row)


def harvest(log: Path, other_logs: Iterable[Path], wanted: Iterable[str]) -> int:
    """Copy rows whose id is ``wanted`` from other logs into ``log``; returns how many were new to it.

    This is how a run with a changed ``num_samples``, policy or budget asks only for what is new. Rows that failed are
    not taken: what made them fail may be the very thing that was changed. Reads each other log once for its index.
    """
    copied = 0
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(SampleStore(log))
        others = [
            stack.enter_context(SampleStore(other, read_only=True))
            for other in other_logs
            if other.is_file() and not other.samefile(log)
        ]
        for identity in wanted if others else ():
            if identity in rows:
                continue
            for other in others:
                place = other.find(identity)
                if place is not None and other.finish_reason(place) != "error":
                    rows.append(other.row(place))
                    copied += 1
                    break
    return copied
