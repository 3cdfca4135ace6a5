"""Stage train: the student, or the control student, on the selected rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.config.recipe import StudentConfig
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import PrepareFacts, TrainFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import TrainingTables
from distill.train.launch import in_rank, run_in_processes, several_processes

CHECKPOINTS = "checkpoints"

Arm = Literal["student", "control"]
"""What is trained: the student on verified traces, or a control student on as many unverified ones."""


@dataclass(frozen=True)
class Train(TrainingTables, Stage[TrainFacts]):
    """The trained weights or adapter in ``model/``; resumes from its checkpoints in ``ctx.scratch``.

    ``samples_to_train``: rows to train on in all, so that a control has the steps of the student that it controls;
    None: ``num_train_epochs`` passes. ``checkpoints``: so many, the end of training among them, remain for selection
    (``checkpoint_folders``).
    """

    version = 2
    keyed_if_set = frozenset({"checkpoints"})

    takes_accelerator = True

    student: StudentConfig
    arm: Arm
    prepared: Artefact[PrepareFacts]
    samples_to_train: int | None = None
    checkpoints: int | None = None

    @property
    def name(self) -> str:
        return f"train{self.samples.round_suffix}" if self.arm == "student" else "train_control"

    @property
    def preload(self) -> tuple[str, ...]:
        return ("torch",) if several_processes(self.student.parallel) else ("transformers.trainer", "peft")

    def run(self, ctx: StageContext) -> TrainFacts:
        if several_processes(self.student.parallel) and not in_rank():
            return run_in_processes(self, ctx, self.student.parallel)
        from distill.train.sft import Snapshots, train_sft

        arm = "train" if self.arm == "student" else "control"
        with self.training_rows(ctx.store, arm) as rows:
            training_rows = map(self.student.training_row, rows)
            result = train_sft(
                self.student,
                self.prepared.path / MODEL,
                training_rows,
                ctx.out / MODEL,
                ctx.scratch,
                ctx.progress,
                rows_digest=self.key,
                metrics=ctx.logs / f"{self.name}.metrics.jsonl",
                samples=self.samples_to_train,
                snapshots=None if self.checkpoints is None else Snapshots(self.checkpoints, ctx.out / CHECKPOINTS),
            )
        return TrainFacts(**result.facts, template_digest=self.prepared.facts.template_digest)


def checkpoint_folders(trained: Artefact[TrainFacts]) -> dict[int, Path]:
    """Optimiser step -> folder, as ``model/``, of each checkpoint that a training left; the end of training last."""
    folders = {int(folder.name): folder for folder in (trained.path / CHECKPOINTS).glob("*")}
    return dict(sorted(folders.items())) | {trained.facts.steps: trained.path / MODEL}
