"""The recipe's section `verify`: limits of verification, the format check, the majority vote, the judge."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from synth.sampling.config import AuxiliaryModel, BudgetConfig
from synth.sandbox.sandbox import RUNTIME
from synth.section import Operational, Section
from synth.teachers.config import TeacherConfig


class FormatConfig(Section):
    """The format check: `format_verdict` beside the verdict on the answer. Curation: `filters.format`."""

    think: bool = Field(
        False, description="Whether a response needs exactly one closed think block, with text in it and text after it."
    )
    boxed: bool = Field(
        False,
        description="Whether a response needs its answer in a \\boxed{} after the thinking (not kinds code, "
        "constraints and open).",
    )

    @model_validator(mode="after")
    def _checks_something(self) -> FormatConfig:
        if not (self.think or self.boxed):
            raise ValueError("format checks nothing: set think or boxed to true, or leave format out")
        return self


class MajorityConfig(Section):
    """Majority gold: problems of kind math or choice without an answer take the one that most of their samples give.

    Rows of such a problem carry `majority` (answer, votes, samples, share); rows with a gold answer never do.
    """

    min_votes: int = Field(3, ge=2, description="Least number of samples that give the majority answer.")
    min_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Least share of a problem's finished samples that give the majority answer; a tie gives none.",
    )


Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\[\],-]*==[\w.+!-]+$")]
RulesVerdict = Literal["unparseable", "wrong", "timeout", "correct"]
Counts = Literal["rules", "judge", "either"]


class JudgeConfig(AuxiliaryModel):
    """A model that compares each different answer of a problem with the gold once, beside the rules.

    It sees the question, the gold and the final answer only. Rows carry `judge_verdict`, `judge_reason`, `judge_text`
    and `judge_model` beside the verdict of the rules, and `counts_as`, which curation reads.
    """

    role: ClassVar[str] = "judge"
    teacher: TeacherConfig = Field(
        description="Teacher section of the judge; any kind but offline. Its role in the lineage is judge."
    )
    when: tuple[RulesVerdict, ...] = Field(
        ("unparseable", "wrong"),
        min_length=1,
        description="Verdicts of the rules after which the judge is asked, too.",
    )
    counts: Counts = Field(
        "rules",
        description="Verdict that curation uses. rules: that of the rules; judge: the judge's where it gives one; "
        "either: correct where one of the two is.",
    )
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens of one answer of the judge, thinking included.")
    budget: BudgetConfig | None = Field(
        None, description="Limits of the judge's requests; rows beyond them keep the verdict of the rules."
    )

    @model_validator(mode="after")
    def _names_no_verdict_twice(self) -> JudgeConfig:
        if len(set(self.when)) != len(self.when):
            raise ValueError("when names a verdict twice")
        return self


class CodeConfig(Section):
    """How programs (kind code) are run and tested."""

    sandbox: str = Field(
        "auto",
        pattern=f"^({RUNTIME})$",
        description="Where programs run: bubblewrap, docker:IMAGE, podman:IMAGE, tcp://HOST:PORT; auto: the first that "
        "works here; none: no isolation.",
    )
    isolation: Literal["apart", "any"] = Field(
        "any",
        description="Handling of tests that have to run in the program's own process, where it can fake a pass. apart: "
        "they are errors; any: they are run.",
    )
    timeout_s: float = Field(
        5.0,
        gt=0,
        description="Wall-clock seconds for a program with its tests; for tests by standard input, seconds for each "
        "test, and 20 times as many for all.",
    )
    memory_mb: int = Field(512, ge=64, description="Memory limit of a program, in MiB of address space.")
    packages: tuple[Package, ...] = Field(
        (),
        description="Packages that programs and tests may import, as name==version, where no image brings its own; "
        "none: this environment's numpy.",
    )
    processes: bool = Field(False, description="Whether programs may start processes of their own.")

    @model_validator(mode="after")
    def _packages_can_be_there(self) -> CodeConfig:
        if self.packages and self.sandbox not in ("auto", "bubblewrap", "none"):
            raise ValueError(f"packages: {self.sandbox} brings its own: leave packages out, and install them there")
        return self


class VerifyConfig(Section):
    """How answers are verified, within which limits."""

    workers: int = Operational(2, ge=1, description="Number of worker processes.")
    timeout_s: float = Field(2.0, gt=0, description="CPU seconds for one row; a slower one has the verdict `timeout`.")
    memory_mb: int = Field(
        2048, ge=256, description="Memory limit of one worker, in MiB of address space; on Linux only."
    )
    code: CodeConfig = Field(CodeConfig(), description="How programs (kind code) are run and tested.")
    format: FormatConfig | None = Field(None, description="Format that a response must have.")
    majority: MajorityConfig | None = Field(
        None, description="Majority vote: for a problem without a gold answer, the one that most of its samples give."
    )
    judge: JudgeConfig | None = Field(
        None, description="Model that compares answers with the gold answer, beside the rules."
    )

    @model_serializer(mode="wrap")
    def _what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the parts that the recipe does not use, so that a stage's key has no more than the recipe."""
        values: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in values.items()
            if (value is not None or name not in ("format", "majority", "judge"))
            and (name != "code" or self.code != CodeConfig())
        }

    def rules(self, *, layout: bool = False) -> VerifyConfig:
        """The rules alone, for sampling and evaluation; with ``layout`` the format check too."""
        return self.model_copy(update={"format": self.format if layout else None, "majority": None, "judge": None})
