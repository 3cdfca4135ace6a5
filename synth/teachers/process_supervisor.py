"""A process that runs one command and sees to it that nothing of it is left: no orphan holds a GPU.

    python -P process_supervisor.py SECONDS COMMAND...

The command and all that it started is ended (SIGTERM, and SECONDS later SIGKILL) when its starter closes this process's
standard input or dies, by whatever signal; and what a command that ended by itself has left behind, too. Whoever kills
the warden kills the command, though not what that has started. Linux only: it adopts orphans, so that a grandchild in
a session of its own is found (prctl(2), PR_SET_CHILD_SUBREAPER).

Exit code: the command's; 128 and the signal's number where one ended it.
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
_LOOK_S = 0.5
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_prctl = ctypes.CDLL(None).prctl


def _before_the_command() -> None:
    _prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)


def run(patience_s: float, command: list[str]) -> int:
    """Run it; returns its exit code once nothing of it is left."""
    starter = os.getppid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_before_the_command)
    while process.poll() is None:
        closed = bool(select.select([0], [], [], _LOOK_S)[0])
        if closed or os.getppid() != starter:  # a forked worker may hold our input open when the starter is dead
            _end(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            break
    while _end(signal.SIGKILL):
        process.poll()
        time.sleep(0.05)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end(how: signal.Signals) -> bool:
    """Signal all descendants; False where none is alive."""
    alive = False
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                child.send_signal(how)
                alive = True
    return alive


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
