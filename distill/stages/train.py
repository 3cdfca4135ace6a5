"""Stage train: the student, or the control student, on the selected rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distill.config.recipe import StudentConfig
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import CurateFacts, PrepareFacts, TrainFacts
from distill.runs.stage import Stage, StageContext

__all__ = ["Arm", "Train"]

Arm = Literal["student", "control"]
"""What is trained: the student on verified traces, or a control student on as many unverified ones."""


@dataclass(frozen=True)
class Train(Stage[TrainFacts]):
    """The trained weights or adapter in ``model/``; resumes from its checkpoints in ``ctx.scratch``."""

    student: StudentConfig
    arm: Arm
    prepared: Artefact[PrepareFacts]
    data: Artefact[CurateFacts]

    @property
    def name(self) -> str:
        return "train" if self.arm == "student" else "train_control"

    @property
    def takes_accelerator(self) -> bool:
        return True

    def run(self, ctx: StageContext) -> TrainFacts:
        from distill.train.sft import train_sft

        rows = self.data.path / ("train.jsonl" if self.arm == "student" else "control.jsonl")
        result = train_sft(self.student, self.prepared.path / MODEL, rows, ctx.out / MODEL, ctx.scratch, ctx.progress)
        return TrainFacts(**result.facts(), template_digest=self.prepared.facts.template_digest)
