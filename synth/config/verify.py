"""`verify`: how a verdict is found."""

from __future__ import annotations

from pydantic import Field

from synth.config.section import Section


class VerifyConfig(Section):
    workers: int = Field(2, ge=1, description="Worker processes.")
    timeout_s: float = Field(2.0, gt=0, description="Wall seconds a row; then its worker is killed: `timeout`.")
    memory_mb: int = Field(2048, ge=256, description="Address space of one worker, in MiB.")
