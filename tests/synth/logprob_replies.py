"""Answers with log-probabilities: replies as vLLM's server gives them, and a teacher in this process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from hostile_endpoint import Call, event, usage

from synth.teachers.logprobs import TokenLogprobs
from synth.teachers.teacher import Completion, Teacher

STOP = 1


def distribution(token_id: int, position: int, vocabulary: int) -> dict[int, float]:
    """Log-probabilities of all tokens, all different: seeded, whatever is asked for."""
    draw = random.Random(f"{token_id} {position}")
    logits = [-draw.random() * 20 for _ in range(vocabulary)]
    total = math.log(sum(map(math.exp, logits)))
    return {number: logit - total for number, logit in enumerate(logits)}


def most_probable(token_id: int, position: int, vocabulary: int, k: int) -> list[tuple[int, float]]:
    return sorted(distribution(token_id, position, vocabulary).items(), key=lambda pair: -pair[1])[:k]


def content(token_ids: Sequence[int], top: int, vocabulary: int, start: int = 0) -> list[dict[str, Any]]:
    """``logprobs.content``: the token that was drawn stands first, and in the last one's place if it is none of the
    most probable."""
    rows = []
    for position, token_id in enumerate(token_ids, start):
        drawn = (token_id, distribution(token_id, position, vocabulary)[token_id])
        others = [pair for pair in most_probable(token_id, position, vocabulary, top) if pair[0] != token_id]
        entries = [
            {"token": f"token_id:{number}", "logprob": value, "bytes": [1]} for number, value in [drawn, *others][:top]
        ]
        rows.append({**entries[0], "top_logprobs": entries})
    return rows


def reply(call: Call, text: str, token_ids: Sequence[int], vocabulary: int, finish: str = "stop") -> None:
    """The text at once, the log-probabilities in two events."""
    call.head()
    for part, start in ((token_ids[:2], 0), (token_ids[2:], 2)):
        message = event({"content": text if start else ""}, finish if start else None)
        message["choices"][0]["logprobs"] = {"content": content(part, call.body["top_logprobs"], vocabulary, start)}
        call.send(message)
    call.send(event(usage=usage(5, len(token_ids))))
    call.raw(b"data: [DONE]\n\n")


class TokensTeacher(Teacher):
    """A few tokens, by the request's seed, and the stop token; the text names them. Takes ``seconds`` an answer."""

    model, engine = "me/tiny", "engine 1"
    can_continue = continues_token_ids = True

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.waiting: list[Any] = []

    @property
    def capacity(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, request: Any) -> None:
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        time.sleep(self.seconds)
        (request,), self.waiting = self.waiting, []
        before = list(request.prefix_ids)
        tokens = [*before, *([] if before else [2 + request.seed % 50]), 7, 8, 9, STOP]
        ids = tokens[len(before) :][: request.max_new_tokens]
        top = np.asarray(ids)[:, None] + np.arange(request.logprobs)
        logprobs = TokenLogprobs.of_top(ids, top, -np.ones(top.shape).cumsum(-1), request.logprobs)
        whole, stopped = [*before, *ids], ids[-1] == STOP
        reason: Any = "stop" if stopped else "length"
        cut = () if stopped else tuple(whole)
        text = str(whole)
        return [Completion(request.request_id, text, reason, 5, len(ids), token_ids=cut, logprobs=logprobs)]

    def close(self) -> None:
        self.waiting = []
