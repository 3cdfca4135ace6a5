"""`teacher: {kind: mixture}`: several teachers, each with its share of the samples, or its step of a cascade."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from synth.section import Section
from synth.teachers.config import REFUSE_RENAMED, OfflineTeacher, OneTeacher, TeacherConfig

_ROUNDING = 1e-3  # so that three shares of 0.333 count as 1


class MixtureEntry(Section):
    """A teacher and its share of the samples."""

    share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of all samples that it gives; shares add up to 1. Absent with `sample.policy` cascade.",
    )
    teacher: TeacherConfig


class TeacherMixture(Section):
    """Several teachers. Which one draws a sample follows from the problem's content and the sample's index, or in a
    cascade (``synth.sampling.config.CascadePolicy``) from the sample's index alone.

    Teachers that hold a model on this machine (vllm, vllm_server, transformers, auto) run one after the other, one
    engine at a time, so a budget that ends the run while an earlier one is active leaves nothing for a later one.
    Endpoints run at the same time as those.
    """

    kind: Literal["mixture"] = "mixture"
    teachers: tuple[MixtureEntry, ...]

    @property
    def members(self) -> tuple[TeacherConfig, ...]:
        """The teachers, without their shares."""
        return tuple(entry.teacher for entry in self.teachers)

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The shares, scaled to add up to exactly 1; None where the recipe sets none."""
        shares = [entry.share for entry in self.teachers if entry.share is not None]
        return tuple(share / math.fsum(shares) for share in shares) or None

    @model_validator(mode="after")
    def check_shares_and_names(self) -> TeacherMixture:
        if len(self.teachers) < 2:
            raise ValueError("kind mixture needs at least 2 teachers: add one, or set the only one without a mixture")
        shares = [entry.share for entry in self.teachers if entry.share is not None]
        if shares and len(shares) < len(self.teachers):
            raise ValueError("a teacher has no share: set share on each, or on none for sample.policy.kind: cascade")
        total = math.fsum(shares)
        if shares and abs(total - 1) > _ROUNDING:
            raise ValueError(f"the shares add up to {total:g}: they must add up to 1")
        names = [teacher.public_id for teacher in self.members]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise ValueError(f"two teachers are called {duplicate}: rows tell them apart by it, so set name on one")
        if any(isinstance(teacher, OfflineTeacher) for teacher in self.members):
            raise ValueError("an offline teacher generates nothing: import its traces in a recipe of their own")
        return self


TeachersConfig = Annotated[OneTeacher | TeacherMixture, Field(discriminator="kind"), REFUSE_RENAMED]
"""The recipe's section `teacher`: one teacher, or a mixture."""


def teacher_configs(config: TeachersConfig) -> tuple[TeacherConfig, ...]:
    """The teachers of a section."""
    return config.members if isinstance(config, TeacherMixture) else (config,)
