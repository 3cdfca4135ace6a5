"""The recipe's `curate` section: which traces are trained on. It reads tables only, so changing it takes seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.section import Section

FilterName = Literal[
    "finished", "correct", "truncated", "think", "answer_mismatch", "language_mixing", "languages", "repetition",
    "refusal", "identity_leak", "suspect_gold", "secrets", "personal_data", "broken_code", "format", "majority_gold",
    "in_process", "licenses", "tokens",
    "contaminated", "pass_rate", "unique", "near_duplicate_prompts", "near_duplicate_traces",
]  # fmt: skip


class FilterConfig(Section):
    """Which traces are dropped, in this order. A filter with the name of a label drops the traces that have it."""

    finished: bool = Field(True, description="Drop traces that were cut off or failed.")
    correct: bool = Field(
        True, description="Drop traces that are not verified as correct; those of kind open are kept."
    )
    truncated: bool = Field(False, description="Drop traces cut off at the token limit (part of `finished`).")
    think: bool = Field(False, description="Drop traces whose think block is missing, unclosed, doubled or empty.")
    answer_mismatch: bool = Field(
        False, description="Drop traces whose last boxed answer in the think block differs from that of the answer."
    )
    language_mixing: bool = Field(False, description="Drop traces that switch between languages.")
    languages: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Keep only traces in these languages, as ISO 639-1 codes; the language of the answer counts, or of "
        "the thinking where the answer has none.",
    )
    repetition: bool = Field(False, description="Drop traces that repeat themselves.")
    refusal: bool = Field(False, description="Drop refusals.")
    identity_leak: bool = Field(
        False,
        description="Drop traces in which the writer says who it is; with a persona, `persona.identity_talk` decides.",
    )
    suspect_gold: bool = Field(
        False, description="Drop problems whose samples agree on another answer than the gold one."
    )
    secrets: bool = Field(False, description="Drop traces that hold keys or tokens of services.")
    personal_data: bool = Field(False, description="Drop traces that hold mail addresses, phone numbers and the like.")
    broken_code: bool = Field(False, description="Drop traces with code that does not parse in the answer.")
    format: bool = Field(False, description="Drop traces that fail the format check of verify.format.")
    majority_gold: bool = Field(False, description="Drop traces whose gold answer was elected by verify.majority.")
    in_process: bool = Field(
        False, description="Drop programs that were tested in their own process, where a program can fake a pass."
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
        description="Drop traces of problems with a lower pass rate; problems without a pass rate, such as kind open, "
        "are kept.",
    )
    max_pass_rate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Drop traces of problems with a higher pass rate; problems without a pass rate, such as kind open, "
        "are kept.",
    )
    unique: bool = Field(True, description="Keep one of the traces of a problem that have the same text.")
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
    filters: FilterConfig = Field(FilterConfig(), description="Filters that drop traces.")
    select: Literal["random", "shortest_correct", "longest", "diverse", "judge"] = Field(
        "random", description="Rule that selects among the traces of a problem with more than max_traces_per_problem."
    )
    max_traces_per_problem: int | None = Field(None, ge=1, description="Most traces of one problem.")
    open_share: float | None = Field(
        None, gt=0, lt=1, description="Largest share of the rows that may be of kind open."
    )
    quota: QuotaConfig | None = Field(None, description="Composition of the data set by source and difficulty.")
    max_traces: int | None = Field(None, ge=1, description="Most training traces in all.")
    max_total_tokens: int | None = Field(None, ge=1, description="Most tokens of training traces in all.")
    order: Literal["problem", "difficulty"] = Field(
        "problem",
        description="Order of the training rows. problem: by problem; difficulty: problems with the highest pass rate"
        " come first.",
    )
    control_arm: bool = Field(
        False,
        description="Whether to draw as many unverified traces of similar length and difficulty, and train a control "
        "student on them.",
    )
    ablation: FilterName | None = Field(
        None,
        description="Filter by name: two more data sets are selected, with it and without it, equal in size and "
        "difficulty.",
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
