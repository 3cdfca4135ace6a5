"""`replay`: the base's own answers to general prompts, trained on beside the reasoning.

A student that is trained on one kind of problem alone forgets how to chat: it answers everything as it answers these
problems. Rows of its base's own answers keep that (rehearsal; the base is a teacher then, and the lineage names it).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from pydantic import Field

from synth.problems.config import PromptsConfig
from synth.problems.problem import Prompt
from synth.section import Section


class ReplayConfig(Section):
    """The base answers greedily, under its own template; answers that end by themselves become rows of kind `open`."""

    rows: int = Field(100, ge=1, description="Most training rows that are made, in the order of the prompts.")
    prompts: PromptsConfig | None = Field(
        None, description="General prompts, such as a preset of kind open; 150 short ones that ship if absent."
    )
    max_new_tokens: int = Field(64, ge=1, description="Most tokens of an answer; longer ones are left out.")


@cache
def general_prompts() -> tuple[Prompt, ...]:
    """The prompts that ship: short questions and requests in English, one row each."""
    text = (resources.files("synth.persona") / "data" / "general.txt").read_text(encoding="utf-8")
    return tuple(
        Prompt(
            id=f"general-{number}", messages=({"role": "user", "content": line},), kind="open", source="general prompts"
        )
        for number, line in enumerate(text.splitlines())
    )
