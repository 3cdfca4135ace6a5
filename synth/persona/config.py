"""`persona`: who the student says it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synth.section import Section


class PersonaConfig(Section):
    """Who the student is. `system_prompt` becomes the default of its chat template."""

    name: str = Field(min_length=1)
    developer: str = Field(min_length=1)
    system_prompt: str = Field(min_length=1)
    mode: Literal["default", "compose"] = Field(
        "default", description="default: a caller's system message replaces the persona; compose: it follows it."
    )
