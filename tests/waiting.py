"""Waiting in tests: for a condition, with a deadline. A test that sleeps supposes how fast a machine is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, deadline_s: float = 120, every_s: float = 0.02) -> T:
    """Returns the first true value of ``condition``; fails the test with ``what`` it waited for after the deadline.

    A file or folder that goes while the condition looks at it is no fault: it looks again.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        with suppress(FileNotFoundError):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {deadline_s:g} s: {what}")
        time.sleep(every_s)


def line_count(path: Path) -> int:
    """The number of whole lines of a file that may not exist yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def gone(pid: int) -> bool:
    """No process of this id runs."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Runs ``act`` in a thread beside the body, waits for its end and raises what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if failures:
            raise failures[0]


@contextmanager
def repeatedly(look: Callable[[], None], every_s: float = 0.2) -> Iterator[None]:
    """Calls ``look`` in a thread every so often until the body ends."""
    stop = Event()

    def run() -> None:
        while not stop.wait(every_s):
            look()

    with meanwhile(run):
        try:
            yield
        finally:
            stop.set()
