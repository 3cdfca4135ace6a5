"""A process that runs one command and leaves none of its descendants behind: no orphan holds a GPU.

    python -P process_supervisor.py SECONDS COMMAND...

It ends the command and all of its descendants (SIGTERM, and SECONDS later SIGKILL) when its parent closes this
process's standard input or dies, by whatever signal. Descendants of a command that ended by itself are killed, too.
Killing the supervisor kills the command, but not the command's descendants.

Linux only: it adopts orphans, and so finds a grandchild in a session of its own (prctl(2), PR_SET_CHILD_SUBREAPER).

Exit code: the command's; 128 and the signal's number where a signal ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG
_POLL_S = 0.5
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _before_exec() -> None:
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)


def run(patience_s: float, command: list[str]) -> int:
    """Run the command; returns its exit code once it has no descendant left."""
    parent = os.getppid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_before_exec)
    while process.poll() is None:
        closed = bool(select.select([0], [], [], _POLL_S)[0])
        if closed or os.getppid() != parent:  # a forked worker may hold our input open when the parent is dead
            _signal_descendants(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            break
    while _signal_descendants(signal.SIGKILL):
        process.poll()
        time.sleep(0.05)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _signal_descendants(number: signal.Signals) -> bool:
    """False where no descendant is alive."""
    alive = False
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                child.send_signal(number)
                alive = True
    return alive


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("process_supervisor.py needs Linux (prctl)")
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
