"""What a person sees while a run is at work: one progress line a stage on a terminal, plain lines otherwise.

Everything here goes to stderr; results belong to stdout. It writes to a copy of the descriptor, since the ledger sends
what engines and libraries print there meanwhile to the run's logs.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from distill.runs.artefact import Artefact
from distill.runs.stage import Reporter

PLAIN_EVERY_S = 10.0


class StageLines:
    """Shows stages begin, advance and end. A context manager, so that a terminal is left clean."""

    def __init__(self, console: Console | None = None) -> None:
        self._stderr = None if console else os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.console = console or Console(file=self._stderr, highlight=False, soft_wrap=True)
        self.seen: list[tuple[str, bool]] = []
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:>15}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )

    def __enter__(self) -> StageLines:
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

    def stage_begins(self, stage: str) -> Reporter:
        if self._bar:
            self._task = self._bar.add_task(stage, total=None, note="")
            return self._advance
        self.console.print(f"{stage}: begins", markup=False)
        last = time.monotonic()

        def plain(done: int, total: int | None = None, note: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                self.console.print(f"{stage}: {done}{f' of {total}' if total else ''} {note}".rstrip(), markup=False)

        return plain

    def _advance(self, done: int, total: int | None = None, note: str = "") -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def stage_ends(self, stage: str, artefact: Artefact, *, reused: bool) -> None:
        self.seen.append((stage, reused))
        if self._bar and self._task is not None and not reused:
            self._bar.remove_task(self._task)
            self._task = None
        said = "done before" if reused else f"done in {artefact.manifest['seconds']:.1f} s"
        self.console.print(f"{stage}: {said}", markup=False)

    @property
    def nothing_to_do(self) -> bool:
        """Every stage was done before."""
        return bool(self.seen) and all(reused for _, reused in self.seen)
