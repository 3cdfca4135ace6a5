"""The number of requests in flight at an endpoint: additive increase, multiplicative decrease, and `Retry-After`.

The rule is TCP's (Chiu and Jain, Computer Networks and ISDN Systems 17, 1989). A refusal halves the limit, once for
all requests that were in flight together; every answer raises it by a share, so that a limit that fell to one is back
at its maximum after 32 rounds of answers. Retries and their waits: ``openai.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import resource
import time
from collections import deque

_ROUNDS = 32  # of answers, from a limit of one to the whole


class ConcurrencyLimiter:
    """Slots for requests, in one event loop. ``limit`` is the current limit, with its fraction."""

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._cut_at = 0.0

    async def enter(self) -> float:
        """Wait for a slot, first come, first served; returns the time at which it was granted, for ``refused``."""
        if self._waiting or not self._open():
            slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(slot)
            self._wake()
            try:
                await slot
            except asyncio.CancelledError:
                if slot.done() and not slot.cancelled():
                    self.leave()
                raise
        else:
            self._running += 1
        return time.monotonic()

    def leave(self) -> None:
        """Give the slot back."""
        self._running -= 1
        self._wake()

    def answered(self) -> None:
        """A request was answered."""
        self.limit = min(float(self._most), self.limit + max(1.0, self._most / _ROUNDS) / self.limit)

    def refused(self, entered: float, pause_s: float | None) -> None:
        """The endpoint refused a request that had entered then. No slot is granted for ``pause_s`` seconds."""
        now = time.monotonic()
        if entered >= self._cut_at:  # refusals of requests from before the last cut say nothing about the new limit
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = now
        if pause_s is not None:
            self._paused_until = max(self._paused_until, now + pause_s)

    def _open(self) -> bool:
        return self._running < int(self.limit) and time.monotonic() >= self._paused_until

    def _wake(self) -> None:
        while self._waiting and self._open():
            slot = self._waiting.popleft()
            if not slot.done():
                self._running += 1
                slot.set_result(None)
        remaining = self._paused_until - time.monotonic()
        if self._waiting and remaining > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._pause_over)

    def _pause_over(self) -> None:
        self._timer = None
        self._wake()


def allow_sockets(count: int) -> None:
    """Raise this process's limit of open files, often 1,024, by ``count``, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        limit = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def retry_after(header: str | None, most_s: float, *, now: str | None = None) -> float | None:
    """Seconds of a ``Retry-After`` header, a number or a date (RFC 9110, 10.2.3), at most ``most_s``.

    None without a header, where it is neither, and where it names no time to come. ``now``: the response's own Date
    header, since the server's clock may be another one.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        at = _epoch_seconds(header)
        if at is None:
            return None
        here = _epoch_seconds(now)
        seconds = at - (time.time() if here is None else here)
    return min(seconds, most_s) if seconds > 0 else None


def _epoch_seconds(date: str | None) -> float | None:
    try:
        return None if date is None else email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
