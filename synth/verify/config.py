"""`verify`: how a verdict is found, and what stands beside it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from synth.section import Operational, Section
from synth.verify.judge_config import JudgeConfig


class FormatConfig(Section):
    """A verdict on the layout, `format_verdict`, beside the one on the answer. Curation: `filters.format`."""

    think: bool = Field(False, description="One think block, closed, with text in it and text after it.")
    boxed: bool = Field(False, description="The answer in a \\boxed{} after the thinking; not of kinds code and open.")

    @model_validator(mode="after")
    def _asks_for_something(self) -> FormatConfig:
        if not (self.think or self.boxed):
            raise ValueError("format asks for nothing: set think or boxed to true, or leave format out")
        return self


class MajorityConfig(Section):
    """Problems of kind math or choice may come without an answer: what most of their samples say is taken for it.

    Rows of such a problem carry `majority` (answer, votes, samples, share); rows with a gold answer never do.
    """

    min_votes: int = Field(3, ge=2, description="Samples that have to give the same answer.")
    min_share: float = Field(
        0.5, gt=0, le=1, description="Of the problem's samples that ended by themselves; a tie elects nothing."
    )


SANDBOX = r"^(strong|weak|(docker|podman):[^\s:-]\S*)$"
_OF_CODE = ("sandbox", "code_timeout_s", "code_memory_mb")  # keys that came later say nothing where they are not used


class VerifyConfig(Section):
    workers: int = Operational(2, ge=1, description="Worker processes.")
    timeout_s: float = Field(2.0, gt=0, description="Wall seconds a row; then its worker is killed: `timeout`.")
    memory_mb: int = Field(2048, ge=256, description="Address space of one worker, in MiB.")
    sandbox: str = Field(
        "strong",
        pattern=SANDBOX,
        description="Where programs (kind code) run: strong, docker:IMAGE, podman:IMAGE; weak: without namespaces.",
    )
    code_timeout_s: float = Field(5.0, gt=0, description="Wall seconds of a program with its tests, or a stdin test.")
    code_memory_mb: int = Field(512, ge=64, description="Address space of a program, in MiB.")
    format: FormatConfig | None = Field(None, description="What the layout of a response has to be.")
    majority: MajorityConfig | None = Field(None, description="Let samples vote where a problem has no answer.")
    judge: JudgeConfig | None = Field(None, description="A model that compares answers beside the rules.")

    @model_serializer(mode="wrap")
    def _what_is_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not asked for, so that a stage's key says no more than the recipe."""
        found: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in found.items()
            if (value is not None or name not in ("format", "majority", "judge"))
            and (name not in _OF_CODE or value != type(self).model_fields[name].default)
        }

    def rules(self, *, layout: bool = False) -> VerifyConfig:
        """The rules alone, with ``layout`` the format as well: what sampling and evaluation go by."""
        kept = self.format if layout else None
        return self.model_copy(update={"format": kept, "majority": None, "judge": None})
