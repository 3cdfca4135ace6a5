"""The loop that keeps every teacher at capacity; no batch barrier.

Each request is sent as soon as its teacher has a free place, samples are committed as they come, and other processes
verify them meanwhile. A teacher never waits for a verdict: it goes on with other problems. Only where every further
request depends on a verdict does the loop wait, for an answer or a verdict, whichever is first.

No teacher waits for another: a sample whose teacher is full, or whose turn has not come, is set aside (about 40 bytes
each) and the next one is looked at.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from licensing.errors import DistillError, InputError
from synth.problems.problem import text_of
from synth.sampling.budget import BudgetTracker
from synth.sampling.online_verification import OnlineVerification
from synth.sampling.policy import Policy, Slot
from synth.sampling.reasoning_guard import EmptyReasoningGuard
from synth.sampling.requests import RequestPlan
from synth.sampling.selection import Selection
from synth.sampling.store import SampleStore
from synth.teachers.logprobs import TokenLogprobs
from synth.teachers.router import TeacherRouter
from synth.teachers.teacher import Completion, Request

Progress = Callable[[int, int, int, int], None]
"""Called with samples done, samples allowed so far, and, of this call, completion tokens and failed requests."""

_TOKEN_IDS = "token_ids"  # of a row that was cut off, in a recipe that escalates: the continuation begins with them
_SHORT_POLL_S = 0.02  # while a verdict may come first
_POLL_S = 1.0  # otherwise: the clock is read in between


@dataclass(frozen=True)
class _Sending:
    """A request, and what is reserved for it. ``cut``: the row of the trace that it escalates."""

    slot: Slot
    request: Request
    prompt_tokens: int
    cut: int | None = None
    continued: bool = False


class _Account(TypedDict):
    """The account of the budget that a request is on."""

    escalated: bool
    teacher: str


class Sampler:
    """One run of ``sample()``; see ``run``.

    ``verification``: None where samples are not verified; its grades are required where the policy needs them.
    """

    def __init__(
        self,
        plan: RequestPlan,
        policy: Policy,
        router: TeacherRouter,
        store: SampleStore,
        budget: BudgetTracker,
        verification: OnlineVerification | None,
        progress: Progress | None,
    ) -> None:
        self._plan, self._policy, self._router, self._store = plan, policy, router, store
        self._budget, self._verification, self._progress = budget, verification, progress
        self._to_retry = store.failed()
        self._selection = Selection(plan, store, self._to_retry)
        self._attempts: Counter[str] = Counter()  # paid ones that failed, of requests that are sent again
        self._guards = [EmptyReasoningGuard(teacher) for teacher in plan.teachers]
        self._in_flight: dict[str, _Sending] = {}
        # By teacher: samples that wait for a free place, and cut-off traces that wait for their escalation.
        self._waiting: list[deque[Slot]] = [deque() for _ in plan.teachers]
        self._cut: list[deque[tuple[Slot, int]]] = [deque() for _ in plan.teachers]
        self._allowed = self._done = self._failed = 0
        self._draining: str | None = None  # the limit before or at which no request is sent any more
        self.reused = self.awaited = self.abandoned = 0
        self.stopped: str | None = None

    def run(self) -> None:
        """Request, commit and grade until the policy is satisfied or the budget is spent; then ``stopped`` names the
        limit.

        Raises what a teacher or the verifier raises, and Refused where a thinking teacher does not think, with
        everything so far in the store, and all that was paid for; KeyboardInterrupt once the drain after an
        interrupt (``BudgetTracker.interrupt``) is over.
        """
        self._count_store()
        try:
            self._draw()
        except DistillError:
            for completion in self._router.drain():
                self._commit(completion)
                self._report()
            raise
        self._budget.save()
        if self._budget.interrupted:
            raise KeyboardInterrupt

    def _draw(self) -> None:
        while True:
            self._record_grades(block=False)
            self._check_time()
            if not self._budget.interrupted:
                self._feed()
                if self._change_turns():
                    continue
            elif not self._in_flight:
                return
            if self._in_flight:
                rows = [self._commit(completion) for completion in self._poll()]
                for member, row in filter(None, rows):
                    self._guards[member].look(row)
                self._report()
            elif self._verifying:
                self._record_grades(block=True)
            elif self._router.failure is not None:
                raise self._router.failure
            elif any(self._waiting) or any(self._cut):
                raise RuntimeError(f"{self._router.engine} takes no request, though none is in flight")
            else:
                return

    @property
    def _verifying(self) -> bool:
        return self._verification is not None and self._verification.busy

    # --- requests ---

    def _feed(self) -> None:
        while True:
            for member, cut in enumerate(self._cut):
                while cut and (self._draining is not None or self._router.free_slots(member) > 0):
                    if not self._escalate(*cut[0]):
                        break
                    cut.popleft()
            slot = self._next_slot()
            if slot is None:
                if any(self._may_escalate(member) for member in range(len(self._cut))):
                    continue  # reading the store found more of them
                return
            self.stopped = self.stopped or self._draining
            if self.stopped is not None:
                self._policy.skip(slot)
                continue
            request = self._plan.request(slot)
            if not self._send(_Sending(slot, request, _estimated_prompt_tokens(request))):
                self._waiting[self._plan.teacher_index(slot)].appendleft(slot)
                if self._in_flight:
                    return  # what is in flight gives back what it does not use
                self.stopped = self._budget.refusing_limit()

    def _next_slot(self) -> Slot | None:
        """The next sample that is not in the store and whose teacher has a free place; once sampling has stopped, any
        sample that is not in the store.

        Samples that are in the store are settled on the way.
        """
        for member, slots in enumerate(self._waiting):
            if slots and self._may_send(member):
                return slots.popleft()
        while not any(self._waiting) or any(self._may_send(member) for member in range(len(self._waiting))):
            slot = self._policy.next()
            if slot is None:
                return None
            self._allowed += 1
            row_id = self._selection.selected(slot)
            if row_id is not None:
                self.reused += 1
                self._settle(slot, row_id)
                continue
            member = self._plan.teacher_index(slot)
            if self._may_send(member):
                return slot
            self._waiting[member].append(slot)
        return None

    def _may_send(self, member: int) -> bool:
        return (self.stopped or self._draining) is not None or self._router.free_slots(member) > 0

    def _may_escalate(self, member: int) -> bool:
        free = self._draining is not None or self._router.free_slots(member) > 0
        return bool(self._cut[member]) and free and not self._escalating()

    def _change_turns(self) -> bool:
        """Let the next teacher that needs this process's accelerator have it, once the one that has it is done.

        One that verdicts may yet give more to do keeps its turn: starting an engine takes longer than waiting for them.
        """
        active = self._router.active
        if active is None or self._waiting[active] or self._cut[active] or self._verifying:
            return False
        if any(self._plan.teacher_index(sending.slot) == active for sending in self._in_flight.values()):
            return False
        members = (member for member in range(len(self._waiting)) if self._waiting[member] or self._cut[member])
        return any(self._router.activate(member) for member in members)

    def _send(self, sending: _Sending) -> bool:
        member = self._plan.teacher_index(sending.slot)
        request = sending.request
        if not self._budget.reserve(request.max_new_tokens, sending.prompt_tokens, **self._account(sending)):
            return False
        self._in_flight[request.request_id] = sending
        if request.request_id in self._attempts:
            request = replace(request, attempt=self._attempts[request.request_id])
        self._router.submit(member, request)
        return True

    def _account(self, sending: _Sending) -> _Account:
        return {"escalated": sending.cut is not None, "teacher": self._plan.teacher(sending.slot).public_id}

    def _escalate(self, slot: Slot, row_id: int) -> bool:
        """Request the rest of a trace that was cut off, or accept it as it is; False: later."""
        row = self._store.row(row_id)
        ids = row.get(_TOKEN_IDS) or ()
        teacher = self._router.teachers[self._plan.teacher_index(slot)]
        continued = bool(teacher.can_continue and row["text"] and row["completion_tokens"])
        continued = continued and bool(ids or not teacher.continues_token_ids)
        if continued:
            request = self._plan.escalation(slot, row["text"], row["completion_tokens"], ids)
        else:
            request = self._plan.escalation(slot)
        prompt_tokens = row["prompt_tokens"] or _estimated_prompt_tokens(request)
        if self._draining is not None:
            self.stopped = self.stopped or self._draining
        else:
            in_store = self._selection.find(request.request_id) is not None
            if not in_store and self._send(_Sending(slot, request, prompt_tokens, row_id, continued)):
                return True
            if self._escalating():
                return False  # what they do not use may be enough
        self._accept(slot, row_id)
        return True

    def _escalating(self) -> bool:
        return any(sending.cut is not None for sending in self._in_flight.values())

    # --- answers ---

    def _poll(self) -> list[Completion]:
        free = any(self._router.free_slots(member) > 0 for member in range(len(self._waiting)))
        return self._router.poll_for(_SHORT_POLL_S if self._verifying and free else _POLL_S)

    def _commit(self, completion: Completion) -> tuple[int, dict[str, Any]] | None:
        """Put an answer into the store; returns the index of its teacher, and its row."""
        sending = self._in_flight.pop(completion.request_id, None)
        if sending is None:
            return None  # delivered twice, by a replica that was thought dead: the first one counts
        member = self._plan.teacher_index(sending.slot)
        self._budget.release(sending.request.max_new_tokens, sending.prompt_tokens, **self._account(sending))
        self._router.record_engine_info()  # before its first row: a kill leaves no row of an unknown engine
        row = self._row(sending, completion)
        row_id = self._store.append(row, logprobs=self._logprobs(sending, completion))
        self.awaited += self._draining is not None
        self._to_retry.discard(row_id)
        self._budget.generated += completion.completion_tokens or 0
        spent = completion.completion_tokens
        if spent is None:
            spent = self._generated(row_id, row)
            if row.get("continued") and sending.cut is not None:
                spent = max(0, spent - self._generated(sending.cut))
        self._budget.count(spent, completion.prompt_tokens or 0, **self._account(sending))
        if completion.retry and self.stopped is None and self._draining is None:
            self._to_retry.add(row_id)
            self._attempts[completion.request_id] += 1
            if sending.cut is not None:
                self._cut[member].append((sending.slot, sending.cut))
            else:
                self._waiting[member].appendleft(sending.slot)
            return member, row
        self._attempts.pop(completion.request_id, None)
        self._failed += completion.finish_reason == "error"
        if sending.cut is not None:
            self._accept(sending.slot, sending.cut if completion.finish_reason == "error" else row_id)
        else:
            self._settle(sending.slot, row_id)
        return member, row

    def _row(self, sending: _Sending, completion: Completion) -> dict[str, Any]:
        """A row of the store. Only `completed_at` changes from run to run."""
        first = self._store.row(sending.cut) if sending.cut is not None else None
        row: dict[str, Any] = {"request_id": sending.request.request_id}
        if first is None and completion.token_ids and self._plan.config.escalate is not None:
            row[_TOKEN_IDS] = list(completion.token_ids)  # its escalation begins there
        row |= {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "engine": self._engine(sending.slot, completion),
            "completed_at": int(time.time()),
        }
        if completion.provenance:
            row["provenance"] = dict(completion.provenance)
        if completion.reasoning_tokens is not None:
            row["reasoning_tokens"] = completion.reasoning_tokens
        if first is not None:
            if sending.continued and completion.finish_reason != "error":
                row["prompt_tokens"] = first["prompt_tokens"]
                more = completion.completion_tokens
                row["completion_tokens"] = None if more is None else first["completion_tokens"] + more
            row |= {"escalated_from": first["request_id"], "continued": sending.continued}
        return row

    def _logprobs(self, sending: _Sending, completion: Completion) -> bytes | None:
        """The record of an answer's log-probabilities. None where nothing asks for them, and of a failed request."""
        if self._plan.config.logprobs is None or completion.finish_reason == "error":
            return None
        if completion.logprobs is None:
            raise InputError(
                f"{self._engine(sending.slot, completion)} gives no log-probabilities",
                where="sample.logprobs",
                hint="set teacher.kind to vllm or vllm_server, or remove sample.logprobs",
            )
        if not sending.continued or sending.cut is None:
            return completion.logprobs.record()
        first = self._store.logprobs(self._store.row(sending.cut))
        return None if first is None else TokenLogprobs.of_record(first).then(completion.logprobs).record()

    def _engine(self, slot: Slot, completion: Completion) -> str:
        """The engine that answered, with the model's name where it is not the requested one's."""
        engine = self._router.teachers[self._plan.teacher_index(slot)].engine
        other = self._plan.teacher(slot).other_model(completion.provenance.get("model"))
        return engine if other is None else f"{engine}, answered as {other}"

    def _settle(self, slot: Slot, row_id: int) -> None:
        """A sample is in the store: escalate it where it was cut off for the first time."""
        if self._plan.config.escalate is not None and self._store.finish_reason(row_id) == "length":
            escalated = self._selection.find(self._plan.escalated_request_id(slot))
            if row_id == self._selection.first(slot) and escalated is None:
                self._cut[self._plan.teacher_index(slot)].append((slot, row_id))
                return
        self._accept(slot, row_id)

    def _accept(self, slot: Slot, row_id: int) -> None:
        self._done += 1
        if self._verification is not None:
            self._verification.add(slot, row_id)

    def _count_store(self) -> None:
        """Add what the rows of earlier runs have cost, those of requests that failed included. Before anything is sent:
        a budget also holds for what failed and is sent again."""
        if not len(self._store):
            return
        escalates = self._plan.config.escalate is not None
        for slot in self._plan.slots():
            first = self._store.find(self._plan.request_id(slot))
            if first is not None:
                self._count(slot, first, self._generated(first))
            more = self._store.find(self._plan.escalated_request_id(slot)) if escalates else None
            if more is not None:
                tokens, failed = self._generated(more), self._store.finish_reason(more) == "error"
                if first is not None and not failed and self._store.row(more).get("continued"):
                    tokens = max(0, tokens - self._generated(first))
                self._count(slot, more, tokens, escalated=True)

    def _count(self, slot: Slot, row_id: int, tokens: int, *, escalated: bool = False) -> None:
        lost_prompt_tokens, lost_tokens = self._store.lost(row_id)
        prompt_tokens = self._store.prompt_tokens(row_id) + lost_prompt_tokens
        teacher = self._plan.teacher(slot).public_id
        self._budget.count(tokens + lost_tokens, prompt_tokens, escalated=escalated, teacher=teacher)

    def _generated(self, row_id: int, row: Mapping[str, Any] | None = None) -> int:
        """Tokens of a row's trace. Where the engine did not count them, the most that its text can be: one a byte."""
        if self._store.counted(row_id) or self._store.finish_reason(row_id) == "error":
            return self._store.completion_tokens(row_id)
        row = row or self._store.row(row_id)
        config = self._plan.config
        limit = config.escalate.max_new_tokens if config.escalate and "escalated_from" in row else config.max_new_tokens
        return min(limit, len(row["text"].encode("utf-8", "surrogatepass")))

    def _record_grades(self, *, block: bool) -> None:
        if self._verification is None:
            return
        for slot, row_id, grade in self._verification.graded(block=block):
            self._policy.record(slot, grade, tokens=self._store.completion_tokens(row_id))

    def _check_time(self) -> None:
        """Send no more from the drain on; at the limit, abandon what is in flight."""
        limit = self._budget.out_of_time()
        self._draining = self._draining or limit or self._budget.draining()
        if limit is None or not self._in_flight:
            return
        self.stopped = limit
        abandoned = list(self._in_flight.values())
        self.abandoned = len(abandoned)
        self._in_flight.clear()
        for sending in abandoned:
            if sending.cut is not None:
                self._accept(sending.slot, sending.cut)
            else:
                self._policy.skip(sending.slot)

    def _report(self) -> None:
        if self._progress is not None:
            total = self._allowed if self._policy.needs_verdicts else len(self._plan.prompts) * self._policy.limit
            self._progress(self._done, total, self._budget.generated, self._failed)


def _estimated_prompt_tokens(request: Request) -> int:
    """Prompt tokens of a chat before an engine counts them: one for three characters, and some for the template."""
    return sum(len(text_of(message.get("content"))) // 3 + 8 for message in request.messages) + len(request.prefix) // 3
