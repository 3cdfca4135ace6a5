"""Verification while samples are still being drawn: what an adaptive policy goes by, and what stage verify need not
do any more after a fixed one."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Protocol

from licensing.closing import Closing
from synth.sampling.policy import Grade, Slot
from synth.sampling.requests import RequestPlan
from synth.sampling.store import SampleStore
from synth.trace import Trace

_IN_FLIGHT = 64  # rows in the hands of the verifier; the others wait on the disk
_END = -1


class SampleVerifier(Protocol):
    """Grades samples in the background; ``synth.verify.trace_verifier.TraceVerifier`` is one."""

    def grade(self, trace: Trace) -> Future[Grade]:
        """What a policy goes by."""
        ...


class OnlineVerification(Closing):
    """Hands samples to a verifier, in a thread of its own, and collects grades in whatever order they come. Texts wait
    on the disk. A context manager.

    ``required``: the policy goes by the grades. Where it does not, they are no more than verdicts that stage verify
    need not compute: nobody waits for them, a verifier that fails ends the verification and not the sampling, and
    samples without a gold answer, of kind open, or of failed requests are left out. Leaving the block then drops the
    samples that have no grade yet.
    """

    def __init__(self, verifier: SampleVerifier, plan: RequestPlan, store: SampleStore, *, required: bool) -> None:
        self._verifier, self._plan, self._store, self._required = verifier, plan, store, required
        self._waiting: SimpleQueue[int] = SimpleQueue()
        self._places = Semaphore(_IN_FLIGHT)
        self._closing = Event()
        self._without_grade = 0
        self._done: SimpleQueue[tuple[Slot, int, Future[Grade]]] = SimpleQueue()
        self._thread = Thread(target=self._submit, name="online verification", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._waiting.put(_END)
        self._places.release()
        self._thread.join()

    @property
    def busy(self) -> bool:
        """Whether a grade is to come that the policy goes by."""
        return self._required and self._without_grade > 0

    def add(self, slot: Slot, row_id: int) -> None:
        """Verify a sample that is in the store, unless only a vote of all of its problem's samples could."""
        prompt = self._plan.prompts[slot[0]]
        if prompt.lacks_gold:
            return
        if not self._required and (prompt.kind == "open" or self._store.finish_reason(row_id) == "error"):
            return
        self._without_grade += 1
        number = slot[0] * self._plan.config.most_samples + slot[1]
        self._waiting.put(number << 40 | row_id)  # one integer: there may be millions after a resume

    def graded(self, *, block: bool) -> list[tuple[Slot, int, Grade]]:
        """(slot, row in the store, grade) of the samples graded since the last call, where the grades are required.
        ``block`` waits for one where any has no grade yet. Raises what verifying raised."""
        samples: list[tuple[Slot, int, Grade]] = []
        while self._without_grade and (not self._done.empty() or (block and not samples)):
            slot, row_id, future = self._done.get()
            self._without_grade -= 1
            if self._required:
                samples.append((slot, row_id, future.result()))
            elif (error := future.exception()) is not None and not self._closing.is_set():
                print(f"no further sample is verified while others are drawn: {error!r}", file=sys.stderr)
                self._closing.set()
        return samples

    def _submit(self) -> None:
        while True:
            waiting = self._waiting.get()
            self._places.acquire()
            if waiting == _END or self._closing.is_set():
                return  # with the place that ``close`` adds
            number, row_id = divmod(waiting, 1 << 40)
            slot = divmod(number, self._plan.config.most_samples)
            teacher = self._plan.teacher(slot)
            problem = self._plan.prompts[slot[0]].trace_columns()
            fields = {"sample_index": slot[1], "teacher": teacher.public_id,
                      "think_open": teacher.think_open, "think_close": teacher.think_close}  # fmt: skip
            try:
                sample = self._store.row(row_id)
                future = self._verifier.grade(Trace.of(problem, sample["text"], sample | fields))
            except Exception as error:  # raised by ``graded``
                future = Future()
                future.set_exception(error)
            future.add_done_callback(partial(self._collect, slot, row_id))

    def _collect(self, slot: Slot, row_id: int, future: Future[Grade]) -> None:
        self._places.release()
        self._done.put((slot, row_id, future))
