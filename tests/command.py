"""The command in the test's own process, which imports it once, and what it answered.

Tests that send signals start a process of their own.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.cli.app import run_command


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(*arguments: object, folder: Path | None = None) -> Answer:
    """``distill`` with these arguments in a working folder."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(folder or Path()):
        out, err = Path(name, "out"), Path(name, "err")
        with _written_to(out, 1), _written_to(err, 2):
            code = run_command([str(argument) for argument in arguments])
        return Answer(code, out.read_text(), err.read_text())


@contextlib.contextmanager
def _written_to(file: Path, descriptor: int) -> Iterator[None]:
    """What goes to ``descriptor`` goes to a file: progress is written to a copy of it, not to ``sys.stderr``."""
    redirect = {1: contextlib.redirect_stdout, 2: contextlib.redirect_stderr}[descriptor]
    before = os.dup(descriptor)
    try:
        with file.open("w", encoding="utf-8") as stream, redirect(stream):
            os.dup2(stream.fileno(), descriptor)
            yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)
