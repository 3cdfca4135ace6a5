"""Stage evaluate: student before and after training, teacher and control on the same held-out problems."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from distill.config.recipe import EvaluateConfig
from distill.models.folder import MODEL, check_same_template
from distill.runs.artefact import Artefact
from distill.runs.facts import (
    CurateFacts,
    EvaluateFacts,
    ExportFacts,
    LabelFacts,
    PrepareFacts,
    SampleFacts,
    VerifyFacts,
)
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import open_training_rows
from licensing.files import write_json, write_rows
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.config import TeacherConfig
from synth.teachers.mixture import TeachersConfig
from synth.verify.config import VerifyConfig

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate(Stage[EvaluateFacts]):
    """problems.jsonl, items.jsonl and scores.json: every model on the same problems, scored by the verifiers of the
    training data.

    Answers and verdicts go into ``ctx.store``/evaluation one by one (``distill.evaluate.answers``), so that a crash, or
    another evaluation of a model, repeats none of them. ``problems_content`` is the digest of the held-out problems,
    ``suites_content`` those of the suites; ``prompt_template`` the student's.
    """

    version = 3
    not_keyed = frozenset({"samples", "verdicts", "labels"})  # ``data`` names the training rows

    evaluate: EvaluateConfig
    prompt_template: PromptTemplate | None
    verify: VerifyConfig
    teacher: TeachersConfig
    problems_content: str | None
    suites_content: list[str | None]
    prepared: Artefact[PrepareFacts]
    weights: Artefact[ExportFacts]
    control: Artefact[ExportFacts] | None
    samples: Artefact[SampleFacts]
    verdicts: Artefact[VerifyFacts]
    labels: Artefact[LabelFacts]
    data: Artefact[CurateFacts]

    @property
    def takes_accelerator(self) -> bool:
        return True

    def run(self, ctx: StageContext) -> EvaluateFacts:
        from distill.evaluate.answers import AnswerStore
        from distill.evaluate.metrics import summarise
        from distill.evaluate.run import check_disjoint, folder_teacher, run_model, scored_teachers
        from distill.evaluate.suites.evaluate import evaluate_suites, side_effects
        from distill.evaluate.suites.suite import find_suites
        from publish.chat_template import template_digest
        from synth.problems.problem import load_prompts

        config, template = self.evaluate, self.prompt_template
        digest = template_digest((self.weights.path / MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
        check_same_template(self.prepared.facts.template_digest, digest, "evaluate")
        problems = load_prompts(config.prompts).prompts
        suites = find_suites(config.suites)
        for arm in ("train", "control") if self.control is not None else ("train",):
            with open_training_rows(ctx.store, self.samples, self.verdicts, self.labels, self.data, arm) as rows:
                check_disjoint(rows, problems)
        models: dict[str, TeacherConfig] = {
            "student_before": folder_teacher(self.prepared.path / MODEL, config, template)
        }
        models["student_after"] = folder_teacher(self.weights.path / MODEL, config, template)
        models |= scored_teachers(config, self.teacher)
        if self.control is not None:
            models["student_control"] = folder_teacher(self.control.path / MODEL, config, template)
        answers: dict[str, list[dict[str, Any]]] = {}
        with AnswerStore(ctx.store / "evaluation") as store:
            for name, model in models.items():
                started = time.monotonic()
                answers[name] = run_model(name, model, problems, config, self.verify, ctx.progress, answers=store)
                ctx.requests.seconds[name] = time.monotonic() - started
            pair = {name: models[name] for name in ("student_before", "student_after")}
            results = evaluate_suites(
                suites, pair, config, self.verify, ctx.progress, answers=store, limit=config.suite_limit
            )
        report = summarise(answers, problems)
        write_rows(ctx.out / PROBLEMS, (problem.row() for problem in problems))
        write_rows(ctx.out / "items.jsonl", (row for model_rows in answers.values() for row in model_rows))
        for result in results:
            rows_of_both = (row for model_rows in result.rows.values() for row in model_rows)
            write_rows(ctx.out / f"{result.suite.name}.items.jsonl", rows_of_both)
        effects = side_effects(results)
        scores = {
            **report.model_dump(mode="json"),
            "side_effects": [effect.model_dump(mode="json") for effect in effects],
        }
        write_json(ctx.out / "scores.json", scores)
        return EvaluateFacts(
            rows_in=len(problems),
            rows_out=sum(len(model_rows) for model_rows in answers.values()),
            tokens=sum(row["completion_tokens"] or 0 for model_rows in answers.values() for row in model_rows),
            template_digest=digest,
            scores=report.scores,
            comparisons=report.comparisons,
            interval=report.interval,
            side_effects=effects,
        )
