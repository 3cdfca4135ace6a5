"""Stage verify: one row of verdicts for every sample."""

from __future__ import annotations

from dataclasses import dataclass

from distill.runs.artefact import Artefact
from distill.runs.facts import JudgeFacts, SampleFacts, SandboxFacts, VerifyFacts
from distill.runs.stage import Stage, StageContext
from synth.teachers.build import slow_imports, take_accelerator
from synth.teachers.config import TeacherConfig
from synth.verify.config import VerifyConfig


@dataclass(frozen=True)
class Verify(Stage[VerifyFacts]):
    """verdicts.parquet, and beside it what ``synth.verify.verify_traces`` lists. Verdicts that the run's store holds
    are not computed again."""

    version = 2  # tests that were never run no longer pass, and right programs with names of Python's no longer fail

    verify: VerifyConfig
    samples: Artefact[SampleFacts]

    @property
    def name(self) -> str:
        return f"verify{self.samples.round_suffix}"

    @property
    def judges(self) -> tuple[TeacherConfig, ...]:
        """The judge, where there is one."""
        return (self.verify.judge.teacher,) if self.verify.judge is not None else ()

    @property
    def takes_accelerator(self) -> bool:
        return take_accelerator(self.judges)

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports(judge.kind for judge in self.judges)

    def run(self, ctx: StageContext) -> VerifyFacts:
        from synth.sandbox.sandbox import select_runtime
        from synth.trace_set import TraceSet
        from synth.verify.verify_traces import verify_traces

        total = self.samples.facts.rows_out

        def progress(done: int, note: str) -> None:
            ctx.progress(done, total, note)

        with TraceSet(self.samples.path, ctx.store) as traces:
            summary = verify_traces(
                traces, self.verify, ctx.out, ctx.store, ctx.scratch, logs=ctx.logs, progress=progress
            )
        ctx.progress(summary.rows, total, f"{summary.verified:,} verified, {summary.reused:,} verified before")
        ctx.requests.first, ctx.requests.last = summary.judge_first, summary.judge_last
        programs = None
        if summary.programs:
            code = self.verify.code
            runtime = select_runtime(code.sandbox, code.packages)
            programs = SandboxFacts(
                runtime=runtime.name,
                programs=summary.programs,
                in_process=summary.in_process,
                packages=runtime.packages,
            )
        judge = JudgeFacts(**summary.judge) if summary.judge is not None else None
        return VerifyFacts(
            rows_in=total,
            rows_out=summary.rows,
            verdicts=summary.verdicts,
            tokens=judge.tokens if judge is not None else None,
            sandbox=programs,
            format=summary.format,
            majority=summary.majority,
            judge=judge,
            disagreements=summary.disagreements,
        )
