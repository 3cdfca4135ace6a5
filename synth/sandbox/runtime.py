"""What a backend is: it starts a runner (`synth.sandbox.runner`) somewhere, and gives a connection to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

CODE = Path(__file__).resolve().parent / "runner"
INSIDE = "/distill"  # where a runner has its code, as synth/sandbox/runner
TIMEOUT_S = 60  # for the command that started a runner to end
RUNNER = ("-s", "-P", "-m", "synth.sandbox.runner")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
               "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": INSIDE}  # fmt: skip

Stop = Callable[[subprocess.Popen[bytes]], None]


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its group, and the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Runtime(Protocol):
    """A place where programs run."""

    name: str
    """As a recipe names it."""
    isolates: bool
    """Whether a program has to find walls there."""
    hint: str
    """What to do where it does not work."""
    packages: tuple[str, ...]
    """What programs may import beside the standard library, ``name==version``. Empty where an image brings its own."""

    def connect(self) -> Connection:
        """Start a runner. Raises OSError."""
        ...


class Connection:
    """A socket to a runner, which takes one job at a time. ``stop`` ends the process through which it was started.

    Without a process the runner is elsewhere, and takes one job on a connection.
    """

    def __init__(
        self, channel: socket.socket, process: subprocess.Popen[bytes] | None = None, stop: Stop = kill_group
    ) -> None:
        self.channel = channel
        self.stream = channel.makefile("rwb")
        self.is_used = False
        self.process = process
        self._stop = stop

    def kill(self) -> None:
        """From any thread: the thread that waits for a reply gets the end of the stream."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        if self.process is not None:
            self._stop(self.process)

    def close(self) -> str:
        """Kill it; the last line that it wrote to stderr."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            self.kill()
            with contextlib.suppress(OSError):  # what could not be sent
                self.stream.close()
            self.channel.close()
            if self.process is None:
                return ""
            try:
                stderr = self.process.communicate(timeout=1)[1]
                break
            except subprocess.TimeoutExpired:  # a container that is still being made cannot be removed yet
                if time.monotonic() > deadline:
                    return f"its command did not end within {TIMEOUT_S} s"
        lines = stderr.decode("utf-8", "replace").partition("\nRun 'docker")[0].strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self.process.returncode}"


def start_runner(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: str = "/", stop: Stop = kill_group
) -> Connection:
    """Start a command with the channel as stdin and stdout. It inherits no other descriptor, however many are open."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE, cwd=folder,
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
    return Connection(ours, process, stop)
