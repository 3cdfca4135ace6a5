"""The sandbox from the outside: starts it, sends it programs, replaces it when it dies.

``probe`` tests which level this machine supports by running a program that tries to get out: ``strong`` needs
unprivileged namespaces (containers and some distributions forbid them); ``weak`` (limits, seccomp, and Landlock where
the kernel has it) is used only where a recipe names it. Needs Linux on x86_64 or aarch64. The walls are built in
`init`.

With `docker:IMAGE` or `podman:IMAGE` the walls are those of a container without network, capabilities or a writable
file system, with those of `weak` inside it; one container runs many programs, one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from licensing.errors import MissingDependency
from synth.sandbox.ipc import Broken, Channel, Late

__all__ = ["Level", "Result", "Sandbox", "SandboxDown", "probe", "require"]

Outcome = Literal["correct", "wrong", "timeout", "error"]
Level = str  # "strong", "weak", "docker:IMAGE" or "podman:IMAGE"; the image has Python 3.11 or newer
START_TIMEOUT_S = 60.0
GRACE_S = 5.0  # past a program's time, until tests that cannot be interrupted are killed with their cell
_BOOT = (
    "import sys; sys.path[:0] = [{root!r}]; from synth.sandbox.init import main; main({fd}, {parent}, {weak}, {out})"
)
_CANARY = "def f(a):\n    import os\n    try: return os.listdir(a)\n    except OSError: return 'held'"
_PYTHON = ["python3", "-S", "-s", "-P", "-c"]
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
_INSIDE = "/distill"  # where a container finds this code


class SandboxDown(Exception):
    """The sandbox itself failed: nothing is known of the program."""


@dataclass(frozen=True)
class Result:
    """What a program did. `stdout` and `stderr`: at most a MiB each. `seconds`: its own wall time."""

    verdict: Outcome
    reason: str | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.verdict == "correct"


class Sandbox:
    """A process that runs one program at a time. A context manager. Starts with the first program, within the thread
    that gives it; one that dies is replaced; once closed it starts nothing again.
    """

    def __init__(self, level: Level = "strong") -> None:
        self.level = level
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the sandbox)
        self._name: str | None = None
        self._folder: str | None = None
        self._jobs = 0
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, code: str, tests: str | None, timeout_s: float, memory_mb: int, *, entry_point: str | None = None,
        stdin: str = "",
    ) -> Result:  # fmt: skip
        """Run ``code`` and then ``tests`` against it; without tests as a script, whose end decides.

        ``timeout_s`` is wall time from the moment at which a process for it is ready. Raises SandboxDown.
        """
        job = {
            "code": code, "tests": tests, "timeout_s": timeout_s, "memory_mb": memory_mb,
            "entry_point": entry_point, "stdin": stdin,
        }  # fmt: skip
        is_fresh = self._process is None
        try:
            return self._ask(job, timeout_s)
        except SandboxDown:
            if is_fresh or self._closed:
                raise
        return self._ask(job, timeout_s)  # an earlier program may have broken the process

    def _ask(self, job: dict[str, Any], timeout_s: float) -> Result:
        if self._process is None:
            self._start()
        assert self._sock is not None
        self._jobs += 1
        channel = Channel(self._sock.fileno(), self._wait)
        try:
            channel.send(job | {"id": self._jobs}, time.monotonic() + START_TIMEOUT_S)
            reply = channel.receive(time.monotonic() + timeout_s + GRACE_S)
        except Late:
            self._stop()
            return Result("timeout", f"not done within {timeout_s:g} s", "", "", timeout_s)
        except Broken:
            raise self._down() from None
        if not isinstance(reply, dict) or reply.pop("id", None) != self._jobs:
            self._stop()  # whatever it says next would be taken for the reply to the next job
            raise SandboxDown("the sandbox replied to another job")
        return Result(**reply)

    def _wait(self, deadline: float | None) -> None:
        """Wait until there is something to read. Raises Late."""
        assert self._sock is not None
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([self._sock], [], [], left)[0]:
            raise Late

    def _start(self) -> None:
        """Start the process and wait until it says that its walls stand. Raises SandboxDown."""
        ours, theirs = socket.socketpair()
        with self._lock:
            if self._closed:
                ours.close()
                theirs.close()
                raise SandboxDown("the sandbox was closed")
            self._sock = ours
            try:
                self._process = self._started(theirs)
            except OSError as err:
                self._clear()
                raise SandboxDown(f"the sandbox cannot be started: {err}") from err
        try:
            Channel(ours.fileno(), self._wait).receive(time.monotonic() + START_TIMEOUT_S)
        except Late:
            self._stop()
            raise SandboxDown(f"the sandbox was not ready within {START_TIMEOUT_S:.0f} s") from None
        except Broken:
            raise self._down() from None

    def _started(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        engine, _, image = self.level.partition(":")
        with theirs:
            if image:
                self._name = f"distill-sandbox-{secrets.token_hex(8)}"
                # The socket is the container's stdin and stdout both.
                return subprocess.Popen(
                    [engine, *_container(self._name, root), image, *_PYTHON,
                     _BOOT.format(root=_INSIDE, fd=0, parent=0, weak=True, out=1)],
                    stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._stderr, cwd="/",
                )  # fmt: skip
            weak = self.level == "weak"
            if weak:
                self._folder = tempfile.mkdtemp(prefix="distill-sandbox-")
            boot = _BOOT.format(root=root, fd=theirs.fileno(), parent=os.getpid(), weak=weak, out=None)
            return subprocess.Popen(
                [sys.executable, *_PYTHON[1:], boot],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr, cwd="/",
                pass_fds=[theirs.fileno()], env={**_ENVIRONMENT, "TMPDIR": self._folder or "/tmp"},
            )  # fmt: skip

    def _down(self) -> SandboxDown:
        """Clear what has died away, and say of what."""
        cause = "it was closed" if self._closed else self._cause()
        self._stop()
        return SandboxDown(f"the sandbox died: {cause}")

    def _cause(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._stderr.seek(0)
        lines = self._stderr.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        # An engine says first what is wrong and then where its help is; Python says it last.
        return lines[0 if self._name else -1][:300] if lines else f"exit code {code}"

    def kill(self) -> None:
        """Kill the process; the program that it runs raises SandboxDown in the thread that waits for it."""
        if (process := self._process) is not None:
            process.kill()
        if self._name is not None:
            engine = self.level.partition(":")[0]
            # A container whose end of the socket is closed ends by itself; this makes it sooner.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([engine, "rm", "-f", self._name], capture_output=True, timeout=60, check=False)

    def interrupt(self) -> None:
        """Close from another thread than the one that runs programs, which has to call ``close`` then."""
        with self._lock:
            self._closed = True
            self.kill()

    def close(self) -> None:
        """Kill the process and everything in it, for good."""
        with self._lock:
            self._closed = True
        self._stop()
        self._stderr.close()

    def _stop(self) -> None:
        if self._process is not None:
            self.kill()
            self._process.wait()
        self._clear()

    def _clear(self) -> None:
        if self._sock is not None:
            self._sock.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._name = self._folder = None
        self._process = self._sock = None


def _container(name: str, root: str) -> list[str]:
    """What is said to docker or podman. Memory, processes and time are limited inside, for each program."""
    code = [f"--volume={root}/{room}:{_INSIDE}/{room}:ro" for room in ("synth", "licensing")]
    return [
        "run", "--rm", "--interactive", f"--name={name}", "--network=none", "--read-only", "--cap-drop=ALL",
        "--security-opt=no-new-privileges", "--user=65534:65534", "--workdir=/",
        "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777", *code,
        *(f"--env={key}={value}" for key, value in _ENVIRONMENT.items()),
    ]  # fmt: skip


@functools.cache
def probe(level: Level = "strong") -> str | None:
    """None where a canary ran and was held; else why not."""
    if not sys.platform.startswith("linux"):
        return f"there is none for {sys.platform}: it needs Linux"
    from synth.sandbox import seccomp

    if not seccomp.supported():
        return "there is none for this processor: it needs x86_64 or aarch64"
    try:
        with Sandbox(level) as sandbox:
            wanted = "== 'held'" if level == "strong" else "is not None"  # a container shows its own processes
            result = sandbox.run(_CANARY, f"assert f('/proc/1') {wanted}", 10.0, 512)
    except SandboxDown as err:
        return str(err)
    return None if result.passed else f"it does not hold: {result.reason}"


def require(level: Level) -> None:
    """Raises MissingDependency where this machine has no sandbox of that level."""
    why = probe(level)
    if why is None:
        return
    engine, _, image = level.partition(":")
    hint = f"start {engine}, and see that `{engine} run --rm {image} python3 --version` gives 3.11 or newer"
    if not image:
        hint = "run it on a Linux machine or in a container that allows user namespaces"
    if level == "strong" and probe("weak") is None:
        hint += (
            " (docker run --security-opt seccomp=unconfined), name a container, verify.sandbox: docker:IMAGE or "
            "podman:IMAGE, or accept limits, seccomp and Landlock without namespaces: verify.sandbox: weak "
            "(--sandbox weak)"
        )
    raise MissingDependency(f"no sandbox for programs: {why}", where="verify.sandbox", hint=hint)
