"""One teacher or a mixture, as the sampler sees it: teachers with free slots, and answers from any of them.

**One engine at a time.** A machine holds one engine as a rule: vLLM takes most of an accelerator's memory, and two
engines on the same cores slow each other down. So of the teachers that run a model on this machine, or on one Ray
cluster, one is active at a time; it is closed, with all of its requests answered, before the next one starts. Others
(endpoints, the fake in this process) are always available.

**Polling.** A teacher that runs in this process works while it is polled, so it is polled for longest, and the others
are looked at in between. One that answers by the batch (transformers) delays the others' answers by a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from licensing.files import disk_errors, json_line, read_rows, write_lines
from synth.teachers.teacher import Completion, Request, Teacher

_GLANCE_S = 0.001
_SLICE_S = 0.02  # how long one of several teachers is polled before the others are looked at


class TeacherRouter:
    """``teachers``: in the order of the recipe. ``exclusive``: which of them run a model on this machine, or on Ray,
    one at a time.

    ``engine_info``: a file that holds what the teachers' engines resolved (``Teacher.engine_info``), one row each. Rows
    of engines that ran before stay in it.
    """

    def __init__(
        self, teachers: Sequence[Teacher], exclusive: Sequence[bool] | None = None, engine_info: Path | None = None
    ) -> None:
        self.teachers = tuple(teachers)
        self._exclusive = tuple(exclusive) if exclusive is not None else (False,) * len(self.teachers)
        self._info_path = engine_info
        self._info = read_engine_info(engine_info)
        self._in_flight: list[set[str]] = [set() for _ in self.teachers]
        self.active: int | None = None
        """Index of the exclusive teacher that is open; None while there is none."""

    @property
    def engine(self) -> str:
        """The engines' names, for people."""
        return ", ".join(dict.fromkeys(teacher.engine for teacher in self.teachers))

    @property
    def failure(self) -> Exception | None:
        """What ended one of the teachers."""
        return next((teacher.failure for teacher in self.teachers if teacher.failure is not None), None)

    def free_slots(self, index: int) -> int:
        """How many requests a teacher takes now: none while another one is active in its place."""
        if self._exclusive[index] and self.active not in (None, index):
            return 0
        return self.teachers[index].capacity

    def submit(self, index: int, request: Request) -> None:
        """Queue a request at a teacher that has free slots."""
        if self._exclusive[index]:
            assert self.active in (None, index), "a teacher that is not active has no free slots"
            self.active = index
        self._in_flight[index].add(request.request_id)
        self.teachers[index].submit(request)

    def activate(self, index: int) -> bool:
        """Close the active teacher, which has no request in flight, so that another can start; False: no need."""
        if not self._exclusive[index] or self.active in (None, index):
            return False
        assert self.active is not None
        self.teachers[self.active].close()
        self._in_flight[self.active].clear()
        self.active = None
        return True

    def poll_for(self, seconds: float) -> list[Completion]:
        """Answers of any teacher, after about ``seconds`` at most where the teachers can be left early."""
        busy = [index for index, requests in enumerate(self._in_flight) if requests]
        if len(busy) == 1:
            return self._poll(busy[0], seconds)
        completions: list[Completion] = []
        for index in sorted(busy, key=lambda index: index == self.active):  # the one that works while polled comes last
            patience = _SLICE_S if index == self.active or self.active not in busy else _GLANCE_S
            completions += self._poll(index, _GLANCE_S if completions else min(patience, seconds))
        return completions

    def drain(self) -> Iterator[Completion]:
        """Answers in flight that are paid for (``Teacher.drain``)."""
        for index, teacher in enumerate(self.teachers):
            for completion in teacher.drain():
                self._in_flight[index].discard(completion.request_id)
                yield completion

    def close(self) -> None:
        """Close every teacher."""
        for teacher in self.teachers:
            teacher.close()

    def record_engine_info(self) -> None:
        """Write the file anew where an engine has resolved something that is not in it."""
        new = [info for teacher in self.teachers for info in teacher.engine_info if info not in self._info]
        if self._info_path is not None and new:
            self._info += [info for number, info in enumerate(new) if info not in new[:number]]
            write_engine_info(self._info_path, self._info)

    def _poll(self, index: int, seconds: float) -> list[Completion]:
        completions = self.teachers[index].poll_for(seconds)
        self._in_flight[index].difference_update(completion.request_id for completion in completions)
        return completions


def read_engine_info(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a file of engines; none where there is no file."""
    return list(read_rows(path)) if path is not None and path.is_file() else []


def write_engine_info(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the file whole, each row once, in an order that does not depend on which engine ran first."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, sorted({json_line(row) for row in rows}))
