"""A replica: one teacher in a process of its own, fed and drained by messages. It does not depend on Ray.

One thread owns the teacher: it takes requests from an inbox while the teacher has capacity, and polls. Callers are
other threads of the process: ``submit`` fills the inbox and ``collect`` waits for answers, so the engine is never idle
while a message is in transit. The inbox holds a few requests more than the teacher takes.

Both calls are idempotent, so that a call whose reply was lost can be repeated: a request that the replica holds is not
taken twice, and an answer is returned again until it has been acknowledged.

Messages are JSON text, made of the plain fields of ``Request`` and ``Completion``, log-probabilities as their record in
base64: nothing is unpickled.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import json
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from licensing.errors import DistillError
from synth.problems.problem import Prompt
from synth.teachers.build import build_teacher
from synth.teachers.config import TeacherConfig, VllmTeacher
from synth.teachers.logprobs import TokenLogprobs
from synth.teachers.teacher import Completion, Request, Teacher

_TEACHER: TypeAdapter[TeacherConfig] = TypeAdapter(TeacherConfig)

_WITH_CAPACITY_S, _AT_CAPACITY_S = 0.02, 1.0  # how long the teacher is polled before the inbox is looked at
_BATCH = 64  # answers in one message: about ten megabytes at 32k tokens each
_RECORDS = 64 << 20  # bytes of log-probabilities in one message, after which it is sent


class Replica:
    """``config``: the recipe's teacher section as JSON. ``nodes``: how many share the engine; this process is on the
    first one, at ``address``, which is set before ``hello`` builds the teacher."""

    def __init__(self, config: str, nodes: int = 1) -> None:
        self._config, self._nodes = config, nodes
        self.address = ""
        self._changed = threading.Condition()
        self._inbox: deque[Request] = deque()
        self._unacknowledged: dict[str, int] = {}  # request id -> attempt
        self._answers: deque[tuple[int, Completion]] = deque()  # not acknowledged yet, oldest first
        self._last = 0  # number of the latest answer
        self._in_flight = 0  # in the teacher
        self._limit = 1
        self._failure: dict[str, Any] | None = None
        self._closing = self._draining = False
        self._worker: threading.Thread | None = None
        self._teacher: Teacher | None = None

    def hello(self) -> dict[str, Any]:
        """Build the teacher. Returns ``engine``, ``limit``, ``code`` and ``config``, the section with what processes on
        further nodes need, or ``failure`` with the error's fields."""
        if self._worker is None:
            try:
                config = _TEACHER.validate_json(self._config)
                if self._nodes > 1 and isinstance(config, VllmTeacher):
                    from synth.teachers.vllm import shared_arguments

                    config = _with_arguments(config, shared_arguments(config, self._nodes, self.address))
                    self._config = config.model_dump_json()
                self._teacher = build_teacher(config)
            except Exception as error:
                self._failure = _failure(error)
                return {"failure": self._failure}
            self._update_limit(self._teacher)
            self._worker = threading.Thread(target=self._work, args=(self._teacher,), name="replica", daemon=True)
            self._worker.start()
        assert self._teacher is not None, "a worker has a teacher"
        return {
            "failure": None,
            "engine": self._teacher.engine,
            "limit": self._limit,
            "code": code_digest(),
            "config": self._config,
        }

    def submit(self, requests: str) -> None:
        """Put requests (``packed``) into the inbox, except those that it holds until they are acknowledged."""
        with self._changed:
            for request in unpacked(requests):
                attempt = request.attempt or 0
                if self._unacknowledged.get(request.request_id, -1) < attempt:
                    self._unacknowledged[request.request_id] = attempt
                    self._inbox.append(request)
            self._changed.notify_all()

    def collect(self, acknowledged: int, limit: int, timeout_s: float) -> str:
        """The answers after number ``acknowledged``, once there is one, or the limit has grown, or time is up.

        JSON of ``last`` (number to acknowledge next), ``answers``, ``limit`` (how many requests it takes in all),
        ``failure``, after which there are no more answers, and ``engine_info``, once the engine runs.
        """
        with self._changed:
            while self._answers and self._answers[0][0] <= acknowledged:
                self._unacknowledged.pop(self._answers.popleft()[1].request_id, None)
            self._changed.wait_for(lambda: self._answers or self._failure or self._limit > limit, timeout_s)
            rows: list[dict[str, Any]] = []
            size = 0
            while len(rows) < min(_BATCH, len(self._answers)) and size < _RECORDS:
                rows.append(_answer_row(self._answers[len(rows)][1]))
                size += len(rows[-1]["logprobs"] or ())
            reply = {
                "last": self._answers[len(rows) - 1][0] if rows else acknowledged,
                "answers": rows,
                "limit": self._limit,
                "failure": self._failure,
                "engine_info": list(self._teacher.engine_info) if self._teacher is not None else [],
            }
        return json.dumps(reply)

    def drain(self) -> None:
        """Send nothing more; ``collect`` returns the answers that are paid for already (``Teacher.drain``), and then a
        failure."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Close the teacher; where its engine does not end in time, kill the processes that it started."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(timeout_s)
            if self._worker.is_alive():
                _kill_children()

    # --- the thread that owns the teacher ------------------------------------------------------------------------

    def _work(self, teacher: Teacher) -> None:
        try:
            self._feed(teacher)
        except Exception as error:
            with self._changed:
                self._failure = _failure(error)
                self._changed.notify_all()
        finally:
            teacher.close()

    def _feed(self, teacher: Teacher) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._inbox or self._in_flight or self._closing or self._draining)
                if self._closing:
                    return
            if self._draining:
                for answer in teacher.drain():
                    self._deliver([answer])
                raise RuntimeError(f"{teacher.engine} takes no more requests")
            while teacher.capacity > 0 and (request := self._next()) is not None:
                teacher.submit(request)  # the first one starts the engine, which may take minutes
                self._in_flight += 1
                self._update_limit(teacher)
            if not self._in_flight:
                raise RuntimeError(f"{teacher.engine} takes no request and has none")
            answers = teacher.poll_for(_WITH_CAPACITY_S if teacher.capacity > 0 else _AT_CAPACITY_S)
            if answers:
                self._in_flight -= len(answers)
                self._deliver(answers)
                self._update_limit(teacher)
            if teacher.failure is not None and not self._in_flight:
                raise teacher.failure

    def _deliver(self, answers: Sequence[Completion]) -> None:
        with self._changed:
            for answer in answers:
                self._last += 1
                self._answers.append((self._last, answer))
            self._changed.notify_all()

    def _next(self) -> Request | None:
        with self._changed:
            return self._inbox.popleft() if self._inbox else None

    def _update_limit(self, teacher: Teacher) -> None:
        """The limit: what the teacher takes in all, and an eighth more in the inbox while a message is in transit."""
        total = max(1, self._in_flight + teacher.capacity)
        with self._changed:
            self._limit = total + (total + 7) // 8
            self._changed.notify_all()


def share_hello(config: str) -> dict[str, Any]:
    """What a further node says before it runs a share: ``engine`` and ``code``, or ``failure``, as ``Replica.hello``.

    ``config``: the recipe's teacher section as JSON. No engine starts.
    """
    try:
        teacher = build_teacher(_TEACHER.validate_json(config))
    except Exception as error:
        return {"failure": _failure(error)}
    return {"failure": None, "engine": teacher.engine, "code": code_digest()}


def run_share(config: str, rank: int, address: str) -> dict[str, Any]:
    """Run the share that node number ``rank``, at ``address``, has of an engine; ``config`` is what the first node's
    ``hello`` returns.

    Blocks while the engine runs; returns the failure that ended it.
    """
    try:
        teacher = _TEACHER.validate_json(config)
        if isinstance(teacher, VllmTeacher):
            from synth.teachers.vllm import run_workers

            run_workers(_with_arguments(teacher, {"node_rank": rank}), address)
        else:  # the fake teacher's
            threading.Event().wait()
    except Exception as error:
        return _failure(error)
    return _failure(RuntimeError(f"a rank of the engine on its node number {rank} has ended"))


def _with_arguments(teacher: VllmTeacher, arguments: dict[str, Any]) -> VllmTeacher:
    """The section with further engine arguments."""
    return teacher.model_copy(update={"engine_args": teacher.engine_args | arguments})


# --- messages ----------------------------------------------------------------------------------------------------


def packed(requests: Sequence[Request]) -> str:
    """Requests as JSON text."""
    rows = []
    for request in requests:
        row = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
        rows.append(row | {"prompt": request.prompt.row()})
    return json.dumps(rows)


def unpacked(text: str) -> list[Request]:
    """The requests of ``packed``."""
    return [
        Request(
            **row
            | {
                "prompt": Prompt.model_validate(row["prompt"], context={"allow_missing_gold": True}),
                "messages": tuple(row["messages"]),
                "prefix_ids": tuple(row["prefix_ids"]),
            }
        )
        for row in json.loads(text)
    ]


def _answer_row(answer: Completion) -> dict[str, Any]:
    row = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    record = None if answer.logprobs is None else base64.b64encode(answer.logprobs.record()).decode("ascii")
    return row | {"logprobs": record, "provenance": dict(answer.provenance)}


def answer_of(row: dict[str, Any]) -> Completion:
    """The completion of an entry of ``answers`` in a reply of ``Replica.collect``."""
    record = row["logprobs"]
    logprobs = None if record is None else TokenLogprobs.of_record(base64.b64decode(record))
    return Completion(**row | {"token_ids": tuple(row["token_ids"]), "logprobs": logprobs})


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, DistillError):
        return {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
    return {"kind": "bug", "what": "".join(traceback.format_exception(error)), "where": None, "hint": None}


@functools.cache
def code_digest() -> str:
    """sha256 hex of the Python source of the packages that a replica runs: equal on nodes with the same version."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for file in sorted(path for package in ("licensing", "synth") for path in (root / package).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
