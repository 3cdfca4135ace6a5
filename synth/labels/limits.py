"""CPU time limits for the labels of one row, in a worker process.

Two timers of the kernel, both of CPU time, so that a busy machine makes no difference. At the limit SIGVTALRM raises
RowTimeout, which interrupts Python code and regular expressions. Native code that goes on gets SIGPROF two seconds
later, which ends the process; the file of `mark` then says which row it was at. Main thread of a process only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

GRACE_S = 2.0


class RowTimeout(BaseException):
    """The labels of a row are not done in time. No Exception, so that a library that catches all does not catch it."""


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise RowTimeout in the block after so many seconds of CPU time; see above."""
    is_running = True

    def stop(_: int, __: FrameType | None) -> None:
        if is_running:
            raise RowTimeout

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds + GRACE_S)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        is_running = False  # a signal may be under way still
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def within(seconds: float, label: Callable[[], T]) -> tuple[T | None, str | None]:
    """(what ``label`` returns, None), or (None, why there is nothing)."""
    try:
        with cpu_limit(seconds):
            return label(), None
    except RowTimeout:
        return None, f"no labels within {seconds:g} s of CPU time"
    except MemoryError:
        return None, "no labels: out of memory"


def mark(descriptor: int, row: int) -> None:
    """Note the number of the row that comes next."""
    os.pwrite(descriptor, row.to_bytes(8, "big"), 0)


def marked(path: Path) -> int | None:
    """The number of the last row that a process began, or None."""
    try:
        noted = path.read_bytes()
    except FileNotFoundError:
        return None
    return int.from_bytes(noted, "big") if noted else None
