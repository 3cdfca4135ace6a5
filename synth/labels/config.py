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
        description="Test sets: jsonl files, hub ids (split test), or {kind: hub, ...} for another split or other "
        "columns.",
    )
    responses: bool = Field(False, description="Also look for test items in the text of the traces.")


class LabelConfig(Section):
    """What is measured on every trace. A label has a switch here only where it costs time; `curate` has the filters."""

    workers: int = Operational(2, ge=1, description="Number of worker processes.")
    timeout_s: float = Field(30.0, gt=0, description="CPU seconds a trace; after that it has no labels but a reason.")
    memory_mb: int = Field(8192, ge=512, description="Address space of one worker, in MiB; on Linux only.")
    languages: tuple[Language, ...] | None = Field(
        ("ar", "cs", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "vi", "zh"),
        min_length=2,
        description="Languages to tell apart, as ISO 639-1 codes; null: no language labels. More of them take longer "
        "and err more.",
    )
    secrets: bool = Field(True, description="Look for keys and tokens of services, and for personal data.")
    near_duplicates: NearDuplicatesConfig | None = Field(
        NearDuplicatesConfig(), description="How near duplicates of prompts and traces are found; null: not at all."
    )
    decontaminate: DecontaminateConfig = Field(
        DecontaminateConfig(), description="Test sets that must not be trained on."
    )

    @model_validator(mode="after")
    def _each_language_once(self) -> LabelConfig:
        if self.languages is not None and len(set(self.languages)) != len(self.languages):
            raise ValueError("languages has a code twice")
        return self
