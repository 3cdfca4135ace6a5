"""Converters and quantizers as programs of their own: offline, without the secrets of the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency

_ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "HOME", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "TMPDIR")


def clean_environment() -> dict[str, str]:
    """The environment of such a program: no tokens, no PYTHONPATH, no hub."""
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    return environment | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def run_program(name: str, command: Sequence[Any], folder: Path, hint: str) -> None:
    """Run ``command`` in ``folder``, its output to the log.

    Raises InputError where it does not start, and with its last line where it fails; MissingDependency where it is
    killed, as the system does with a program that takes too much memory.
    """
    where = "release.formats"
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"{command[0]} does not run: {error.strerror}", where=where, hint=hint) from error
    print(done.stdout, file=sys.stderr)  # into the log of the stage
    if done.returncode == -signal.SIGKILL:
        hint = "free memory, or run on a machine with more"
        raise MissingDependency(f"{name} was killed, most likely for want of memory", where=where, hint=hint)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise InputError(f"{name} does not take this model: {lines[-1]}", where=where, hint=hint)
