"""Verification while samples are still being drawn: what an adaptive policy goes by."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from synth.sampling.policy import Slot
from synth.sampling.requests import RequestPlan
from synth.sampling.store import SampleStore

__all__ = ["Grade", "GradedSample", "OnlineVerification", "SampleVerifier"]

_IN_FLIGHT = 64  # rows in the hands of the verifier; the others wait on the disk


@dataclass(frozen=True, slots=True)
class Grade:
    """What a verdict means for a policy.

    ``judged``: there is a verdict for or against (``synth.verify.verdict.judged``). ``correct``: it counts towards the
    target. ``matches_gold``: the answer is the gold one, though the sample may not count (cut off, or in a bad format).
    ``answer``: the answer of a wrong sample, where one could be read.
    """

    judged: bool
    correct: bool
    matches_gold: bool
    answer: str | None


class SampleVerifier(Protocol):
    """Grades samples in the background; ``synth.verify.trace_verifier.TraceVerifier`` is one."""

    def grade(
        self, problem: Mapping[str, Any], sample: Mapping[str, Any], think_open: str, think_close: str
    ) -> Future[Grade]:
        """The grade of a sample row of the store."""
        ...


@dataclass(frozen=True, slots=True)
class GradedSample:
    """A sample, by its slot (problem, sample index), and its grade."""

    slot: Slot
    grade: Grade


class OnlineVerification:
    """Hands samples to a verifier and collects grades in whatever order they come. Texts wait on the disk."""

    def __init__(self, verifier: SampleVerifier, plan: RequestPlan, store: SampleStore) -> None:
        self._verifier, self._plan, self._store = verifier, plan, store
        self._waiting: deque[int] = deque()
        self._in_flight = 0
        self._done: SimpleQueue[tuple[Slot, Future[Grade]]] = SimpleQueue()

    @property
    def busy(self) -> bool:
        """Whether a sample has no grade yet."""
        return bool(self._waiting or self._in_flight)

    def add(self, slot: Slot, row_id: int) -> None:
        """Verify a sample that is in the store."""
        number = slot[0] * self._plan.config.most_samples + slot[1]
        self._waiting.append(number << 40 | row_id)  # one integer: there may be millions after a resume
        self._submit()

    def graded(self, *, block: bool) -> list[GradedSample]:
        """The samples graded since the last call. ``block`` waits for one where any is in flight. Raises what
        verifying raised."""
        samples: list[GradedSample] = []
        while self._in_flight and (not self._done.empty() or (block and not samples)):
            slot, future = self._done.get()
            self._in_flight -= 1
            samples.append(GradedSample(slot, future.result()))
            self._submit()
        return samples

    def _submit(self) -> None:
        while self._waiting and self._in_flight < _IN_FLIGHT:
            number, row_id = divmod(self._waiting.popleft(), 1 << 40)
            slot = divmod(number, self._plan.config.most_samples)
            teacher = self._plan.teacher(slot)
            problem = self._plan.prompts[slot[0]].trace_columns()
            self._in_flight += 1
            future = self._verifier.grade(problem, self._store.row(row_id), teacher.think_open, teacher.think_close)
            future.add_done_callback(partial(self._collect, slot))

    def _collect(self, slot: Slot, future: Future[Grade]) -> None:
        self._done.put((slot, future))
