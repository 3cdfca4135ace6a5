"""Runtimes `docker:IMAGE` and `podman:IMAGE`: a container without network, capabilities or a writable file system.

One container runs many programs, one after the other. Any image with Python 3.11 or newer and libseccomp will do
(runner/Dockerfile); it brings its own packages and compilers.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess

from synth.sandbox.runtime import CODE, ENVIRONMENT, INSIDE, RUNNER, TIMEOUT_S, Connection, start_runner


class Container:
    """``engine``: docker or podman, as a command on the path."""

    isolates = True
    packages: tuple[str, ...] = ()

    def __init__(self, engine: str, image: str) -> None:
        self.name, self._engine, self._image = f"{engine}:{image}", engine, image
        self.hint = f"start {engine}, and see that `{engine} run --rm {image} python3 --version` gives 3.11 or newer"

    def connect(self) -> Connection:
        name = f"distill-sandbox-{secrets.token_hex(8)}"
        user = 10_000 + secrets.randbelow(50_000)  # the kernel counts the processes of a user over all containers
        command = [
            self._engine, "run", "--rm", "--interactive", f"--name={name}", "--network=none", "--ipc=none",
            "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={user}:{user}",
            "--pids-limit=128", "--stop-timeout=0", "--workdir=/tmp", "--entrypoint=python3",
            "--tmpfs=/tmp:rw,exec,nosuid,nodev,size=64m,mode=1777",
            f"--volume={CODE}:{INSIDE}/synth/sandbox/runner:ro", *(f"--env={k}={v}" for k, v in ENVIRONMENT.items()),
        ]  # fmt: skip
        if self._engine == "podman":
            command.append("--read-only-tmpfs=false")  # else /run and /var/tmp are writable

        def remove(_: object) -> None:
            # The engine's command ends with the container: killed before that has started, it would leave it behind.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([self._engine, "rm", "-f", name], capture_output=True, timeout=TIMEOUT_S, check=False)

        return start_runner([*command, self._image, *RUNNER], stop=remove)
