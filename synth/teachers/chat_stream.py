"""One answer of an OpenAI-compatible endpoint, assembled from its event stream or from a whole message.

**Thinking** arrives in a field of its own: ``reasoning`` (vLLM today) or ``reasoning_content`` (older servers, other
APIs). The text is ``think_open + thinking + think_close + content``, and nothing is stripped or added, so the tags
decide the white space. vLLM's parsers cut out the tags' tokens and leave every other character in place: with the
default tags the text is the raw completion. APIs that strip the white space around thinking need tags that contain it
("<think>\n", "\n</think>\n\n").

A trace with thinking and without content (``content: null``) was cut off in its thinking, or ended there: its block
stays open. Two cases cannot be recognised, since a server does not report them: an answer that ended right after
``</think>`` (taken for one that ended before it), and an empty block (its tags are lost).

**Token counts** are the server's where they are plausible, else None. Not plausible: a count below zero, zero for a
text, more than twice the limit, or so few tokens that each would have 256 characters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["ChatStream", "MalformedResponse", "RequestRejected", "SSEDecoder"]

_LINE_MAX = 8 << 20  # bytes; a whole message of 32k tokens with their ids is less than a megabyte
_CHARACTERS_A_TOKEN = 256  # the longest tokens of common vocabularies are runs of 128 blanks


class MalformedResponse(Exception):
    """The server sent something that is no answer, or only a part of one. A retry may succeed."""


class RequestRejected(Exception):
    """The server reported an error in the middle of a stream, or streams without end. A retry would not succeed."""


class ChatStream:
    """Collects the parsed events of one answer; ``limit`` is the request's ``max_new_tokens``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._thinking: list[str] = []
        self._content: list[str] = []
        self._characters = 0
        self._usage: Mapping[str, Any] = {}
        self.finish_reason: str | None = None
        self.done = False

    def add(self, event: Any) -> None:
        """One event of a stream, or a whole message. Raises MalformedResponse or RequestRejected."""
        if not isinstance(event, dict):
            raise MalformedResponse("an event that is no object")
        if event.get("error"):
            self._raise(event["error"])
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        choices = event.get("choices")
        if choices is None and "usage" not in event:
            raise MalformedResponse("an object that is no answer")
        for choice in choices or ():
            self._choice(choice)

    def _choice(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            raise MalformedResponse("a choice that is no object")
        if choice.get("index") not in (0, None):
            return
        part = choice.get("delta") or choice.get("message") or {}
        if not isinstance(part, dict):
            raise MalformedResponse("a message that is no object")
        thinking = part.get("reasoning")
        if thinking is None:
            thinking = part.get("reasoning_content")
        for piece, pieces in ((thinking, self._thinking), (part.get("content"), self._content)):
            if piece is None:
                continue
            if not isinstance(piece, str):
                raise MalformedResponse("a text that is no string")
            pieces.append(piece)
            self._characters += len(piece)
        if self._characters > _CHARACTERS_A_TOKEN * (self._limit + 64):
            raise RequestRejected(f"more than {self._characters:,} characters for {self._limit:,} tokens")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _raise(self, error: Any) -> None:
        message = error.get("message") if isinstance(error, dict) else error
        code = error.get("code") if isinstance(error, dict) else None
        permanent = isinstance(code, int) and 400 <= code < 500 and code not in (408, 409, 429)
        raise (RequestRejected if permanent else MalformedResponse)(f"the server said: {message}")

    def text(self, think_open: str, think_close: str) -> str:
        """The trace: thinking, where there is any, between its tags."""
        thinking, content = "".join(self._thinking), "".join(self._content)
        if not thinking:
            return content
        return f"{think_open}{thinking}" + (f"{think_close}{content}" if content else "")

    def counts(self) -> tuple[int | None, int | None, int | None]:
        """Prompt, completion and reasoning tokens; None for a count that is missing or not plausible."""
        generated = _number(self._usage.get("completion_tokens"), 0, 2 * self._limit + 64)
        if generated is not None and self._characters > _CHARACTERS_A_TOKEN * generated:
            generated = None
        details = self._usage.get("completion_tokens_details")
        reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
        most = generated if generated is not None else 2 * self._limit + 64
        return _number(self._usage.get("prompt_tokens"), 1, 1 << 31), generated, _number(reasoning, 0, most)


def _number(value: Any, least: int, most: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None


class SSEDecoder:
    """Decodes the bytes of a response: server-sent events, or the whole message of a server that cannot stream.

    ``feed`` and ``end`` raise MalformedResponse or RequestRejected. A line, and a whole message, may have 8 MiB.
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
            raise MalformedResponse("a message without end")

    def end(self) -> None:
        """The response has ended. Raises MalformedResponse where the answer is incomplete."""
        rest, self._rest = self._rest, b""
        self._line(rest)
        if self._whole is not None:
            self._answer.add(_parsed(b"\n".join(self._whole)))
        if self._answer.finish_reason is None:
            raise MalformedResponse("the answer was cut off in transit")

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
            raise MalformedResponse(f"this is no answer: {line[:60].decode(errors='replace')!r}")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedResponse(f"malformed JSON ({type(error).__name__})") from error
