"""Runs stages in processes of their own, so that the memory of an accelerator is free when its stage ends.

One host process serves a run; it forks a process for each stage and holds nothing of it. The driver sends the host a
stage as one JSON line; the stage's process answers with JSON lines: its pid, progress, then facts or an error. What it
prints goes into the stage's log. Where the driver dies, by `kill -9` too, the stage's process ends with everything that
it started, and the host after it.

On a machine without GPUs the host imports what a stage names in ``preload`` before it forks, so that the second
training does not import for ten seconds what the first one had. With GPUs it imports nothing, since a library that
touches a GPU when it is imported could not be used after a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import psutil

from distill.runs.facts import Facts
from distill.runs.provenance import device
from distill.runs.stage import Reporter, RequestTimes, Stage, StageContext, decode, encode
from licensing.closing import Closing
from licensing.errors import DistillError, InputError, MissingDependency, Refused
from licensing.large_imports import import_large

BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
"""The program of a new interpreter that finds modules where this one does; its first argument is ``import_path()``."""
_ERRORS: dict[str, type[DistillError]] = {kind.__name__: kind for kind in (InputError, MissingDependency, Refused)}
_INTERRUPT_S = 60.0  # for engines to shut down, when the stage's own work has ended


class StageCrashed(RuntimeError):
    """A stage's process ended with a bug of ours; the text is its traceback."""


class StageHost(Closing):
    """Starts the processes of a run's stages. A context manager; the host process starts with the first stage.

    ``log`` is for what the host itself prints. ``environment``: more variables of the processes, there before a library
    is imported.
    """

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._environment = environment or {}
        self._host: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the host and the stage that is at work."""
        if self._host is not None:
            _kill_group(self._host.pid)
            self._host.wait()
            for pipe in (self._host.stdin, self._host.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def run(self, stage: Stage[Any], ctx: StageContext, log: Path, started: Callable[[int], None]) -> Facts:
        """Run ``stage`` in a new process and return its facts; fills in ``ctx.requests``. ``started`` gets its pid.

        Raises what the stage raises (the errors of ``licensing.errors``, OSError), MissingDependency where the process
        was killed, most likely for its memory, and StageCrashed for anything else.
        """
        host = self._started()
        assert host.stdin is not None
        assert host.stdout is not None
        context = {name: str(getattr(ctx, name).resolve()) for name in ("out", "scratch", "logs", "store")}
        message: dict[str, Any] = {"stage": encode(stage), "context": context, "log": str(log.resolve())}
        message["preload"] = [] if device()["gpus"] else list(stage.preload)
        reply: dict[str, Any] = {}
        pid = status = None
        try:
            with contextlib.suppress(BrokenPipeError):
                host.stdin.write(json.dumps(message).encode() + b"\n")
                host.stdin.flush()
            for line in host.stdout:
                event = json.loads(line)
                if "progress" in event:
                    ctx.progress(*event["progress"])
                elif "pid" in event:
                    pid = event["pid"]
                    started(pid)
                elif "status" in event:
                    status = event["status"]
                    break
                else:
                    reply = event
        except BaseException:
            if pid is not None:
                _interrupt(pid, host.stdout, stage.interrupt_s + _INTERRUPT_S, ctx.progress)
            raise
        finally:
            if pid is not None:
                _kill_group(pid)
        if "facts" in reply:
            ctx.requests.first, ctx.requests.last, seconds = reply["requests"]
            ctx.requests.seconds.update(seconds)
            return stage.facts_type().model_validate(reply["facts"])
        if reply.get("kind") == "interrupted":  # by a signal to the stage's process alone
            raise KeyboardInterrupt
        raise _error(stage, reply, status, log)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._host is None or self._host.poll() is not None:  # one that was killed takes no other stage with it
            program = BOOT.format(module=__name__)
            with self._log.open("ab") as stderr:
                self._host = subprocess.Popen(
                    [sys.executable, "-P", "-c", program, import_path()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=stderr, env=os.environ | self._environment,
                    start_new_session=True,  # Ctrl-C reaches the driver, which passes it on once
                )  # fmt: skip
        return self._host


def import_path() -> str:
    """``sys.path`` of this process, for ``BOOT``."""
    return json.dumps([entry or os.getcwd() for entry in sys.path])


def error_of(reply: dict[str, Any]) -> Exception | None:
    """The error that a reply of ``run_message`` tells, None where it tells none."""
    kind = reply.get("kind")
    if kind in _ERRORS:
        return _ERRORS[kind](reply["what"], where=reply["where"], hint=reply["hint"])
    if kind == "OSError":
        return OSError(reply["errno"], reply["strerror"], reply["filename"])
    if kind == "crash":
        return StageCrashed(reply["traceback"])
    return None


def _error(stage: Stage[Any], reply: dict[str, Any], status: int | None, log: Path) -> Exception:
    error = error_of(reply)
    if error is not None:
        return error
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = f"was there enough memory? what it printed is in {log}; run again, and it goes on"
    return MissingDependency(f"the process of stage {stage.name} {how}", where=f"stage {stage.name}", hint=hint)


def _interrupt(pid: int, answers: Iterable[bytes], seconds: float, progress: Reporter) -> None:
    """Pass an interrupt on to a stage's process, and follow it until it has ended: for so many seconds at most, and
    until a further SIGINT."""
    limit = threading.Timer(seconds, _kill_group, (pid,))
    limit.start()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process ends with the stage's
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        for line in answers:
            event = json.loads(line)
            if "progress" in event:
                progress(*event["progress"])
            elif "status" in event:
                return
    finally:
        limit.cancel()


def _kill_group(group: int) -> None:
    """Nothing that was started in a process group is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# --- in the host and in the stage's process ----------------------------------------------------------------------


def main() -> NoReturn:
    """Main function of the host: a line in, a process out, until there is no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    for number in (signal.SIGINT, signal.SIGTERM):  # the driver passes them on
        signal.signal(number, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline():
        message = json.loads(line)
        for name in message["preload"]:
            with contextlib.suppress(Exception):  # the stage itself says what is missing, such as a native library
                import_large(name)
        pid = os.fork()
        if pid == 0:
            _run_stage(message, answers)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), file=answers, flush=True)
    os._exit(0)


def _run_stage(message: dict[str, Any], answers: Any) -> NoReturn:
    os.setpgid(0, 0)  # what the stage starts and leaves is found by its group
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    print(json.dumps({"pid": os.getpid()}), file=answers, flush=True)
    threading.Thread(target=_watch_lifeline, daemon=True).start()
    reply = run_message(message, answers)
    print(json.dumps(reply), file=answers, flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if "facts" in reply else 1)  # engines leave threads behind that never end


def run_message(message: dict[str, Any], answers: Any) -> dict[str, Any]:
    """Run the stage of a message; writes progress as JSON lines to ``answers`` and returns facts, or an error."""
    lock = threading.Lock()

    def progress(done: int, total: int | None = None, note: str = "") -> None:
        with lock:
            print(json.dumps({"progress": [done, total, note]}), file=answers, flush=True)

    try:
        stage = decode(message["stage"])
        paths = {name: Path(path) for name, path in message["context"].items()}
        ctx = StageContext(**paths, progress=progress, requests=RequestTimes())
        facts = stage.run(ctx)
        return {"facts": facts.as_json(), "requests": [ctx.requests.first, ctx.requests.last, ctx.requests.seconds]}
    except DistillError as error:
        return {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
    except OSError as error:
        if error.errno is None:
            return {"kind": "crash", "traceback": traceback.format_exc()}
        return {
            "kind": "OSError", "errno": error.errno, "strerror": error.strerror,
            "filename": None if error.filename is None else str(error.filename),
        }  # fmt: skip
    except KeyboardInterrupt:
        return {"kind": "interrupted"}
    except BaseException:
        return {"kind": "crash", "traceback": traceback.format_exc()}


def _watch_lifeline() -> None:
    """End at once, with all descendants, when the driver is gone. The host does not read while a stage is at work."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            continue
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)
