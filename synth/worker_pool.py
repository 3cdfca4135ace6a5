"""Processes for functions that read text which a model wrote: a limit of CPU time and a memory limit for each call.

Only another process can be stopped for certain: a big-integer power holds the interpreter, so neither threads nor
signals interrupt it, and some inputs abort the process. pebble starts, stops and replaces the processes. Each thread of
a pool owns a pebble pool of one process, because with several processes behind one pipe pebble gives up all of them
when an idle one dies, and cannot say which process takes a call.

What pebble does not do, and this module adds:

- The caller's main module is not imported by a process (`_Process`), so a script needs no ``__main__`` guard.
- A call that meets a used process which dies is tried once more by a fresh one, and a process that keeps more than half
  of its free memory after a call is replaced: no result depends on earlier calls.
- Imports (`prepare`) do not count as time of a call.
- A process dies with the caller, by ``kill -9`` too (Linux: PR_SET_PDEATHSIG; elsewhere an idle process ends when its
  pipe closes and a busy one after its call).
- `close` ends at once: calls under way raise CancelledError.

Requests and results are JSON text, errors are of our own classes. pebble wraps them in pickles, and the caller loads
those that a process sends; that gives a function that was taken over nothing new, because a process has the caller's
rights anyway. This is no sandbox:
code that a model wrote runs in `synth.sandbox`, never here.

Memory is limited by RLIMIT_AS on Linux. macOS refuses that limit (cpython #78783): there only time is limited.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

from licensing.closing import Closing
from licensing.errors import DistillError, InputError

K = TypeVar("K", bound="Closable")
T = TypeVar("T")

START_TIMEOUT_S = 180.0  # imports on a loaded machine
WALL_PER_CPU = 30


class Closable(Protocol):
    """See ``Worker.keep``."""

    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class CallTimeout(Exception):
    """The call did not end within its time; its process was killed."""


class CallFailed(Exception):
    """The function raised, or its process died; the text says how. `seconds`: how long the call took."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class WorkerPool(Closing):
    """``workers`` threads, each with a process that starts at its first call. A context manager; leaving it closes it.

    ``where`` is the recipe's field for the memory limit, for messages. ``nice`` is added to the processes' nice value,
    for work that leaves the processor to others; not to that of what ``Worker.keep`` starts.
    """

    def __init__(self, workers: int, memory_mb: int, *, where: str = "verify.memory_mb", nice: int = 0) -> None:
        self.memory_mb = memory_mb
        self.where = where
        self.nice = nice
        self._jobs: queue.SimpleQueue[tuple[Callable[[Worker], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._closing = threading.Event()
        # The kernel ties PR_SET_PDEATHSIG to the thread that starts a process, so each thread starts its own and stays.
        # Daemons: an interpreter that ends without close() does not wait for a call that hangs.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def run(self, job: Callable[[Worker], T]) -> Future[T]:
        """The result of ``job``, which runs in a thread of the pool and calls functions in its process (`Worker.call`).

        Raises CancelledError from the future where the pool closes first. Queues without bound.
        """
        future: Future[T] = Future()
        with self._lock:
            if self.is_closed():
                future.cancel()
            else:
                self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Stop every process and wait until they are gone; nothing starts afterwards."""
        with self._lock:
            self._closing.set()
            workers = tuple(self._workers)
        for worker in workers:
            worker.interrupt()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def is_closed(self) -> bool:
        """Whether ``close`` was called, by whichever thread."""
        return self._closing.is_set()

    def _serve(self) -> None:
        worker = Worker(self)
        with self._lock:
            self._workers.add(worker)
        while (job := self._jobs.get()) is not None:
            work, future = job
            if self.is_closed():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work(worker)
                if self.is_closed():  # what the job made of its interrupted call is no result
                    raise CancelledError
            except BaseException as error:  # handed to whoever waits for this call
                future.set_exception(CancelledError() if self.is_closed() else error)
            else:
                future.set_result(result)
        worker.close()


class Worker:
    """What one thread of a pool owns: a process, and what else its jobs share (`keep`)."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._resources: dict[str, Any] = {}
        self._processes: ProcessPool | None = None
        self._prepared: set[tuple[str, str | None]] = set()
        self._calls = 0  # of the present process
        self._pending: Future[Any] | None = None
        self._lock = threading.Lock()

    def call(
        self, function: str, request: str, timeout_s: float | None, prepare: tuple[tuple[str, str | None], ...] = ()
    ) -> tuple[Any, float]:
        """(what the function returned, JSON data; wall seconds of the call alone). ``function`` ("package.module:name")
        is called with ``request``, JSON text, in the process of this thread, which starts where there is none.

        timeout_s: seconds of CPU time of the process, so that the load of a machine makes no difference. A call that
        waits ends after `WALL_PER_CPU` times as many seconds of wall time. prepare: functions and their argument, each
        called once in a process before the clock of its first call starts: imports, warm parsers.

        Raises CallTimeout, CallFailed, and DistillError or OSError where the function does. Also InputError where a
        process cannot start within the memory limit.
        """
        while True:
            self._prepare(prepare)
            is_fresh, self._calls = self._calls == 0, self._calls + 1
            began = time.monotonic()
            try:
                reply = self._ask(function, request, timeout_s)
            except (TimeoutError, ProcessExpired, BrokenProcessPool, MemoryError) as error:
                self._stop()
                is_over = timeout_s is not None and getattr(error, "exitcode", None) == -signal.SIGPROF
                if isinstance(error, TimeoutError) or is_over:
                    raise CallTimeout(f"not done within {timeout_s:g} s of CPU time") from None
                if is_fresh:
                    raise CallFailed(f"the process died: {self._cause(error)}", time.monotonic() - began) from None
                continue
            if reply["is_full"]:
                self._stop()
            return reply["value"], reply["seconds"]

    def keep(self, name: str, make: Callable[[], K]) -> K:
        """A thing that the jobs of this thread share, made at its first use.

        Its ``interrupt()`` is called from another thread when the pool closes, and then ``close()`` from this one.
        """
        if name not in self._resources:
            thing = make()
            with self._lock:
                self._resources[name] = thing
                if self._pool.is_closed():
                    raise CancelledError
        state: K = self._resources[name]
        return state

    def _prepare(self, builders: tuple[tuple[str, str | None], ...]) -> None:
        """Call what the process has not prepared yet. A process that dies meanwhile gets a second try."""
        for is_last in (False, True):
            try:
                for one in builders:
                    if one not in self._prepared:
                        self._ask(one[0], json.dumps(one[1]), START_TIMEOUT_S, is_preparation=True)
                        self._prepared.add(one)
                return
            except CallFailed as error:
                raise self._cannot_start(str(error)) from None
            except (TimeoutError, ProcessExpired, BrokenProcessPool, MemoryError) as error:
                self._stop()
                if is_last:
                    raise self._cannot_start(self._cause(error)) from None

    def _ask(
        self, function: str, request: str, timeout_s: float | None, *, is_preparation: bool = False
    ) -> dict[str, Any]:
        with self._lock:
            if self._pool.is_closed():
                raise CancelledError
            if self._processes is None:
                started = (self._pool.memory_mb, self._pool.nice, os.getpid(), os.getcwd())
                self._processes = ProcessPool(1, initializer=_start, initargs=started, context=_Context())
            try:
                cpu_s = 0.0 if is_preparation or timeout_s is None else timeout_s
                wall_s = WALL_PER_CPU * cpu_s or timeout_s
                arguments = (function, request, is_preparation, cpu_s)
                self._pending = self._processes.schedule(_call, arguments, timeout=wall_s)
            except RuntimeError as error:  # pebble saw that the process had died
                raise BrokenProcessPool(str(error)) from None
        # pebble's clock starts when the process takes the call; this one is for a process that never does.
        reply = self._pending.result(None if wall_s is None else wall_s + START_TIMEOUT_S)
        result: dict[str, Any] = json.loads(reply)
        return result

    def interrupt(self) -> None:
        """End what is under way, from another thread; for the process the thread itself does the rest."""
        with self._lock:
            if self._pending is not None:
                self._pending.cancel()
            for one in self._resources.values():
                one.interrupt()

    def close(self) -> None:
        """Kill the process and close the resources."""
        self._stop()
        for one in self._resources.values():
            one.close()

    def _stop(self) -> None:
        """End the process; the next call starts another."""
        self._prepared.clear()
        self._calls = 0
        with self._lock:
            processes, self._processes, self._pending = self._processes, None, None
        if processes is not None:
            processes.stop()
            processes.join()

    def _cause(self, error: BaseException) -> str:
        limit = f"limit {self._pool.memory_mb} MiB"
        if isinstance(error, MemoryError):
            return f"out of memory ({limit})"
        if isinstance(error, BrokenProcessPool):  # reading a call may take all the memory there is
            return f"it ended before it took the call, probably out of memory ({limit})"
        if isinstance(error, TimeoutError):
            return f"not ready within {START_TIMEOUT_S:.0f} s"
        code = getattr(error, "exitcode", None) or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _cannot_start(self, cause: str) -> InputError:
        hint = f"raise it above {self._pool.memory_mb} MiB; if that does not help, install the requirements anew"
        return InputError(f"a worker process cannot start: {cause}", where=self._pool.where, hint=hint)


# --- in the process ----------------------------------------------------------------------------------------------


class _Process(SpawnProcess):
    """A process that does not import the caller's main module: nothing of it is needed."""

    _starting = threading.Lock()

    def start(self) -> None:
        with self._starting:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Context(SpawnContext):
    Process = _Process


_limit = 0  # bytes of address space; 0: no limit
_baseline = 0  # bytes of it in use before the first call


def _start(memory_mb: int, nice: int, parent: int, folder: str) -> None:
    """Set the limits of a process. What libraries print is dropped."""
    global _limit
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler would wait for the end of a power
    os.nice(nice)
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for one in (0, 1, 2):
        os.dup2(nothing, one)
    os.close(nothing)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        _limit = memory_mb << 20 if hard == resource.RLIM_INFINITY else min(memory_mb << 20, hard)
        resource.setrlimit(resource.RLIMIT_AS, (_limit, _limit))


def _call(function: str, request: str, is_preparation: bool, cpu_s: float) -> str:
    """JSON of the result. After `cpu_s` seconds of CPU time, 0: no limit, SIGPROF ends the process."""
    global _baseline
    module, _, name = function.partition(":")
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        value = getattr(importlib.import_module(module), name)(json.loads(request))
    except (DistillError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # of any library: its class may not be one that a pickle can carry
        raise CallFailed(f"{type(error).__name__}: {error}"[:500]) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, in_use = time.monotonic() - began, _address_space()
    if is_preparation or not _baseline:
        _baseline = in_use
    is_full = _limit > 0 and in_use - _baseline > (_limit - _baseline) / 2
    return json.dumps({"value": value, "seconds": seconds, "is_full": is_full})


def _address_space() -> int:
    """Bytes; 0 where the system has no /proc."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0
