"""What a model is asked, and how its answers are verified: one row a sample.

Every model answers through the engine that would serve it (``synth.teachers.teacher``) and is scored by the verifiers
that chose the training data (``synth.verify.verifier``). The student is asked the bare problem, under its own
template's system prompt; the teacher keeps its system prompt and worked examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.config.recipe import EvaluateConfig, EvaluationSettings
from distill.evaluate.answers import AnswerStore, StoredAnswer, answer_key, model_identity
from distill.models.folder import base_path, cached, read_base
from distill.runs.stage import Reporter
from licensing.closing import Closing
from licensing.errors import InputError, Refused
from licensing.files import read_json
from synth.problems.problem import Prompt, canonical_json
from synth.problems.prompt_template import PromptTemplate
from synth.reasoning import split_reasoning
from synth.sampling.config import PENALTIES, SAMPLING_OPTIONS
from synth.teachers.build import build_teacher
from synth.teachers.config import AutoTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.mixture import TeachersConfig, teacher_configs
from synth.teachers.teacher import Request, Teacher, teacher_messages
from synth.teachers.vllm_engine_args import check_engine_args
from synth.verify.config import VerifyConfig
from synth.verify.verdict import Verdict
from synth.verify.verdict_store import VerdictBasis, VerdictStore
from synth.verify.verifier import Verifier, verify_rows


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


def folder_teacher(folder: Path, config: EvaluationSettings, template: PromptTemplate | None = None) -> TeacherConfig:
    """A model folder as a teacher, with the engine of the evaluate section and the tags of its own template.

    ``template``: the student's text around a question."""
    think_open, think_close = read_base(folder, quantized=True).turn.tags
    values: dict[str, Any] = {"model": str(folder), "think_open": think_open, "think_close": think_close}
    values["prompt_template"] = template
    if config.engine == "vllm":
        return VllmTeacher.model_validate(values | {"engine_args": config.engine_args})
    if config.engine == "transformers":
        return TransformersTeacher.model_validate(values | {"batch_size": config.batch_size})
    return AutoTeacher.model_validate(values | {"batch_size": config.batch_size, "engine_args": config.engine_args})


def scored_teachers(config: EvaluateConfig, teacher: TeachersConfig) -> dict[str, TeacherConfig]:
    """The teachers to score, by the name of their rows: "teacher", and of several "teacher NAME"."""
    members = teacher_configs(teacher)
    chosen = [member for member in members if config.teacher in (True, member.public_id)]
    return {"teacher" if len(members) == 1 else f"teacher {one.public_id}": one for one in chosen}


def model_sampling(config: EvaluationSettings, teacher: TeacherConfig) -> EvaluationSettings:
    """``config`` with the sampling values under which one model is asked: its own unless ``sampling`` is "model".

    They are then those of the model's generation_config.json, where a value that the file does not name is off: without
    ``do_sample`` it is greedy, as in transformers, and only its penalties count. Raises InputError where the model is
    no folder or snapshot of this machine, has no such file, or one whose values cannot be used.
    """
    if config.sampling == "recipe":
        return config
    where = "evaluate.sampling"
    folder = base_path(teacher.model) or cached(teacher.model, teacher.revision)
    hint = "set evaluate.sampling: recipe (or leave --model-sampling out) with temperature and top_p"
    if folder is None:
        raise InputError(
            f"{teacher.model} is no folder of a model with a generation_config.json", where=where, hint=hint
        )
    try:
        stated = read_json(folder / "generation_config.json")
    except FileNotFoundError:
        raise InputError("the model has no generation_config.json", where=str(folder), hint=hint) from None
    values: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, **dict.fromkeys(SAMPLING_OPTIONS)}
    if stated.get("do_sample"):
        values["temperature"] = 1.0
        values |= {name: stated[name] for name in values if stated.get(name) is not None}
        values["top_k"] = values["top_k"] or None  # 0 is off in transformers
    else:
        values |= {name: stated[name] for name, off in PENALTIES.items() if stated.get(name) not in (None, off)}
    try:
        return type(config).model_validate(config.model_dump() | values | {"sampling": "recipe"})
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise InputError(what, where=str(folder / "generation_config.json"), hint=hint) from None


def check_engine(config: EvaluationSettings) -> None:
    """Raise InputError for an engine argument of `evaluate` that the installed vLLM does not have. Not covered: values,
    and a machine without vLLM."""
    if config.engine != "transformers":
        check_engine_args(config.engine_args, "evaluate.engine_args")


def check_sampling(config: EvaluationSettings, base: Path) -> None:
    """Raise InputError where the student cannot be sampled as its base's generation_config.json says, before it is
    trained; see ``model_sampling``."""
    if config.sampling == "model":
        model_sampling(config, folder_teacher(base, config))


class OneEngine(Closing):
    """The engine of the model that was asked last, which starts once for problems, suites and probes that follow each
    other. A context manager; another model's engine takes its place, since two may not fit a GPU."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] | None = None
        self._teacher: Teacher | None = None

    def of(self, config: TeacherConfig) -> Teacher:
        """The engine that answers for ``config``; what only its prompts depend on may differ. Raises what its start
        raises."""
        settings = config.model_dump(exclude={"prompt_template", "system_prompt", "examples"})
        if self._teacher is None or settings != self._settings:
            self.close()
            self._teacher, self._settings = build_teacher(config), settings
        return self._teacher

    def close(self) -> None:
        if self._teacher is not None:
            self._teacher.close()
        self._teacher = None


def run_model(
    name: str,
    teacher_config: TeacherConfig,
    prompts: Sequence[Prompt],
    config: EvaluationSettings,
    verify: VerifyConfig,
    progress: Reporter,
    *,
    answers: AnswerStore | None = None,
    engine: OneEngine | None = None,
    verifier: Verifier | None = None,
    part: bool = False,
) -> list[dict[str, Any]]:
    """Ask one model every problem ``config.num_samples`` times and verify the answers. Rows in the order of
    ``prompts``, the samples of a problem one after another, without times.

    A row: model, prompt_id, sample_index, response, finish_reason, verdict, score, extracted, reason, prompt_tokens,
    completion_tokens, thinking_chars, answer_chars, engine, dtype, sampling. A request that the engine refuses is a row
    with verdict "error", which counts as wrong. ``answers``: what is there is neither generated nor verified again, and
    what is new is added. ``engine``: stays open for what the same model is asked next; ``verifier``: for the answers of
    the next model, one of the same ``verify``. ``part``: these are not all problems of the model, and the caller looks
    at all of its rows (``require_answers``). Raises what the engine raises at its start; Refused where it answered
    nothing at all.
    """
    if not prompts:
        raise InputError("there is no held-out problem", where="evaluate.prompts", hint="set evaluate.prompts")
    config = model_sampling(config, teacher_config)
    requests = [_request(prompt, teacher_config, config, at) for prompt in prompts for at in range(config.num_samples)]
    if engine is None:
        with OneEngine() as own:
            replies = _replies(name, own.of(teacher_config), teacher_config, requests, progress, answers)
    else:
        replies = _replies(name, engine.of(teacher_config), teacher_config, requests, progress, answers)
    tags = {"think_open": teacher_config.think_open, "think_close": teacher_config.think_close}
    verdicts = _verdicts(requests, replies, tags, verify, answers.verdicts if answers else None, verifier)
    rows = []
    for request, reply, verdict in zip(requests, replies, verdicts, strict=True):
        answer = reply.completion
        parts = split_reasoning(answer.text, **tags)
        rows.append(
            {
                "model": name,
                "prompt_id": request.prompt.id,
                "sample_index": request.sample_index,
                "response": answer.text,
                "finish_reason": answer.finish_reason,
                "verdict": verdict.verdict,
                "score": verdict.score,
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "thinking_chars": len(parts.thinking or ""),
                "answer_chars": len(parts.answer),
                "engine": reply.engine,
                "dtype": reply.dtype,
                "sampling": {"temperature": config.temperature, "top_p": config.top_p, **config.sampling_options},
            }
        )
    if not part:
        require_answers(name, rows)
    return rows


def _replies(
    name: str,
    teacher: Teacher,
    teacher_config: TeacherConfig,
    requests: Sequence[Request],
    progress: Reporter,
    answers: AnswerStore | None,
) -> list[StoredAnswer]:
    """The answer to each request: those that are stored, then those of the engine, which starts only for these."""
    identity = model_identity(teacher_config, teacher.engine) if answers is not None else ""
    keys = {request.request_id: answer_key(identity, request) for request in requests}
    replies: dict[str, StoredAnswer] = {}
    if answers is not None:
        for request in requests:
            if (stored := answers.find(keys[request.request_id], request.request_id)) is not None:
                replies[request.request_id] = stored
    waiting = [request for request in reversed(requests) if request.request_id not in replies]
    while len(replies) < len(requests):
        while waiting and teacher.capacity > 0:
            teacher.submit(waiting.pop())
        finished = teacher.poll()
        if not finished:
            raise RuntimeError(f"{teacher.engine} went idle with {len(requests) - len(replies)} requests in flight")
        for completion in finished:
            reply = StoredAnswer(completion, teacher.engine, _dtype(teacher))
            replies[completion.request_id] = reply
            if answers is not None and completion.finish_reason != "error":
                answers.add(keys[completion.request_id], reply)
        progress(len(replies), len(requests), name)
    return [replies[request.request_id] for request in requests]


def _dtype(teacher: Teacher) -> str | None:
    types = {info["config"]["dtype"] for info in teacher.engine_info if info.get("config", {}).get("dtype")}
    return ", ".join(sorted(map(str, types))) or None


def _verdicts(
    requests: Sequence[Request],
    replies: Sequence[StoredAnswer],
    tags: Mapping[str, str],
    verify: VerifyConfig,
    store: VerdictStore | None,
    verifier: Verifier | None,
) -> Iterator[Verdict]:
    """A verdict for each reply, in order; of a failed request "error". ``store``: as ``answers`` of ``run_model``."""
    verdict_basis = VerdictBasis(verify)
    rows, verdicts_at = [], {}
    for at, (request, reply) in enumerate(zip(requests, replies, strict=True)):
        if reply.completion.finish_reason == "error":
            verdicts_at[at] = Verdict("error", 0.0, None, reply.completion.error)
            continue
        text, reason = reply.completion.text, reply.completion.finish_reason
        row = {**request.prompt.row(), "response": text, "finish_reason": reason, **tags}
        key = hashlib.sha256(f"{reason}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()
        basis = verdict_basis.digest(row, **tags)
        if store is not None and (stored := store.find(key, basis)) is not None:
            verdicts_at[at] = stored
        else:
            rows.append((at, key, basis, row))
    verified = verify_rows((row for *_, row in rows), verify, verifier)
    for (at, key, basis, _), row in zip(rows, verified, strict=True):
        verdicts_at[at] = Verdict(
            row["verdict"], row["score"], row["extracted"], row["reason"], isolation=row.get("isolation")
        )
        if store is not None:
            store.add(key, basis, verdicts_at[at])
    return (verdicts_at[at] for at in range(len(replies)))


def require_answers(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise Refused where every request of a model failed; ``rows`` of ``run_model``."""
    if all(row["finish_reason"] == "error" for row in rows):
        why = f"{name} answered nothing: {rows[0]['reason']}"
        raise Refused(why, where="evaluate", hint="look at evaluate.engine_args")


def _request(prompt: Prompt, teacher: TeacherConfig, config: EvaluationSettings, sample_index: int) -> Request:
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_new_tokens": config.max_new_tokens}
    sampling |= config.sampling_options
    parts = [prompt.id, prompt.content_hash, sampling, config.seed, *([sample_index] if sample_index else [])]
    name = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    return Request(
        request_id=name[:32],
        prompt=prompt,
        messages=teacher_messages(teacher, prompt),
        sample_index=sample_index,
        seed=(config.seed + int(name[32:40], 16)) % 2**31,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        sampling_options=config.sampling_options,
    )
