"""Base, student, teacher and control on the same held-out problems, with paired intervals.

Every model answers through the engine that would serve it (``synth.teachers.teacher``) and is scored by the
verifiers that
chose the training data (``synth.verify.verifier``). The student is asked the bare problem, under its own template's
system
prompt; the teacher keeps its system prompt and worked examples.

One sample a problem. Scores and intervals are in ``distill.evaluate.statistics``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.config.recipe import EvaluateConfig
from distill.models.folder import read_base
from distill.runs.stage import Reporter
from licensing.errors import InputError, Refused
from synth.problems.problem import Prompt, canonical_json
from synth.problems.prompt_template import PromptTemplate
from synth.teachers.build import build_teacher
from synth.teachers.config import AutoTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.mixture import TeachersConfig, members_of
from synth.teachers.teacher import Completion, Request, teacher_messages
from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows

__all__ = [
    "check_disjoint",
    "folder_teacher",
    "run_model",
    "scored_teachers",
]


def check_disjoint(train_rows: Iterable[Mapping[str, Any]], prompts: Iterable[Prompt]) -> None:
    """Raise Refused where a held-out problem was trained on: same messages, up to Unicode form and white space.

    Not covered: near duplicates, and the same question under another system prompt.
    """
    held_out = {prompt.content_hash: prompt.id for prompt in prompts}
    trained_on: dict[str, str] = {}
    for row in train_rows:
        question = list(row["messages"])
        while question and question[-1]["role"] == "assistant":
            question.pop()
        trained = Prompt(id=str(row["id"]), messages=tuple(question), kind="open", source="training rows")
        if trained.content_hash in held_out:
            trained_on.setdefault(held_out[trained.content_hash], str(row["id"]))
    if trained_on:
        first, row_id = next(iter(trained_on.items()))
        raise Refused(
            f"{len(trained_on)} held-out problems are in the training set: {first} is training row {row_id}, for one",
            where="evaluate.prompts",
            hint="set other held-out problems, or take these out of the prompts",
        )


def folder_teacher(folder: Path, config: EvaluateConfig, template: PromptTemplate | None = None) -> TeacherConfig:
    """A model folder as a teacher, with the engine of the evaluate section and the tags of its own template.

    ``template``: the student's text around a question."""
    think_open, think_close = read_base(folder).turn.tags
    values: dict[str, Any] = {"model": str(folder), "think_open": think_open, "think_close": think_close}
    values["prompt_template"] = template
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
    tags = {"think_open": teacher_config.think_open, "think_close": teacher_config.think_close}
    answered = [
        {**prompt.row(), "response": answer.text, **tags}
        for prompt, answer in zip(prompts, ordered, strict=True)
        if answer.finish_reason != "error"
    ]
    verdicts = verify_rows(answered, verify)
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


def _request(prompt: Prompt, teacher: TeacherConfig, config: EvaluateConfig) -> Request:
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_new_tokens": config.max_new_tokens}
    sampling |= config.sampling_options
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
        sampling_options=config.sampling_options,
    )
