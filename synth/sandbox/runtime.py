"""What a backend is: it starts a runner (`synth.sandbox.runner`) somewhere, and gives a connection to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["CODE", "ENVIRONMENT", "INSIDE", "RUNNER", "Connection", "Runtime", "start_runner"]

CODE = Path(__file__).resolve().parent / "runner"
INSIDE = "/distill"  # where a runner has its code, as synth/sandbox/runner
SEND_TIMEOUT_S = 60
RUNNER = ("-s", "-P", "-m", "synth.sandbox.runner")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
               "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": INSIDE}  # fmt: skip

Stop = Callable[[], None]
"""Called where a runner was killed."""


class Runtime(Protocol):
    """A place where programs run."""

    isolates: bool
    """Whether a program has to find walls there."""
    hint: str
    """What to do where it does not work."""

    def connect(self) -> Connection:
        """Start a runner. Raises OSError."""
        ...


class Connection:
    """A socket to a runner, which takes one job at a time, and the process that has to end with it.

    Without a process the runner is elsewhere, and takes one job on a connection.
    """

    def __init__(
        self, channel: socket.socket, process: subprocess.Popen[bytes] | None = None, stop: Stop = lambda: None
    ) -> None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
        self.channel = channel
        self.is_used = False
        self.is_single = process is None
        self._process = process
        self._stop = stop

    def kill(self) -> None:
        """From any thread: the thread that waits for a reply gets the end of the stream."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._stop()

    def close(self) -> str:
        """Kill it; the last line that it wrote to stderr."""
        self.kill()
        self.channel.close()
        if self._process is None:
            return ""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            self._process.wait()
            os.set_blocking(stream.fileno(), False)
            lines = (stream.read(1 << 16) or b"").decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self._process.returncode}"


def start_runner(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: str = "/", stop: Stop = lambda: None
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
