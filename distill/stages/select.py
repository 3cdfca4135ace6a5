"""Stage select: which checkpoint ships, by its score on problems that are neither trained on nor held out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.config.recipe import EvaluationSettings
from distill.config.train import Rule
from distill.models.folder import MODEL
from distill.runs.artefact import Artefact
from distill.runs.facts import PrepareFacts, SampleFacts, SelectFacts, TrainFacts
from distill.runs.stage import Stage, StageContext
from distill.stages.train import Arm, checkpoint_folders
from licensing.files import read_rows, write_json, write_rows
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.samples_table import SELECTION
from synth.teachers.build import slow_imports
from synth.verify.config import VerifyConfig

if TYPE_CHECKING:
    from distill.evaluate.metrics import EvalReport


@dataclass(frozen=True)
class Select(Stage[SelectFacts]):
    """items.jsonl and scores.json: each checkpoint, exported as it would ship, on the selection problems.

    The held-out problems are not read. ``settings`` are those of the evaluation; ``sampling`` is that of stage export.
    Answers are stored as stage evaluate stores them, so a crash repeats none.
    """

    takes_accelerator = True

    arm: Arm
    rule: Rule
    settings: EvaluationSettings
    sampling: dict[str, Any] | None
    prompt_template: PromptTemplate | None
    verify: VerifyConfig
    prepared: Artefact[PrepareFacts]
    samples: Artefact[SampleFacts]
    trained: Artefact[TrainFacts]

    @property
    def name(self) -> str:
        return f"select{self.trained.round_suffix}" if self.arm == "student" else "select_control"

    @property
    def preload(self) -> tuple[str, ...]:
        return ("torch", "transformers", "peft", *slow_imports([self.settings.engine]))

    def run(self, ctx: StageContext) -> SelectFacts:
        from distill.evaluate.answers import AnswerStore
        from distill.evaluate.metrics import summarise
        from distill.evaluate.run import folder_teacher, run_model
        from publish.export import export_folder
        from synth.problems.problem import Prompt
        from synth.verify.verifier import Verifier

        problems = [Prompt.model_validate(row) for row in read_rows(self.samples.path / SELECTION)]
        answers: dict[str, list[dict[str, Any]]] = {}
        steps = checkpoint_folders(self.trained)
        with AnswerStore(ctx.store / "evaluation") as store, Verifier(self.verify) as verifier:
            for step, trained in steps.items():
                name, folder = f"step {step}", ctx.scratch / str(step)
                shutil.rmtree(folder, ignore_errors=True)
                export_folder(self.prepared.path / MODEL, trained, folder, sampling=self.sampling)
                model = folder_teacher(folder, self.settings, self.prompt_template)
                answers[name] = run_model(
                    name, model, problems, self.settings, self.verify, ctx.progress, answers=store, verifier=verifier
                )
                shutil.rmtree(folder)
        report = summarise(answers, problems, with_best=True)
        chosen = chosen_by(self.rule, report)
        write_rows(ctx.out / "items.jsonl", (row for rows in answers.values() for row in rows))
        facts = SelectFacts(
            rows_in=len(problems),
            rows_out=sum(map(len, answers.values())),
            tokens=sum(row["completion_tokens"] or 0 for rows in answers.values() for row in rows),
            rule=self.rule,
            step=dict(zip(answers, steps, strict=True))[chosen],
            steps=tuple(steps),
            scores=report.scores,
            comparisons=report.comparisons,
            interval=report.interval,
        )
        write_json(ctx.out / "scores.json", facts.as_json())
        return facts


def chosen_by(rule: Rule, report: EvalReport) -> str:
    """The model that ``rule`` chooses. ``report``: scores in the order of training, comparisons with the best of
    them; a difference may be chance where its interval contains 0."""
    if rule == "last":
        return report.scores[-1].model
    worse = {one.a for one in report.comparisons if rule == "best" or one.low > 0}
    return next(score.model for score in report.scores if score.model not in worse)
