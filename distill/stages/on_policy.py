"""Stage on_policy: the student learns a teacher's distribution on its own answers, after what was trained before."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import StudentConfig
from distill.config.train import OnPolicyConfig
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import LogitsFacts, OnPolicyFacts, PrepareFacts, TrainFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import TrainingTables
from distill.train.routes import require_routes
from licensing.files import read_rows
from synth.sampling.samples_table import PROBLEMS


@dataclass(frozen=True)
class OnPolicy(TrainingTables, Stage[OnPolicyFacts]):
    """The trained weights or adapter in ``model/``, as stage train leaves them, and every answer of the student in
    rollouts.parquet; resumes from its checkpoints.

    The student answers the problems of the selected traces, each once in a pass: decontaminated ones. Rows about its
    persona and replayed answers are not among them: there the teacher would speak of itself. Teachers are pinned by
    their content; ``routes`` is the digest of which of several scores what.
    """

    keyed_if_set = frozenset({"logits", "routes"})
    name = "on_policy"
    takes_accelerator = True
    preload = ("transformers.trainer", "peft", "trl")

    student: StudentConfig
    config: OnPolicyConfig
    prepared: Artefact[PrepareFacts]
    trained: Artefact[TrainFacts]
    logits: Artefact[LogitsFacts] | None = None
    routes: str | None = None

    def run(self, ctx: StageContext) -> OnPolicyFacts:
        from distill.train.on_policy import train_on_policy
        from distill.train.rollouts import ROLLOUTS

        with self.training_rows(ctx.store, added=False) as rows:
            wrapped = map(self.student.training_row, rows)
            prompts = {row["prompt_id"]: row["messages"][:-1] for row in wrapped}
        result = train_on_policy(
            self.student,
            self.config,
            self.prepared.path / MODEL,
            (self.logits or self.trained).path / MODEL,
            prompts,
            ctx.out / MODEL,
            ctx.scratch,
            ctx.progress,
            inputs_digest=self.key,
            metrics=ctx.logs / f"{self.name}.metrics.jsonl",
            rollouts=ctx.out / ROLLOUTS,
            routes=require_routes(self.config.teachers, read_rows(self.samples.path / PROBLEMS)),
        )
        return OnPolicyFacts(
            **result.facts,
            teacher_revision=self.config.teacher.revision if self.config.teacher else None,
            template_digest=self.prepared.facts.template_digest,
        )
