"""What every section of a recipe shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

OnBadRow = Literal["stop", "skip"]
ProblemKind = Literal["math", "code", "choice", "reasoning_gym", "open"]
RanBy = Literal["releaser", "third-party"]


class Section(BaseModel):
    """Base of every recipe section: frozen, no unknown keys, defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
