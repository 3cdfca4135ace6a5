"""The errors a user can meet, and the exit code of each.

    DistillError              what, where, hint
    ├── Refused         1     the answer is no: a violation, a failed check
    ├── InputError      2     the user's input is wrong: a recipe, a file, a row
    └── MissingDependency     3     something that we need is missing: an extra, a program, memory, disk

They are in this package because every other package may import it. The command line prints ``what``, ``where`` and
``hint`` and exits with ``exit_code``; anything that is not a DistillError is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class DistillError(Exception):
    """Base of the tree. ``where`` is a place (file:line, a field, a folder); ``hint`` is the next step to take."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\nhint: {self.hint}" if self.hint else text


class Refused(DistillError):
    """The work was possible and the answer is no."""

    exit_code = 1


class InputError(DistillError):
    """The user's input is wrong; nothing was lost."""

    exit_code = 2


class MissingDependency(DistillError):
    """Something that has to be installed or freed is missing."""

    exit_code = 3
