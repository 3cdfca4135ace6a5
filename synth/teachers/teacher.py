"""Teachers: whatever answers a chat. One file an engine, and each is loaded only when a recipe asks for it.

A teacher is a queue. ``submit`` hands a request over and returns at once, ``poll`` waits until something is finished;
there is no batch and so no barrier: a straggler holds nobody up. Whoever samples keeps it fed by asking ``capacity``.

The text of a completion is **raw**: every token that the model generated is in it, special or not, but for the one
stop token that ended it. Many vocabularies hold ``<think>`` and ``</think>`` as special tokens, and the usual
``skip_special_tokens=True`` would silently cut them out of every trace.

Engines start at the first request, seeded with that request's seed. So a run that has nothing left to ask starts no
engine, and one that resumes does not replay the random numbers, and thereby the samples, of the run before it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from licensing.errors import InputError, MissingDependency
from synth.problems.problem import Prompt
from synth.teachers.config import AutoTeacher, FakeTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.served_config import OpenAITeacher, VllmServerTeacher

__all__ = [
    "Completion",
    "Described",
    "FinishReason",
    "Request",
    "Teacher",
    "Wakeable",
    "build_teacher",
    "check_model_folder",
    "decode_completion",
    "failed",
    "missing_engine",
    "needs_template",
    "render_chat",
    "teacher_messages",
]

FinishReason = Literal["stop", "length", "error"]
_DECODE_CONTEXT = 8  # prompt tokens decoded along with the completion; any that ends on a whole character will do


@dataclass(frozen=True)
class Request:
    """One sample to be drawn. ``messages`` is the whole chat that the teacher sees; ``seed`` is the sample's own.

    ``prefix``, for teachers that say ``can_continue``: raw text of the answer so far. The completion's text is then the
    whole answer, ``prefix`` and all; its ``completion_tokens`` are those that came new, at most ``max_new_tokens``.
    ``prefix_ids`` are the token ids of ``prefix``; a teacher that says ``continues_token_ids`` is given no prefix
    without them, since the text alone does not say which tokens it was made of.
    """

    request_id: str
    prompt: Prompt
    messages: tuple[dict[str, Any], ...]
    sample_index: int
    seed: int
    temperature: float
    top_p: float
    max_new_tokens: int
    prefix: str = ""
    prefix_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One answer. Token counts are the engine's, the stop token counted; null where it knows none.

    ``token_ids``: of an answer that was cut off, where the engine knows them; ``prefix_ids`` are among them.
    """

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None
    error: str | None = None
    reasoning_tokens: int | None = None
    token_ids: tuple[int, ...] = ()


class Teacher(Protocol):
    """What samples. ``model`` is the public id that rows carry, ``engine`` its name and version ("vllm 0.32.0")."""

    model: str
    engine: str

    @property
    def capacity(self) -> int:
        """How many more requests it takes now, so that it neither starves nor drowns."""
        ...

    def submit(self, request: Request) -> None:
        """Queue a request. One that cannot be answered comes back from ``poll`` with ``finish_reason`` "error"."""
        ...

    def poll(self) -> list[Completion]:
        """Wait until at least one request is finished; empty only where none is in flight."""
        ...

    def close(self) -> None:
        """Let go of the engine and its memory. What is in flight is lost."""
        ...


@runtime_checkable
class Wakeable(Protocol):
    """A teacher whose ``poll`` can be left early: ``poll_for`` is ``poll`` that waits no longer than ``seconds``.

    Others are polled until something is finished, so that a verdict that allows more samples waits for that.
    """

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``; empty also where nothing was finished in time."""
        ...


@runtime_checkable
class Described(Protocol):
    """A teacher whose engines can say what they settled on, once they run; empty before."""

    facts: list[dict[str, Any]]
    """JSON values, one object an engine: "model", "engine", "revision" (the commit or digest of the weights that were
    loaded, or null), "config". No time, path, host or secret: equal runs have equal facts."""


def build_teacher(config: TeacherConfig, logs: Path | None = None) -> Teacher:
    """The teacher of a recipe; only its own engine's file is imported. ``auto`` is vLLM where it is installed.

    ``logs``: the folder for what a server that we start has to say; without one, the folder for temporary files.

    Raises InputError for a model folder that holds no model and for a ``recorded`` teacher, which never runs; raises
    MissingDependency where the engine is not installed.
    """
    if isinstance(config, AutoTeacher):
        config = _settled(config)
    if isinstance(config, VllmTeacher):
        from synth.teachers import vllm

        return vllm.VllmEngine(config)
    if isinstance(config, TransformersTeacher):
        from synth.teachers import transformers

        return transformers.TransformersEngine(config)
    if isinstance(config, OpenAITeacher):
        from synth.teachers import openai

        return openai.OpenAIEngine(config)
    if isinstance(config, VllmServerTeacher):
        from synth.teachers import vllm_server

        return vllm_server.served(config, logs)
    if isinstance(config, FakeTeacher):
        from synth.teachers import fake

        return fake.FakeEngine(config)
    raise InputError(
        f"a {config.kind} teacher cannot be asked",
        where="teacher.kind",
        hint="its traces are brought along: set sample.source to traces",
    )


def _settled(config: AutoTeacher) -> VllmTeacher | TransformersTeacher:
    values = config.model_dump(exclude={"kind"})
    chosen = VllmTeacher if importlib.util.find_spec("vllm") else TransformersTeacher
    return chosen(**{key: value for key, value in values.items() if key in chosen.model_fields})


def teacher_messages(config: TeacherConfig, prompt: Prompt) -> tuple[dict[str, Any], ...]:
    """The teacher's chat: its system prompt, its worked examples as turns, then the problem's own messages.

    A problem that brings a system message keeps it, below the teacher's, in one system message: most templates
    render no more than one.
    """
    own = [dict(message) for message in prompt.messages]
    system: list[dict[str, Any]] = []
    if own[0]["role"] in ("system", "developer"):
        system = [own.pop(0)]
    if config.system_prompt is not None:
        system = [_joined(config.system_prompt, system)]
    shown: list[dict[str, Any]] = []
    for example in config.examples:
        shown.append({"role": "user", "content": example.prompt})
        shown.append({"role": "assistant", "content": example.response})
    return (*system, *shown, *own)


def _joined(system_prompt: str, own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not own or not own[0].get("content"):
        return {"role": "system", "content": system_prompt}
    content = own[0]["content"]
    if isinstance(content, str):
        return {"role": "system", "content": f"{system_prompt}\n\n{content}"}
    return {"role": "system", "content": [{"type": "text", "text": system_prompt}, *content]}


# --- what the engines that own a tokenizer share ------------------------------------------------------------------


def check_model_folder(model: str, where: str = "teacher.model") -> None:
    """Raise InputError where ``model`` is a path and no model lies there; a hub id is left to the engine."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"no config.json in {folder}", where=where, hint="give the folder of a saved model")
        return
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or folder.parent.is_dir():
        raise InputError(
            f"there is no folder {model}", where=where, hint="give the folder of a saved model, or a hub id owner/name"
        )


def needs_template(tokenizer: Any, model: str) -> None:
    """Raise InputError where the tokenizer has no chat template."""
    if hasattr(tokenizer, "chat_template") and not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer of {model} has no chat template",
            where="teacher.model",
            hint="take an instruction-tuned model, or put a chat_template.jinja into the folder",
        )


def render_chat(tokenizer: Any, messages: Iterable[Mapping[str, Any]]) -> list[int]:
    """Token ids of the chat with the generation prompt. The template writes the BOS token; no second one is added."""
    encoded = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return [int(token) for token in encoded["input_ids"]]


def decode_completion(tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
    """The raw text of ``completion_ids`` (without the stop token), special tokens included.

    Decoded behind the end of the prompt, because many tokenizers swallow a space at the start of a text.
    """
    context = list(prompt_ids[-_DECODE_CONTEXT:])
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    before = str(tokenizer.decode(context, **options))
    whole = str(tokenizer.decode([*context, *completion_ids], **options))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(tokenizer.decode(list(completion_ids), **options))


def failed(request: Request, error: Exception) -> Completion:
    """A request that the engine refuses, as the row that says why."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Completion(request.request_id, "", "error", None, None, reason[:500])


def missing_engine(name: str, package: str, error: Exception | None = None) -> MissingDependency:
    """The error for an engine that is not installed, or is and does not import."""
    what = f"{name} does not import: {error}" if error else f"{name} is not installed"
    return MissingDependency(what, where="teacher.kind", hint=f"pip install {package}")
