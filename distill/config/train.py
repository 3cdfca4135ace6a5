"""Recipe section ``train``: the stages and rounds of training, and which checkpoint ships. The fields of SFT are those
of ``student``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from licensing.addresses import is_private_address
from synth.problems.mapping import Condition, value_of
from synth.sampling.config import TeacherSampling
from synth.section import Operational, Section
from synth.teachers.config import Example

FIRST_STUDENT = "student_round_1"
"""The name of the student of the first round, where there is a second: of its samples, rows and scores."""
Rule = Literal["best", "last", "earliest_within_noise"]


class LogitsTeacher(Section):
    """A teacher whose distribution the student is trained on: loaded beside it, or on a server."""

    model: str = Field(
        description="Folder of a model with the student's vocabulary; where `url` serves it, weights need not be there."
    )
    url: str | None = Operational(
        None, description="Address of your own `vllm serve` of the model; it is loaded beside the student if absent."
    )
    top_k: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,  # a recipe without it has the key that it had
        description="With `url`: how many tokens are compared one by one at each position, with `beta: 0` the "
        "teacher's likeliest, above the student's; all others count as one.",
    )
    name: str | None = Field(None, description="Public id (owner/name) for the lineage.")
    revision: str | None = Field(None, description="Commit of the model; the digest of the folder's content if absent.")
    license: str | None = Field(None, description="License of the teacher's weights.")

    @field_validator("url")
    @classmethod
    def _is_an_address_of_ones_own(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # raises for no number
        if not is_server or parts.path.rstrip("/") == "/v1":
            raise ValueError("url is not the address of a server: write http://HOST:PORT, without /v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("url holds more than an address: TRL's client sends no key")
        if not is_private_address(url):
            raise ValueError(
                "url is a public address, and TRL's client sends no key: take a server on this machine or a private "
                "network, or a tunnel to it"
            )
        return url.rstrip("/")

    @model_validator(mode="after")
    def _a_server_gives_top_tokens(self) -> LogitsTeacher:
        if (self.url is None) != (self.top_k is None):
            raise ValueError("url and top_k go together: a server gives its top_k tokens, a model beside all of them")
        return self

    @property
    def public_id(self) -> str:
        """The id that cards and lineage use."""
        return self.name or self.model


class RoutedTeacher(LogitsTeacher):
    """One of several served teachers, and the problems whose answers it scores."""

    where: dict[str, Condition] = Field(
        default_factory=dict,
        description="Path in the problem's row -> value, list of values, or {any_of, none_of, min, max, pattern, "
        "present} of the problems whose answers it scores; of teachers that take a problem the first one does.",
    )

    def takes(self, problem: Mapping[str, Any]) -> bool:
        """Whether its conditions hold for a problem row. Raises ValueError for a path into a text that is no JSON."""
        return all(condition.holds(value_of(path, problem)) for path, condition in self.where.items())


class _Distillation(Section):
    """What both kinds of distillation have; a row is a trace, or an answer of the student."""

    batch_size: int = Field(16, ge=1, description="Rows in one optimiser step: traces, or answers of the student.")
    micro_batch_size: int = Operational(
        4, ge=1, description="Most rows in one forward pass; the largest divisor of `batch_size` is taken."
    )
    learning_rate: float = Field(1e-5, gt=0, description="Learning rate of the optimiser; constant.")

    @property
    def in_one_pass(self) -> int:
        """Rows in a forward pass: `batch_size` is a multiple of it."""
        most = min(self.micro_batch_size, self.batch_size)
        return max(n for n in range(1, most + 1) if self.batch_size % n == 0)


class OnPolicyConfig(_Distillation):
    """On-policy distillation: the student answers, and learns the teacher's distribution on its own answers."""

    teacher: LogitsTeacher | None = Field(None, description="The model whose distribution is learnt.")
    teachers: tuple[RoutedTeacher, ...] = Field(
        (),
        exclude_if=lambda value: not value,  # a recipe without them has the key that it had
        description="In place of `teacher`: several served ones, each for the problems that its `where` takes.",
    )
    examples: tuple[Example, ...] = Field(
        (),
        exclude_if=lambda value: not value,  # a recipe without them has the key that it had
        description="In place of `teacher`: worked examples, each with `prompt` and `response`. The student learns "
        "what it says itself where they stand before the question.",
    )
    across_tokenizers: bool = Field(
        False,
        exclude_if=lambda value: not value,  # a recipe without it has the key that it had
        description="The teacher may have another tokenizer: distributions are compared where both cut the answer "
        "alike, over the tokens of the same text. Needs `beta` between 0 and 1.",
    )
    steps: int = Field(100, ge=1, description="Optimiser steps.")
    beta: float = Field(
        1.0, ge=0, le=1, description="Divergence: 1 is the reverse KL, 0 the forward KL, between them Jensen-Shannon."
    )
    temperature: float = Field(
        1.0, gt=0, description="Temperature at which answers are sampled and both distributions are compared."
    )
    max_new_tokens: int = Field(512, ge=1, description="Most tokens of one answer of the student.")

    @model_validator(mode="after")
    def _one_kind_of_teacher(self) -> OnPolicyConfig:
        if sum(map(bool, (self.teacher, self.teachers, self.examples))) != 1:
            raise ValueError("set one of teacher, teachers and examples: with examples the student is its own teacher")
        return self

    @model_validator(mode="after")
    def _each_of_several_has_its_problems(self) -> OnPolicyConfig:
        if len(self.teachers) == 1:
            raise ValueError("teachers needs at least 2: add one, or set teacher")
        names = [one.public_id for one in self.teachers]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise ValueError(f"two of teachers are called {duplicate}: rows tell them apart by it, so set name on one")
        addresses = [one.url for one in self.teachers if one.url is not None]
        twice = next((url for url in addresses if addresses.count(url) > 1), None)
        if twice is not None:
            raise ValueError(
                f"two of teachers have the url {twice}: a server scores with one model, so give each its own"
            )
        for number, one in enumerate(self.teachers):
            if one.top_k is None:
                raise ValueError(f"teachers.{number} has no url: several teachers are served ones, with url and top_k")
            if one.top_k != self.teachers[0].top_k:
                raise ValueError("the top_k of teachers differ: a step has one divergence, so set the same one")
            if not one.where and number < len(self.teachers) - 1:
                raise ValueError(f"teachers.{number} takes every problem: set where, or write it last")
        return self

    @model_validator(mode="after")
    def _another_tokenizer_can_be_compared(self) -> OnPolicyConfig:
        if not self.across_tokenizers:
            return self
        if self.teacher is None or self.teacher.url is not None:
            raise ValueError("across_tokenizers takes a teacher beside the student: set teacher.model, without url")
        if self.beta in (0, 1):
            raise ValueError(
                f"beta {self.beta:g} with across_tokenizers is smallest for another distribution than the teacher's, "
                "because it sees the tokens of both alone: set beta between 0 and 1, for example 0.5"
            )
        return self

    @model_validator(mode="after")
    def _server_can_score(self) -> OnPolicyConfig:
        if self.is_served and self.temperature != 1:
            raise ValueError("vLLM scores at temperature 1 whatever is asked: leave out temperature, or teacher.url")
        return self

    @property
    def logits_teachers(self) -> dict[str, LogitsTeacher]:
        """The teachers by their places in the recipe; none where the student is its own."""
        if self.teacher is not None:
            return {"train.on_policy.teacher": self.teacher}
        return {f"train.on_policy.teachers.{number}": one for number, one in enumerate(self.teachers)}

    @property
    def is_served(self) -> bool:
        """Whether each teacher stands behind a server."""
        return bool(self.teachers) or (self.teacher is not None and self.teacher.url is not None)

    @property
    def scores_students_tokens(self) -> bool:
        """Whether served teachers score the `top_k` likeliest tokens of the student, and not their own."""
        return self.beta > 0 and any((one.top_k or 0) > 1 for one in self.logits_teachers.values())


class LogitsConfig(_Distillation):
    """Distillation on the log-probabilities that `sample.logprobs` keeps of the teacher's own traces: the forward KL
    over the teacher's likeliest tokens, and all others as one."""

    num_train_epochs: float = Field(1.0, gt=0, description="Passes over the traces.")


class SelectConfig(Section):
    """Checkpoints are scored on problems that are neither trained on nor held out; a rule says which of them ships."""

    problems: int = Field(
        100, ge=2, description="Problems with a verdict that are taken out of the training problems, before sampling."
    )
    checkpoints: int = Field(
        4, ge=2, description="Checkpoints that are scored, at equal distances; the end of training is the last of them."
    )
    rule: Rule = Field(
        "best",
        description="best: the highest score, of equal ones the earliest. last: the end of training. "
        "earliest_within_noise: the earliest one whose difference from the best may be chance.",
    )


class TrainConfig(Section):
    stages: tuple[Literal["sft", "logits", "on_policy"], ...] = Field(
        ("sft",),
        description="`sft`, and after it `logits` (distillation on the log-probabilities of the teacher's traces), "
        "`on_policy` (on the student's own answers), or both in this order.",
    )
    logits: LogitsConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,  # a recipe without it has the key that it had
        description="Settings of the stage logits, where `stages` has it.",
    )
    on_policy: OnPolicyConfig | None = Field(
        None, description="Settings of the stage on_policy, where `stages` has it."
    )
    select: SelectConfig | None = Field(
        None,
        exclude_if=lambda value: value is None,  # a recipe without it has the key that it had
        description="Which checkpoint of SFT ships; the last one if absent.",
    )
    rounds: Literal[1, 2] = Field(
        1,
        exclude_if=lambda value: value == 1,
        description="2: the student of the first round answers the problems, too; the second one is trained from the "
        "base on the teacher's and its verified answers.",
    )
    student_sample: TeacherSampling | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="With `rounds: 2`, how that student is sampled, in the fields of `sample`; as the teacher, without "
        "its budget, if absent.",
    )

    @model_validator(mode="after")
    def _stages_have_their_sections(self) -> TrainConfig:
        after_sft = ("logits", "on_policy")
        if self.stages != ("sft", *(name for name in after_sft if name in self.stages)):
            raise ValueError("stages is [sft], [sft, logits], [sft, on_policy] or [sft, logits, on_policy]")
        for name in after_sft:
            if (name in self.stages) != (getattr(self, name) is not None):
                raise ValueError(f"the stage {name} and the section train.{name} go together: set both or neither")
            if self.select is not None and name in self.stages:
                raise ValueError(f"train.select chooses what SFT leaves, and {name} goes on from there: leave one out")
        return self

    @model_validator(mode="after")
    def _student_is_sampled_between_rounds(self) -> TrainConfig:
        if self.student_sample is not None and self.rounds == 1:
            raise ValueError("student_sample is for a second round: set rounds: 2, or leave it out")
        if self.student_sample is not None and self.student_sample.logprobs is not None:
            raise ValueError("student_sample.logprobs: those of the teacher alone are kept: leave it out")
        if self.student_sample is not None and self.student_sample.budget and self.student_sample.budget.prices:
            raise ValueError("student_sample.budget.prices: there are no teachers here: set price_per_million_tokens")
        return self
