"""Functions that the tests of the worker pool call in a worker process, each with one argument."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from licensing.errors import MissingDependency

_calls = 0


def pid(_: Any) -> int:
    return os.getpid()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def wait_for_file(files: list[str]) -> int:
    """Makes the first file, and waits for the second."""
    Path(files[0]).touch()
    while not Path(files[1]).exists():
        time.sleep(0.01)
    return os.getpid()


def power(_: Any) -> str:
    """Holds the interpreter: neither a thread nor a signal handler written in Python runs meanwhile."""
    return str(9**9**9 % 7)


def note_and_die(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    os.abort()


def die_when_used(_: Any) -> str:
    """As a call does whose process has no room left for it."""
    global _calls
    _calls += 1
    if _calls > 1:
        os.abort()
    return "done"


def allocate(mebibytes: int) -> int:
    return len(bytearray(mebibytes << 20))


def retain(mebibytes: int) -> int:
    sys.modules["retained"] = bytearray(mebibytes << 20)  # type: ignore[assignment]
    return os.getpid()


def open_files(_: Any) -> list[str]:
    return [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]


def limits(_: Any) -> list[list[int]]:
    import resource

    return [list(resource.getrlimit(kind)) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]


def say(text: str) -> None:
    print(text, flush=True)
    print(text, file=sys.stderr, flush=True)


def prepare(seconds: float) -> None:
    time.sleep(seconds)


def lack(_: Any) -> None:
    raise MissingDependency("nothing is here", where="label.secrets", hint="pip install something")


def full_disk(path: str) -> None:
    raise OSError(28, "No space left on device", path)


def fail(text: str) -> None:
    raise ValueError(text)


def folder(_: Any) -> str:
    return os.getcwd()
