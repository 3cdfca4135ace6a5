"""Stage logits: the student learns the teacher's distribution on the traces that the teacher wrote, after SFT."""

from __future__ import annotations

from dataclasses import dataclass

from distill.config.recipe import StudentConfig
from distill.config.train import LogitsConfig
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import LogitsFacts, LogprobsFacts, PrepareFacts, TrainFacts
from distill.runs.stage import Stage, StageContext
from distill.stages.logprobs import DISTILLKIT


@dataclass(frozen=True)
class Logits(Stage[LogitsFacts]):
    """The trained weights or adapter in ``model/``, as stage train leaves them; resumes from its checkpoints."""

    takes_accelerator = True
    preload = ("transformers.trainer", "peft", "trl")

    student: StudentConfig
    config: LogitsConfig
    prepared: Artefact[PrepareFacts]
    captured: Artefact[LogprobsFacts]
    trained: Artefact[TrainFacts]

    def run(self, ctx: StageContext) -> LogitsFacts:
        from distill.train.distillkit import DistillKitRows
        from distill.train.logits import train_logits

        captured = self.captured.facts
        result = train_logits(
            self.student,
            self.config,
            self.prepared.path / MODEL,
            self.trained.path / MODEL,
            DistillKitRows(self.captured.path / DISTILLKIT, captured.vocabulary, captured.logprobs),
            captured.logprobs,
            ctx.out / MODEL,
            ctx.scratch,
            ctx.progress,
            inputs_digest=self.key,
            metrics=ctx.logs / f"{self.name}.metrics.jsonl",
        )
        return LogitsFacts(
            **result.facts,
            rows_in=captured.rows_in,
            logprobs=captured.logprobs,
            template_digest=self.prepared.facts.template_digest,
        )
