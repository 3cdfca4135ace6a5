"""Stage evaluate: student before and after training, teacher and control on the same held-out problems."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.recipe import EvaluateConfig
from distill.models.folder import MODEL, check_same_template
from distill.runs.artefact import Artefact
from distill.runs.facts import FIRST_STUDENT, STUDENT, EvaluateFacts, ExportFacts, PrepareFacts
from distill.runs.stage import Stage, StageContext
from distill.runs.tables import TrainingTables
from licensing.files import write_json, write_rows
from synth.persona.config import PersonaConfig
from synth.problems.problem import conversation_text
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.build import slow_imports
from synth.teachers.config import TeacherConfig
from synth.teachers.mixture import TeachersConfig
from synth.verify.config import VerifyConfig

if TYPE_CHECKING:
    from distill.evaluate.answers import AnswerStore
    from distill.evaluate.run import OneEngine
    from synth.persona.probes import Probe

PROBES = "probes.jsonl"
BASE = "base"
"""The student before training under its base's own template, where the persona is not even in the system prompt."""


@dataclass(frozen=True)
class Evaluate(TrainingTables, Stage[EvaluateFacts]):
    """problems.jsonl, items.jsonl and scores.json: every model on the same problems, scored by the verifiers of the
    training data; probes.jsonl where there is a ``persona`` to ask about.

    Answers and verdicts go into ``ctx.store``/evaluation one by one (``distill.evaluate.answers``), so that a crash, or
    another evaluation of a model, repeats none of them. ``problems_content`` is the digest of the held-out problems,
    ``suites_content`` those of the suites; ``prompt_template`` the student's; ``first`` the student of the first round,
    where there is a second.
    """

    version = 4  # tests of programs that were never run no longer pass
    keyed_if_set = frozenset({"first"})
    takes_accelerator = True

    evaluate: EvaluateConfig
    prompt_template: PromptTemplate | None
    verify: VerifyConfig
    teacher: TeachersConfig
    problems_content: str | None
    suites_content: list[str | None]
    prepared: Artefact[PrepareFacts]
    weights: Artefact[ExportFacts]
    control: Artefact[ExportFacts] | None
    persona: PersonaConfig | None = None
    first: Artefact[ExportFacts] | None = None

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports([self.evaluate.engine])

    def run(self, ctx: StageContext) -> EvaluateFacts:
        from distill.evaluate.answers import AnswerStore
        from distill.evaluate.metrics import summarise
        from distill.evaluate.persona_probes import own_template, probe_facts
        from distill.evaluate.run import OneEngine, check_disjoint, folder_teacher, run_model, scored_teachers
        from distill.evaluate.suites.evaluate import SuiteQuestions, SuiteResult, find_trained_on, side_effects
        from distill.evaluate.suites.inspect_log import write_inspect_logs
        from distill.evaluate.suites.records import suite_records, write_records
        from distill.evaluate.suites.suite import Suite, find_suites
        from publish.chat_template import template_digest
        from synth.problems.problem import load_prompts
        from synth.verify.verifier import Verifier

        config, template = self.evaluate, self.prompt_template
        digest = template_digest((self.weights.path / MODEL / "chat_template.jinja").read_text(encoding="utf-8"))
        check_same_template(self.prepared.facts.template_digest, digest, "evaluate")
        problems = load_prompts(config.prompts, section="evaluate.prompts").prompts
        suites = SuiteQuestions(find_suites(config.suites), config.seed, config.suite_limit)
        for arm in ("train", "control") if self.control is not None else ("train",):
            with self.training_rows(ctx.store, arm) as rows:
                check_disjoint(rows, problems)
        models: dict[str, TeacherConfig] = {
            "student_before": folder_teacher(self.prepared.path / MODEL, config, template)
        }
        models["student_after"] = folder_teacher(self.weights.path / MODEL, config, template)
        models |= scored_teachers(config, self.teacher)
        if self.first is not None:
            models[FIRST_STUDENT] = folder_teacher(self.first.path / MODEL, config, template)
        if self.control is not None:
            models["student_control"] = folder_teacher(self.control.path / MODEL, config, template)
        probes = self._probes(ctx)
        answers: dict[str, list[dict[str, Any]]] = {}
        about_itself: dict[str, list[dict[str, Any]]] = {}
        with AnswerStore(ctx.store / "evaluation") as store, OneEngine() as engine, Verifier(self.verify) as verifier:
            shared: dict[str, Any] = {"answers": store, "engine": engine, "verifier": verifier}
            if self.persona:
                base = own_template(self.prepared.path / MODEL, ctx.scratch / BASE)
                about_itself[BASE] = self._ask_probes(BASE, base, probes, ctx, store, engine)
            for name, model in models.items():
                started = time.monotonic()
                answers[name] = run_model(name, model, problems, config, self.verify, ctx.progress, **shared)
                ctx.requests.seconds[name] = time.monotonic() - started
                if name in ("student_before", STUDENT):
                    suites.ask(name, model, config, self.verify, ctx.progress, **shared)
                    if self.persona:
                        folder = Path(model.model)
                        about_itself[name] = self._ask_probes(name, folder, probes, ctx, store, engine)
        results = suites.results()
        report = summarise(answers, problems)
        held_out = Suite("held-out", "the held-out problems of the recipe", config.prompts)
        every = [SuiteResult(held_out, problems, answers, report), *results]
        students = {name: model for name, model in models.items() if name.startswith("student")}
        for name, model in students.items():  # their folders have one name
            models[name] = model.model_copy(update={"name": name})
        shutil.rmtree(ctx.logs / "evaluation", ignore_errors=True)
        for _, _, evaluation in suite_records(every, config.settings, models):
            write_records(ctx.logs, evaluation)
        if config.inspect_log:
            write_inspect_logs(ctx.logs / "inspect", every, config.settings, models)
        write_rows(ctx.out / PROBLEMS, (problem.row() for problem in problems))
        write_rows(ctx.out / "items.jsonl", (row for model_rows in answers.values() for row in model_rows))
        for result in results:
            rows_of_both = (row for model_rows in result.rows.values() for row in model_rows)
            write_rows(ctx.out / f"{result.suite.name}.items.jsonl", rows_of_both)
        if self.persona:
            write_rows(ctx.out / PROBES, (row for model_rows in about_itself.values() for row in model_rows))
        trained_on, recall = None, None
        if results:
            with self.training_rows(ctx.store) as rows:
                problems_of = {result.suite.name: result.problems for result in results}
                trained_on, recall = find_trained_on(problems_of, map(_prompt_text, rows))
        effects = side_effects(results, trained_on)
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
            persona_probes=probe_facts(about_itself, STUDENT) if self.persona else None,
            side_effects=effects,
            planted_recall=recall,
        )

    def _probes(self, ctx: StageContext) -> list[Probe]:
        """The questions about the persona, but for those that a training row resembles."""
        from synth.persona.probes import resembling, select_probes

        if self.persona is None:
            return []
        probes = select_probes(self.persona, self.evaluate.persona_probes, languages=self.persona.spoken)
        with self.training_rows(ctx.store) as rows:
            trained_on = {probe for _, probe, _ in resembling(rows, probes)}
        return [probe for probe in probes if probe.id not in trained_on]

    def _ask_probes(
        self, name: str, folder: Path, probes: list[Probe], ctx: StageContext, store: AnswerStore, engine: OneEngine
    ) -> list[dict[str, Any]]:
        """What a model answers to them, greedily."""
        from distill.evaluate.persona_probes import ask_probes, probe_settings
        from distill.evaluate.run import folder_teacher

        assert self.persona is not None
        settings = probe_settings(self.evaluate)
        model = folder_teacher(folder, settings)
        return ask_probes(name, model, self.persona, probes, settings, ctx.progress, answers=store, engine=engine)


def _prompt_text(row: Mapping[str, Any]) -> str:
    """What a training row holds before the answer."""
    return conversation_text(row["messages"][:-1])
