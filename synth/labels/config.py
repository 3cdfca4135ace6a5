"""The recipe's `label` section: what is measured on every trace, before anything is selected."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.dedup import NearDuplicatesConfig
from synth.problems.config import HubPrompts
from synth.section import Operational, Section

Language = Literal[
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko", "nl",
    "no", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "ur", "vi", "zh",
]  # fmt: skip


class DecontaminateConfig(Section):
    """Test sets that training prompts are compared with; the problems of `evaluate` always are."""

    against: tuple[str | HubPrompts, ...] = Field(
        (),
        description="Test sets: files of rows, hub ids (split test), or {kind: hub, ...} for another split or other "
        "columns.",
    )
    responses: bool = Field(False, description="Whether the text of the traces is searched for test items, too.")


class LabelConfig(Section):
    """What is measured on every trace. A label has a switch here only where it costs time; `curate` has the filters."""

    workers: int = Operational(2, ge=1, description="Number of worker processes.")
    timeout_s: float = Field(
        30.0, gt=0, description="CPU seconds for one trace; a slower one gets no labels, and a reason."
    )
    memory_mb: int = Field(
        8192, ge=512, description="Memory limit of one worker, in MiB of address space; on Linux only."
    )
    languages: tuple[Language, ...] | None = Field(
        ("ar", "cs", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "vi", "zh"),
        min_length=2,
        description="Languages that are distinguished, as ISO 639-1 codes; null: no language labels. More languages "
        "take longer and cause more errors.",
    )
    secrets: bool = Field(
        True, description="Whether traces are searched for keys and tokens of services, and for personal data."
    )
    near_duplicates: NearDuplicatesConfig | None = Field(
        NearDuplicatesConfig(), description="Search for near duplicates among prompts and among traces; null: none."
    )
    decontaminate: DecontaminateConfig = Field(
        DecontaminateConfig(), description="Test sets that must not be trained on."
    )

    @model_validator(mode="after")
    def _each_language_once(self) -> LabelConfig:
        if self.languages is not None and len(set(self.languages)) != len(self.languages):
            raise ValueError("languages has a code twice")
        return self
