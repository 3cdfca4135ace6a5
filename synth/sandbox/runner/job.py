"""What is sent into a sandbox, and what comes back. Standard library only: it is used on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Isolation = Literal["apart", "in_process"]
Outcome = Literal["correct", "wrong", "timeout", "error"]
MAX_OUTPUT = 1 << 20  # bytes


@dataclass(frozen=True)
class Job:
    """A program and what to do with it.

    `mode`: ``apart`` and ``in_process`` run its tests (see ``synth.sandbox``), ``script`` runs Python alone and
    ``execute`` the command `argv`; the exit code then decides. `timeout_s`: wall seconds from the moment at which a
    process for the program is ready; `memory_mb`: its address space. `setup`: Python that program and tests both see.
    `files` (name: base64) are in the program's folder; `collect` is one that the result carries.
    """

    mode: Literal["apart", "in_process", "script", "execute"]
    timeout_s: float
    memory_mb: int
    code: str = field(default="", repr=False)
    tests: list[str] = field(default_factory=list)
    entry_point: str | None = None
    setup: str = ""
    stdin: str = ""
    argv: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    collect: str | None = None
    max_output: int = MAX_OUTPUT
    processes: bool = False


@dataclass(frozen=True)
class Result:
    """What a program did. `stdout` and `stderr`: at most `Job.max_output` bytes. `seconds`: its own wall time.

    `failures`: for each of `Job.tests` None, or how it failed. `needs_in_process`: the tests cannot run apart from the
    program; the verdict is then `error`. `file`: base64 of what was to be collected.
    """

    verdict: Outcome
    reason: str | None = None
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    failures: list[str | None] = field(default_factory=list)
    needs_in_process: bool = False
    file: str | None = None
    isolation: Isolation = "apart"

    @property
    def passed(self) -> bool:
        return self.verdict == "correct"
