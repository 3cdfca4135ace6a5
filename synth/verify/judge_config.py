"""`verify.judge`: a model that compares answers with the gold, beside the rules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.sampling.config import BudgetConfig
from synth.section import Section
from synth.teachers.config import OfflineTeacher, TeacherConfig

Asked = Literal["unparseable", "wrong", "timeout", "correct"]
Counts = Literal["rules", "judge", "either"]


class JudgeConfig(Section):
    """Asked about each different answer of a problem once. It sees the question, the gold and the final answer only.

    Rows carry `judge_verdict`, `judge_reason`, `judge_text` and `judge_model` beside the rules' verdict, and
    `counts_as`, which curation reads.
    """

    teacher: TeacherConfig = Field(description="The model; any kind but offline. In the lineage with the role judge.")
    when: tuple[Asked, ...] = Field(
        ("unparseable", "wrong"), min_length=1, description="Verdicts of the rules that it is asked about."
    )
    counts: Counts = Field(
        "rules",
        description="What curation goes by. judge: its verdict where it gives one. either: correct where one says so.",
    )
    max_new_tokens: int = Field(1024, ge=1, description="Of one answer of the judge, its thinking included.")
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    budget: BudgetConfig | None = Field(None, description="Of the judge alone; rows it does not reach keep the rules'.")

    @model_validator(mode="after")
    def _can_be_asked(self) -> JudgeConfig:
        if isinstance(self.teacher, OfflineTeacher):
            raise ValueError("an offline teacher generates nothing: give the judge another kind")
        if len(set(self.when)) != len(self.when):
            raise ValueError("when names a verdict twice")
        if "seed" in getattr(self.teacher, "engine_args", {}):
            raise ValueError("teacher.engine_args.seed: set judge.seed instead")
        room = getattr(self.teacher, "max_model_len", None)
        if room is not None and self.max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} leaves no room for a question in teacher.max_model_len {room}: "
                "lower the one or raise the other"
            )
        for name in self.budget.prices if self.budget else ():
            if name != self.teacher.public_id:
                raise ValueError(f"budget.prices: there is no teacher {name}: the judge is {self.teacher.public_id}")
        return self
