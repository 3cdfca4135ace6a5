"""`curate`: which traces are trained on."""

from __future__ import annotations

from pydantic import Field

from synth.config.section import Section


class CurateConfig(Section):
    max_traces_per_problem: int | None = Field(None, ge=1)
    max_traces: int | None = Field(None, ge=1, description="At most this many training traces in all.")
    control_arm: bool = Field(False, description="Also draw as many unverified traces, to train a control student on.")
    seed: int = 0
