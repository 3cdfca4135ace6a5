"""The loop that keeps a teacher fed. There are no rounds in it, and so no barrier: whatever may be asked is asked as
soon as there is room, answers are committed as they come, and verdicts are found meanwhile by other processes.

The teacher never waits for a verdict: it goes on with other problems. Only where nothing may be asked until a verdict
comes does the loop wait, for an answer or a verdict, whichever is first.

Of several teachers none waits for another: a slot whose teacher is full, or whose turn has not come, is set aside
(about 40 bytes each) and the next one is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from synth.problems.problem import text_of
from synth.sampling.budget import BudgetTracker
from synth.sampling.online_verification import OnlineVerifier
from synth.sampling.policy import Policy, Slot
from synth.sampling.reasoning_guard import EmptyReasoningGuard
from synth.sampling.requests import RequestPlan
from synth.sampling.store import SampleStore
from synth.teachers.router import TeacherRouter
from synth.teachers.teacher import Completion, Request

__all__ = ["TOKEN_IDS", "Progress", "Sampler", "chosen"]

Progress = Callable[[int, int, int], None]
"""Called with samples in the log, samples allowed so far, and completion tokens generated in this call."""

TOKEN_IDS = "token_ids"
"""Key of a row that was cut off, in a recipe that escalates: its tokens, which the continuation begins with. The
ordered log holds none."""

_GLANCE_S = 0.02  # how long the teacher is polled while a verdict may come first
_LOOK_S = 1.0  # how long it is polled otherwise: the clock is looked at in between


def chosen(plan: RequestPlan, log: SampleStore, slot: Slot) -> int | None:
    """The place of the row that stands for a slot: its escalation, where there is one that did not fail."""
    place = log.find(plan.request_id(slot))
    if plan.config.escalate is not None and (place is None or log.finish_reason(place) == "length"):
        escalated = log.find(plan.escalated_request_id(slot))
        if escalated is not None and log.finish_reason(escalated) != "error":
            return escalated
    return place


@dataclass(frozen=True)
class _Wish:
    """A request that is to be asked, and what is reserved for it. ``cut``: the place of the trace it escalates."""

    slot: Slot
    request: Request
    prompt_tokens: int
    cut: int | None = None
    continued: bool = False


class _Account(TypedDict):
    """Which of the meter's accounts a request is on."""

    escalated: bool
    teacher: str


class Sampler:
    """One run of ``sample()``; see ``run``."""

    def __init__(
        self,
        plan: RequestPlan,
        policy: Policy,
        team: TeacherRouter,
        log: SampleStore,
        meter: BudgetTracker,
        grader: OnlineVerifier | None,
        progress: Progress | None,
    ) -> None:
        self._plan, self._policy, self._team, self._log = plan, policy, team, log
        self._meter, self._grader, self._progress = meter, grader, progress
        self._thinking = [EmptyReasoningGuard(teacher) for teacher in plan.teachers]
        self._in_flight: dict[str, _Wish] = {}
        # By teacher: slots to be asked, and traces that wait for their escalation.
        self._waiting: list[deque[Slot]] = [deque() for _ in plan.teachers]
        self._cut: list[deque[tuple[Slot, int]]] = [deque() for _ in plan.teachers]
        self._given = self._done = 0
        self._out_of_time = False
        self.reused = 0
        self.stopped: str | None = None

    def run(self) -> None:
        """Ask, commit and judge until the policy is content or the budget is spent; then ``stopped`` names the limit.

        Raises what the teacher or the verifier raises, and Refused where a thinking teacher does not think, with
        everything so far in the log.
        """
        while True:
            self._hear(block=False)
            self._watch_the_clock()
            self._feed()
            if self._change_turns():
                continue
            if self._in_flight:
                for completion in self._poll():
                    self._commit(completion)
                self._tell()
            elif self._grader is not None and self._grader.busy:
                self._hear(block=True)
            elif any(self._waiting) or any(self._cut):
                raise RuntimeError(f"{self._team.engine} takes no request, though none is in flight")
            else:
                break
        self._meter.save()

    # --- asking ---

    def _feed(self) -> None:
        while True:
            for member, cut in enumerate(self._cut):
                while cut and (self._out_of_time or self._team.free_slots(member) > 0):
                    if not self._escalate(*cut[0]):
                        break
                    cut.popleft()
            slot = self._following()
            if slot is None:
                if any(self._may_escalate(member) for member in range(len(self._cut))):
                    continue  # reading the log found more of them
                return
            if self.stopped is not None:
                self._policy.skip(slot)
                continue
            request = self._plan.request(slot)
            if not self._ask(_Wish(slot, request, _guess(request))):
                self._waiting[self._plan.teacher_index(slot)].appendleft(slot)
                if self._in_flight:
                    return  # what is in flight gives back what it does not use
                self.stopped = self._meter.refusing_limit()

    def _following(self) -> Slot | None:
        """The next slot that is not in the log and whose teacher has room; once nothing more is asked, any slot.

        Those that are in the log get their turn on the way.
        """
        for member, slots in enumerate(self._waiting):
            if slots and self._may_ask(member):
                return slots.popleft()
        while not any(self._waiting) or any(self._may_ask(member) for member in range(len(self._waiting))):
            slot = self._policy.next()
            if slot is None:
                return None
            self._given += 1
            place = chosen(self._plan, self._log, slot)
            if place is not None:
                self.reused += 1
                self._count(slot, place)
                self._settle(slot, place)
                continue
            member = self._plan.teacher_index(slot)
            if self._may_ask(member):
                return slot
            self._waiting[member].append(slot)
        return None

    def _may_ask(self, member: int) -> bool:
        return self.stopped is not None or self._team.free_slots(member) > 0

    def _may_escalate(self, member: int) -> bool:
        room = self._out_of_time or self._team.free_slots(member) > 0
        return bool(self._cut[member]) and room and not self._escalating()

    def _change_turns(self) -> bool:
        """Let the next teacher that needs this process's accelerator have it, once the one that has it is done.

        One that verdicts may yet give more to do keeps its turn: starting an engine takes longer than waiting for them.
        """
        mine = self._team.active
        if mine is None or self._waiting[mine] or self._cut[mine] or (self._grader is not None and self._grader.busy):
            return False
        if any(self._plan.teacher_index(wish.slot) == mine for wish in self._in_flight.values()):
            return False
        members = (member for member in range(len(self._waiting)) if self._waiting[member] or self._cut[member])
        return any(self._team.activate(member) for member in members)

    def _ask(self, wish: _Wish) -> bool:
        member = self._plan.teacher_index(wish.slot)
        if not self._meter.reserve(wish.request.max_new_tokens, wish.prompt_tokens, **self._account(wish)):
            return False
        self._in_flight[wish.request.request_id] = wish
        self._team.submit(member, wish.request)
        return True

    def _account(self, wish: _Wish) -> _Account:
        return {"escalated": wish.cut is not None, "teacher": self._plan.teacher(wish.slot).public_id}

    def _escalate(self, slot: Slot, place: int) -> bool:
        """Ask for the rest of a trace that was cut off, or settle for it as it is; False: later."""
        row = self._log.row(place)
        ids = row.get(TOKEN_IDS) or ()
        teacher = self._team.teachers[self._plan.teacher_index(slot)]
        continued = bool(teacher.can_continue and row["text"] and row["completion_tokens"])
        continued = continued and bool(ids or not teacher.continues_token_ids)
        if continued:
            request = self._plan.escalation(slot, row["text"], row["completion_tokens"], ids)
        else:
            request = self._plan.escalation(slot)
        wish = _Wish(slot, request, row["prompt_tokens"] or _guess(request), place, continued)
        if not self._out_of_time:
            if request.request_id not in self._log and self._ask(wish):
                return True
            if self._escalating():
                return False  # what they do not use may be enough
        self._accept(slot, place)
        return True

    def _escalating(self) -> bool:
        return any(wish.cut is not None for wish in self._in_flight.values())

    # --- hearing ---

    def _poll(self) -> list[Completion]:
        busy = self._grader is not None and self._grader.busy
        starving = busy and any(self._team.free_slots(member) > 0 for member in range(len(self._waiting)))
        return self._team.poll_for(_GLANCE_S if starving else _LOOK_S)

    def _commit(self, completion: Completion) -> None:
        wish = self._in_flight.pop(completion.request_id, None)
        if wish is None:
            return  # delivered twice, by a replica that was thought dead: the first one counts
        self._meter.release(wish.request.max_new_tokens, wish.prompt_tokens, **self._account(wish))
        self._team.record_engine_info()  # before its first row: a kill leaves no row of an unknown engine
        row = self._row(wish, completion)
        place = self._log.append(row)
        self._thinking[self._plan.teacher_index(wish.slot)].look(row)
        self._meter.generated += completion.completion_tokens or 0
        spent = completion.completion_tokens
        if spent is None:
            spent = self._generated(place, row)
            if row.get("continued") and wish.cut is not None:
                spent = max(0, spent - self._generated(wish.cut))
        self._meter.count(spent, completion.prompt_tokens or 0, **self._account(wish))
        if wish.cut is not None:
            self._accept(wish.slot, wish.cut if completion.finish_reason == "error" else place)
        else:
            self._settle(wish.slot, place)

    def _row(self, wish: _Wish, completion: Completion) -> dict[str, Any]:
        """A sample row. Nothing in it changes from run to run: no time, no host."""
        first = self._log.row(wish.cut) if wish.cut is not None else None
        row: dict[str, Any] = {
            "request_id": wish.request.request_id,
            "prompt_id": wish.request.prompt.id,
            "sample_index": wish.slot[1],
        }
        if first is None and completion.token_ids and self._plan.config.escalate is not None:
            row[TOKEN_IDS] = list(completion.token_ids)  # its escalation begins there
        row |= {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "model": self._plan.teacher(wish.slot).public_id,
            "engine": self._team.teachers[self._plan.teacher_index(wish.slot)].engine,
        }
        if completion.reasoning_tokens is not None:
            row["reasoning_tokens"] = completion.reasoning_tokens
        if first is not None:
            if wish.continued and completion.finish_reason != "error":
                row["prompt_tokens"] = first["prompt_tokens"]
                more = completion.completion_tokens
                row["completion_tokens"] = None if more is None else first["completion_tokens"] + more
            row |= {"escalated_from": first["request_id"], "continued": wish.continued}
        return row

    def _settle(self, slot: Slot, place: int) -> None:
        """A row of a slot is in: escalate it where it was cut off for the first time."""
        if self._plan.config.escalate is not None and self._log.finish_reason(place) == "length":
            first = self._log.find(self._plan.request_id(slot))
            if first == place and self._plan.escalated_request_id(slot) not in self._log:
                self._cut[self._plan.teacher_index(slot)].append((slot, place))
                return
        self._accept(slot, place)

    def _accept(self, slot: Slot, place: int) -> None:
        self._done += 1
        if self._grader is not None:
            self._grader.add(slot, place)

    def _count(self, slot: Slot, place: int) -> None:
        """Add what a row of an earlier run has cost; an escalation, with the trace that it began from."""
        log, first = self._log, self._log.find(self._plan.request_id(slot))
        name = self._plan.teacher(slot).public_id
        if first is not None:
            self._meter.count(self._generated(first), log.prompt_tokens(first), teacher=name)
        if place != first:
            before = self._generated(first) if first is not None and log.row(place).get("continued") else 0
            more = max(0, self._generated(place) - before)
            self._meter.count(more, log.prompt_tokens(place), escalated=True, teacher=name)

    def _generated(self, place: int, row: Mapping[str, Any] | None = None) -> int:
        """Tokens of a row's trace. Where the engine did not count them, the most that its text can be: one a byte."""
        if self._log.counted(place):
            return self._log.completion_tokens(place)
        row = row or self._log.row(place)
        config = self._plan.config
        limit = config.escalate.max_new_tokens if config.escalate and "escalated_from" in row else config.max_new_tokens
        return min(limit, len(row["text"].encode("utf-8", "surrogatepass")))

    def _hear(self, *, block: bool) -> None:
        if self._grader is not None:
            for slot, correct, answer, right in self._grader.heard(block=block):
                self._policy.record(slot, correct, answer, matches_gold=right)

    def _watch_the_clock(self) -> None:
        if self._out_of_time or (why := self._meter.out_of_time()) is None:
            return
        self.stopped, self._out_of_time = why, True
        given_up = list(self._in_flight.values())
        self._in_flight.clear()
        for wish in given_up:
            if wish.cut is not None:
                self._accept(wish.slot, wish.cut)
            else:
                self._policy.skip(wish.slot)

    def _tell(self) -> None:
        if self._progress is not None:
            total = self._given if self._policy.needs_verdicts else len(self._plan.prompts) * self._policy.limit
            self._progress(self._done, total, self._meter.generated)


def _guess(request: Request) -> int:
    """Prompt tokens of a chat, before anybody counted: a token for three characters, and some for the template."""
    return sum(len(text_of(message.get("content"))) // 3 + 8 for message in request.messages) + len(request.prefix) // 3
