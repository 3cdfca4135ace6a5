"""Training rows as the student will see them, made up or from a run's selection: ``distill preview``, the report."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config.recipe import RandomBase, Recipe, StudentConfig
from distill.models.folder import MODEL, BaseFolder, read_base
from distill.models.prepare import inspect_base, student_base
from distill.models.random_model import write_random_base
from distill.models.tokens import RowRefused, Tokens
from distill.runs.artefact import Artefact, of_last_round
from distill.runs.store import current_artefacts
from distill.runs.tables import TrainingTables
from licensing.errors import InputError
from publish.chat_template import add_persona
from synth.reasoning import THINK_CLOSE, THINK_OPEN

_SELECTION = ("sample", "verify", "label", "curate")


@dataclass(frozen=True)
class PreviewRow:
    """One row. ``prompt`` carries no loss, ``completion`` all of it. ``reason`` says why the row is left out of
    training; the texts are None where the template cannot write them."""

    id: str
    prompt: str | None = None
    completion: str | None = None
    prompt_tokens: int = 0
    trained_tokens: int = 0
    reason: str | None = None


def preview(recipe: Recipe, run: Path, count: int) -> tuple[str, list[PreviewRow]]:
    """The first ``count`` training rows of a recipe, and where they are from.

    From the selection of ``run`` where its curate stage has finished; else the recipe's first problems, each with a
    made-up trace: thinking, and the problem's own answer.

    Raises:
        InputError: The student's base is not on this machine, the template is at fault, a problem file is.
    """
    with final_base(recipe) as base:
        if base is None:
            raise InputError(
                f"{recipe.student.public_id} is not on this machine: there is no template to show",
                where="student.base",
                hint="`distill run RECIPE --until prepare` fetches it",
            )
        tokens = Tokens(base)
        artefacts = of_last_round(current_artefacts(run)) if run.is_dir() else {}
        if all(stage in artefacts for stage in _SELECTION):
            return f"the selection of {run}", _selected(tokens, run, artefacts, recipe.student, count)
        made_up = itertools.islice(_made_up(recipe), count)
        return "made-up traces on the recipe's problems", [_row(tokens, row, recipe.student) for row in made_up]


def trained_rows(
    run: Path, artefacts: Mapping[str, Artefact[Any]], student: StudentConfig, count: int
) -> list[PreviewRow]:
    """The first ``count`` training rows of a run, as its prepared model writes them; none before it has selected some.

    Raises InputError where the prepared model is damaged.
    """
    artefacts = of_last_round(artefacts)
    if not all(stage in artefacts for stage in ("prepare", *_SELECTION)):
        return []
    tokens = Tokens(read_base(artefacts["prepare"].path / MODEL))
    return _selected(tokens, run, artefacts, student, count)


def _selected(
    tokens: Tokens, run: Path, artefacts: Mapping[str, Artefact[Any]], student: StudentConfig, count: int
) -> list[PreviewRow]:
    with TrainingTables(*(artefacts[stage] for stage in _SELECTION)).training_rows(run / "store") as selected:
        return [_row(tokens, row, student) for row in itertools.islice(selected, count)]


@contextlib.contextmanager
def final_base(recipe: Recipe) -> Iterator[BaseFolder | None]:
    """The student's base under the template that it is trained and shipped with; None where the run fetches it."""
    with contextlib.ExitStack() as stack:
        if isinstance(recipe.student.base, RandomBase):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_random_base(recipe.student.base, folder)
            base: BaseFolder | None = student_base(recipe.student, folder)
        else:
            base = inspect_base(recipe.student)
        persona = recipe.persona
        if base is not None and persona is not None:
            base = replace(base, template=add_persona(base.template, persona.default_system, persona.policy))
        yield base


def made_up_trace(
    messages: Sequence[Mapping[str, Any]], answer: str | None, *, opened: bool = True
) -> list[dict[str, Any]]:
    """A conversation as training rows have it: the problem's messages, then thinking and an answer. Not ``opened``: as
    a teacher writes it whose prompt has the opening tag."""
    text = f"(thinking)\n{THINK_CLOSE}\n\n{answer or '(answer)'}"
    text = f"{THINK_OPEN}\n{text}" if opened else text
    return [*(dict(message) for message in messages), {"role": "assistant", "content": text}]


def _made_up(recipe: Recipe) -> Iterator[dict[str, Any]]:
    from synth.problems.problem import load_prompts

    if recipe.prompts is None:
        raise InputError(
            "imported traces can be shown only after stage curate",
            where="sample",
            hint="run `distill run RECIPE --until curate`, which needs no GPU",
        )
    for problem in load_prompts(recipe.prompts, allow_missing_gold=True).prompts:
        yield {"id": problem.id, "kind": problem.kind, "messages": made_up_trace(problem.messages, problem.answer)}


def _row(tokens: Tokens, row: Mapping[str, Any], student: StudentConfig) -> PreviewRow:
    row = student.training_row(row)
    try:
        prompt, completion = tokens.texts(row["messages"])
        rendered = tokens.render(row["messages"])
    except RowRefused as refused:
        return PreviewRow(row["id"], reason=str(refused))
    length, longest = len(rendered.input_ids), student.max_length
    return PreviewRow(
        row["id"],
        prompt,
        completion,
        rendered.prompt_length,
        length - rendered.prompt_length,
        f"longer than max_length {longest}" if length > longest else None,
    )
