"""One line of the report of ``distill check``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding"]

Level = Literal["ok", "note", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``exit_code`` is 0 unless ``level`` is "error"."""

    level: Level
    subject: str
    what: str
    where: str | None = None
    hint: str | None = None
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
