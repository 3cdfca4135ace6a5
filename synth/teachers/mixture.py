"""`teacher: {kind: several}`: more than one teacher, each with its share of the samples."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from synth.section import Section
from synth.teachers.config import OfflineTeacher, TeacherConfig

_ROUNDING = 1e-3  # three shares of 0.333 are meant to be all


class Member(Section):
    """A teacher and its share of the samples."""

    share: float = Field(gt=0, lt=1, description="Of all samples; the shares add up to 1.")
    teacher: TeacherConfig


class TeacherMixture(Section):
    """Several teachers. Which one draws a sample follows from the problem's content and the sample's index.

    Those that hold a model on this machine (vllm, vllm_server, transformers, auto) take turns, one engine at a time: a
    budget that ends the run in an earlier one's turn leaves nothing for a later one. Endpoints work beside them.
    """

    kind: Literal["several"] = "several"
    teachers: tuple[Member, ...]

    @property
    def members(self) -> tuple[TeacherConfig, ...]:
        """The teachers, without their shares."""
        return tuple(member.teacher for member in self.teachers)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares, made to add up to 1 exactly."""
        total = math.fsum(member.share for member in self.teachers)
        return tuple(member.share / total for member in self.teachers)

    @model_validator(mode="after")
    def _fit_together(self) -> TeacherMixture:
        if len(self.teachers) < 2:
            raise ValueError("kind several needs at least 2 teachers: name another one, or give the one without it")
        total = math.fsum(member.share for member in self.teachers)
        if abs(total - 1) > _ROUNDING:
            raise ValueError(f"the shares add up to {total:g}: they must add up to 1")
        names = [teacher.public_id for teacher in self.members]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two teachers are called {twice}: rows tell them apart by it, so give one a name")
        if any(isinstance(teacher, OfflineTeacher) for teacher in self.members):
            raise ValueError("a recorded teacher cannot be asked: bring its traces along in a recipe of their own")
        return self


TeachersConfig = Annotated[TeacherConfig | TeacherMixture, Field(discriminator="kind")]
"""The recipe's section `teacher`: one of them, or several."""


def members_of(config: TeachersConfig) -> tuple[TeacherConfig, ...]:
    """The teachers of a section: one, or several."""
    return config.members if isinstance(config, TeacherMixture) else (config,)
