"""Suites by name: which problems, and what they measure. The names:

side-effects               the six suites that ship with distill, which need no network
instruction-following ...  one of them
aime-2024 ...              a public test set (a preset of ``synth/problems/presets``), from the hub
long-context:WORDS         as long-context, with texts of another length
reasoning-gym:TASK         problems that reasoning-gym makes, 100 or as many as in reasoning-gym:TASK:SIZE
FILE.jsonl, FILE.parquet   problem rows of your own
RECIPE.yaml                the held-out problems of a recipe, in its student's words around a question
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.config.loader import load_recipe
from distill.evaluate.families import family_of
from distill.evaluate.suites.long_context import LENGTHS, long_context_problems
from licensing.errors import InputError, MissingDependency
from synth.problems.config import HubPrompts, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.problems.preset import presets
from synth.problems.problem import Prompt, load_prompts
from synth.problems.prompt_template import PromptTemplate
from synth.teachers.config import TeacherConfig

_DATA = Path(__file__).parent / "data"
_GYM, _LONG = "reasoning-gym:", "long-context:"
_GYM_SIZE = 100

SIDE_EFFECTS = {
    "instruction-following": "instructions that a program checks, in five languages",
    "refusal-harmful": "requests that a careful assistant refuses; correct: it refuses, by the form of the answer",
    "refusal-harmless": "harmless requests in similar words; correct: it does not refuse",
    "knowledge": "short general questions with four options",
    "chat-format": "plain conversation; correct: it stops at a stop token, without think tags, markers and loops",
    "long-context": "one of four codes in a text of 250 to 2,000 words",
}
"""The suites of the package: what training on reasoning is known to cost elsewhere. Name, also of the file in data/ ->
what it measures."""


@dataclass(frozen=True)
class Suite:
    """A named set of problems; ``source`` is None for long texts of ``words`` each, which are made here.
    ``prompt_template``: text around a question, for models that have none of their own."""

    name: str
    about: str
    source: PromptsConfig | None
    words: tuple[int, ...] = ()
    prompt_template: PromptTemplate | None = None

    @property
    def fetches(self) -> str | None:
        """The data set of the hub that it fetches."""
        if isinstance(self.source, HubPrompts) and not Path(self.source.dataset).exists():
            return self.source.dataset
        return None

    def with_prompt_template(self, model: TeacherConfig) -> TeacherConfig:
        """``model`` as the problems of this suite are put to it."""
        if self.prompt_template is None or model.prompt_template is not None:
            return model
        return model.model_copy(update={"prompt_template": self.prompt_template})

    def problems(self, limit: int | None = None, seed: int = 0) -> list[Prompt]:
        """The problems, or a choice of them (``subset``). Ids are prefixed with the suite's name.

        Raises InputError where there are none or they cannot be read, MissingDependency where the hub does not answer.
        """
        try:
            problems = load_prompts(self.source).prompts if self.source else long_context_problems(self.words)
        except InputError as error:
            if self.fetches is None:
                raise
            hint = "it is fetched from the hub: check the network; side-effects needs none"
            raise MissingDependency(f"suite {self.name}: {error.what}", where=self.fetches, hint=hint) from error
        chosen = problems if limit is None else subset(problems, limit, seed)
        return [problem.model_copy(update={"id": f"{self.name}/{problem.id}"}) for problem in chosen]


def suite_names() -> list[str]:
    """The names of suites that are neither a file nor a task of reasoning-gym."""
    return ["side-effects", *SIDE_EFFECTS, *(name for name, preset in presets().items() if preset.is_test_set)]


def find_suites(names: Iterable[str]) -> list[Suite]:
    """The suites of these names, each once, in order.

    Raises InputError for a name that is none, with the nearest, and for two files that would have one name.
    """
    suites: dict[str, Suite] = {}
    for name in names:
        for one in SIDE_EFFECTS if name == "side-effects" else (name,):
            suite = _suite(one)
            if suites.setdefault(suite.name, suite) != suite:
                raise InputError(f"two suites are called {suite.name}", where=one, hint="rename one of the files")
    return [*suites.values()]


def subset(problems: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    """At most ``limit`` problems, in their order: families take turns, each gives those with the least digests of seed
    and content. So two models get the same ones, and neither order nor copies matter."""

    def digest(text: str) -> bytes:
        return hashlib.sha256(f"{seed}:{text}".encode()).digest()

    families: dict[bytes, list[tuple[bytes, int]]] = {}
    for at, problem in enumerate(problems):
        family = digest(str(family_of(problem)))
        families.setdefault(family, []).append((digest(problem.content_hash), at))
    rounds = itertools.zip_longest(*(sorted(families[family]) for family in sorted(families)))
    turns = [entry[1] for entries in rounds for entry in entries if entry is not None]
    return [problems[at] for at in sorted(turns[:limit])]


def _suite(name: str) -> Suite:
    if name == "long-context":
        return Suite(name, SIDE_EFFECTS[name], None, LENGTHS)
    if name in SIDE_EFFECTS:
        own = JsonlPrompts(path=str(_DATA / f"{name}.jsonl"), source="distill-release", license="apache-2.0")
        return Suite(name, SIDE_EFFECTS[name], own)
    if name.startswith(_LONG):
        words = name.removeprefix(_LONG)
        if not words.isdigit() or not 100 <= int(words) <= 1_000_000:
            hint = "write long-context:WORDS, from 100 to 1,000,000 words"
            raise InputError(f"no suite {name!r}", where="suite", hint=hint)
        return Suite(
            name.replace(":", "-"), f"one of four codes in a text of {int(words):,} words", None, (int(words),)
        )
    if (preset := presets().get(name)) is not None and preset.is_test_set:
        return Suite(name, preset.about, HubPrompts(preset=name))
    if name.startswith(_GYM):
        task, _, size = name.removeprefix(_GYM).partition(":")
        if not task or (size and not size.isdigit()):
            hint = "write reasoning-gym:TASK or reasoning-gym:TASK:SIZE"
            raise InputError(f"no suite {name!r}", where="suite", hint=hint)
        gym = ReasoningGymPrompts(task=task, size=int(size or _GYM_SIZE))
        return Suite(name.replace(":", "-"), f"reasoning-gym's task {task}", gym)
    if Path(name).suffix in (".yaml", ".yml"):
        recipe = load_recipe(Path(name))
        about, template = f"the held-out problems of {name}", recipe.student.prompt_template
        return Suite(f"held-out-{recipe.name}", about, recipe.evaluate.prompts, prompt_template=template)
    if Path(name).suffix in (".jsonl", ".json", ".gz", ".parquet"):
        return Suite(Path(name).name.partition(".")[0], f"the problems of {name}", JsonlPrompts(path=name))
    near = difflib.get_close_matches(name, suite_names(), 1)
    hint = f"the nearest is {near[0]}" if near else f"one of {', '.join(suite_names())}, a file, or reasoning-gym:TASK"
    raise InputError(f"there is no suite {name!r}", where="suite", hint=hint)
