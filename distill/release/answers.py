"""What a release folder answers, in a clean process: nothing but the folder is there to load from.

The hub is offline, its cache is an empty folder, and no code of a repository runs. The process and its memory are gone
when the answers are there. Settings of a folder are foreign: numbers of the sampling are taken from them, engine
arguments are not (some of vLLM's name code to import), and no sandbox weaker than the default.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from distill.config.recipe import EvaluateConfig
from distill.runs.facts import STUDENT, Facts, Score
from distill.runs.process import StageCrashed, StageHost
from distill.runs.stage import Reporter, Stage, StageContext
from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import read_json
from synth.problems.config import JsonlPrompts
from synth.problems.prompt_template import PromptTemplate
from synth.sampling.config import SAMPLING_OPTIONS
from synth.teachers.build import slow_imports
from synth.verify.config import VerifyConfig

EngineName = Literal["transformers", "vllm"]

EVALUATION = "evaluation.json"
_MOST_S = 60.0
"""Longest time limit of a verification that is taken from a folder."""

_SAMPLING = (
    "num_samples",
    "sampling",
    "temperature",
    "top_p",
    "max_new_tokens",
    "seed",
    "batch_size",
    *SAMPLING_OPTIONS,
)


class _Evaluation(BaseModel):
    """What is read of evaluation.json; other keys are left alone."""

    scores: tuple[Score, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    verify: dict[str, Any] = Field(default_factory=dict)


class Answers(Facts):
    """Rows of ``distill.evaluate.run.run_model``."""

    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ReleaseAnswers(Stage[Answers]):
    """Asks the model in ``folder`` every problem once and verifies the answers; for a ``ReleaseHost``."""

    folder: str
    problems: list[dict[str, Any]]
    evaluate: EvaluateConfig
    verify: VerifyConfig
    prompt_template: PromptTemplate | None

    @property
    def name(self) -> str:
        return "answers"

    @property
    def preload(self) -> tuple[str, ...]:
        return slow_imports([self.evaluate.engine])

    def run(self, ctx: StageContext) -> Answers:
        from distill.evaluate.run import folder_teacher, run_model
        from synth.problems.problem import Prompt

        prompts = [Prompt.model_validate(row, context={"allow_missing_gold": True}) for row in self.problems]
        model = folder_teacher(Path(self.folder), self.evaluate, self.prompt_template)
        rows = run_model("release", model, prompts, self.evaluate, self.verify, ctx.progress)
        return Answers(rows=tuple(rows))


class ReleaseHost(StageHost):
    """Starts a process for each question to a release folder; they share what importing an engine takes.

    A context manager. Its processes have neither the hub, nor code or a token from the user's cache.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="distill-release-")
        self._work = Path(self._folder.name)
        cache = {"HF_HOME": str(self._work / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        super().__init__(self._work / "host.log", {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **cache})

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._folder.cleanup()

    def answer(self, stage: ReleaseAnswers, report: Reporter) -> Answers:
        """Raises as ``StageHost.run`` does."""
        work = self._work
        ctx = StageContext(out=work, scratch=work, logs=work, store=work, progress=report)
        facts = self.run(stage, ctx, work / "answers.log", lambda pid: None)
        assert isinstance(facts, Answers)
        return facts


def answer_problems(
    folder: Path,
    problems: Sequence[Mapping[str, Any]],
    evaluate: EvaluateConfig,
    verify: VerifyConfig,
    host: ReleaseHost,
    report: Reporter,
) -> list[dict[str, Any]]:
    """The rows of ``run_model`` for ``problems`` (problem rows), in their order.

    Raises Refused where the folder does not load or answers nothing, MissingDependency without the engine.
    """
    rows = [dict(row) for row in problems]
    stage = ReleaseAnswers(str(folder.resolve()), rows, evaluate, verify, _recorded_template(folder))
    try:
        facts = host.answer(stage, report)
    except InputError as error:  # what is wrong is the folder, which nobody here typed
        raise Refused(error.what, where=str(folder), hint=error.hint) from error
    except StageCrashed as error:
        last = str(error).strip().splitlines()[-1]
        raise Refused(f"the process that loads the folder failed: {last}", where=str(folder)) from error
    return list(facts.rows)


def recorded_settings(folder: Path, engine: EngineName, **changed: Any) -> EvaluateConfig:
    """The settings of the release's evaluation, for ``engine`` on this machine; ``changed`` replaces some."""
    settings = _evaluation(folder).settings
    values = {name: settings[name] for name in _SAMPLING if name in settings} | changed
    arguments: dict[str, Any] = {"enforce_eager": True}
    if isinstance(recorded := settings.get("engine_args"), dict) and isinstance(recorded.get("max_model_len"), int):
        arguments["max_model_len"] = recorded["max_model_len"]
    try:
        return EvaluateConfig(
            prompts=JsonlPrompts(path=EVALUATION),  # not read: the problems are those of the records
            engine=engine,
            engine_args=arguments if engine == "vllm" else {},
            **values,
        )
    except ValueError as error:
        raise InputError(f"the recorded settings are not valid: {error}", where=str(folder / EVALUATION)) from error


def _recorded_template(folder: Path) -> PromptTemplate | None:
    """The text around a question with which the release was evaluated."""
    recorded = _evaluation(folder).settings.get("prompt_template")
    try:
        return None if recorded is None else PromptTemplate.model_validate(recorded)
    except ValueError as error:
        raise InputError(
            f"the recorded prompt template is not valid: {error}", where=str(folder / EVALUATION)
        ) from error


def recorded_limits(folder: Path) -> VerifyConfig:
    """Verification with the time limits of the release's own, up to a minute each."""
    verify = _evaluation(folder).verify
    limits = {name: min(verify[name], _MOST_S) for name in ("timeout_s", "code_timeout_s") if name in verify}
    return VerifyConfig(**limits)


def recorded_score(folder: Path) -> Score | None:
    """The score of the release itself, as evaluation.json has it; None where there is none."""
    return next((score for score in _evaluation(folder).scores if score.model == STUDENT), None)


def engine_of(recorded: str) -> EngineName:
    """The engine that answers here: the recorded one (such as "vllm 0.32.0") where it is installed."""
    return "vllm" if recorded.startswith("vllm") and find_spec("vllm") is not None else "transformers"


def require_engine(engine: EngineName) -> None:
    """Raise MissingDependency where the engine is not installed."""
    if find_spec(engine) is None:
        extra = {"transformers": "train", "vllm": "vllm"}[engine]
        raise MissingDependency(f"{engine} is not installed", hint=f"pip install 'distill-release[{extra}]'")


def _evaluation(folder: Path) -> _Evaluation:
    try:
        return _Evaluation.model_validate(read_json(folder / EVALUATION))
    except FileNotFoundError:
        return _Evaluation()
    except ValueError as error:
        raise InputError(
            f"the file holds no scores of an evaluation: {error}", where=str(folder / EVALUATION)
        ) from error
