"""The recipe's `curate` section: which traces are trained on. It reads tables only, so changing it takes seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.section import Section

FilterName = Literal[
    "finished", "correct", "truncated", "think", "answer_mismatch", "language_mixing", "languages", "repetition",
    "refusal", "identity_leak", "suspect_gold", "secrets", "personal_data", "broken_code", "format", "voted_gold",
    "in_process", "licenses", "tokens",
    "contaminated", "pass_rate", "unique", "near_duplicate_prompts", "near_duplicate_traces",
]  # fmt: skip


class FilterConfig(Section):
    """Which traces are dropped, in this order. A filter with the name of a label drops the traces that have it."""

    finished: bool = Field(True, description="Drop traces that were cut off or failed.")
    correct: bool = Field(True, description="Drop traces that are not verified as correct; kind open passes.")
    truncated: bool = Field(False, description="Drop traces cut off at the token limit (part of `finished`).")
    think: bool = Field(False, description="Drop think blocks that are missing, unclosed, doubled or empty.")
    answer_mismatch: bool = Field(False, description="Drop answers that differ from that of the think block.")
    language_mixing: bool = Field(False, description="Drop traces that change the language.")
    languages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Keep only traces in these languages (of the answer, else of the thinking; ISO 639-1 codes).",
    )
    repetition: bool = Field(False, description="Drop traces that repeat themselves.")
    refusal: bool = Field(False, description="Drop refusals.")
    identity_leak: bool = Field(
        False,
        description="Drop traces in which the writer says who it is; with a persona, `persona.identity_talk` decides.",
    )
    suspect_gold: bool = Field(
        False, description="Drop problems whose samples agree with each other and not with the gold answer."
    )
    secrets: bool = Field(False, description="Drop traces that hold keys or tokens of services.")
    personal_data: bool = Field(False, description="Drop traces that hold mail addresses, phone numbers and the like.")
    broken_code: bool = Field(False, description="Drop answers with code that does not parse.")
    format: bool = Field(False, description="Drop traces that fail the format check of verify.format.")
    voted_gold: bool = Field(False, description="Drop traces whose gold answer was elected by verify.majority.")
    in_process: bool = Field(
        False, description="Drop programs whose tests ran in the program's own process, where it can fake a pass."
    )
    licenses: tuple[str, ...] | None = Field(None, min_length=1, description="Keep only problems under these licenses.")
    min_tokens: int | None = Field(
        None, ge=1, description="Drop traces of fewer tokens, and those without a token count."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Drop traces of more tokens, and those without a token count."
    )
    contaminated: bool = Field(True, description="Drop problems that overlap with a test set.")
    min_pass_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Drop traces of problems with a lower pass rate; problems without one, as of kind open, pass.",
    )
    max_pass_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Drop traces of problems with a higher pass rate; problems without one, as of kind open, pass.",
    )
    unique: bool = Field(True, description="Of traces of a problem with the same text keep one.")
    near_duplicate_prompts: bool = Field(False, description="Keep one problem of each cluster of near duplicates.")
    near_duplicate_traces: bool = Field(False, description="Keep one trace of each cluster of near duplicates.")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> FilterConfig:
        for name in ("tokens", "pass_rate"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} {low} is more than max_{name} {high}: nothing could remain")
        return self


class QuotaConfig(Section):
    """The composition of the data set, in shares of its rows. A group without a share gets no rows.

    The data set is as large as the scarcest group allows. With both, a source's share is split by difficulty.
    """

    source: dict[str, float] | None = Field(None, description="Shares of sources, by the `source` of the problem.")
    difficulty: dict[Literal["easy", "medium", "hard"], float] | None = Field(
        None, description="Shares of difficulties, by the pass rate of the problem: easy is above 0.7, hard below 0.3."
    )

    @model_validator(mode="after")
    def _shares_sum_up(self) -> QuotaConfig:
        for name in ("source", "difficulty"):
            shares: dict[str, float] | None = getattr(self, name)
            if shares is None:
                continue
            if not shares or any(share <= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(f"the shares of {name} have to be positive and sum up to 1")
        return self


class CurateConfig(Section):
    filters: FilterConfig = Field(FilterConfig(), description="Which traces are dropped.")
    select: Literal["random", "shortest_correct", "longest", "diverse", "judge"] = Field(
        "random", description="Which traces of a problem are kept, where it has more than max_traces_per_problem."
    )
    max_traces_per_problem: int | None = Field(None, ge=1, description="Most traces of one problem.")
    open_share: float | None = Field(None, gt=0, lt=1, description="At most this share of the rows is of kind open.")
    quota: QuotaConfig | None = Field(None, description="Composition of the data set by source and difficulty.")
    max_traces: int | None = Field(None, ge=1, description="At most this many training traces in all.")
    max_total_tokens: int | None = Field(None, ge=1, description="At most this many tokens of traces in all.")
    order: Literal["problem", "difficulty"] = Field(
        "problem",
        description="Order of the training rows. problem: by problem; difficulty: problems with the highest pass rate"
        " come first.",
    )
    control_arm: bool = Field(
        False,
        description="Also draw as many unverified traces of like lengths and difficulties, to train a control student.",
    )
    ablation: FilterName | None = Field(
        None, description="Also select two data sets that differ in this filter, equal in size and difficulty."
    )
    seed: int = Field(0, description="Seed of all random choices of traces.")

    @model_validator(mode="after")
    def _fields_fit_together(self) -> CurateConfig:
        if self.select != "random" and self.max_traces_per_problem is None:
            raise ValueError(f"select: {self.select} selects among a problem's traces: set max_traces_per_problem")
        if self.ablation in ("languages", "licenses") and getattr(self.filters, self.ablation) is None:
            raise ValueError(f"ablation: {self.ablation} needs filters.{self.ablation} to say what is kept")
        for name in ("tokens", "pass_rate"):
            bounds = (getattr(self.filters, f"min_{name}"), getattr(self.filters, f"max_{name}"))
            if self.ablation == name and bounds == (None, None):
                raise ValueError(f"ablation: {name} needs filters.min_{name} or filters.max_{name}")
        return self

    def with_filter(self, name: str, on: bool) -> CurateConfig:
        """The same section with one filter on or off. Bounds and lists keep their values, or become null."""
        fields = [f"min_{name}", f"max_{name}"] if name in ("tokens", "pass_rate") else [name]
        if on and (len(fields) == 2 or name in ("languages", "licenses")):
            return self
        value = on if len(fields) == 1 and name not in ("languages", "licenses") else None
        filters = self.filters.model_copy(update=dict.fromkeys(fields, value))
        return self.model_copy(update={"filters": filters})
