"""Runs a stage in a process of its own, so that the memory of its accelerator is free when it ends.

The driver sends the stage as one JSON line and reads JSON lines back: progress, then facts or an error. The pipe to the
process stays open as its lifeline: where the driver dies, by `kill -9` too, the process ends with everything that it
started. What it prints goes into the stage's log.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil

from distill.runs.facts import Facts
from distill.runs.stage import RequestTimes, Stage, StageContext, decode, encode
from licensing.errors import DistillError, InputError, MissingDependency, Refused

__all__ = ["StageCrashed", "run_in_process"]

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from distill.runs.process import main; main()"
_ERRORS: dict[str, type[DistillError]] = {kind.__name__: kind for kind in (InputError, MissingDependency, Refused)}
_INTERRUPT_S = 60.0  # for engines to shut down


class StageCrashed(RuntimeError):
    """A stage's process ended with a bug of ours; the text is its traceback."""


def run_in_process(stage: Stage[Any], ctx: StageContext, log: Path, started: Callable[[int], None]) -> Facts:
    """Run ``stage`` in a new process and return its facts; ``ctx.requests`` is filled in. ``started`` gets its pid.

    Raises what the stage raises (the errors of ``licensing.errors``, OSError), MissingDependency where the process was
    killed, most likely for its memory, and StageCrashed for anything else.
    """
    context = {name: str(getattr(ctx, name).resolve()) for name in ("out", "scratch", "logs", "store")}
    message = json.dumps({"stage": encode(stage), "context": context}) + "\n"
    path = json.dumps([entry or os.getcwd() for entry in sys.path])
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches the driver, which passes it on once
        )  # fmt: skip
    started(process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    reply: dict[str, Any] = {}
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(message.encode())
            process.stdin.flush()
        for line in process.stdout:
            event = json.loads(line)
            if "progress" in event:
                ctx.progress(*event["progress"])
            else:
                reply = event
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_INTERRUPT_S)
        raise
    finally:
        _kill_group(process)
    if "facts" in reply:
        ctx.requests.first, ctx.requests.last = reply["requests"]
        return stage.facts_type().model_validate(reply["facts"])
    raise _error(stage, reply, code, log)


def _error(stage: Stage[Any], reply: dict[str, Any], code: int, log: Path) -> Exception:
    kind = reply.get("kind")
    if kind in _ERRORS:
        return _ERRORS[kind](reply["what"], where=reply["where"], hint=reply["hint"])
    if kind == "OSError":
        return OSError(reply["errno"], reply["strerror"], reply["filename"])
    if kind == "crash":
        return StageCrashed(reply["traceback"])
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = f"was there enough memory? what it printed is in {log}; run again, and it goes on"
    return MissingDependency(f"the process of stage {stage.name} {how}", where=f"stage {stage.name}", hint=hint)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Nothing that the process started in its session is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


# --- in the process ----------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Main function of a stage's process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    message = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_lifeline, daemon=True).start()
    reply = _reply(message, answers)
    print(json.dumps(reply), file=answers, flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if "facts" in reply else 1)  # engines leave threads behind that never end


def _reply(message: dict[str, Any], answers: Any) -> dict[str, Any]:
    lock = threading.Lock()

    def progress(done: int, total: int | None = None, note: str = "") -> None:
        with lock:
            print(json.dumps({"progress": [done, total, note]}), file=answers, flush=True)

    try:
        stage = decode(message["stage"])
        paths = {name: Path(path) for name, path in message["context"].items()}
        ctx = StageContext(**paths, progress=progress, requests=RequestTimes())
        facts = stage.run(ctx)
        return {"facts": facts.as_json(), "requests": [ctx.requests.first, ctx.requests.last]}
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
    """End at once, with all descendants, when the driver is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            continue
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)
