"""Base, student, teacher and control on the same held-out problems, with paired intervals.

Every model answers through the engine that would serve it (``synth.teachers.teacher``) and is scored by the
verifiers that
chose the training data (``synth.verify.verifier``). The student is asked the bare problem, under its own template's
system
prompt; the teacher keeps its system prompt and worked examples.

Intervals: percentile bootstrap over problems, 95 %, all models on the same resamples, so that differences are paired
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16). ``p`` is the exact two-sided McNemar
test on problems that one model solves and the other does not (McNemar, Psychometrika 12, 1947). One sample a problem:
pass@1 is the mean over problems. Where a model solves none or all, its interval has no width: read it beside ``n``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from distill.config.recipe import EvaluateConfig
from distill.runs.store import Reporter
from licensing.errors import InputError, MissingDependency, Refused
from synth.problems.problem import Prompt, canonical_json
from synth.teachers.build import build_teacher
from synth.teachers.config import AutoTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.mixture import TeachersConfig, members_of
from synth.teachers.teacher import Completion, Request, teacher_messages
from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows

__all__ = [
    "Comparison",
    "EvalReport",
    "Score",
    "check_disjoint",
    "folder_teacher",
    "run_model",
    "scored_teachers",
    "summarise",
]

STUDENT = "student_after"
_CHUNK = 2**22  # resampled items held at once


class Score(BaseModel):
    """One model. ``stop_rate``, ``truncated`` and ``errors`` are shares of the ``n`` answers, in 0..1: ended on a stop
    token by itself, cut at max_new_tokens, not answered. ``mean_tokens`` counts generated tokens."""

    model_config = ConfigDict(frozen=True)

    model: str
    metric: str = "pass@1"
    value: float
    low: float
    high: float
    n: int
    stop_rate: float
    truncated: float
    errors: float
    mean_tokens: float | None
    engine: str


class Comparison(BaseModel):
    """``difference`` is the value of ``b`` minus that of ``a`` on the same problems."""

    model_config = ConfigDict(frozen=True)

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float


class EvalReport(BaseModel):
    """Scores in the order of the models given; comparisons of every other model with the student after training."""

    model_config = ConfigDict(frozen=True)

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    interval: str


def check_disjoint(train_rows: Iterable[Mapping[str, Any]], prompts: Iterable[Prompt]) -> None:
    """Raise Refused where a held-out problem was trained on: same messages, up to Unicode form and white space.

    Not covered: near duplicates, and the same question under another system prompt.
    """
    held_out = {prompt.content_hash: prompt.id for prompt in prompts}
    found: dict[str, str] = {}
    for row in train_rows:
        asked = list(row["messages"])
        while asked and asked[-1]["role"] == "assistant":
            asked.pop()
        trained = Prompt(id=str(row["id"]), messages=tuple(asked), kind="open", source="training rows")
        if trained.content_hash in held_out:
            found.setdefault(held_out[trained.content_hash], str(row["id"]))
    if found:
        first, row_id = next(iter(found.items()))
        raise Refused(
            f"{len(found)} held-out problems are in the training set: {first} is training row {row_id}, for one",
            where="evaluate.prompts",
            hint="set other held-out problems, or take these out of the prompts",
        )


def folder_teacher(folder: Path, config: EvaluateConfig) -> TeacherConfig:
    """A model folder as something that can be asked, with the engine that the recipe's evaluate section names."""
    values: dict[str, Any] = {"model": str(folder)}
    if config.engine == "vllm":
        return VllmTeacher.model_validate(values | {"engine_args": config.engine_args})
    if config.engine == "transformers":
        return TransformersTeacher.model_validate(values | {"batch_size": config.batch_size})
    return AutoTeacher.model_validate(values | {"batch_size": config.batch_size, "engine_args": config.engine_args})


def scored_teachers(config: EvaluateConfig, teacher: TeachersConfig) -> dict[str, TeacherConfig]:
    """The teachers to score, by the name of their rows: "teacher", and of several "teacher NAME"."""
    members = members_of(teacher)
    chosen = [member for member in members if config.teacher in (True, member.public_id)]
    return {"teacher" if len(members) == 1 else f"teacher {one.public_id}": one for one in chosen}


def run_model(
    name: str,
    teacher_config: TeacherConfig,
    prompts: Sequence[Prompt],
    config: EvaluateConfig,
    verify: VerifyConfig,
    progress: Reporter,
) -> list[dict[str, Any]]:
    """Ask one model every problem once and verify the answers; rows in the order of ``prompts``, without times.

    A row: model, prompt_id, response, finish_reason, verdict, score, extracted, reason, prompt_tokens,
    completion_tokens, engine. A request that the engine refuses is a row with verdict "error", which counts as wrong.
    Raises what the engine raises at its start; Refused where it answered nothing at all.
    """
    if not prompts:
        raise InputError("there is no held-out problem", where="evaluate.prompts", hint="set evaluate.prompts")
    requests = [_request(prompt, teacher_config, config) for prompt in prompts]
    teacher = build_teacher(teacher_config)
    answers: dict[str, Completion] = {}
    waiting = iter(requests)
    owed = len(requests)
    try:
        while len(answers) < owed:
            while teacher.capacity > 0 and (request := next(waiting, None)) is not None:
                teacher.submit(request)
            finished = teacher.poll()
            if not finished:
                raise RuntimeError(f"{teacher.engine} went idle with {owed - len(answers)} answers owed")
            answers.update((completion.request_id, completion) for completion in finished)
            progress(len(answers), owed, name)
        engine = teacher.engine
    finally:
        teacher.close()
    ordered = [answers[request.request_id] for request in requests]
    if all(answer.finish_reason == "error" for answer in ordered):
        why = f"{name} answered nothing: {ordered[0].error}"
        raise Refused(why, where="evaluate", hint="look at evaluate.engine_args")
    asked = [
        {**prompt.row(), "response": answer.text}
        for prompt, answer in zip(prompts, ordered, strict=True)
        if answer.finish_reason != "error"
    ]
    verdicts = verify_rows(asked, verify)
    rows = []
    for prompt, answer in zip(prompts, ordered, strict=True):
        if answer.finish_reason == "error":
            verdict: Mapping[str, Any] = {"verdict": "error", "score": 0.0, "extracted": None, "reason": answer.error}
        else:
            verdict = next(verdicts)
        rows.append(
            {
                "model": name,
                "prompt_id": prompt.id,
                "response": answer.text,
                "finish_reason": answer.finish_reason,
                **{key: verdict[key] for key in ("verdict", "score", "extracted", "reason")},
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "engine": engine,
            }
        )
    for _ in verdicts:  # lets the verifier's workers go
        raise RuntimeError("the verifier returned more rows than it was given")
    return rows


def summarise(rows_by_model: Mapping[str, Sequence[Mapping[str, Any]]], config: EvaluateConfig) -> EvalReport:
    """Scores and paired comparisons from the rows of ``run_model``, all models on the same problems in the same order.

    Problems without a verdict (kind ``open``) count for nothing but the stop rate. Raises InputError where no problem
    has a verdict, ValueError where the models answered different problems.
    """
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise MissingDependency("evaluation needs numpy", hint="pip install numpy") from error

    names = list(rows_by_model)
    ids = [row["prompt_id"] for row in rows_by_model[names[0]]]
    for name in names:
        if [row["prompt_id"] for row in rows_by_model[name]] != ids:
            raise ValueError(f"{name} and {names[0]} were not asked the same problems in the same order")
    counted = [at for at in range(len(ids)) if all(rows[at]["verdict"] is not None for rows in rows_by_model.values())]
    if not counted:
        raise InputError("no held-out problem has a verdict", where="evaluate.prompts", hint="use ones with answers")
    # (models, problems), 1.0 where the answer is correct
    correct = np.array([[float(rows[at]["verdict"] == "correct") for at in counted] for rows in rows_by_model.values()])
    means = _resampled_means(correct, config.bootstrap_samples, config.seed)
    scores = []
    for name, solved, resampled in zip(names, correct, means, strict=True):
        low, high = np.percentile(resampled, (2.5, 97.5))
        rows = rows_by_model[name]
        tokens = [row["completion_tokens"] for row in rows if row["completion_tokens"] is not None]
        shares = {reason: sum(row["finish_reason"] == reason for row in rows) / len(rows) for reason in _REASONS}
        scores.append(
            Score(
                model=name,
                value=_round(solved.mean()),
                low=_round(low),
                high=_round(high),
                n=len(counted),
                stop_rate=_round(shares["stop"]),
                truncated=_round(shares["length"]),
                errors=_round(shares["error"]),
                mean_tokens=_round(sum(tokens) / len(tokens)) if tokens else None,
                engine=str(rows[0]["engine"]),
            )
        )
    b = names.index(STUDENT) if STUDENT in names else len(names) - 1
    comparisons = []
    for a in (at for at in range(len(names)) if at != b):
        low, high = np.percentile(means[b] - means[a], (2.5, 97.5))
        gained = int(((correct[b] == 1) & (correct[a] == 0)).sum())
        lost = int(((correct[a] == 1) & (correct[b] == 0)).sum())
        comparisons.append(
            Comparison(
                a=names[a],
                b=names[b],
                difference=_round((correct[b] - correct[a]).mean()),
                low=_round(low),
                high=_round(high),
                p=_round(_mcnemar(gained, lost)),
            )
        )
    interval = f"paired percentile bootstrap over problems, 95 %, {config.bootstrap_samples} resamples"
    return EvalReport(scores=tuple(scores), comparisons=tuple(comparisons), interval=interval)


_REASONS = ("stop", "length", "error")


def _request(prompt: Prompt, teacher: TeacherConfig, config: EvaluateConfig) -> Request:
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_new_tokens": config.max_new_tokens}
    identity = canonical_json([prompt.id, prompt.content_hash, sampling, config.seed]).encode()
    name = hashlib.sha256(identity).hexdigest()
    return Request(
        request_id=name[:32],
        prompt=prompt,
        messages=teacher_messages(teacher, prompt),
        sample_index=0,
        seed=(config.seed + int(name[32:40], 16)) % 2**31,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
    )


def _resampled_means(correct: Any, samples: int, seed: int) -> Any:
    """(models, problems) -> (models, samples): the mean of each model over the same resampled problems."""
    import numpy as np

    draw = np.random.default_rng(seed)
    problems = correct.shape[1]
    at_once = max(1, _CHUNK // problems)
    parts = []
    for start in range(0, samples, at_once):
        picked = draw.integers(0, problems, (min(at_once, samples - start), problems))
        parts.append(np.stack([solved[picked].mean(axis=1) for solved in correct]))
    return np.concatenate(parts, axis=1)


def _mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact probability of a split at least this uneven, were both models equally good."""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2.0 * float(Fraction(tail, 2**n)))


def _round(value: float) -> float:
    return round(float(value), 6)
