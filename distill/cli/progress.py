"""Progress on stderr: a bar for each stage of a run, or for bytes, on a terminal; plain lines elsewhere.

Both with rate and time left.

Writes to a copy of the descriptor, since the run sends what engines and libraries print meanwhile to its logs.
"""

from __future__ import annotations

import datetime
import os
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from distill.runs.artefact import Artefact
from distill.runs.stage import Reporter

PLAIN_EVERY_S = 10.0
"""Seconds between two plain lines of a stage."""


class RateColumn(ProgressColumn):
    """Units a second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed))


class StageProgress:
    """Shows stages begin, advance and end. A context manager, so that a terminal is left clean."""

    def __init__(self, console: Console | None = None) -> None:
        self._stderr = None if console else os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self._console = console or Console(file=self._stderr, highlight=False, soft_wrap=True)
        self._reused: list[bool] = []
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:>15}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                RateColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )

    def __enter__(self) -> StageProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._stderr:
            self._stderr.close()

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False)

    def stage_begins(self, stage: str) -> Reporter:
        """Returns what the stage calls with the units done, their total and a note."""
        if self._bar:
            self._task = self._bar.add_task(stage, total=None, note="")
            return self._advance
        self.say(f"{stage}: begins")
        return PlainProgress(self, stage)

    def _advance(self, done: int, total: int | None = None, note: str = "") -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def stage_ends(self, stage: str, artefact: Artefact[Any], *, reused: bool) -> None:
        """Removes the stage's bar and prints one line."""
        self._reused.append(reused)
        if self._bar and self._task is not None and not reused:
            self._bar.remove_task(self._task)
            self._task = None
        outcome = "done before" if reused else f"done in {artefact.manifest['seconds']:.1f} s"
        self.say(f"{stage}: {outcome}")

    @property
    def nothing_to_do(self) -> bool:
        """Every stage was done before."""
        return bool(self._reused) and all(self._reused)


class PlainProgress:
    """Progress of one stage as lines, at most one every ``PLAIN_EVERY_S`` seconds.

    The rate is the mean since the stage's first report, which may not start at 0: a resumed stage has units done.
    """

    def __init__(self, progress: StageProgress, stage: str) -> None:
        self._progress = progress
        self._stage = stage
        self._first: tuple[float, int] | None = None
        self._done = 0
        self._last_line = time.monotonic()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None or done < self._done:  # a stage may count anew, for each model that it scores
            self._first = (now, done)
        self._done = done
        if now - self._last_line < PLAIN_EVERY_S:
            return
        self._last_line = now
        parts = [f"{done:,} of {total:,}" if total else f"{done:,}"]
        seconds, units = now - self._first[0], done - self._first[1]
        if seconds > 0 and units > 0:
            parts.append(_rate(units / seconds))
            if total:
                left = datetime.timedelta(seconds=round((total - done) * seconds / units))
                parts.append(f"{left} left")
        self._progress.say(f"{self._stage}: {', '.join(parts + ([note] if note else []))}")


class ByteProgress:
    """Shows the bytes of one piece of work. A context manager; called with the bytes done and the bytes in all."""

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._label = label
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._first: tuple[float, int] | None = None
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                DownloadColumn(),
                TransferSpeedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(label, total=None)

    def __enter__(self) -> ByteProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        self._first = self._first or (now, done)
        seconds, units = now - self._first[0], done - self._first[1]
        if now - self._last_line < PLAIN_EVERY_S or seconds <= 0 or units <= 0:
            return
        self._last_line = now
        rate = units / seconds
        left = datetime.timedelta(seconds=round((total - done) / rate))
        line = f"{self._label}: {decimal(done)} of {decimal(total)}, {decimal(int(rate))}/s, {left} left"
        self._console.print(line, markup=False)


def _rate(per_second: float) -> str:
    return f"{per_second:,.1f}/s" if per_second >= 1 else f"{per_second * 60:,.1f}/min"
