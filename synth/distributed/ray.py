"""A teacher whose requests run on Ray actors, one engine in each.

Actors and not Ray Data: answers come back one by one, no batch delays the others, and the requests of a dead replica
move to another one.

**Delivery.** A request belongs to one replica at a time; when that dies its requests return to the queue. A late answer
of a replica that counted as dead is dropped if the request has been answered since, so ``poll`` returns each request
once. Ray repeats a call whose connection broke (``max_task_retries``), and both methods of a replica are idempotent.
Ray's health checks decide when an unreachable replica is dead.

**Prefixes.** Each replica has a queue: the requests of one problem are in the same one, so that an engine's prefix
cache knows the prompt. A replica with free slots takes from its own, and where that is empty from the longest. A
quarter more requests than the replicas take wait in the queues, so that there is a choice.

**Several nodes.** A replica over several nodes is a placement group with one bundle a node. The actor in the first one
is the replica; each further one (``_Share``) runs its node's share of the engine from the first request on. They live
and die together: where one dies, all are ended and the replica starts again, on other nodes if need be.

**Elastic.** Sampling begins with the first live replica; the others join when the cluster has room. A dead one is
started again, where its resources are free, also on a node that joined later. These restarts are not Ray's
(``max_restarts``): its count includes deaths of nodes, never goes back to zero, and it does not wait between restarts.

**Poison.** A request that kills the engine must not end the run. The requests on a replica that died (not with its
node) become suspects, and fewer and fewer suspects share a replica: after d deaths at most 1/8^d of its limit, and on
a request's last chance it is the only suspect there. So one bad request is isolated and becomes an error row. An engine
over several nodes may fail before Ray knows that one of them is dead: that counts as a death of the replica.

**Endpoints.** What ends the run for one replica ends it for all; before that, each answers what it has sent, since that
is paid for. The attempts of a replica that died are lost, and are not in the budget.

**Code.** Only JSON is sent. Every node has this package, in this version: installed, or as a checkout at the same path
from which the driver is started (Ray adds the driver's folder to its workers' path). A node with other code or another
engine is not used. What workers print stays in Ray's own log folder.

Not covered: a server over several nodes, the loss of the cluster's head (the run ends and resumes), an engine that
hangs but lives.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from licensing.errors import DistillError, InputError, MissingDependency, Refused
from synth.distributed.cluster import check_installed, connect, replica_options, reserve_nodes, resource_text
from synth.distributed.config import RayEngine
from synth.distributed.replica import Replica, answer_of, code_digest, packed, run_share, share_hello
from synth.teachers.config import (
    AutoTeacher,
    FakeTeacher,
    OpenAITeacher,
    ServedTeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmTeacher,
)
from synth.teachers.endpoint import rendezvous_target
from synth.teachers.teacher import Completion, Request, Teacher

_COLLECT_S = 10.0  # how long a replica waits for an answer before it replies without one
_POLL_S = 1.0  # how long the driver waits for replies before it looks for replicas to start
_CLOSE_S = 10.0
_LONGEST_WAIT_S = 60.0  # between two starts of a replica that keeps dying; half a second after its first death
_SUSPECT_DIVISOR = 8  # suspects on a replica: its limit divided by this, once for every death
_UNKNOWN_LIMIT = 2304  # vLLM on a large GPU: twice 1,024 running, and an eighth; too high costs only memory
_ERRORS: dict[str, type[DistillError]] = {error.__name__: error for error in (InputError, MissingDependency, Refused)}


@dataclass(eq=False)
class _ReplicaState:
    """The driver's view of a replica. ``actor`` is None while it waits for its next start.

    ``shares``, ``group``: of a replica over several nodes, the actors on the further ones, and the placement group.
    """

    actor: Any = None
    shares: list[Any] = field(default_factory=list)
    group: Any = None
    nodes: list[str] = field(default_factory=list)  # of the actors that have come up
    config: str = ""  # what the shares run
    sharing: bool = False
    live: bool = False
    abandoned: bool = False
    answered: bool = False  # by this actor: its limit is the running engine's
    limit: int = 0
    last: int = 0  # number of the latest answer received
    sent: dict[str, Request] = field(default_factory=dict)
    failures: int = 0  # in a row, without an answer in between
    start_at: float = 0.0  # monotonic seconds


class RayTeacher(Teacher):
    """The recipe's teacher on ``config.replicas`` replicas. It joins, or starts, the cluster at the first request.

    Raises MissingDependency where Ray is not installed.
    """

    def __init__(self, config: RayEngine, teacher: TeacherConfig) -> None:
        check_installed()
        self.model = teacher.public_id
        self.engine = "ray"  # the replicas' own engine, once the first one has joined
        # What `auto` is on a node may differ from here; vLLM and transformers do not differ in this.
        self.continues_token_ids = isinstance(teacher, VllmTeacher | TransformersTeacher | AutoTeacher)
        self.can_continue = self.continues_token_ids or isinstance(teacher, FakeTeacher)
        self.engine_info: list[dict[str, Any]] = []
        self._config = config
        self._teacher = teacher
        self._ray: Any = None
        self._owns_cluster = False
        self._nodes, self._options = 1, dict[str, Any]()  # of one replica
        self._replicas = [_ReplicaState() for _ in range(config.replicas)]
        self._calls: dict[Any, tuple[_ReplicaState, str]] = {}  # object reference -> replica and method
        self._in_flight: dict[str, Request] = {}  # submitted and not returned by poll
        self._queue_names = [str(number) for number in range(config.replicas)]
        self._queues: dict[str, deque[Request]] = {name: deque() for name in self._queue_names}
        self._suspects: dict[int, deque[Request]] = {}  # by deaths
        self._deaths: Counter[str] = Counter()
        self._completions: list[Completion] = []
        self._short_since = time.monotonic()
        self._reason = ""
        self._has_joined = self._has_answered = False  # a replica
        self._code = code_digest()

    @property
    def capacity(self) -> int:
        """The limits of all replicas, with the queues' quarter where there are several, less the requests in flight.

        A replica that has not joined yet counts with an estimate, so that its requests are ready when it joins.
        """
        estimate = _expected_limit(self._teacher)
        limits = sum(r.limit if r.answered else max(r.limit, estimate) for r in self._replicas if not r.abandoned)
        queued = limits // 4 if len(self._replicas) > 1 else 0
        return max(0, limits + queued - len(self._in_flight))

    def submit(self, request: Request) -> None:
        if self._ray is None:
            self._join()
        self._in_flight[request.request_id] = request
        self._queues[rendezvous_target(request, self._queue_names)].append(request)

    def poll_for(self, seconds: float) -> list[Completion]:
        deadline = time.monotonic() + seconds
        while self._in_flight and not self._completions and (remaining := deadline - time.monotonic()) > 0:
            self._advance(min(remaining, _POLL_S))
        completions, self._completions = self._completions, []
        for completion in completions:
            del self._in_flight[completion.request_id]
        return completions

    def drain(self) -> Iterator[Completion]:
        """The answers of an endpoint's replicas to what they have sent; they send nothing more."""
        yield from self._completions
        self._completions = []
        if self._ray is None or not isinstance(self._teacher, OpenAITeacher):
            return
        for replica in self._replicas:
            if replica.live:
                self._call(replica, "drain")
        while any(method == "collect" for _, method in self._calls.values()):
            (call,), _ = self._ray.wait(list(self._calls), num_returns=1, timeout=None)
            replica, method = self._calls.pop(call)
            try:
                reply = self._ray.get(call)
            except self._ray.exceptions.RayTaskError:
                raise  # as in _on_reply
            except self._ray.exceptions.RayError:
                continue  # the replica has died, and its answers with it
            if method == "collect" and self._take_in(replica, json.loads(reply)):
                self._collect(replica)
            completions, self._completions = self._completions, []
            yield from completions

    def close(self) -> None:
        """Close every engine, end every actor, leave the cluster. Requests in flight are lost."""
        if self._ray is None:
            return
        closing = [replica.actor.close.remote(_CLOSE_S) for replica in self._replicas if replica.live]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S + 5)
        for replica in self._replicas:
            self._end(replica)
        self._replicas = [_ReplicaState() for _ in self._replicas]
        self._calls, self._completions = {}, []
        for requests in (self._in_flight, self._suspects, self._deaths):
            requests.clear()
        for queue in self._queues.values():
            queue.clear()
        if self._owns_cluster:
            self._ray.shutdown()
        self._ray = None

    def _join(self) -> None:
        self._ray, self._owns_cluster = connect(self._config.address)
        self._nodes, self._options = replica_options(self._ray, self._config, self._teacher)
        self._short_since = time.monotonic()
        for replica in self._replicas:
            self._start(replica)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _advance(self, seconds: float) -> None:
        """Start replicas, send requests, and take in the replies of the next ``seconds`` at most."""
        now = time.monotonic()
        for replica in self._replicas:
            if replica.actor is None and not replica.abandoned and replica.start_at <= now:
                self._start(replica)
        for replica in self._replicas:
            self._send(replica)
        self._check_enough(now)
        calls = list(self._calls)
        if not calls:
            time.sleep(min(seconds, 0.1))
            return
        ready, waiting = self._ray.wait(calls, num_returns=1, timeout=seconds)
        if ready and waiting:
            ready += self._ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        for call in ready:
            if call in self._calls:  # else its replica was lost by another reply of this round
                self._on_reply(call, *self._calls.pop(call))

    def _on_reply(self, call: Any, replica: _ReplicaState, method: str) -> None:
        exceptions = self._ray.exceptions
        try:
            reply = self._ray.get(call)
        except exceptions.RayTaskError:
            raise  # a bug in the replica's own methods: engines report theirs as `failure`
        except exceptions.RayError as error:
            unavailable = isinstance(error, exceptions.ActorUnavailableError)
            self._lose(replica, str(error), poison=not (unavailable or self._node_died(replica)))
        else:
            if method == "hello":
                self._on_hello(replica, reply)
            elif method == "run":
                self._on_failure(replica, reply)
            elif method == "collect":
                self._on_answers(replica, json.loads(reply))

    def _on_hello(self, replica: _ReplicaState, hello: dict[str, Any]) -> None:
        """One of the replica's actors has come up; with all of them it is live."""
        node = hello["node"]
        replica.nodes.append(node)
        if hello["failure"]:
            self._on_failure(replica, hello["failure"])
        elif hello["code"] != self._code:
            self._refuse(replica, node, "another version of this package")
        elif self.engine not in ("ray", hello["engine"]):
            self._refuse(replica, node, f"{hello['engine']} where others run {self.engine}")
        else:
            self.engine = hello["engine"]
            if "config" in hello:  # not that of a share
                replica.limit, replica.config = hello["limit"], hello["config"]
            if len(replica.nodes) == self._nodes:
                replica.live = self._has_joined = True
                self._collect(replica)

    def _refuse(self, replica: _ReplicaState, node: str, what: str) -> None:
        """Keep answers of another engine out. An error before the first replica joins, later the loss of this one."""
        if not self._has_joined:
            raise InputError(
                f"Ray node {node[:8]} runs {what}",
                where="engine.address",
                hint="install the same version on every node, or share one checkout",
            )
        self._lose(replica, f"its node runs {what}", poison=False, abandon=True)

    def _on_answers(self, replica: _ReplicaState, reply: dict[str, Any]) -> None:
        if self._take_in(replica, reply):
            self._collect(replica)
        else:
            self._on_failure(replica, reply["failure"])

    def _take_in(self, replica: _ReplicaState, reply: dict[str, Any]) -> bool:
        """Take the answers of a reply; False where the replica has failed and these were all."""
        replica.last, replica.limit = reply["last"], reply["limit"]
        self.engine_info += [info for info in reply["engine_info"] if info not in self.engine_info]
        for fields in reply["answers"]:
            completion = answer_of(fields)
            replica.answered, replica.failures, self._has_answered = True, 0, True
            if replica.sent.pop(completion.request_id, None) is not None:  # else it was answered twice
                self._deaths.pop(completion.request_id, None)
                self._completions.append(completion)
        return bool(reply["answers"] or not reply["failure"])

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self, replica: _ReplicaState) -> None:
        free_slots = replica.limit - len(replica.sent) if replica.live else 0
        batch: list[Request] = []
        while len(batch) < free_slots and (request := self._next(replica)) is not None:
            replica.sent[request.request_id] = request
            batch.append(request)
        if not batch:
            return
        if not replica.sharing:
            replica.sharing = True
            for rank, share in enumerate(replica.shares, 1):
                self._calls[share.run.remote(replica.config, rank)] = (replica, "run")
        self._call(replica, "submit", packed(batch))

    def _next(self, replica: _ReplicaState) -> Request | None:
        """A suspect that may run there, else a request that was on no replica that died."""
        if self._suspects:
            there = Counter(self._deaths[name] for name in replica.sent if name in self._deaths)
            last_chance = self._config.max_deaths - 1
            for deaths in sorted(self._suspects, reverse=True):
                most = 0 if there[last_chance] else max(1, replica.limit // _SUSPECT_DIVISOR**deaths)
                if there.total() == 0 if deaths == last_chance else there[deaths] < most:
                    request = self._suspects[deaths].popleft()
                    if not self._suspects[deaths]:
                        del self._suspects[deaths]
                    return request
        own = self._queues[self._queue_names[self._replicas.index(replica)]]
        queue = own or max(self._queues.values(), key=len)
        return queue.popleft() if queue else None

    # --- deaths ------------------------------------------------------------------------------------------------------

    def _on_failure(self, replica: _ReplicaState, failure: dict[str, Any]) -> None:
        """The replica lives and its engine does not. Before any engine answered, that is the user's error; an endpoint
        that others run is the same for all replicas, and what it refuses is no crash."""
        error = _ERRORS.get(failure["kind"])
        node_died = self._node_died(replica)  # then the rest of an engine over several nodes fails too
        is_final = not (self._has_answered or node_died) or isinstance(self._teacher, OpenAITeacher)
        if error is not None and is_final:
            where = f"{failure['where'] or 'teacher'}, on Ray node {', '.join(node[:8] for node in replica.nodes)}"
            raise error(failure["what"], where=where, hint=failure["hint"])
        self._lose(replica, failure["what"], poison=not node_died)

    def _lose(self, replica: _ReplicaState, why: str, *, poison: bool, abandon: bool = False) -> None:
        """Return its requests to the queue and schedule its next start. ``poison``: one of them may be the cause."""
        lines = why.strip().splitlines() or ["no reason given"]
        self._reason = lines[-1] if lines[0].startswith("Traceback") else lines[0]
        print(f"ray: lost a replica with {len(replica.sent)} requests: {self._reason}", file=sys.stderr)
        self._end(replica)
        self._calls = {call: target for call, target in self._calls.items() if target[0] is not replica}
        for request in replica.sent.values():
            self._requeue(request, poison)
        failures = replica.failures + poison
        self._replicas[self._replicas.index(replica)] = _ReplicaState(
            failures=failures,
            abandoned=abandon or failures > self._config.max_restarts,
            start_at=time.monotonic() + min(_LONGEST_WAIT_S, 2.0 ** (failures - 1)),
        )

    def _requeue(self, request: Request, poison: bool) -> None:
        name = request.request_id
        if poison:
            self._deaths[name] += 1
        deaths = self._deaths[name]
        if deaths >= self._config.max_deaths:
            error = f"{deaths} replicas died while it ran, the last with no other suspect"
            del self._deaths[name]
            self._completions.append(Completion(name, "", "error", None, None, error))
        elif deaths:
            self._suspects.setdefault(deaths, deque()).append(request)
        else:
            del self._deaths[name]
            self._queues[rendezvous_target(request, self._queue_names)].appendleft(request)

    def _end(self, replica: _ReplicaState) -> None:
        """End its actors, and give its nodes back."""
        for actor in filter(None, (replica.actor, *replica.shares)):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        if replica.group is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.util.remove_placement_group(replica.group)

    def _node_died(self, replica: _ReplicaState) -> bool:
        return any(node["NodeID"] in replica.nodes and not node["Alive"] for node in self._ray.nodes())

    def _check_enough(self, now: float) -> None:
        """Raise MissingDependency where too few replicas have been live for too long, or all are abandoned."""
        live = sum(replica.live for replica in self._replicas)
        if live >= self._config.min_replicas:
            self._short_since = now
            return
        if all(replica.abandoned for replica in self._replicas):
            raise MissingDependency(
                f"no replica is left, after {self._config.max_restarts} restarts: {self._reason}",
                where="engine",
                hint="read Ray's log folder (/tmp/ray/session_latest/logs on the node); the same command resumes",
            )
        if now - self._short_since > self._config.start_timeout_s:
            raise MissingDependency(
                f"{live} of {self._config.min_replicas} replicas are live after {self._config.start_timeout_s:g} s",
                where="engine",
                hint=f"a replica needs {resource_text(self._nodes, self._options)}: see `ray status`; then run again",
            )

    # --- actors ------------------------------------------------------------------------------------------------------

    def _start(self, replica: _ReplicaState) -> None:
        strategies: list[Any] = ["SPREAD"]
        if self._nodes > 1:
            replica.group, strategies = reserve_nodes(self._ray, self._nodes, self._options)
        actor_class = self._ray.remote(_Actor).options(
            max_concurrency=4, max_restarts=0, max_task_retries=-1, scheduling_strategy=strategies[0], **self._options
        )
        replica.actor = actor_class.remote(self._teacher.model_dump_json(), self._nodes)
        self._call(replica, "hello")
        for strategy in strategies[1:]:
            share_class = self._ray.remote(_Share).options(
                max_restarts=0, scheduling_strategy=strategy, **self._options
            )
            replica.shares.append(share_class.remote(self._teacher.model_dump_json()))
            self._calls[replica.shares[-1].hello.remote()] = (replica, "hello")

    def _collect(self, replica: _ReplicaState) -> None:
        self._call(replica, "collect", replica.last, replica.limit, _COLLECT_S)

    def _call(self, replica: _ReplicaState, method: str, *arguments: Any) -> None:
        self._calls[getattr(replica.actor, method).remote(*arguments)] = (replica, method)


class _Actor(Replica):
    """A replica that reports its node."""

    def hello(self) -> dict[str, Any]:
        import ray

        self.address = ray.util.get_node_ip_address()
        return super().hello() | {"node": ray.get_runtime_context().get_node_id()}


class _Share:
    """A further node's share of a replica over several nodes."""

    def __init__(self, config: str) -> None:
        self._config = config

    def hello(self) -> dict[str, Any]:
        import ray

        return share_hello(self._config) | {"node": ray.get_runtime_context().get_node_id()}

    def run(self, config: str, rank: int) -> dict[str, Any]:
        import ray

        return run_share(config, rank, ray.util.get_node_ip_address())


def _expected_limit(teacher: TeacherConfig) -> int:
    """How many requests a replica will probably take, before its engine reports its limit."""
    if isinstance(teacher, FakeTeacher):
        return 2 * teacher.concurrency
    if isinstance(teacher, TransformersTeacher):
        return 4 * teacher.batch_size
    if isinstance(teacher, ServedTeacher):
        return teacher.concurrency
    running = getattr(teacher, "max_num_seqs", None)
    return 2 * running if running else _UNKNOWN_LIMIT
