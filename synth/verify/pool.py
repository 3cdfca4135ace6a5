"""Worker processes that can be killed: one row at a time, a hard wall limit and a memory limit a row.

Verifying runs foreign text through sympy, and only another process can be stopped for certain: a big-integer power
holds the interpreter, so neither threads nor signals interrupt it, and with gmpy2 installed a large factorial aborts
the process.

A worker is a fresh interpreter started by its own command line, never a fork: a fork would inherit the locks and file
descriptors of the run, and `multiprocessing` would import the caller's main module again. It is asked over a socket
pair; a message is its length in eight bytes and then ASCII JSON, so no text can break the framing and nothing is
unpickled. It gets RLIMIT_AS, no core dumps, and (Linux) PR_SET_PDEATHSIG, so that it dies with the caller even by
`kill -9`; on other systems an idle worker ends when its socket closes and a busy one after its row.

Not a sandbox: a worker has the caller's rights. It is for text that is read, not for code that is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from licensing.errors import DistillError, InputError, MissingDependency
from synth.sandbox.sandbox import Level, Sandbox, require
from synth.verify import code
from synth.verify.framing import receive, send
from synth.verify.verdict import Verdict
from synth.verify.worker import EXIT_MEMORY

__all__ = ["Pool", "Request"]

T = TypeVar("T")
Request = dict[str, Any]  # {"op": "verify"|"check", "kind", and what the kind needs}; JSON values only

_SANDBOXED = "code:"
_CACHED = ("math", "code")  # kinds whose verdict depends on the request alone
CACHE_ROWS = 4096

START_TIMEOUT_S = 180.0  # imports on a loaded machine; not part of any row's time
LOOK_AHEAD_ROWS = 1024  # rows in flight or done and waiting for their turn, so that one hanging row stops nobody ...
LOOK_AHEAD_BYTES = 64 << 20  # ... and their size, so that memory does not grow with the input
_BOOT = (
    "import sys, json; setup = json.loads(sys.argv[1]); sys.path[:] = setup['path']; "
    "from synth.verify import worker; worker.work(setup)"
)


class _Late(Exception):
    """The worker did not answer in time."""


class _Died(Exception):
    """The worker is gone; the text says how."""


class _Closed(Exception):
    """The pool was closed while this was under way."""


class _Worker:
    """One process. Used by one thread only; `process.kill` alone may be called from elsewhere."""

    def __init__(self, memory_mb: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            setup = {
                "fd": theirs.fileno(),
                "parent": os.getpid(),
                "memory_mb": memory_mb,
                "path": [entry or os.getcwd() for entry in sys.path],
            }
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.sock = ours
        self.memory_mb = memory_mb
        self.prepared: set[str] = set()
        self.rows = 0

    def ask(self, body: bytes, timeout_s: float) -> Any:
        """Raises _Late or _Died, after which the worker is of no more use."""
        deadline = time.monotonic() + timeout_s
        try:
            self.sock.settimeout(timeout_s)
            send(self.sock, body)
            answer = receive(self.sock, deadline)
        except TimeoutError:
            raise _Late from None
        except OSError:
            answer = None
        if answer is None:
            raise _Died(self._cause_of_death())
        return json.loads(answer)

    def _cause_of_death(self) -> str:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        if code == EXIT_MEMORY:
            return f"out of memory (limit {self.memory_mb} MiB)"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.sock.close()


class Pool:
    """`workers` processes that answer requests with verdicts. A context manager; leaving it kills what is running.

    timeout_s is wall time, so a verdict `timeout` depends on the machine and its load. Starting a worker and importing
    its libraries does not count. A process starts at its first row, and is replaced after a kill, a crash or
    when a row has left it with more than half its memory in use. A row that kills a worker which had served others
    before is tried once more in a fresh one, so that no verdict depends on what came earlier.

    A request of kind `code` goes to a sandbox instead, one for each worker: `code_timeout_s` and `code_memory_mb` are
    a program's. Raises MissingDependency at the first such row where the machine has no sandbox of that level.
    """

    def __init__(
        self, workers: int = 2, timeout_s: float = 2.0, memory_mb: int = 2048, *, sandbox: Level = "strong",
        code_timeout_s: float = 5.0, code_memory_mb: int = 512,
    ) -> None:  # fmt: skip
        self.sandbox: Level = sandbox
        self.code_timeout_s = code_timeout_s
        self.code_memory_mb = code_memory_mb
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self._jobs: queue.SimpleQueue[tuple[bytes, str, Future[Verdict]] | None] = queue.SimpleQueue()
        self._alive: set[_Worker] = set()
        self._cells: set[Sandbox] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._known: OrderedDict[bytes, Future[Verdict]] = OrderedDict()
        # The kernel ties PR_SET_PDEATHSIG to the thread that starts a worker, so each thread starts its own and
        # stays. Daemons: an interpreter that ends without close() does not wait for a hanging row.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every worker and wait until they are gone. Rows under way get no verdict."""
        with self._lock:
            self._closed = True
            for worker in self._alive:
                worker.process.kill()
            for cell in self._cells:
                cell.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def map(
        self, items: Iterable[tuple[T, Request | Verdict]], size_of: Callable[[T], int] = lambda _: 0
    ) -> Iterator[tuple[T, Verdict]]:
        """(tag, request) -> (tag, verdict), in order. A tag that comes with its verdict passes through.

        Reads at most 1,024 items or 64 MiB of requests and tags (`size_of`, bytes) ahead. A request that is no JSON
        gets verdict `error`. Raises MissingDependency or InputError where a worker cannot start, and what `items`
        raises.
        """
        waiting: deque[tuple[T, int, Future[Verdict]]] = deque()
        held = 0
        for tag, request in items:
            size, answer = self.submit(request)
            size += size_of(tag)
            waiting.append((tag, size, answer))
            held += size
            while waiting and (len(waiting) >= LOOK_AHEAD_ROWS or held >= LOOK_AHEAD_BYTES or waiting[0][2].done()):
                tag, size, answer = waiting.popleft()
                held -= size
                yield tag, answer.result()
        while waiting:
            tag, _, answer = waiting.popleft()
            yield tag, answer.result()

    def submit(self, request: Request | Verdict) -> tuple[int, Future[Verdict]]:
        """(bytes queued, the verdict when it is there); looks ahead without bound, and fails as ``map`` does."""
        answer: Future[Verdict] = Future()
        if isinstance(request, Verdict):
            answer.set_result(request)
            return 0, answer
        try:
            body = json.dumps({"row": request}).encode("ascii")
        except (TypeError, ValueError, RecursionError) as err:
            answer.set_result(Verdict("error", reason=f"the row is no plain JSON: {err}"))
            return 0, answer
        if request["kind"] in _CACHED:
            # The samples of a problem often give one answer; while it is being looked at, the others wait for it.
            key = hashlib.sha256(body).digest()
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return 0, known
            self._known[key] = answer
            if len(self._known) > CACHE_ROWS:
                self._known.popitem(last=False)
        self._jobs.put((body, _needs(request), answer))
        return len(body), answer

    def _serve(self) -> None:
        worker: _Worker | None = None
        cell: Sandbox | None = None
        while (job := self._jobs.get()) is not None and not self._closed:
            body, needs, answer = job
            try:
                if needs == _SANDBOXED:
                    cell = cell or self._cell()
                    verdict = code.serve(cell, json.loads(body)["row"], self.code_timeout_s, self.code_memory_mb)
                else:
                    verdict, worker = self._judge(worker, body, needs)
            except BaseException as err:  # handed to whoever waits for this row
                worker = None
                answer.set_exception(_Closed() if self._closed else err)
            else:
                answer.set_result(verdict)
        if worker is not None:
            self._drop(worker)
        if cell is not None:
            cell.close()

    def _cell(self) -> Sandbox:
        require(self.sandbox)
        with self._lock:
            if self._closed:
                raise _Closed
            cell = Sandbox(self.sandbox)
            self._cells.add(cell)
        return cell

    def _judge(self, worker: _Worker | None, body: bytes, needs: str) -> tuple[Verdict, _Worker | None]:
        """The verdict of one row, and the worker for the next one where it is still fit."""
        while True:
            worker = self._ready(worker, needs)
            fresh = worker.rows == 0
            worker.rows += 1
            start = time.monotonic()
            try:
                reply = worker.ask(body, self.timeout_s)
            except _Late:
                self._drop(worker)
                seconds = time.monotonic() - start
                return Verdict("timeout", reason=f"no verdict within {self.timeout_s:g} s", seconds=seconds), None
            except _Died as err:
                self._drop(worker)
                if fresh:
                    seconds = time.monotonic() - start
                    return Verdict("error", reason=f"the verifying process died: {err}", seconds=seconds), None
                worker = None
                continue
            except BaseException:
                self._drop(worker)
                raise
            verdict = replace(Verdict(**reply["verdict"]), seconds=time.monotonic() - start)
            if reply["tired"]:
                self._drop(worker)
                return verdict, None
            return verdict, worker

    def _ready(self, worker: _Worker | None, needs: str) -> _Worker:
        """A worker that has imported what the row needs. One that dies while starting gets a second try."""
        for last in (False, True):
            if worker is not None and needs in worker.prepared:
                return worker
            if worker is None:
                with self._lock:
                    if self._closed:
                        raise _Closed
                    worker = _Worker(self.memory_mb)
                    self._alive.add(worker)
            try:
                reply = worker.ask(json.dumps({"prepare": needs}).encode("ascii"), START_TIMEOUT_S)
            except (_Late, _Died) as err:
                self._drop(worker)
                worker = None
                if last and not self._closed:
                    how = str(err) or f"not ready within {START_TIMEOUT_S:.0f} s"
                    raise _cannot_start(how, self.memory_mb) from None
                continue
            except BaseException:
                self._drop(worker)
                raise
            if reply["missing"]:
                self._drop(worker)
                raise MissingDependency(reply["missing"], where="verify", hint=reply["hint"])
            if reply["failed"]:
                self._drop(worker)
                raise _cannot_start(reply["failed"], self.memory_mb)
            worker.prepared.add(needs)
            return worker
        raise _Closed

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._lock:
            self._alive.discard(worker)


def _cannot_start(how: str, memory_mb: int) -> DistillError:
    return InputError(
        f"a verifying process cannot start: {how}",
        where="verify.memory_mb",
        hint=f"raise it above {memory_mb} MiB; if that does not help, reinstall math-verify and reasoning-gym",
    )


def _needs(request: Request) -> str:
    """What a worker has to load before the clock of this row starts."""
    task = request.get("task")
    return f"{request['kind']}:{task}" if isinstance(task, str) else f"{request['kind']}:"
