"""One line of the report of ``distill check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from licensing.errors import InputError

Level = Literal["ok", "note", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``exit_code`` is 0 unless ``level`` is "error"."""

    level: Level
    subject: str
    what: str
    where: str | None = None
    hint: str | None = None
    exit_code: int = InputError.exit_code

    def __post_init__(self) -> None:
        if self.level != "error":
            object.__setattr__(self, "exit_code", 0)
