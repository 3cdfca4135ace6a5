"""One answer of an OpenAI-compatible endpoint, assembled from its event stream or from a whole message.

**Thinking** arrives in a field of its own: ``reasoning`` (vLLM today), ``reasoning_content`` (older servers, other
APIs), ``thinking``, ``reasoning_details`` (OpenRouter, MiniMax), or as parts of the content of type thinking (Mistral).
An answer that repeats it in a second field is read from the first one that has text. The text is ``think_open +
thinking + think_close + content``, and nothing is stripped or added, so the tags decide the white space. vLLM's parsers
cut out the tags' tokens and leave every other character in place: with the default tags the text is the raw completion.
APIs that strip the white space around thinking need tags that contain it ("<think>\n", "\n</think>\n\n").

A trace with thinking and without content (``content: null``) was cut off in its thinking, or ended there: its block
stays open. Two cases cannot be recognised, since a server does not report them: an answer that ended right after
``</think>`` (taken for one that ended before it), and an empty block (its tags are lost).

**Token counts** are the server's where they are plausible, else None. Not plausible: a count below zero, zero for a
text, more than twice the limit, or so few tokens that each would have 256 characters. Some services leave thinking out
of ``completion_tokens`` and count it in ``total_tokens``: what was generated is the larger of the two figures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from synth.teachers.endpoint_error import EndpointError, endpoint_error_of
from synth.teachers.logprobs import ReplyLogprobs

_LINE_MAX = 8 << 20  # bytes; a whole message of 32k tokens with their ids is less than a megabyte
_CHARACTERS_A_TOKEN = 256  # the longest tokens of common vocabularies are runs of 128 blanks
_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING_FIELDS = ("reasoning", "reasoning_content", "thinking", "reasoning_details")
_PROVENANCE = ("model", "provider", "system_fingerprint")

FinishMeaning = Literal["stop", "length", "retry"]
_FINISH_REASONS: dict[str, FinishMeaning] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "eos_token": "stop",  # watsonx, TGI
    "stop_sequence": "stop",
    "end_turn": "stop",  # Anthropic
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",  # Mistral: the context is full
    "abort": "retry",  # vLLM, SGLang
    "error": "retry",
    "insufficient_system_resource": "retry",  # DeepSeek
}
"""What the finish reasons of services mean, in lower case. Any other one (content_filter, tool_calls) is no answer."""


class ChatStream:
    """Collects the parsed events of one answer; ``limit`` is the request's ``max_new_tokens``, ``logprobs`` where it
    asks for any.

    ``finish_reason`` is the server's; ``provenance``: what the server says of itself, by ``model``, ``provider`` and
    ``system_fingerprint``.
    """

    def __init__(self, limit: int, logprobs: int | None = None) -> None:
        self._limit = limit
        self.logprobs = None if logprobs is None else ReplyLogprobs(logprobs)
        self._thinking: list[str] = []
        self._content: list[str] = []
        self._thinking_field: str | None = None
        self._characters = 0
        self._usage: Mapping[str, Any] = {}
        self.finish_reason: str | None = None
        self.provenance: dict[str, str] = {}
        self.done = False

    def add(self, event: Any) -> None:
        """One event of a stream, or a whole message. Raises EndpointError."""
        if not isinstance(event, dict):
            raise _malformed("an event that is no object")
        usage = event.get("usage") or _object(event.get("x_groq")).get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        for name in _PROVENANCE:
            if name not in self.provenance and isinstance(value := event.get(name), str) and value:
                self.provenance[name] = value[:200]
        if event.get("error"):
            raise endpoint_error_of(event["error"])
        choices = event.get("choices")
        if choices is None and usage is None and "usage" not in event:
            raise _malformed("an object that is no answer")
        for choice in choices or ():
            self._choice(choice)

    def _choice(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            raise _malformed("a choice that is no object")
        if choice.get("index") not in (0, None):
            return
        part = choice.get("delta") or choice.get("message") or {}
        if not isinstance(part, dict):
            raise _malformed("a message that is no object")
        for field in _THINKING_FIELDS:
            if (value := part.get(field)) and self._thinking_field in (None, field):
                for _, text in _texts(value, "thinking"):
                    self._thinking_field = field
                    self._thinking.append(text)
                    self._characters += len(text)
        for kind, text in _texts(part.get("content"), "text"):
            (self._thinking if kind == "thinking" else self._content).append(text)
            self._characters += len(text)
        if self.logprobs is not None and isinstance(positions := _object(choice.get("logprobs")).get("content"), list):
            self.logprobs.add(map(_object, positions))
        if self._characters > _CHARACTERS_A_TOKEN * (self._limit + 64):
            raise EndpointError("request", f"more than {self._characters:,} characters for {self._limit:,} tokens")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def finish(self) -> FinishMeaning | None:
        """How the answer ended, None for an end that is no answer.

        A service that gives no reason for any answer still counts the tokens of one that is whole: then the count says
        whether it reached the limit.
        """
        if self.finish_reason is None:
            generated = self.counts()[1]
            return None if generated is None else "length" if generated >= self._limit else "stop"
        return _FINISH_REASONS.get(str(self.finish_reason).lower())

    @property
    def is_whole(self) -> bool:
        """Whether its end has come: a finish reason, or [DONE] and a count of tokens."""
        return self.finish_reason is not None or (self.done and self.counts()[1] is not None)

    def text(self, think_open: str, think_close: str) -> str:
        """The trace: thinking, where there is any, between its tags. Raises EndpointError for half a surrogate pair,
        which no tokenizer takes; two halves that came in two events are one character."""
        thinking, content = _whole_characters(self._thinking), _whole_characters(self._content)
        if not thinking:
            return content
        return f"{think_open}{thinking}" + (f"{think_close}{content}" if content else "")

    def counts(self) -> tuple[int | None, int | None, int | None]:
        """Prompt, completion and reasoning tokens; None for a count that is missing or not plausible."""
        usage, most = self._usage, 2 * self._limit + 64
        prompt = _number(usage.get("prompt_tokens", usage.get("input_tokens")), 1, 1 << 31)
        generated = _number(usage.get("completion_tokens", usage.get("output_tokens")), 0, most)
        total = _number(usage.get("total_tokens"), 0, 1 << 31)
        if generated is not None and prompt is not None and total is not None and total - prompt <= most:
            generated = max(generated, total - prompt)
        if generated is not None and self._characters > _CHARACTERS_A_TOKEN * generated:
            generated = None
        details = _object(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
        reasoning = details.get("reasoning_tokens", usage.get("reasoning_tokens"))
        return prompt, generated, _number(reasoning, 0, most if generated is None else generated)

    def cost(self) -> tuple[int | None, int]:
        """Prompt and completion tokens of an attempt that gave no answer. Without a count, one token a byte of its
        text, at most the limit."""
        prompt, generated, _ = self.counts()
        if generated is None:
            size = sum(len(piece.encode("utf-8", "surrogatepass")) for piece in (*self._thinking, *self._content))
            generated = min(size, self._limit)
        return prompt, generated


def _whole_characters(pieces: Sequence[str]) -> str:
    text = "".join(pieces)
    if _SURROGATE.search(text) is None:
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise EndpointError("request", "the text has an unpaired surrogate, which no tokenizer accepts") from None


def _texts(value: Any, kind: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of what stands in a field: a string, or parts, whose type may be another kind.

    Raises EndpointError for a part that is neither text nor thinking: no attempt would be read.
    """
    if value is None:
        return
    if isinstance(value, str):
        yield kind, value
        return
    if not isinstance(value, list):
        raise _malformed("a text that is no string")
    for part in value:
        if isinstance(part, str):
            yield kind, part
            continue
        name = str(_object(part).get("type"))
        inner = next((part[key] for key in ("thinking", "reasoning", "summary", "text") if part.get(key)), None)
        if "thinking" in name or "reasoning" in name:
            yield from _texts(inner, "thinking")
        elif name in ("text", "output_text"):
            yield from _texts(inner, kind)
        else:
            raise EndpointError("request", f"the answer has a part of type {name[:40]!r}, which is not supported")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _malformed(what: str) -> EndpointError:
    """The server sent something that is no answer, or only a part of one. Another attempt may succeed."""
    return EndpointError("transient", what)


def _number(value: Any, least: int, most: int) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None


class SSEDecoder:
    """Decodes the bytes of a response: server-sent events, or the whole message of a server that cannot stream.

    ``feed`` and ``end`` raise EndpointError. A line, and a whole message, may have 8 MiB.
    """

    def __init__(self, answer: ChatStream) -> None:
        self._answer = answer
        self._rest = b""
        self._whole: list[bytes] | None = None

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._rest) + sum(map(len, self._whole or ())) > _LINE_MAX:
            raise _malformed("a message without end")

    def end(self) -> None:
        """The response has ended. Raises EndpointError where the answer is incomplete."""
        rest, self._rest = self._rest, b""
        self._line(rest)
        if self._whole is not None:
            self._answer.add(_parsed(b"\n".join(self._whole)))
            self._answer.done = True
        if not self._answer.is_whole:
            raise _malformed("the answer was cut off in transit")

    def _line(self, line: bytes) -> None:
        line = line.strip()
        if self._whole is not None:
            self._whole.append(line)
        elif line.startswith(b"data:"):
            event = line[5:].strip()
            if event == b"[DONE]":
                self._answer.done = True
            elif event:
                self._answer.add(_parsed(event))
        elif line.startswith(b"{"):
            self._whole = [line]
        elif line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
            raise _malformed(f"this is no answer: {line[:60].decode(errors='replace')!r}")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"malformed JSON ({type(error).__name__})") from error
