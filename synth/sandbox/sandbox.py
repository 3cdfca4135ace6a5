"""The sandbox from the outside: sends programs to a runner, and replaces a runner that died.

``select_runtime`` gives the runtime of a recipe: the one that it names, or with `auto` the first of bubblewrap, podman
and docker (with the image localhost/distill-runner) in which a canary, a program that tries to get out, runs and
is held.
"""

from __future__ import annotations

import functools
import re
import socket
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex

from licensing.closing import Closing
from licensing.errors import InputError, MissingDependency
from synth.sandbox.bubblewrap import Bubblewrap
from synth.sandbox.container import Container
from synth.sandbox.none import Unisolated
from synth.sandbox.packages import install
from synth.sandbox.remote import Remote
from synth.sandbox.runner.job import Job, Result
from synth.sandbox.runner.plain_data import Broken, Late, receive, send
from synth.sandbox.runtime import Connection, Runtime

RUNTIME = r"auto|bubblewrap|none|(docker|podman):[^\s:-]\S*|tcp://[^\s/:]+:\d+"
AUTO = ("bubblewrap", "podman:localhost/distill-runner", "docker:localhost/distill-runner")
START_TIMEOUT_S = 60.0
GRACE_S = 10.0  # past a program's time, until tests that cannot be interrupted are killed with their runner
_PROBING = threading.Lock()
_CANARY = """
def f(path, port):
    import os, socket
    def opened(action, *args):
        try: action(*args)
        except OSError: return False
        return True
    return [opened(open, path), opened(socket.create_connection, ("127.0.0.1", port), 1),
            opened(lambda: os.fork() or os._exit(0)), opened(os.kill, os.getppid(), 0)]
"""


class SandboxDown(Exception):
    """The sandbox itself failed: nothing is known of the program."""


class Sandbox(Closing):
    """A runner that runs one program at a time. A context manager. Starts with the first program, within the thread
    that gives it; one that dies is replaced; once closed it starts nothing again.
    """

    def __init__(self, where: Runtime) -> None:
        self._runtime = where
        self._connection: Connection | None = None
        self._closed = False
        self._lock = threading.Lock()

    def run(self, job: Job) -> Result:
        """Raises SandboxDown."""
        is_fresh = self._connection is None
        try:
            return self._ask(job)
        except SandboxDown:
            if is_fresh or self._closed:
                raise
        return self._ask(job)  # the runner that ran an earlier program may have ended

    def _ask(self, job: Job) -> Result:
        connection = self._connected()
        number = token_hex(8)
        connection.channel.settimeout(job.timeout_s + (GRACE_S if connection.is_used else START_TIMEOUT_S))
        try:
            send(connection.stream, {"id": number, "job": asdict(job)})
            reply = receive(connection.stream)
        except Late:
            self._drop()
            return Result("timeout", f"not done within {job.timeout_s:g} s", seconds=job.timeout_s)
        except Broken:
            raise SandboxDown(f"the sandbox died: {self._drop()}") from None
        if not isinstance(reply, dict) or reply.get("id") != number:
            self._drop()  # whatever it says next would be taken for the reply to the next job
            raise SandboxDown("the sandbox replied to another job")
        connection.is_used = True
        if connection.process is None:
            self._drop()
        return Result(**reply["result"])

    def _connected(self) -> Connection:
        with self._lock:
            if self._closed:
                raise SandboxDown("the sandbox was closed")
            if self._connection is None:
                try:
                    self._connection = self._runtime.connect()
                except OSError as err:
                    raise SandboxDown(f"the sandbox cannot be started: {err}") from None
            return self._connection

    def _drop(self) -> str:
        """End the runner, and say of what it died."""
        with self._lock:
            connection, self._connection = self._connection, None
        cause = "" if connection is None else connection.close()
        return "it was closed" if self._closed else cause

    def interrupt(self) -> None:
        """Close from another thread than the one that runs programs, which has to call ``close`` then."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.kill()

    def close(self) -> None:
        """End the runner and everything in it, for good."""
        self._closed = True
        self._drop()


def runtime(name: str, packages: Path | None = None) -> Runtime:
    """The runtime of that name (``RUNTIME``, but not auto). Raises InputError."""
    if name == "auto" or not re.fullmatch(RUNTIME, name):
        raise InputError(
            f"no such sandbox: {name}",
            where="verify.code.sandbox",
            hint="bubblewrap, docker:IMAGE, podman:IMAGE, tcp://HOST:PORT, or none",
        )
    if name == "bubblewrap":
        return Bubblewrap(packages)
    if name == "none":
        return Unisolated(packages)
    if name.startswith("tcp://"):
        return Remote(name)
    engine, _, image = name.partition(":")
    return Container(engine, image)


@functools.cache
def probe(name: str) -> str | None:
    """None where the canary ran and was held there; else why not."""
    where = runtime(name)
    server = socket.create_server(("127.0.0.1", 0))
    with server, tempfile.NamedTemporaryFile() as secret, Sandbox(where) as box:
        test = f"assert f({secret.name!r}, {server.getsockname()[1]}) == {[not where.isolates] * 4}"
        try:
            result = box.run(Job("apart", 10.0, 512, code=_CANARY, tests=[test]))
        except SandboxDown as err:
            return str(err)
    if result.verdict == "timeout":
        return f"it gave no answer within {START_TIMEOUT_S + 10:g} s"
    return None if result.passed else f"it does not hold: {result.reason}"


def select_runtime(name: str, packages: Sequence[str] = ()) -> Runtime:
    """The runtime that works here: ``name``, or the first of ``AUTO`` (with packages bubblewrap, since an image brings
    its own), with these packages installed. Raises MissingDependency, or InputError.
    """
    names = (name,) if name != "auto" else AUTO[:1] if packages else AUTO
    with _PROBING:  # the workers of a run begin at the same time
        for one in names:
            if probe(one) is None:
                return runtime(one, install(packages) if packages else None)
    hint = runtime(names[0]).hint
    if name == "auto":
        hint += "; or name another sandbox: docker:IMAGE, podman:IMAGE, tcp://HOST:PORT, or none, which is no isolation"
    raise MissingDependency(f"no sandbox for programs: {probe(names[0])}", where="verify.code.sandbox", hint=hint)
