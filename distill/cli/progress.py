"""Progress on stderr: one bar a stage, or a transfer, on a terminal, plain lines elsewhere, with rate and time left.

Writes to a copy of the descriptor, since the run sends what engines and libraries print meanwhile to its logs.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any, Self

from rich.console import Console
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
from distill.runs.facts import notes_of
from distill.runs.stage import Reporter, Watcher

PLAIN_EVERY_S = 10.0
"""Seconds between two plain lines of a stage."""


class RateColumn(ProgressColumn):
    """Units a second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate(speed))


class _Progress:
    """A bar of these columns on a terminal, else lines. A context manager, so that a terminal is left clean."""

    def __init__(self, console: Console | None, *columns: ProgressColumn) -> None:
        self._stderr = None if console else os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self._console = console or Console(file=self._stderr, highlight=False, soft_wrap=True)
        self._bar = Progress(*columns, console=self._console) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._stderr:
            self._stderr.close()

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False)


class StageProgress(_Progress, Watcher):
    """Shows stages begin, advance and end."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console,
            TextColumn("{task.description:>15}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._reused: list[bool] = []
        self._task: TaskID | None = None

    def stage_begins(self, stage: str) -> Reporter:
        """Returns the function that the stage calls with the units done, their total and a note."""
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
        for text in notes_of(artefact.facts.as_json()):
            self.note(stage, text)

    def note(self, stage: str, text: str) -> None:
        """Prints one line about a finished stage."""
        self.say(f"{stage}: {text}")

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
                remaining = datetime.timedelta(seconds=round((total - done) * seconds / units))
                parts.append(f"{remaining} left")
        self._progress.say(f"{self._stage}: {', '.join(parts + ([note] if note else []))}")


def _rate(per_second: float) -> str:
    return f"{per_second:,.1f}/s" if per_second >= 1 else f"{per_second * 60:,.1f}/min"


class TransferProgress(_Progress):
    """Shows bytes done, their rate and the time left, step by step: called with the step, its bytes and its total."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console,
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._step, self._began, self._last_line = "", 0.0, 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        begins, self._step = step != self._step, step
        if self._bar:
            if begins:
                self._bar.add_task(step, total=total)
            self._bar.update(self._bar.task_ids[-1], completed=done)
            return
        now = time.monotonic()
        if begins:
            self._began = self._last_line = now
            self.say(f"{step}: {size_text(total)}")
        elif now - self._last_line >= PLAIN_EVERY_S and done:
            self._last_line = now
            rate = done / (now - self._began)
            remaining = datetime.timedelta(seconds=round((total - done) / rate))
            self.say(f"{step}: {size_text(done)} of {size_text(total)}, {size_text(rate)}/s, {remaining} left")


def size_text(size: float) -> str:
    """Bytes in units of 1000, as hubs show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
