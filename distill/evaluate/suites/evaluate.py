"""Several suites with one or several models: each engine starts once, and every model gets the same problems.

The answers go through ``distill.evaluate.run``, so what is stored is not generated again, and the scores are those of
``distill.evaluate.metrics``. Differences are between the last model and the one before it; their p-values are adjusted
over the suites (Holm, Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from distill.config.recipe import EvaluationSettings
from distill.evaluate.answers import AnswerStore
from distill.evaluate.metrics import EvalReport, summarise
from distill.evaluate.run import OneEngine, require_answers, run_model
from distill.evaluate.statistics import holm
from distill.evaluate.suites.suite import Suite
from distill.models.folder import base_path, read_base
from distill.runs.facts import Comparison, SideEffect
from distill.runs.stage import Reporter
from synth.decontaminate import Finder, Item
from synth.decontamination_recall import measure_recall
from synth.problems.problem import Prompt
from synth.teachers.config import TeacherConfig
from synth.verify.config import VerifyConfig
from synth.verify.verifier import Verifier

_HOSTS = 200  # training prompts in which copies are planted


@dataclass(frozen=True)
class SuiteResult:
    """One suite: its problems, the rows of ``run_model`` by model, scores and comparisons."""

    suite: Suite
    problems: Sequence[Prompt]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    report: EvalReport

    @property
    def comparison(self) -> Comparison | None:
        """The last model minus the one before it; None where there is one model."""
        return self.report.comparisons[-1] if self.report.comparisons else None


class SuiteQuestions:
    """The problems of ``suites`` and what models answered to them.

    ``limit``: at most so many problems of a suite, the same ones for all models (``subset`` with ``seed``). Raises what
    ``Suite.problems`` and ``run_model`` raise.
    """

    def __init__(self, suites: Sequence[Suite], seed: int, limit: int | None = None) -> None:
        self._suites = suites
        self._problems = {suite.name: suite.problems(limit, seed) for suite in suites}
        self._rows: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in self._problems}

    def ask(
        self,
        model: str,
        teacher: TeacherConfig,
        config: EvaluationSettings,
        verify: VerifyConfig,
        progress: Reporter,
        *,
        answers: AnswerStore | None = None,
        engine: OneEngine | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """Ask one model the problems of all suites; ``engine`` and ``verifier`` as of ``run_model``."""
        if not self._suites:
            return
        columns = {"template_thinks": True} if _thinks(teacher) else {}
        with OneEngine() if engine is None else nullcontext(engine) as one:
            by_template: dict[Any, list[Suite]] = {}
            for suite in self._suites:
                by_template.setdefault(suite.with_prompt_template(teacher).prompt_template, []).append(suite)
            answered = []
            for suites in by_template.values():
                templated = suites[0].with_prompt_template(teacher)
                of_all = [problem for suite in suites for problem in self._problems[suite.name]]
                prompts = [problem.model_copy(update=columns) for problem in of_all]
                answered += run_model(
                    model, templated, prompts, config, verify, progress,
                    answers=answers, engine=one, verifier=verifier, part=True,
                )  # fmt: skip
        require_answers(model, answered)
        for name, rows in self._rows.items():
            rows[model] = [row for row in answered if row["prompt_id"].startswith(f"{name}/")]

    def results(self) -> list[SuiteResult]:
        """One a suite, with the scores of all models that were asked, in that order, and the p-values adjusted over the
        suites."""
        reports = [summarise(self._rows[suite.name], self._problems[suite.name]) for suite in self._suites]
        adjusted = iter(holm([report.comparisons[-1].p for report in reports if report.comparisons]))
        results = []
        for suite, report in zip(self._suites, reports, strict=True):
            if report.comparisons:
                *others, last = report.comparisons
                last = last.model_copy(update={"p_adjusted": float(f"{next(adjusted):.6g}")})
                report = report.model_copy(update={"comparisons": (*others, last)})
            results.append(SuiteResult(suite, self._problems[suite.name], self._rows[suite.name], report))
        return results


def find_trained_on(
    suites: Mapping[str, Sequence[Prompt]], prompts: Iterable[str]
) -> tuple[dict[str, int], dict[str, float | None]]:
    """How many training ``prompts`` hold a problem of each suite (name -> problems); and the recall of planted copies.

    Equal prompts count once. A prompt counts for the suite of the problem that it overlaps with most. Memory: that of a
    ``Finder``, and 16 bytes a prompt.
    """
    items = [Item(name, problem.id, problem.question) for name, problems in suites.items() for problem in problems]
    finder, counts = Finder(items), Counter[str]()
    seen, hosts = set[bytes](), list[str]()
    for prompt in prompts:
        digest = hashlib.sha256(prompt.encode()).digest()[:16]
        if digest in seen:
            continue
        seen.add(digest)
        if len(hosts) < _HOSTS:
            hosts.append(prompt)
        if (match := finder.find(prompt)[0]) is not None:
            counts[match.item.set] += 1
    return {name: counts[name] for name in suites}, measure_recall(finder, hosts)["recall"]


def side_effects(results: Sequence[SuiteResult], trained_on: Mapping[str, int] | None = None) -> tuple[SideEffect, ...]:
    """Before and after, for the table of what got worse: of results with two models. ``trained_on`` as of
    ``find_trained_on``."""
    effects = []
    for result in results:
        before, after = result.report.scores[-2:]
        pair = result.comparison
        assert pair is not None, "two models are compared"
        named = {"suite": result.suite.name, "about": result.suite.about, "before": before, "after": after}
        named["trained_on"] = trained_on[result.suite.name] if trained_on is not None else None
        effects.append(SideEffect(**named, **pair.model_dump(), interval=result.report.interval))
    return tuple(effects)


def _thinks(teacher: TeacherConfig) -> bool:
    """Whether the model's template writes think blocks, which then are no fault of an answer. An endpoint's template is
    not known: engines that serve such models take the block out."""
    folder = base_path(teacher.model)
    return folder is None or read_base(folder).template_thinks
