"""Results of ``distill eval`` as files: scores, every answer, and records of Every Eval Ever with their samples.

DIR/scores.json                      scores and comparisons of each suite, settings, versions
DIR/SUITE.items.jsonl                the rows of ``run_model``, all models
DIR/evaluation/data/SUITE/.../*.json  one record a model and suite, and its samples

A run writes the same records without samples, which its stage has, and lm-eval's tasks have a record each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from distill.config.recipe import EvaluationSettings
from distill.evaluate.suites.evaluate import SuiteResult
from distill.runs.facts import Score
from distill.runs.provenance import code_revision, device, installed_versions
from licensing.files import write_json, write_rows, write_text
from publish import facts as card
from publish.evaluation import EvaluatedItem, EvaluationRun, evaluation_files
from synth.section import key_dump
from synth.teachers.config import OpenAITeacher, TeacherConfig


def write_results(
    folder: Path, results: Sequence[SuiteResult], config: EvaluationSettings, models: Mapping[str, TeacherConfig]
) -> list[Path]:
    """Write all files below ``folder``; returns the records. Files of suites that are not among ``results`` stay."""
    for result in results:
        write_rows(folder / f"{result.suite.name}.items.jsonl", (row for rows in result.rows.values() for row in rows))
    records = []
    for result, score, evaluation in suite_records(results, config, models):
        records += write_records(folder, evaluation, _items(result, score.model))
    write_json(
        folder / "scores.json",
        {
            "suites": {result.suite.name: result.report.model_dump(mode="json") for result in results},
            "settings": key_dump(config),
            "models": {name: model_id(teacher) for name, teacher in models.items()},
            "versions": installed_versions(),
            "code": code_revision(),
            "device": device(),
        },
    )
    return records


def suite_records(
    results: Sequence[SuiteResult], config: EvaluationSettings, models: Mapping[str, TeacherConfig]
) -> Iterator[tuple[SuiteResult, Score, card.EvaluationFacts]]:
    """What the record of each suite and model says; arguments as of ``write_results``."""
    for result in results:
        for score in result.report.scores:
            yield result, score, _facts(result, score, config, models[score.model])


def write_records(
    folder: Path,
    evaluation: card.EvaluationFacts,
    items: Sequence[EvaluatedItem] = (),
    *,
    library: str = "distill-release",
) -> list[Path]:
    """Write an evaluation's records below ``folder``/evaluation, with the samples ``items``, and return their paths.
    ``library``: the installed package that scored."""
    code = code_revision()
    versions = {**installed_versions(), "distill-release": code["version"]}
    if library not in versions:
        versions[library] = version(library)
    run = EvaluationRun(
        name="distill eval", library=library, versions=versions, code_revision=code["revision"], evaluation=evaluation
    )
    records = []
    for path, text in evaluation_files(run, items).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / path, text)
        records += [folder / path] if path.endswith(".json") else []
    return records


def _facts(result: SuiteResult, score: Score, config: EvaluationSettings, model: TeacherConfig) -> card.EvaluationFacts:
    served = isinstance(model, OpenAITeacher) and model.is_public
    score_and_others = score.on_card(score.model, role="model", id=model_id(model), served=served)
    sampling = score.sampling  # with `sampling: model` each model's own
    return card.EvaluationFacts(
        benchmark=result.suite.name,
        dataset=result.suite.fetches,
        n=score.n,
        decoding="greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}",
        sampling=sampling | config.model_dump(include={"max_new_tokens", "num_samples", "seed"}),
        scores=score_and_others[:1],
        other_scores=score_and_others[1:],
        interval=result.report.interval,
    )


def _items(result: SuiteResult, model: str) -> list[EvaluatedItem]:
    """Every answer of a model."""
    problems = {problem.id: problem.row() for problem in result.problems}
    return [
        EvaluatedItem(
            problem=problems[row["prompt_id"]],
            **{name: row[name] for name in EvaluatedItem.model_fields if name in row},
        )
        for row in result.rows[model]
    ]


def model_id(model: TeacherConfig) -> str:
    """What records call a model: its public id, and of a folder of this machine its name, never its path."""
    public: str = model.public_id
    return Path(public).resolve().name if Path(public).is_dir() else public
