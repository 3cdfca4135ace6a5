"""A sandbox for foreign programs, from the outside: start it, give it jobs, replace it when it dies.

``probe`` says what this machine can hold, by running a canary and not by looking for a binary: level ``strong`` where
unprivileged namespaces work (containers and some distributions forbid them), else ``weak`` (limits, seccomp, Landlock
where the kernel has it), for which a recipe has to ask by name. Linux on x86_64 and aarch64. The walls themselves are
in `init`.

With `docker:IMAGE` or `podman:IMAGE` the walls are those of a container without network, capabilities or a writable
file system, and the layers of `weak` stand inside it; one container serves many programs, one after the other.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licensing.errors import MissingDependency
from synth.verify.framing import receive, send
from synth.verify.verdict import VerdictName

__all__ = ["Level", "Result", "Sandbox", "SandboxDown", "probe", "require"]

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

    verdict: VerdictName
    reason: str | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.verdict == "correct"


class Sandbox:
    """One cell, one job at a time. A context manager. Starts with the first job, within the thread that gives it."""

    def __init__(self, level: Level = "strong") -> None:
        self.level = level
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the sandbox)
        self._name: str | None = None
        self._folder: str | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._said.close()

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
        fresh = self._process is None
        try:
            return self._ask(job, timeout_s)
        except SandboxDown:
            if fresh:
                raise
        return self._ask(job, timeout_s)  # a cell that served others before may have been at fault itself

    def _ask(self, job: dict[str, Any], timeout_s: float) -> Result:
        if self._process is None:
            self._start()
        assert self._sock is not None
        try:
            self._sock.settimeout(START_TIMEOUT_S)
            send(self._sock, json.dumps(job).encode("ascii"))
            answer = receive(self._sock, time.monotonic() + timeout_s + GRACE_S)
        except TimeoutError:
            self.close()
            return Result("timeout", f"not done within {timeout_s:g} s", "", "", timeout_s)
        except OSError:
            answer = None
        if answer is None:
            raise self._down()
        return Result(**json.loads(answer))

    def _start(self) -> None:
        """Start a cell and wait until it says that its walls stand. Raises SandboxDown."""
        self._sock, theirs = socket.socketpair()
        try:
            self._process = self._started(theirs)
            hello = receive(self._sock, time.monotonic() + START_TIMEOUT_S)
        except TimeoutError:
            self.close()
            raise SandboxDown(f"the sandbox was not ready within {START_TIMEOUT_S:.0f} s") from None
        except OSError as err:
            self.close()
            raise SandboxDown(f"the sandbox cannot be started: {err}") from err
        if hello is None:
            raise self._down()

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
                    stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said, cwd="/",
                )  # fmt: skip
            weak = self.level == "weak"
            if weak:
                self._folder = tempfile.mkdtemp(prefix="distill-sandbox-")
            boot = _BOOT.format(root=root, fd=theirs.fileno(), parent=os.getpid(), weak=weak, out=None)
            return subprocess.Popen(
                [sys.executable, *_PYTHON[1:], boot],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, cwd="/",
                pass_fds=[theirs.fileno()], env={**_ENVIRONMENT, "TMPDIR": self._folder or "/tmp"},
            )  # fmt: skip

    def _down(self) -> SandboxDown:
        """Close what has died, and say of what."""
        cause = self._cause()
        self.close()
        return SandboxDown(f"the sandbox died: {cause}")

    def _cause(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._said.seek(0)
        lines = self._said.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        # An engine says first what is wrong and then where its help is; Python says it last.
        return lines[0 if self._name else -1][:300] if lines else f"exit code {code}"

    def kill(self) -> None:
        """End the job under way, from another thread; `close` follows in the thread that runs it."""
        if (process := self._process) is not None:
            process.kill()
        if self._name is not None:
            engine = self.level.partition(":")[0]
            # A container whose end of the socket is closed ends by itself; this makes it sooner.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([engine, "rm", "-f", self._name], capture_output=True, timeout=60, check=False)

    def close(self) -> None:
        """Kill it and everything in it."""
        if self._process is not None:
            self.kill()
            self._process.wait()
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
