"""A teacher whose answers are a function of the messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synth.teachers.teacher import Completion, Teacher

Reply = Callable[[list[dict[str, str]]], str]


class Scripted(Teacher):
    """``reply`` says the answer, ``finish`` how it ends."""

    model, engine, capacity = "scripted", "scripted 1", 1
    engine_info = ({"model": model, "revision": None, "engine": engine, "config": {"dtype": "bfloat16"}},)

    def __init__(self, reply: Reply, finish: Reply = lambda _: "stop") -> None:
        self.reply, self.finish = reply, finish
        self.requests: list[Any] = []
        self.waiting: list[Any] = []

    def submit(self, request: Any) -> None:
        self.requests.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Any]:
        requests, self.waiting = self.waiting, []
        return [self._answer(request.request_id, list(request.messages)) for request in requests]

    def _answer(self, request_id: str, messages: list[dict[str, str]]) -> Completion:
        return Completion(request_id, self.reply(messages), self.finish(messages), 5, 9)

    def close(self) -> None:
        self.waiting = []
