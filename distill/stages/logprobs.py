"""Stage logprobs: the teacher's log-probabilities of the selected traces, in DistillKit's format."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import StudentConfig
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import LogprobsFacts, PrepareFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import TrainingTables
from licensing.files import write_rows

DISTILLKIT = "distillkit"
"""The folder inside the artefact that holds the data (``distill.train.distillkit``)."""
_OUTCOMES = "rows.jsonl"


@dataclass(frozen=True)
class Logprobs(TrainingTables, Stage[LogprobsFacts]):
    """``distillkit/`` (``distill.train.distillkit``), and rows.jsonl: what came of each selected trace.

    Rows about the persona and replayed answers are not among them: the teacher wrote neither. Where no trace can be
    written, the data are empty and the run goes on: a recipe without the field would have to sample anew.
    """

    student: StudentConfig
    logprobs: int
    prepared: Artefact[PrepareFacts]

    def run(self, ctx: StageContext) -> LogprobsFacts:
        from distill.train.distillkit import write_distillkit
        from synth.sampling.store import SampleStore
        from synth.teachers.logprobs import TokenLogprobs

        with (
            SampleStore(ctx.store, read_only=True) as store,
            self.training_rows(ctx.store, added=False) as rows,
        ):

            def read(request_id: str) -> TokenLogprobs | None:
                row_id = store.find(request_id)
                record = None if row_id is None else store.logprobs(store.row(row_id))
                return None if record is None else TokenLogprobs.of_record(record)

            export, outcomes = write_distillkit(
                map(self.student.training_row, rows),
                read,
                self.prepared.path / MODEL,
                self.logprobs,
                self.student.max_length,
                ctx.out / DISTILLKIT,
                ctx.progress,
            )
        write_rows(ctx.out / _OUTCOMES, outcomes)
        return LogprobsFacts(
            rows_in=len(outcomes),
            rows_out=export.rows,
            tokens=export.tokens,
            logprobs=self.logprobs,
            vocabulary=export.vocabulary,
            left_out=dict(export.left_out.most_common()) or None,
        )
