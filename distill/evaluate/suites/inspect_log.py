"""Results of ``distill eval`` and of a run as logs for ``inspect view`` of inspect-ai (https://inspect.aisi.org.uk).

DIR/SUITE_MODEL_ID.eval     one suite and model: every sample with its chat, answer and verdict, sampling values, scores

ID depends on the problems, the model's name, the settings and the answers: the same evaluation replaces its log, one of
changed weights does not. Thinking is a part of its own in an answer: ``output.completion``, which inspect's scorers
read, is the rest. Those scorers did not run: the scores are ours, with their intervals, and ``accuracy`` and ``stderr``
are not among them. All times are that of writing. Not covered: when samples were generated, events, log-probabilities.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.config.recipe import EvaluationSettings
from distill.evaluate.suites.evaluate import SuiteResult
from distill.evaluate.suites.records import model_id
from distill.runs.facts import Estimate, Score
from distill.runs.provenance import code_revision, device, installed_versions
from licensing.errors import MissingDependency
from licensing.files import write_lines
from publish.evaluation import path_component
from synth.problems.problem import Prompt, canonical_json
from synth.reasoning import split_reasoning
from synth.section import key_dump
from synth.teachers.config import TeacherConfig
from synth.teachers.teacher import teacher_messages

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

_STOP_REASONS = {"stop": "stop", "length": "max_tokens", "error": "unknown"}
_RATES = ("stop_rate", "truncated", "errors", "mean_tokens", "mean_thinking_chars", "mean_answer_chars")
_GENERATE = ("temperature", "top_p", "top_k", "presence_penalty")  # what inspect has no field for is in extra_body


def require_inspect(where: str) -> None:
    """Raise MissingDependency where inspect-ai is not installed: before anything is generated."""
    if find_spec("inspect_ai") is None:
        hint = "pip install 'distill-release[inspect]'"
        raise MissingDependency("inspect-ai is not installed", where=where, hint=hint)


def write_inspect_logs(
    folder: Path, results: Sequence[SuiteResult], config: EvaluationSettings, models: Mapping[str, TeacherConfig]
) -> list[Path]:
    """Write a log of each suite and model into ``folder``; arguments as of ``write_results``. Raises OSError."""
    from inspect_ai.log import write_eval_log

    folder.mkdir(parents=True, exist_ok=True)
    logs = []
    for result in results:
        for score in result.report.scores:
            model = models[score.model]
            problems = [problem.id for problem in result.problems]
            answers = [row["response"] for row in result.rows[score.model]]
            key = canonical_json([result.suite.name, problems, score.model, key_dump(config), answers])
            identity = hashlib.sha256(key.encode()).hexdigest()[:22]
            log = _log(result, score, config, result.suite.with_prompt_template(model), identity)
            name = "_".join(map(path_component, (result.suite.name, model_id(model), identity[:8])))
            with tempfile.TemporaryDirectory() as work:
                write_eval_log(log, Path(work) / "log.eval")
                write_lines(folder / f"{name}.eval", [(Path(work) / "log.eval").read_bytes()])
            logs.append(folder / f"{name}.eval")
    return logs


def _log(result: SuiteResult, score: Score, config: EvaluationSettings, model: TeacherConfig, identity: str) -> EvalLog:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig

    now = datetime.now(UTC).isoformat(timespec="seconds")
    suite, rows = result.suite, result.rows[score.model]
    code, others = code_revision(), dict(score.sampling)
    values = {name: others.pop(name) for name in _GENERATE if name in others}
    generate = GenerateConfig(max_tokens=config.max_new_tokens, seed=config.seed, extra_body=others or None, **values)
    estimates: dict[str, Score | Estimate] = {score.metric: score, **score.other_metrics}
    metrics = {
        name: EvalMetric(name=name, value=one.value, metadata={"low": one.low, "high": one.high})
        for name, one in estimates.items()
    }
    rates = {name: getattr(score, name) for name in _RATES}
    metrics |= {name: EvalMetric(name=name, value=value) for name, value in rates.items() if value is not None}
    problems = {problem.id: problem for problem in result.problems}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=now,
            eval_id=identity,
            run_id=identity,
            task_id=identity,
            task=suite.name,
            task_description=suite.about,
            dataset=EvalDataset(
                name=suite.name, location=suite.fetches, samples=len(problems), sample_ids=list(problems)
            ),
            model=model_id(model),
            model_generate_config=generate,
            model_args={"engine": score.engine, "dtype": score.dtype, "engine_args": config.engine_args},
            config=EvalConfig(epochs=score.num_samples, epochs_reducer=["mean"]),
            packages={"distill-release": code["version"], **installed_versions()},
            metadata={"code": code, "device": device(), "interval": result.report.interval},
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=sum(row["finish_reason"] != "error" for row in rows),
            scores=[EvalScore(name="verdict", scorer="synth.verify", reducer="mean", metrics=metrics)],
        ),
        stats=EvalStats(started_at=now, completed_at=now),
        samples=[_sample(problems[row["prompt_id"]], row, model) for row in rows],
    )


def _sample(problem: Prompt, row: Mapping[str, Any], model: TeacherConfig) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ContentReasoning, ContentText, ModelOutput, ModelUsage
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    parts = split_reasoning(row["response"], model.think_open, model.think_close)
    thinking = [] if parts.thinking is None else [ContentReasoning(reasoning=parts.thinking)]
    output = ModelOutput.from_content(
        model_id(model),
        [*thinking, ContentText(text=parts.answer)] if thinking else parts.answer,
        _STOP_REASONS[row["finish_reason"]],
        row["reason"] if row["finish_reason"] == "error" else None,
    )
    counts, usage = (row["prompt_tokens"], row["completion_tokens"]), {}
    if None not in counts:
        output.usage = ModelUsage(input_tokens=counts[0], output_tokens=counts[1], total_tokens=sum(counts))
        usage[model_id(model)] = output.usage
    scores = None
    if row["verdict"] is not None:
        scores = {
            "verdict": Score(
                value=CORRECT if row["verdict"] == "correct" else INCORRECT,
                answer=row["extracted"],
                explanation=row["reason"],
                metadata={"verdict": row["verdict"], "score": row["score"]},
            )
        }
    columns, answer = problem.row(), problem.answer
    choices = columns.get("choices")
    return EvalSample(
        id=problem.id,
        epoch=row["sample_index"] + 1,
        input=_chat(problem.messages),
        choices=list(map(str, choices)) if isinstance(choices, list) else None,
        target=list(map(str, answer)) if isinstance(answer, list) else "" if answer is None else str(answer),
        messages=[*_chat(teacher_messages(model, problem)), output.message],
        output=output,
        scores=scores,
        model_usage=usage,
        metadata={"problem": columns},
    )


def _chat(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as inspect reads them: a developer's is one of the system there."""
    roles = {"developer": "system"}
    return [
        {"role": roles.get(message["role"], message["role"]), "content": message.get("content") or ""}
        for message in messages
    ]
