"""How many requests an endpoint bears: additive increase, multiplicative decrease, and the pauses that it asks for.

The rule is TCP's (Chiu and Jain, Computer Networks and ISDN Systems 17, 1989). A refusal halves the limit, once for
all requests that were under way together; every answer raises it by a share, so that a limit that was cut to one is
whole again after 32 rounds of answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import resource
import time
from collections import deque

__all__ = ["ConcurrencyLimiter", "allow_sockets", "retry_after"]

_ROUNDS = 32  # of answers, from a limit of one to the whole


class ConcurrencyLimiter:
    """Room for requests, in one event loop. ``limit`` is the limit now, a fraction included."""

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._cut_at = 0.0

    async def enter(self) -> float:
        """Wait for room, first come, first served; returns the moment it was given, for ``refused``."""
        if self._waiting or not self._open():
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            self._wake()
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.leave()
                raise
        else:
            self._running += 1
        return time.monotonic()

    def leave(self) -> None:
        """Give the room back."""
        self._running -= 1
        self._wake()

    def answered(self) -> None:
        """A request went well."""
        self.limit = min(float(self._most), self.limit + max(1.0, self._most / _ROUNDS) / self.limit)

    def refused(self, entered: float, pause_s: float | None) -> None:
        """A request that had entered then was told to come later; nobody goes in for so many seconds."""
        now = time.monotonic()
        if entered >= self._cut_at:  # those that went in before the last cut say nothing about the new limit
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = now
        if pause_s is not None:
            self._paused_until = max(self._paused_until, now + pause_s)

    def _open(self) -> bool:
        return self._running < int(self.limit) and time.monotonic() >= self._paused_until

    def _wake(self) -> None:
        while self._waiting and self._open():
            place = self._waiting.popleft()
            if not place.done():
                self._running += 1
                place.set_result(None)
        left = self._paused_until - time.monotonic()
        if self._waiting and left > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake()


def allow_sockets(count: int) -> None:
    """Raise this process's limit of open files, often 1,024, by so many, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def retry_after(header: str | None, most_s: float) -> float | None:
    """Seconds that a ``Retry-After`` asks for, as a number or a date (RFC 9110, 10.2.3), at most ``most_s``.

    None where there is none, or none that makes sense.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    if not seconds >= 0:  # NaN as well
        return 0.0 if seconds < 0 else None
    return min(seconds, most_s)
