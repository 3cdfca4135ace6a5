"""Stage sample_2: the second round begins with the answers of the first round's student to the training problems."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluationSettings
from distill.models.folder import MODEL
from distill.runs.artefact import SECOND_ROUND, Artefact
from distill.runs.facts import FIRST_STUDENT, ExportFacts, Facts, SampleFacts, TeacherShare
from distill.runs.stage import Stage, StageContext
from distill.stages.sample import asks_again, draw, unkeyed_rules
from licensing.files import link_or_copy, read_rows
from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.config import TeacherSampling
from synth.sampling.samples_table import PROBLEM_STOPS, PROBLEMS, SAMPLES
from synth.sampling.store import SAMPLE_LOG
from synth.teachers.build import build_teacher, slow_imports
from synth.teachers.config import content_revision
from synth.teachers.router import TeacherRouter, read_engine_info, write_engine_info
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig


@dataclass(frozen=True)
class SampleStudent(Stage[SampleFacts]):
    """The files of stage sample, with the student's samples behind the teacher's of the same problem.

    No request of the first round is sent again. The id of a student's request holds the digest of its exported folder,
    and no path. ``settings``: the engine, as that of evaluation. ``verify``: as of stage sample.
    """

    appends = (SAMPLE_LOG,)
    name = f"sample{SECOND_ROUND}"
    takes_accelerator = True

    settings: EvaluationSettings
    prompt_template: PromptTemplate | None
    sample: TeacherSampling
    verify: VerifyConfig
    samples: Artefact[SampleFacts]
    weights: Artefact[ExportFacts]

    def keyed_fields(self) -> dict[str, Any]:
        return super().keyed_fields() | unkeyed_rules(self.sample)

    @property
    def interrupt_s(self) -> float:
        return self.sample.drain_s

    def runs_again(self, facts: Facts) -> bool:
        """As stage sample, where requests to the student failed."""
        if not isinstance(facts, SampleFacts):
            return False
        both, of_teacher = (one.finish_reasons.get("error", 0) for one in (facts, self.samples.facts))
        return both > of_teacher and asks_again(self.sample, facts)

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports([self.settings.engine])

    def run(self, ctx: StageContext) -> SampleFacts:
        from distill.evaluate.run import folder_teacher
        from synth.sampling.sample import ENGINES
        from synth.sampling.selection import write_samples

        first = self.samples.path
        revision = content_revision(self.weights.digest)
        engine = folder_teacher(self.weights.path / MODEL, self.settings, self.prompt_template).model_copy(
            update={"name": FIRST_STUDENT, "revision": revision}
        )
        student = engine.model_copy(update={"model": FIRST_STUDENT})  # the path is none of its identity
        drawn = draw(
            ctx,
            [_problem(row) for row in read_rows(first / PROBLEMS)],
            student,
            lambda: TeacherRouter([build_teacher(engine, ctx.logs)], engine_info=ctx.store / ENGINES),
            self.sample,
            ctx.scratch,
            verify=self.verify,
            section="train.student_sample",
        )
        for name in (PROBLEMS, PROBLEM_STOPS):
            if (first / name).exists():
                link_or_copy(first / name, ctx.out / name)
        with TraceSet(first, ctx.store) as traces:
            summary = write_samples(ctx.out, _joined(traces, ctx.scratch))
        own = [row for row in read_engine_info(ctx.scratch / ENGINES) if row["revision"] == revision]
        if engines := [*read_engine_info(first / ENGINES), *own]:
            write_engine_info(ctx.out / ENGINES, engines)
        ctx.requests.first, ctx.requests.last = drawn.first_completed, drawn.last_completed
        share = TeacherShare(
            rows_out=drawn.rows,
            tokens=drawn.completion_tokens,
            prompt_tokens=drawn.prompt_tokens,
            engines=tuple(drawn.engines),
        )
        return self.samples.facts.model_copy(
            update={
                "rows_out": summary.rows,
                "tokens": summary.completion_tokens,
                "prompt_tokens": summary.prompt_tokens,
                "finish_reasons": summary.finish_reasons,
                "engines": tuple(summary.engines),
                "samples_digest": summary.samples_digest,
                "first_failure": summary.failure,
                "escalated": summary.escalated or self.samples.facts.escalated,
                "stopped_by_budget": drawn.stopped,
                "awaited": drawn.awaited or None,
                "abandoned": drawn.abandoned or None,
                "student": share,
                **dict.fromkeys(("teachers", "problems_stopped", "other_models")),  # the first round says that
            }
        )


def _problem(row: dict[str, Any]) -> Prompt:
    """The problem of a row of problems.jsonl, which has the user's own columns apart."""
    columns = row | row.get("extra", {})
    columns.pop("extra", None)
    return Prompt.model_validate(columns, context={"allow_missing_gold": True})


def _joined(traces: TraceSet, student: Path) -> Iterator[dict[str, Any]]:
    """The rows of both folders with their texts, problem by problem; the indices of the student's samples follow those
    of the teacher's. ``traces``: those of the first round; ``student``: the folder with the student's samples."""
    places = {problem_id: place for place, problem_id in enumerate(traces.problems)}
    tables = (read_parquet(folder / SAMPLES) for folder in (traces.folder, student))
    both = heapq.merge(*tables, key=lambda row: places[row["problem_id"]])  # it is stable
    for _, rows in itertools.groupby(both, key=lambda row: row["problem_id"]):
        offset = 0
        for row in rows:
            if row["teacher"] == FIRST_STUDENT:
                row["sample_index"] += offset
            else:
                offset = row["sample_index"] + 1
            yield row | {"text": traces.trace(row).text}
