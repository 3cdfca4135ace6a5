"""A teacher whose requests run on Ray actors, one engine in each.

Actors and not Ray Data: answers come back one by one, no batch holds the others up, and a dead replica's requests can
be given to another.

**Delivery.** A request belongs to one replica at a time; when that dies its requests go back into the queue. An answer
that a replica gave before it was thought dead is dropped if the request has been answered since, so ``poll`` gives
each request once. A connection that breaks for less than a minute loses nothing: both sides repeat what they said.

**Elastic.** Sampling begins with the first live replica; the others join when the cluster has room. A dead one is
asked for again, and Ray starts it where its resources are free, on a node that came later too.

**Poison.** A request that kills the engine must not take the run along. The requests on a replica that died (not with
its node) become suspects, and suspects are spread ever thinner: after d deaths a replica takes 1/8^d of its limit of
them, and on a request's last chance it is the only suspect there. So one bad request is found and becomes an error row.

**Code.** Nothing but JSON travels. Every node has this package, in this version: installed, or as a checkout at the
same path from which the driver is started (Ray adds the driver's folder to its workers' path). A node with other code
or another engine is not used. What workers print stays in Ray's own log folder.

Not covered: one replica across nodes (let vLLM do that: ``engine_args: {distributed_executor_backend: ray}`` with
``engine: {kind: local}``), the loss of the cluster's head (the run ends and resumes), an engine that hangs but lives.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from licensing.errors import DistillError, InputError, MissingDependency
from synth.distributed.cluster import connect, described, replica_options
from synth.distributed.config import RayEngine
from synth.distributed.replica import Replica, code_digest, packed
from synth.teachers.config import FakeTeacher, TeacherConfig, TransformersTeacher, VllmTeacher
from synth.teachers.served_config import ServedTeacher
from synth.teachers.teacher import Completion, Request

__all__ = ["RayTeacher"]

_COLLECT_S = 10.0  # an empty answer after so long shows that the connection stands
_UNREACHABLE_S = 60.0  # then a replica counts as dead
_LOOK_S = 1.0  # how long it listens before it looks at what is due
_RETRY_S = 1.0
_CLOSE_S = 10.0
_LONGEST_WAIT_S = 60.0  # between two starts of a replica that keeps dying; half a second after its first death
_THINNER = 8  # suspects on a replica: its limit divided by this, once for every death
_UNKNOWN_LIMIT = 2304  # vLLM on a large GPU: twice 1,024 running, and an eighth; a guess that costs only memory
_ERRORS: dict[str, type[DistillError]] = {"InputError": InputError, "MissingDependency": MissingDependency}


@dataclass(eq=False)
class _Slot:
    """A replica that is wanted. ``actor`` is None while it waits to be asked for again."""

    actor: Any = None
    node: str = ""
    live: bool = False
    gone: bool = False
    answered: bool = False  # by this actor: its limit is the running engine's
    limit: int = 0
    last: int = 0  # number of the latest answer received
    sent: dict[str, Request] = field(default_factory=dict)
    failures: int = 0  # in a row, without an answer in between
    due: float = 0.0  # when to start it, or to try again to reach it (monotonic seconds)
    unreachable_since: float | None = None


class RayTeacher:
    """The recipe's teacher on ``config.replicas`` actors. It joins, or starts, the cluster at once."""

    def __init__(self, config: RayEngine, teacher: TeacherConfig) -> None:
        self.model = teacher.public_id
        self.engine = "ray"  # the replicas' own engine, once one has said hello
        self.can_continue, self.continues_token_ids = _continues(teacher)
        self.facts: list[dict[str, Any]] = []
        self._config = config
        self._teacher = teacher
        self._ray, self._owns_cluster = connect(config.address)
        self._options = replica_options(self._ray, config, teacher)
        self._slots = [_Slot() for _ in range(config.replicas)]
        self._calls: dict[Any, tuple[_Slot, Any, str]] = {}  # reference -> slot, the actor asked, what was asked
        self._owed: dict[str, Request] = {}  # everything submitted and not given out by poll
        self._queue: deque[Request] = deque()
        self._suspects: dict[int, deque[Request]] = {}  # by deaths
        self._deaths: Counter[str] = Counter()
        self._done: list[Completion] = []
        self._short_since = time.monotonic()
        self._reason = ""
        self._proven = False
        self._code = code_digest()
        for slot in self._slots:
            self._start(slot)

    @property
    def capacity(self) -> int:
        """The limits of all replicas, less what is in flight.

        One that is not there yet counts with a guess, so that its requests are at hand when it joins.
        """
        guess = _expected_limit(self._teacher)
        limits = sum(s.limit if s.answered else max(s.limit, guess) for s in self._slots if not s.gone)
        return max(0, limits - len(self._owed))

    def submit(self, request: Request) -> None:
        self._owed[request.request_id] = request
        self._queue.append(request)

    def poll(self) -> list[Completion]:
        return self.poll_for(math.inf)

    def poll_for(self, seconds: float) -> list[Completion]:
        """As ``poll``, for at most so long."""
        deadline = time.monotonic() + seconds
        while self._owed and not self._done and (left := deadline - time.monotonic()) > 0:
            self._advance(min(left, _LOOK_S))
        done, self._done = self._done, []
        for completion in done:
            del self._owed[completion.request_id]
        return done

    def close(self) -> None:
        """Close every engine, end every actor, leave the cluster. What is in flight is lost."""
        actors = [slot.actor for slot in self._slots if slot.actor is not None]
        closing = [slot.actor.close.remote(_CLOSE_S) for slot in self._slots if slot.live]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S + 5)
        for actor in actors:
            self._ray.kill(actor)
        self._slots, self._calls = [], {}
        self._owed.clear()
        if self._owns_cluster:
            self._owns_cluster = False
            self._ray.shutdown()

    # --- one turn ------------------------------------------------------------------------------------------------

    def _advance(self, seconds: float) -> None:
        """Start what is due, hand out requests, and take in whatever the replicas say within so long."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.actor is None and not slot.gone and slot.due <= now:
                self._start(slot)
            elif slot.unreachable_since is not None and slot.due <= now:
                slot.due = math.inf
                self._call(slot, "collect", slot.last, slot.limit, _COLLECT_S)
        for slot in self._slots:
            self._feed(slot)
        self._enough(now)
        calls = list(self._calls)
        if not calls:
            time.sleep(min(seconds, 0.1))
            return
        ready, waiting = self._ray.wait(calls, num_returns=1, timeout=seconds)
        if ready and waiting:
            ready += self._ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        for call in ready:
            if call in self._calls:  # else its slot has just been lost, by another call of this turn
                self._heard(call, *self._calls.pop(call))

    def _heard(self, call: Any, slot: _Slot, actor: Any, what: str) -> None:
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(call)
        except exceptions.ActorUnavailableError as error:
            self._unreachable(slot, str(error))
        except exceptions.RayTaskError:
            raise  # a bug in the replica's own methods: engines report theirs as `failure`
        except exceptions.RayError as error:
            self._lost(slot, str(error), poison=not self._node_died(slot))
        else:
            if what == "hello":
                self._joined(slot, answer)
            elif what == "collect":
                self._collected(slot, json.loads(answer))

    def _joined(self, slot: _Slot, hello: dict[str, Any]) -> None:
        slot.node = hello["node"]
        if hello["failure"]:
            self._failed(slot, hello["failure"])
            return
        if hello["code"] != self._code:
            self._differs(slot, "another version of this package")
        elif self.engine not in ("ray", hello["engine"]):
            self._differs(slot, f"{hello['engine']} where others run {self.engine}")
        else:
            self._work(slot, hello)

    def _work(self, slot: _Slot, hello: dict[str, Any]) -> None:
        self.engine = hello["engine"]
        slot.live, slot.limit = True, hello["limit"]
        self._call(slot, "collect", slot.last, slot.limit, _COLLECT_S)

    def _differs(self, slot: _Slot, what: str) -> None:
        """Answers of another engine must not mix in. Before the first one works it is an error, later a loss."""
        if self.engine == "ray":
            raise InputError(
                f"Ray node {slot.node[:8]} runs {what}",
                where="engine.address",
                hint="install the same version on every node, or share one checkout",
            )
        self._lost(slot, f"its node runs {what}", poison=False, for_good=True)

    def _collected(self, slot: _Slot, reply: dict[str, Any]) -> None:
        slot.last, slot.limit = reply["last"], reply["limit"]
        self.facts += [found for found in reply["facts"] if found not in self.facts]
        for fields in reply["answers"]:
            completion = Completion(**fields | {"token_ids": tuple(fields["token_ids"])})
            slot.answered, slot.failures, self._proven = True, 0, True
            if slot.sent.pop(completion.request_id, None) is not None:  # else it was sent twice and answered twice
                self._deaths.pop(completion.request_id, None)
                self._done.append(completion)
        if slot.unreachable_since is not None:
            slot.unreachable_since = None
            if slot.sent:  # some of it may never have arrived; the replica drops what it knows
                self._call(slot, "submit", packed(list(slot.sent.values())))
        if reply["failure"] and not reply["answers"]:
            self._failed(slot, reply["failure"])
        else:
            self._call(slot, "collect", slot.last, slot.limit, _COLLECT_S)

    # --- handing out ---------------------------------------------------------------------------------------------

    def _feed(self, slot: _Slot) -> None:
        room = slot.limit - len(slot.sent) if slot.live and slot.unreachable_since is None else 0
        batch: list[Request] = []
        while len(batch) < room and (request := self._next(slot)) is not None:
            slot.sent[request.request_id] = request
            batch.append(request)
        if batch:
            self._call(slot, "submit", packed(batch))

    def _next(self, slot: _Slot) -> Request | None:
        """A suspect that may run there, else a request that never saw a replica die."""
        if self._suspects:
            there = Counter(self._deaths[name] for name in slot.sent if name in self._deaths)
            last_chance = self._config.max_deaths - 1
            for deaths in sorted(self._suspects, reverse=True):
                most = 0 if there[last_chance] else max(1, slot.limit // _THINNER**deaths)
                if there.total() == 0 if deaths == last_chance else there[deaths] < most:
                    request = self._suspects[deaths].popleft()
                    if not self._suspects[deaths]:
                        del self._suspects[deaths]
                    return request
        return self._queue.popleft() if self._queue else None

    # --- deaths --------------------------------------------------------------------------------------------------

    def _failed(self, slot: _Slot, failure: dict[str, Any]) -> None:
        """The replica lives and its engine does not. Before any engine answered, that is the user's to mend."""
        kind = _ERRORS.get(failure["kind"])
        if kind is not None and not self._proven:
            where = f"{failure['where'] or 'teacher'}, on Ray node {slot.node[:8]}"
            raise kind(failure["what"], where=where, hint=failure["hint"])
        self._lost(slot, failure["what"], poison=True)

    def _unreachable(self, slot: _Slot, why: str) -> None:
        now = time.monotonic()
        if slot.unreachable_since is None:
            slot.unreachable_since = now
        if not slot.live or now - slot.unreachable_since > _UNREACHABLE_S:
            self._lost(slot, why, poison=False)
        else:
            slot.due = now + _RETRY_S
            self._calls = {call: told for call, told in self._calls.items() if told[0] is not slot}

    def _lost(self, slot: _Slot, why: str, *, poison: bool, for_good: bool = False) -> None:
        """Give the slot's requests back and plan its next start. ``poison``: one of them may be to blame."""
        lines = why.strip().splitlines() or ["no reason given"]
        self._reason = lines[-1] if lines[0].startswith("Traceback") else lines[0]
        print(f"ray: lost a replica with {len(slot.sent)} requests: {self._reason}", file=sys.stderr)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(slot.actor)
        self._calls = {call: told for call, told in self._calls.items() if told[0] is not slot}
        for request in slot.sent.values():
            self._give_back(request, poison)
        failures = slot.failures + poison
        self._slots[self._slots.index(slot)] = _Slot(
            failures=failures,
            gone=for_good or failures > self._config.max_restarts,
            due=time.monotonic() + min(_LONGEST_WAIT_S, 2.0 ** (failures - 1)),
        )

    def _give_back(self, request: Request, poison: bool) -> None:
        name = request.request_id
        if poison:
            self._deaths[name] += 1
        deaths = self._deaths[name]
        if deaths >= self._config.max_deaths:
            error = f"{deaths} replicas died while it ran, the last with no other suspect"
            del self._deaths[name]
            self._done.append(Completion(name, "", "error", None, None, error))
        elif deaths:
            self._suspects.setdefault(deaths, deque()).append(request)
        else:
            del self._deaths[name]
            self._queue.appendleft(request)

    def _node_died(self, slot: _Slot) -> bool:
        return any(node["NodeID"] == slot.node and not node["Alive"] for node in self._ray.nodes())

    def _enough(self, now: float) -> None:
        """Raise MissingDependency where too few replicas have been live for too long, or none can come back."""
        live = sum(slot.live for slot in self._slots)
        if live >= self._config.min_replicas:
            self._short_since = now
            return
        if all(slot.gone for slot in self._slots):
            raise MissingDependency(
                f"no replica is left, after {self._config.max_restarts} restarts: {self._reason}",
                where="engine",
                hint="read Ray's log folder (/tmp/ray/session_latest/logs on the node); the same command resumes",
            )
        if now - self._short_since > self._config.start_timeout_s:
            raise MissingDependency(
                f"{live} of {self._config.min_replicas} replicas are live after {self._config.start_timeout_s:g} s",
                where="engine",
                hint=f"a replica needs {described(self._options)} on one node: see `ray status`; then run again",
            )

    # --- actors --------------------------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> None:
        replica = self._ray.remote(_Actor).options(
            max_concurrency=4, max_restarts=0, scheduling_strategy="SPREAD", **self._options
        )
        slot.actor = replica.remote(self._teacher.model_dump_json())
        self._call(slot, "hello")

    def _call(self, slot: _Slot, what: str, *arguments: Any) -> None:
        self._calls[getattr(slot.actor, what).remote(*arguments)] = (slot, slot.actor, what)


class _Actor(Replica):
    """The replica, which knows its node."""

    def hello(self) -> dict[str, Any]:
        import ray

        return super().hello() | {"node": ray.get_runtime_context().get_node_id()}


def _expected_limit(teacher: TeacherConfig) -> int:
    """How many requests a replica will probably take, before its engine can be asked."""
    if isinstance(teacher, FakeTeacher):
        return 2 * teacher.concurrency
    if isinstance(teacher, TransformersTeacher):
        return 4 * teacher.batch_size
    if isinstance(teacher, ServedTeacher):
        return teacher.concurrency
    running = getattr(teacher, "max_num_seqs", None)
    return 2 * running if running else _UNKNOWN_LIMIT


def _continues(teacher: TeacherConfig) -> tuple[bool, bool]:
    """``can_continue`` and ``continues_token_ids``, as the engine's class says; it runs on another machine."""
    engine: type = object
    if isinstance(teacher, VllmTeacher):
        from synth.teachers.vllm import VllmEngine as engine
    elif isinstance(teacher, TransformersTeacher):
        from synth.teachers.transformers import TransformersEngine as engine
    elif isinstance(teacher, FakeTeacher):
        from synth.teachers.fake import FakeEngine as engine
    return bool(getattr(engine, "can_continue", False)), bool(getattr(engine, "continues_token_ids", False))
