"""Process 1 of a sandbox: takes jobs, one at a time, and answers each under its own id.

    main            starts a test runner, waits for its end, kills whatever else is alive, empties the folder
      _serve_job    reads the job, runs the tests (`test_runner`), answers
        candidate   the program: forked before the job is read, so the tests were never in its memory

No process here can be traced or read by another (PR_SET_DUMPABLE). Program and test runner have a seccomp filter, and
the program has no descriptor but its own. Where this is not process 1 (runtime `none`), the program alone is killed.
Jobs come on stdin and replies go to stdout, or with ``--listen PORT`` there is one on each connection. Standard library
only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from synth.sandbox.runner import candidate, seccomp
from synth.sandbox.runner.job import Job
from synth.sandbox.runner.plain_data import Broken, receive, send
from synth.sandbox.runner.test_runner import TestRun

MAX_FILES = 512
STDIN = ".stdin"  # /dev/stdin is a link to it where there is no /proc


def main(arguments: list[str]) -> NoReturn:
    """Run jobs until the caller is gone."""
    listener = socket.create_server(("", int(arguments[1]))) if arguments[:1] == ["--listen"] else None
    filters = {} if "--no-filter" in arguments else seccomp.make_filters()
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    _prctl(seccomp.PR_SET_DUMPABLE, 0)
    if os.getpid() != 1:
        _prctl(seccomp.PR_SET_PDEATHSIG, signal.SIGKILL)
    folder = os.getcwd()
    sys.path.remove(str(Path(__file__).parents[3]))  # nothing of ours to a program
    while True:
        job = os.fork()
        if job == 0:
            try:
                _serve_job(listener, filters)
            except Exception:
                traceback.print_exc()
            os._exit(1)  # no reply: an outage
        pid, status = 0, 0
        while pid != job:
            pid, status = os.wait()
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        for entry in os.scandir(folder):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        if status or os.listdir(folder):
            os._exit(1)  # a fresh sandbox is the only clean one


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(option, value, 0, 0, 0):
        raise OSError(f"prctl {option}")


def _serve_job(listener: socket.socket | None, filters: seccomp.Filters) -> NoReturn:
    _prctl(seccomp.PR_SET_PDEATHSIG, signal.SIGKILL)
    ours, theirs = socket.socketpair()
    stdin, out, err = (os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for name in (STDIN, ".out", ".err"))
    os.unlink(".out")
    os.unlink(".err")
    program = os.fork()
    if program == 0:
        _prctl(seccomp.PR_SET_PDEATHSIG, signal.SIGKILL)
        for target, fd in enumerate((stdin, out, err)):
            os.dup2(fd, target)
        channel = os.dup2(theirs.fileno(), 3, inheritable=False)
        os.closerange(4, MAX_FILES)
        candidate.serve(socket.socket(fileno=channel).makefile("rwb"), filters)
    theirs.close()
    jobs: Any = sys.stdin.buffer
    replies: Any = sys.stdout.buffer
    if listener is not None:
        jobs = replies = listener.accept()[0].makefile("rwb")
    try:
        message = receive(jobs)
    except Broken:
        os._exit(1 if listener is None else 0)  # the caller is gone
    job = Job(**message["job"])
    os.pwrite(stdin, job.stdin.encode("utf-8", "surrogatepass"), 0)
    os.close(stdin)
    if job.mode in ("apart", "in_process"):
        os.unlink(STDIN)
    candidate.limit(job.memory_mb + 256, int(2 * job.timeout_s) + 10, candidate.THREADS if filters else None)
    if filters:
        filters[seccomp.NOTHING]()
    result = TestRun(job, ours.makefile("rwb"), program, out, err).result()
    send(replies, {"id": message["id"], "result": asdict(result)})
    if sys.platform != "linux":  # there the program dies with this process
        os.kill(program, signal.SIGKILL)
    os._exit(0)


main(sys.argv[1:])
