"""The `Teacher` protocol: a queue of chat requests in front of an engine.

``submit`` queues a request and returns at once; ``poll`` waits until at least one is finished. There is no batch, and
so no batch barrier: a straggler holds up no other request. The caller keeps the queue full by looking at ``capacity``.

The text of a completion is **raw**: every token that the model generated is in it, special or not, except the stop
token that ended it. Many vocabularies hold ``<think>`` and ``</think>`` as special tokens, and the usual
``skip_special_tokens=True`` would silently cut them out of every trace.

Engines start at the first request, seeded with that request's seed. So a run that has no request left starts no
engine, and a resumed run does not repeat the random numbers, and thereby the samples, of the run before it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from licensing.errors import InputError, MissingDependency
from synth.problems.problem import Prompt
from synth.teachers.config import TeacherFields
from synth.teachers.logprobs import TokenLogprobs

FinishReason = Literal["stop", "length", "error"]
_DECODE_CONTEXT = 8  # prompt tokens decoded along with the completion; enough to hold a whole character


@dataclass(frozen=True)
class Request:
    """One sample to draw. ``messages`` is the whole chat that the teacher sees; ``seed`` is the sample's own.

    ``sampling_options``: those of ``synth.sampling.config.SamplingOptions`` that are set, by name.

    ``prefix``, for teachers with ``can_continue``: raw text of the answer so far. The completion's text is then the
    whole answer, ``prefix`` included; its ``completion_tokens`` are the new ones, at most ``max_new_tokens``.
    ``prefix_ids`` are the token ids of ``prefix``; a teacher with ``continues_token_ids`` gets no prefix without them,
    since the text alone does not say which tokens it was made of.

    ``logprobs``: of each token of the answer, the log-probabilities of so many tokens; None: of none.

    ``attempt``, for a caller with a budget: how many attempts came back to it with ``Completion.retry``. None: the
    engine repeats attempts itself, also those that were paid for.
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
    sampling_options: Mapping[str, float] = field(default_factory=dict)
    logprobs: int | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class Completion:
    """One answer. Token counts are the engine's, with the stop token; None where the engine gives none.

    ``token_ids``: of an answer that was cut off, where the engine returns them; ``prefix_ids`` are among them.
    ``logprobs``: where the request asks for them, of the tokens behind ``prefix_ids``.

    Of a failed request the counts are what it has cost. ``retry``: it failed in an attempt that was paid for, and
    should be sent again, if the budget allows. ``provenance``: what the server said of itself, where it did: `model`,
    `provider`, `system_fingerprint`.
    """

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None
    error: str | None = None
    reasoning_tokens: int | None = None
    token_ids: tuple[int, ...] = ()
    retry: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    logprobs: TokenLogprobs | None = None


class Teacher(ABC):
    """A queue of requests in front of an engine. A subclass sets ``model`` and ``engine``."""

    model: str
    """The public id that rows carry."""
    engine: str
    """Name and version of the engine: "vllm 0.32.0"."""
    can_continue: bool = False
    """Whether it continues a ``prefix``."""
    continues_token_ids: bool = False
    """Whether it needs ``prefix_ids`` for that."""
    engine_info: Sequence[dict[str, Any]] = ()
    """What its engines resolved, one JSON object an engine, once they run: "model", "engine", "revision" (commit or
    digest of the loaded weights, or null), "config". No time, path, host or secret: equal runs have equal info."""

    failure: Exception | None = None
    """What ended it. ``poll`` raises it once all answers are returned; a caller that has all of them looks here."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many more requests it takes now: enough to keep the engine busy, and no more."""

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Queue a request. One that cannot be answered comes back from ``poll`` with ``finish_reason`` "error"."""

    def poll(self) -> list[Completion]:
        """Wait until at least one request is finished; empty only where none is in flight. A teacher defines this, or
        ``poll_for`` where it can be left early."""
        return self.poll_for(math.inf)

    def drain(self) -> Iterable[Completion]:
        """The answers to requests that are paid for already, before a run ends with an error; requests that were not
        sent are dropped, and no more are taken until ``close``. An engine whose answers cost nothing has none."""
        return ()

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for about ``seconds`` at most; empty also where no request was finished in time.

        For a caller that has requests in flight. A teacher whose ``poll`` cannot be left early keeps this default,
        which waits as long as ``poll`` does; it raises RuntimeError where ``poll`` says that nothing is in flight.
        """
        if not (completions := self.poll()):
            raise RuntimeError(f"{self.engine} has lost its requests: they are in flight, and it has no answer")
        return completions

    @abstractmethod
    def close(self) -> None:
        """Release the engine and its memory. Requests in flight are lost. A later ``submit`` starts it again."""


def teacher_messages(config: TeacherFields, prompt: Prompt) -> tuple[dict[str, Any], ...]:
    """The teacher's chat: its system prompt, its worked examples as turns, then the problem's own messages with the
    teacher's prompt template around the question.

    A problem's own system message is appended to the teacher's, in one system message: most templates render no more
    than one.
    """
    messages = [dict(message) for message in prompt.messages]
    if config.prompt_template is not None:
        messages = config.prompt_template.wrapped(messages, prompt.kind)
    system: list[dict[str, Any]] = []
    if messages[0]["role"] in ("system", "developer"):
        system = [messages.pop(0)]
    if config.system_prompt is not None:
        system = [_system_message(config.system_prompt, system)]
    examples: list[dict[str, Any]] = []
    for example in config.examples:
        examples.append({"role": "user", "content": example.prompt})
        examples.append({"role": "assistant", "content": example.response})
    return (*system, *examples, *messages)


def _system_message(system_prompt: str, of_problem: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not of_problem or not of_problem[0].get("content"):
        return {"role": "system", "content": system_prompt}
    content = of_problem[0]["content"]
    if isinstance(content, str):
        return {"role": "system", "content": f"{system_prompt}\n\n{content}"}
    return {"role": "system", "content": [{"type": "text", "text": system_prompt}, *content]}


# --- helpers of engines with a tokenizer ---------------------------------------------------------------------------


def check_model_folder(model: str) -> None:
    """Raise InputError where ``model`` is a path without a model; a hub id is left to the engine."""
    folder, where = Path(model), "teacher.model"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"no config.json in {folder}", where=where, hint="give the folder of a saved model")
        return
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or folder.parent.is_dir():
        raise InputError(
            f"there is no folder {model}", where=where, hint="give the folder of a saved model, or a hub id owner/name"
        )


def check_chat_template(tokenizer: Any, model: str) -> None:
    """Raise InputError where the tokenizer has no chat template."""
    if hasattr(tokenizer, "chat_template") and not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer of {model} has no chat template",
            where="teacher.model",
            hint="take an instruction-tuned model, or put a chat_template.jinja into the folder",
        )


def render_chat(tokenizer: Any, messages: Iterable[Mapping[str, Any]]) -> list[int]:
    """Token ids of the chat with the generation prompt. The template writes the BOS token; none is added."""
    encoded = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return [int(token) for token in encoded["input_ids"]]


def decode_completion(tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
    """The raw text of ``completion_ids`` (without the stop token), special tokens included.

    It is decoded together with the end of the prompt, because many tokenizers drop a space at the start of a text.
    """
    context = list(prompt_ids[-_DECODE_CONTEXT:])
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    context_text = str(tokenizer.decode(context, **options))
    text = str(tokenizer.decode([*context, *completion_ids], **options))
    if text.startswith(context_text):
        return text[len(context_text) :]
    return str(tokenizer.decode(list(completion_ids), **options))


def failed(request: Request, error: Exception) -> Completion:
    """The completion of a request that the engine refuses, with the reason."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Completion(request.request_id, "", "error", None, None, reason[:500])


def missing_engine(name: str, package: str, error: Exception | None = None) -> MissingDependency:
    """The error for an engine that is not installed, or that does not import."""
    what = f"{name} does not import: {error}" if error else f"{name} is not installed"
    return MissingDependency(what, where="teacher.kind", hint=f"pip install {package}")
