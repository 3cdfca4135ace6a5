"""Stage sample: problems, and the teacher's answers to them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.train import OnPolicyConfig
from distill.runs.artefact import Artefact  # noqa: F401 - stages are decoded by their type hints
from distill.runs.facts import Facts, SampleFacts, TeacherShare
from distill.runs.stage import Stage, StageContext
from distill.runs.summary import write_progress
from distill.train.routes import require_routes
from licensing.errors import InputError, MissingDependency
from licensing.files import write_rows
from synth.distributed.config import EngineConfig, RayEngine
from synth.problems.config import ImportedTraces, PromptsConfig
from synth.problems.problem import Prompt
from synth.sampling.config import CascadePolicy, SampleConfig, TeacherSampling
from synth.sampling.samples_table import SELECTION
from synth.sampling.selection import SampleSummary, TeacherSummary
from synth.sampling.store import LOGPROBS, SAMPLE_LOG
from synth.teachers.build import slow_imports, take_accelerator
from synth.teachers.mixture import TeachersConfig, teacher_configs
from synth.teachers.router import TeacherRouter
from synth.verify.config import VerifyConfig

if TYPE_CHECKING:
    from synth.sampling.budget import BudgetTracker

_SAVE_SECONDS = 5.0  # between two states of its progress for `distill show`


@dataclass(frozen=True)
class Sample(Stage[SampleFacts]):
    """Problems, less the held-out ones and those that checkpoints are selected on, and which samples of the run's store
    are theirs.

    Writes problems.jsonl, selection.jsonl (``selection_problems`` of them), bad_rows.jsonl, samples.parquet and
    engines.jsonl (what each engine that answered settled on); with a policy that goes by verdicts,
    problem_stops.parquet. ``contents``: digests or revisions of what the problems are read from. ``verify``: by
    these rules gold answers are checked and samples verified while others are drawn; without such a policy they decide
    no sample, and are in no key. ``allow_missing_gold``: a majority vote gives the answers. Where ``on_policy`` has
    several teachers, problems that do not fit them (``require_routes``) are refused before a request is sent.
    """

    appends = (SAMPLE_LOG, LOGPROBS)
    keyed_if_set = frozenset({"selection_problems"})
    not_keyed = frozenset({"on_policy"})

    prompts: PromptsConfig | None
    held_out: PromptsConfig
    teacher: TeachersConfig
    engine: EngineConfig
    sample: SampleConfig
    contents: list[str | None]
    verify: VerifyConfig
    allow_missing_gold: bool
    selection_problems: int | None = None
    on_policy: OnPolicyConfig | None = None

    def keyed_fields(self) -> dict[str, Any]:
        return super().keyed_fields() | unkeyed_rules(self.sample)

    @property
    def takes_accelerator(self) -> bool:
        on_ray = isinstance(self.engine, RayEngine)  # its client prints on stdout, which is the driver's for results
        return on_ray or take_accelerator(teacher_configs(self.teacher))

    @property
    def interrupt_s(self) -> float:
        return getattr(self.sample, "drain_s", 0.0)

    def runs_again(self, facts: Facts) -> bool:
        """Where requests failed and the recipe asks for them again; not where a budget ended sampling: in a stage that
        runs again, its time starts at zero."""
        return isinstance(self.sample, TeacherSampling) and asks_again(self.sample, facts)

    @property
    def preload(self) -> tuple[str, ...]:
        kinds = (one.kind for one in teacher_configs(self.teacher))
        return () if isinstance(self.engine, RayEngine) else slow_imports(kinds)

    def run(self, ctx: StageContext) -> SampleFacts:
        from synth.distributed.open import open_router
        from synth.problems.problem import load_prompts
        from synth.problems.selection_split import selection_split
        from synth.sampling.imported_traces import import_traces, load_traces
        from synth.sampling.sample import ENGINES
        from synth.sampling.samples_table import write_problems
        from synth.verify.verifier import check_golds

        traces = None
        if isinstance(self.sample, ImportedTraces):
            on_bad_row = self.sample.on_bad_row
            teacher = teacher_configs(self.teacher)[0]
            traces = load_traces(self.sample, teacher, allow_missing_gold=self.allow_missing_gold)
            traces.check_models(teacher.public_id)
            prompts, bad_rows, duplicates, left_out = traces.prompts, traces.bad, traces.duplicates, traces.left_out
        else:
            assert self.prompts is not None, "the recipe's schema asks for prompts or traces"
            on_bad_row = self.prompts.on_bad_row
            problems = load_prompts(self.prompts, allow_missing_gold=self.allow_missing_gold)
            prompts, bad_rows, duplicates = problems.prompts, problems.bad, problems.duplicates
            left_out = problems.left_out
        held_out = {prompt.content_hash for prompt in load_prompts(self.held_out, section="evaluate.prompts").prompts}
        chosen = [prompt for prompt in prompts if prompt.content_hash not in held_out]
        bad = [{"where": row.where, "reason": row.reason} for row in bad_rows]
        if not chosen:
            raise InputError("every problem is held out", where="prompts", hint="choose other evaluate.prompts")
        if self.on_policy is not None:
            require_routes(self.on_policy.teachers, (prompt.trace_columns() for prompt in chosen))

        golds = [prompt for prompt in chosen if not (self.allow_missing_gold and prompt.lacks_gold)]
        wrong_golds = dict(check_golds(golds, VerifyConfig(code=self.verify.code, workers=self.verify.workers)))
        if wrong_golds and on_bad_row == "stop":
            first, reason = next(iter(wrong_golds.items()))
            raise InputError(
                f"the gold answer of problem {first} does not verify: {reason} ({len(wrong_golds)} such problems)",
                where="prompts",
                hint="correct the answers, or set on_bad_row to skip",
            )
        bad += [
            {"where": name, "reason": f"gold answer does not verify: {reason}"} for name, reason in wrong_golds.items()
        ]
        chosen = [prompt for prompt in chosen if prompt.id not in wrong_golds]
        if not chosen:
            raise InputError("no usable problem", where="prompts", hint="set on_bad_row: stop to see the reasons")
        held_out_problems = len(prompts) - len(chosen) - len(wrong_golds)

        if self.selection_problems is not None:
            selection = selection_split(chosen, self.selection_problems)
            write_rows(ctx.out / SELECTION, (prompt.row() for prompt in selection))
            taken = {prompt.id for prompt in selection}
            chosen = [prompt for prompt in chosen if prompt.id not in taken]
        write_problems(ctx.out, chosen)
        write_rows(ctx.out / "bad_rows.jsonl", bad)
        if isinstance(self.sample, TeacherSampling):
            summary = draw(
                ctx,
                chosen,
                self.teacher,
                lambda: open_router(self.engine, self.teacher, ctx.store / ENGINES, ctx.logs),
                self.sample,
                ctx.out,
                verify=self.verify,
            )
        else:
            assert traces is not None, "read above"
            summary = import_traces(traces, (prompt.id for prompt in chosen), ctx.out, ctx.store)
        ctx.requests.first, ctx.requests.last = summary.first_completed, summary.last_completed
        return SampleFacts(
            rows_in=len(chosen),
            rows_out=summary.rows,
            tokens=summary.completion_tokens,
            prompt_tokens=summary.prompt_tokens,
            problems=len(chosen),
            duplicate_problems=duplicates,
            held_out_problems=held_out_problems,
            bad_rows=len(bad),
            left_out=left_out,
            finish_reasons=summary.finish_reasons,
            engines=tuple(summary.engines),
            samples_digest=summary.samples_digest,
            teachers=self._shares(summary),
            stopped_by_budget=summary.stopped,
            awaited=summary.awaited or None,
            abandoned=summary.abandoned or None,
            problems_stopped=summary.problems_stopped,
            first_failure=summary.failure,
            other_models=tuple(sorted(summary.other_models)) or None,
            escalated=summary.escalated if getattr(self.sample, "escalate", None) else None,
            selection_problems=self.selection_problems,
        )

    def _shares(self, summary: SampleSummary) -> dict[str, TeacherShare] | None:
        teachers = teacher_configs(self.teacher)
        if len(teachers) == 1:
            return None
        shares: dict[str, TeacherShare] = {}
        for teacher in teachers:
            drawn = summary.teachers.get(teacher.public_id, TeacherSummary())
            share = TeacherShare(
                rows_out=drawn.rows,
                tokens=drawn.tokens,
                prompt_tokens=drawn.prompt_tokens,
                engines=tuple(sorted(drawn.engines)),
            )
            if isinstance(self.sample, TeacherSampling) and isinstance(self.sample.policy, CascadePolicy):
                share = share.model_copy(update={"problems": drawn.problems, "solved": drawn.solved})
            shares[teacher.public_id] = share
        return shares


def asks_again(sampling: TeacherSampling, facts: Facts) -> bool:
    """Whether a finished stage asks for its failed requests again, see ``Sample.runs_again``."""
    failed = isinstance(facts, SampleFacts) and "error" in facts.finish_reasons and not facts.stopped_by_budget
    return failed and sampling.retry_failed


def unkeyed_rules(sampling: SampleConfig) -> dict[str, None]:
    """The keyed fields of a stage that samples, where the rules of `verify` decide nothing there."""
    by_verdicts = isinstance(sampling, TeacherSampling) and sampling.goes_by_verdicts
    return {} if by_verdicts else {"verify": None}


def draw(
    ctx: StageContext,
    prompts: Sequence[Prompt],
    teacher: TeachersConfig,
    open_teachers: Callable[[], TeacherRouter],
    sampling: TeacherSampling,
    out: Path,
    *,
    verify: VerifyConfig,
    section: str = "sample",
) -> SampleSummary:
    """Draw what the policy asks for and the run's store does not hold yet; what it selects goes into the folder ``out``
    (``synth.sampling.sample``). ``section``: where the recipe has ``sampling``."""
    from synth.sampling.budget import BudgetTracker
    from synth.sampling.reuse import reuse_samples
    from synth.sampling.sample import ENGINES, sample
    from synth.verify.trace_verifier import TraceVerifier

    if sampling.reuse:
        reuse_samples(prompts, teacher, sampling, [Path(run) for run in sampling.reuse], ctx.store, ENGINES)
    escalation_tokens = sampling.escalate.tokens if sampling.escalate else None
    budget = BudgetTracker(sampling.budget, escalation_tokens=escalation_tokens, clock=ctx.scratch / "clock.json")
    started, saved = time.monotonic(), 0.0

    def progress(done: int, total: int, generated: int, failed: int) -> None:
        nonlocal saved
        now = time.monotonic()
        notes = [f"{generated / max(now - started, 1e-3):,.0f} tokens/s", budget.note()]
        notes.append(f"{failed:,} failed" if failed else "")
        if router.failure is not None:
            what = getattr(router.failure, "what", router.failure)
            notes.append(f"ends once the requests in flight are answered: {what}")
        ctx.progress(done, total, ", ".join(filter(None, notes)))
        if now - saved > _SAVE_SECONDS:
            saved = now
            write_progress(ctx.scratch, {"done": done, "total": total, "failed": failed, "note": budget.note()})

    with contextlib.ExitStack() as stack:
        verifier = stack.enter_context(TraceVerifier(verify, ctx.store, background=not sampling.goes_by_verdicts))
        router = stack.enter_context(contextlib.closing(open_teachers()))
        stack.enter_context(_drain_on_signal(budget, router))
        summary = sample(
            prompts, router, teacher, sampling, out, ctx.store, verifier=verifier, budget=budget, progress=progress
        )
    if budget.interrupted:  # after the last answer
        raise KeyboardInterrupt
    _check_failures(summary, sampling.max_failed_share, f"{section}.max_failed_share")
    return summary


@contextlib.contextmanager
def _drain_on_signal(budget: BudgetTracker, router: TeacherRouter) -> Iterator[None]:
    """With `drain_s`, the first SIGINT or SIGTERM in the block begins a drain, and a later SIGINT ends it. Where a
    teacher has failed, and its last answers are awaited already, the first one ends that.

    A batch system may signal each process of a job, and the driver of the run passes its own on: two within a second
    are one.
    """
    if not budget.budget.drain_s or threading.current_thread() is not threading.main_thread():
        yield
        return
    began: float | None = None

    def handle(number: int, _: object) -> None:
        nonlocal began
        ends = began is not None and number == signal.SIGINT and time.monotonic() - began > 1
        if ends or router.failure is not None:
            raise KeyboardInterrupt
        if began is None:
            began = time.monotonic()
            budget.interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_failures(summary: SampleSummary, largest_share: float, field: str) -> None:
    """Raise MissingDependency where more requests failed than the recipe accepts: the stage stays unfinished."""
    if summary.failed > largest_share * summary.rows:
        raise MissingDependency(
            f"{summary.failed:,} of {summary.rows:,} requests failed, the first: {summary.failure}",
            where=field,
            hint=f"run the same command to send them again, or raise {field} to go on without them",
        )
