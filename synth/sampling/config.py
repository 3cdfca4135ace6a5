"""`sample`: how many samples a problem gets, at what cost; or imported traces (``synth/problems/config.py``)."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from synth.problems.config import ImportedTraces
from synth.section import Operational, Section
from synth.teachers.config import OfflineTeacher, TeacherConfig


class FixedPolicy(Section):
    """`num_samples` of every problem."""

    kind: Literal["fixed"] = "fixed"


class AdaptiveBounds(Section):
    """When one teacher has sampled a problem enough."""

    target_correct: int = Field(2, ge=1, description="Correct, finished samples that each problem should get.")
    max_samples: int = Field(16, ge=1, description="Most samples of a problem.")
    first: int | None = Field(
        None,
        ge=1,
        description="Samples of a problem that are requested before any verdict; `target_correct` if absent.",
    )
    suspect_after: int | None = Field(
        4,
        ge=2,
        description="Number of samples that agree on another answer than the gold one, at which a problem stops as "
        "`suspect_gold` while none agrees with gold; null: never.",
    )
    min_chance: float | None = Field(
        None,
        gt=0,
        lt=1,
        exclude_if=lambda value: value is None,  # so that keys are those of older releases
        description="Least chance that the next sample is correct, estimated as (correct + 1) / (judged + 2); a solved "
        "problem below it gets no further sample.",
    )

    def is_enough(self, judged: int, correct: int, before: int = 0) -> bool:
        """Whether so many judged and correct samples end a problem's sampling. ``before``: correct ones of the earlier
        teachers of a cascade.

        The chance is the posterior mean of the pass rate under a uniform prior (Laplace).
        """
        if before + correct >= self.target_correct:
            return True
        solved = before + correct > 0
        return solved and self.min_chance is not None and (correct + 1) / (judged + 2) < self.min_chance

    @model_validator(mode="after")
    def check_bounds(self) -> Self:
        if self.target_correct > self.max_samples:
            raise ValueError(f"target_correct {self.target_correct} is more than max_samples: raise max_samples")
        if self.first is not None and self.first > self.max_samples:
            raise ValueError(f"first {self.first} is more than max_samples: lower it")
        return self


class AdaptivePolicy(AdaptiveBounds):
    """Every problem until it has enough correct samples, so that unsolved problems get more of the budget."""

    kind: Literal["adaptive"] = "adaptive"


class CascadePolicy(Section):
    """The teachers of a mixture one after another: the first samples every problem, each further one those that have
    fewer correct samples than its own `target_correct`."""

    kind: Literal["cascade"] = "cascade"
    steps: tuple[AdaptiveBounds, ...] = Field(
        description="Bounds of each teacher, in the order of the teachers. `target_correct` includes the correct "
        "samples of earlier teachers.",
    )

    @property
    def starts(self) -> tuple[int, ...]:
        """The first sample index of each teacher; the last number is that of all samples."""
        return tuple(itertools.accumulate((step.max_samples for step in self.steps), initial=0))

    @model_validator(mode="after")
    def check_steps(self) -> CascadePolicy:
        if len(self.steps) < 2:  # pydantic's min_length counts a step with a fault as none
            raise ValueError("kind cascade needs at least 2 steps, one a teacher: add one, or set kind: adaptive")
        return self


class TokenPrice(Section):
    """What one teacher's tokens cost, in the currency of the budget."""

    per_million_tokens: float = Field(0.0, ge=0, description="Price of a million generated tokens, thinking included.")
    per_million_prompt_tokens: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")


class BudgetConfig(Section):
    """Limits of sampling. The first limit that is reached ends it; the samples so far are used.

    Prices are here and not with the teacher: another price is not another teacher, and no sample is drawn again. With a
    changed budget all samples so far are reused, and their tokens count; its hours start at zero.
    """

    tokens: int | None = Field(None, ge=1, description="Limit of generated tokens, without those of escalations.")
    hours: float | None = Field(
        None, gt=0, description="Limit of wall-clock hours of sampling, summed over resumed runs."
    )
    gpus: int = Field(0, ge=0, description="Accelerators that sampling occupies, for `gpu_hours` and their price.")
    gpu_hours: float | None = Field(
        None, gt=0, description="Limit of accelerator hours: wall-clock hours times `gpus`."
    )
    drain_s: float = Operational(
        0.0,
        ge=0,
        description="Drain time in seconds before a time limit: no request is sent, and those in flight are awaited. "
        "Also the longest wait after SIGINT or SIGTERM.",
    )
    money: float | None = Field(None, gt=0, description="Limit of the cost, in the currency of the prices.")
    price_per_million_tokens: float = Field(
        0.0, ge=0, description="Price of a million generated tokens, thinking included."
    )
    price_per_million_prompt_tokens: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    price_per_gpu_hour: float = Field(0.0, ge=0, description="Price of one accelerator for an hour.")
    prices: dict[str, TokenPrice] = Field(
        default_factory=dict,
        description="Token prices by teacher of a mixture; a teacher without an entry has the prices above.",
    )

    @property
    def has_limit(self) -> bool:
        """Whether anything ends sampling; prices and accelerators alone do not."""
        return any(limit is not None for limit in (self.tokens, self.hours, self.gpu_hours, self.money))

    def key_fields(self) -> dict[str, Any]:
        """Prices are part of a key only where they end sampling: beside a limit of money; accelerators beside one of
        money or of their hours."""
        fields = super().key_fields()
        if self.money is None:
            fields = {name: value for name, value in fields.items() if "price" not in name}
            if self.gpu_hours is None:
                fields["gpus"] = 0
        return fields

    @model_validator(mode="after")
    def check_prices(self) -> BudgetConfig:
        if self.gpu_hours is not None and not self.gpus:
            raise ValueError("gpu_hours needs the number of accelerators: set gpus")
        if self.price_per_gpu_hour and not self.gpus:
            raise ValueError("price_per_gpu_hour needs the number of accelerators: set gpus")
        if self.drain_s:
            hours = [self.hours] if self.hours else []
            hours += [self.gpu_hours / self.gpus] if self.gpu_hours else []
            per_hour = self.gpus * self.price_per_gpu_hour
            hours += [self.money / per_hour] if self.money and per_hour else []
            if hours and self.drain_s >= 3600 * min(hours):
                raise ValueError(
                    f"drain_s {self.drain_s:g} leaves no time to send a request before the limit of time "
                    f"({3600 * min(hours):g} s): lower drain_s or raise the limit"
                )
        prices = (self.price_per_million_tokens, self.price_per_million_prompt_tokens, self.price_per_gpu_hour)
        prices += tuple(figure for price in self.prices.values() for _, figure in price)
        if self.money is not None and not any(prices):
            raise ValueError("money needs a price: set price_per_million_tokens or price_per_gpu_hour")
        return self


class EscalateConfig(Section):
    """One more request with a larger limit for traces that were cut off at `max_new_tokens`."""

    max_new_tokens: int = Field(
        ge=1, description="Most tokens of the whole trace after the second request; more than `sample.max_new_tokens`."
    )
    tokens: int | None = Field(
        None,
        ge=1,
        description="Limit of the tokens generated for escalations, which `budget.tokens` does not count; absent: no "
        "limit.",
    )


PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0}  # of greedy decoding too, and where each is off
SAMPLING_OPTIONS = ("top_k", "min_p", *PENALTIES)


class SamplingOptions(Section):
    """Sampling parameters of the sections `sample` and `evaluate` that are off where they are absent.

    Names and meaning are vLLM's. Those that are absent are in no key and no request.
    """

    temperature: float = Field(ge=0, description="Sampling temperature; 0: greedy decoding.")
    top_k: int | None = Field(
        None,
        ge=1,
        description="Number of most probable tokens to draw from; absent: all, or an endpoint's own default.",
    )
    min_p: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least probability of a token, as a share of the most probable token's; absent: no limit, or an "
        "endpoint's own default.",
    )
    repetition_penalty: float | None = Field(
        None,
        gt=0,
        description="Penalty on tokens that occur in the prompt or the answer: above 1 they become less probable.",
    )
    presence_penalty: float | None = Field(
        None, ge=-2, le=2, description="Penalty on tokens that occur in the answer: above 0 they become less probable."
    )

    @property
    def sampling_options(self) -> dict[str, float]:
        """Those that are set."""
        return {name: value for name in SAMPLING_OPTIONS if (value := getattr(self, name)) is not None}

    def key_fields(self) -> dict[str, Any]:
        """Absent ones are left out, so that the keys of recipes without them are those of older releases."""
        fields, absent = super().key_fields(), set(SAMPLING_OPTIONS) - self.sampling_options.keys()
        return {name: value for name, value in fields.items() if name not in absent}

    @model_validator(mode="after")
    def check_options_have_an_effect(self) -> Self:
        for name in ("top_k", "min_p"):
            if self.temperature == 0 and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect at temperature 0: remove it, or raise temperature")
        return self


_LATER_FIELDS = ("max_failed_share", "temperatures")


class TeacherSampling(SamplingOptions):
    """Samples of the teacher: `num_samples` of every problem, or as many as another `policy` decides by verdicts."""

    source: Literal["teacher"] = "teacher"
    num_samples: int = Field(4, ge=1, description="Number of samples of each problem with policy.kind: fixed.")
    temperature: float = Field(0.7, ge=0, description="Sampling temperature; 0: greedy decoding.")
    temperatures: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (),
        description="Temperature of each sample of a problem, by index, in place of `temperature`; the last one is "
        "used for all further samples.",
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: draw from the most probable tokens of this total probability."
    )
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens of one answer, thinking included.")
    seed: int = Field(0, description="Seed of sampling; each request derives its own from it.")
    logprobs: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,  # so that keys are those of older releases
        description="Number of most probable tokens whose log-probabilities are stored for each token of an answer; "
        "absent: none are stored.",
    )
    policy: Annotated[FixedPolicy | AdaptivePolicy | CascadePolicy, Field(discriminator="kind")] = FixedPolicy()
    budget: BudgetConfig | None = None
    escalate: EscalateConfig | None = None
    max_failed_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Largest share of failed requests with which sampling counts as finished; with more the run ends, "
        "and the same command sends them again.",
    )

    retry_failed: bool = Operational(
        False, description="Whether the failed requests of a finished stage are sent again."
    )
    reuse: tuple[str, ...] = Operational(
        (),
        description="Run directories or merged logs whose answers to identical requests are reused.",
    )

    def key_fields(self) -> dict[str, Any]:
        """Fields that older releases do not have are left out while they have their defaults, so that keys stay."""
        fields = super().key_fields()
        defaults = {name: type(self).model_fields[name].default for name in _LATER_FIELDS}
        if self.budget is not None and not self.budget.has_limit:
            fields["budget"] = None
        return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}

    @property
    def most_samples(self) -> int:
        """The most samples that a problem can get, of all teachers."""
        if isinstance(self.policy, CascadePolicy):
            return self.policy.starts[-1]
        return self.policy.max_samples if isinstance(self.policy, AdaptivePolicy) else self.num_samples

    @property
    def drain_s(self) -> float:
        """Seconds for which requests in flight are awaited at the end, see ``BudgetConfig``."""
        return self.budget.drain_s if self.budget else 0.0

    @property
    def goes_by_verdicts(self) -> bool:
        """Whether the policy needs a verifier."""
        return not isinstance(self.policy, FixedPolicy)

    def temperature_of(self, sample_index: int) -> float:
        """The temperature of a problem's sample; in a cascade each teacher's samples count from 0."""
        if not self.temperatures:
            return self.temperature
        return self.temperatures[min(sample_index, len(self.temperatures) - 1)]

    @model_validator(mode="after")
    def check_fields(self) -> TeacherSampling:
        steps = self.policy.steps if isinstance(self.policy, CascadePolicy) else ()
        most = max((step.max_samples for step in steps), default=self.most_samples)
        greedy = [index for index in range(most) if self.temperature_of(index) == 0]
        if self.temperatures and self.temperature != type(self).model_fields["temperature"].default:
            raise ValueError("temperature and temperatures are both set: remove one of them")
        if len(greedy) > 1:
            raise ValueError("temperature 0 gives the same trace every time: set num_samples to 1 or raise temperature")
        default = type(self).model_fields["num_samples"].default  # a recipe with all defaults written out names it
        if self.goes_by_verdicts and self.num_samples != default:
            instead = "max_samples of each of policy.steps" if steps else "policy.max_samples"
            raise ValueError(f"num_samples is for policy.kind: fixed; set {instead} instead")
        if self.escalate is not None and self.escalate.max_new_tokens <= self.max_new_tokens:
            raise ValueError("escalate.max_new_tokens must be more than max_new_tokens: raise it")
        return self


class AuxiliaryModel(Section):
    """A model that a stage asks questions of its own (``synth.sampling.auxiliary_model``): a judge, a rewriter."""

    role: ClassVar[str]
    teacher: TeacherConfig = Field(description="Teacher section of the model; any kind but offline.")
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens of one answer, thinking included.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0: greedy decoding.")
    seed: int = Field(0, description="Seed of sampling.")
    budget: BudgetConfig | None = Field(None, description="Limits of the model's requests.")

    def key_fields(self) -> dict[str, Any]:
        """A budget is part of a key where it has a limit."""
        return super().key_fields() | ({} if self.budget is None or self.budget.has_limit else {"budget": None})

    @property
    def sampling(self) -> TeacherSampling:
        """How it is sampled: one answer to each question."""
        return TeacherSampling(
            num_samples=1,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            budget=self.budget,
        )

    @model_validator(mode="after")
    def check_it_can_answer(self) -> Self:
        if isinstance(self.teacher, OfflineTeacher):
            raise ValueError(f"teacher.kind: an offline teacher generates nothing: give the {self.role} another kind")
        if "seed" in getattr(self.teacher, "engine_args", {}):
            raise ValueError(f"teacher.engine_args.seed: set {self.role}.seed instead")
        room = getattr(self.teacher, "max_model_len", None)
        if room is not None and self.max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} leaves no room for a question in teacher.max_model_len {room}: "
                "lower the one or raise the other"
            )
        for name in self.budget.prices if self.budget else ():
            if name != self.teacher.public_id:
                own = self.teacher.public_id
                raise ValueError(f"budget.prices: there is no teacher {name}: the {self.role} is {own}")
        return self


def _default_source(value: Any) -> Any:
    return {**value, "source": "teacher"} if isinstance(value, dict) and "source" not in value else value


SampleConfig = Annotated[
    TeacherSampling | ImportedTraces, Field(discriminator="source"), BeforeValidator(_default_source)
]  # without `source` it is the teacher
