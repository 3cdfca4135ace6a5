"""A teacher without a model: it reads the gold answer, errs on purpose, and takes its time.

It ships so that a recipe can be tried, killed and resumed on any machine. An answer depends only on the fake's seed and
the request id, not on order, timing or concurrency, so an interrupted run ends with the same rows as any other.

Its token counts are **word counts**: plausible sizes, from no tokenizer.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

from synth.problems.problem import Prompt, text_of
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import Completion, FinishReason, Request, Teacher

_OPENINGS = (
    "Let me read the problem again.",
    "First I write down what is given.",
    "I start with the smallest step.",
    "What is asked for here?",
    "There are two ways to go about this.",
)
_STEPS = (
    "Taking {a} and {b} together leaves {c} to look at.",
    "Step {a}: the value {b} carries over to {c}.",
    "Wait, {a} is not {b}; I go back to {c}.",
    "So far {a} of {b} parts are done, {c} remain.",
    "Checking with {a}, {b} and {c} gives the same.",
)


@dataclass(order=True)
class _InFlight:
    done_at: float
    request_id: str
    completion: Completion = field(compare=False)


class FakeEngine(Teacher):
    """``concurrency`` lanes, each busy ``latency_s`` seconds a sample on average (0.5 to 1.5 times, by the sample).

    Thinking stands between `think_open`, which may be empty, and `think_close`. A cut trace is continued by the text
    that a new trace would have, without a second opening tag.
    """

    can_continue = True

    def __init__(self, config: FakeTeacher) -> None:
        self.model = config.public_id
        self.engine = "fake 1"
        self._config = config
        self._lanes = [0.0] * config.concurrency  # a heap: when each lane is free again, monotonic seconds
        self._in_flight: list[_InFlight] = []  # a heap, the first to finish at its top

    @property
    def capacity(self) -> int:
        """Twice the lanes, less the requests in flight."""
        return max(0, 2 * self._config.concurrency - len(self._in_flight))

    def submit(self, request: Request) -> None:
        rng = random.Random(hashlib.sha256(f"{self._config.seed}:{request.request_id}".encode()).digest())
        seconds = self._config.latency_s * rng.uniform(0.5, 1.5)
        done_at = max(time.monotonic(), heapq.heappop(self._lanes)) + seconds
        heapq.heappush(self._lanes, done_at)
        completion = _answer(request, rng, self._config)
        heapq.heappush(self._in_flight, _InFlight(done_at, request.request_id, completion))

    def poll_for(self, seconds: float) -> list[Completion]:
        if not self._in_flight:
            return []
        time.sleep(min(seconds, max(0.0, self._in_flight[0].done_at - time.monotonic())))
        completions, now = [], time.monotonic()
        while self._in_flight and self._in_flight[0].done_at <= now:
            completions.append(heapq.heappop(self._in_flight).completion)
        return completions

    def close(self) -> None:
        self._in_flight.clear()


def _answer(request: Request, rng: random.Random, config: FakeTeacher) -> Completion:
    prompt, opening, closing = request.prompt, config.think_open.strip(), config.think_close.strip()
    correct = rng.random() < config.accuracy
    text = f"{opening}\n{_thinking(rng)}\n{closing}\n\n{_final(prompt, correct, rng)}"
    text = text.lstrip("\n")  # without an opening tag, as where the chat template writes it
    if request.prefix:
        text = f"\n{text.removeprefix(opening)}" if closing not in request.prefix else _final(prompt, correct, rng)
    words = re.findall(r"\S+\s*", text)
    finish_reason: FinishReason = "stop"
    if len(words) > request.max_new_tokens:
        text, finish_reason = "".join(words[: request.max_new_tokens]), "length"
    prompt_words = sum(len(text_of(message.get("content")).split()) for message in request.messages)
    tokens = min(len(words), request.max_new_tokens)
    return Completion(request.request_id, request.prefix + text, finish_reason, prompt_words, tokens)


def _thinking(rng: random.Random) -> str:
    steps = [rng.choice(_OPENINGS)]
    for _ in range(rng.randint(1, 4)):
        a, b, c = (rng.randint(1, 99) for _ in range(3))
        steps.append(rng.choice(_STEPS).format(a=a, b=b, c=c))
    return "\n".join(steps)


def _final(prompt: Prompt, correct: bool, rng: random.Random) -> str:
    columns = prompt.model_extra or {}
    if prompt.answer is None:  # open questions, and tasks that many answers solve: there is nothing to copy
        return f"That is all I can say about it, on {rng.randint(2, 9)} counts."
    gold = str(prompt.answer)
    if prompt.kind == "code":
        wrong = f"def {columns.get('entry_point', 'solve')}(*args, **kwargs):\n    return None"
        return f"```python\n{gold if correct else wrong}\n```"
    return f"\\boxed{{{gold if correct else _wrong(gold, prompt.kind, columns, rng)}}}"


def _wrong(gold: str, kind: str, columns: dict[str, Any], rng: random.Random) -> str:
    """An answer of the gold's form that does not equal it."""
    if kind == "choice":
        letters = [chr(ord("A") + index) for index in range(max(2, len(columns.get("choices") or "ABCD")))]
        return rng.choice([letter for letter in letters if letter != gold.strip().upper()])
    if re.fullmatch(r"[+-]?\d{1,18}", gold.strip()):
        return str(int(gold) + rng.choice((-1, 1)) * rng.randint(1, 9))
    digit = re.search(r"\d", gold)
    if digit:
        other = str((int(digit.group()) + rng.randint(1, 9)) % 10)
        return gold[: digit.start()] + other + gold[digit.end() :]
    flipped = {"true": "False", "false": "True", "yes": "No", "no": "Yes"}.get(gold.strip().lower())
    return flipped or (gold[::-1] if gold[::-1] != gold else f"{gold}{gold}")
