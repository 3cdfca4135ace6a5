"""What a run is made of, as the audit reads it: planned, of the rows that are there, or as audited."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import RandomBase, Recipe
from distill.release.endpoints import generators
from distill.runs.artefact import Artefact
from distill.runs.store import current_artefacts
from licensing.errors import InputError
from licensing.files import read_rows
from licensing.lineage import Declared, Input, Lineage, load_lineage
from synth.problems.config import HubPrompts, JsonlPrompts, ReasoningGymPrompts
from synth.sampling.config import ImportedTraces

__all__ = ["Sources", "base_revision", "count_sources", "lineage_of", "planned_lineage", "run_lineage"]

Sources = Mapping[tuple[str, str | None], int]
"""(source, licence) -> how many problems it gave."""


def planned_lineage(recipe: Recipe) -> Lineage:
    """What the recipe says that the release will be made of; rows are read where its prompts declare no licence."""
    return lineage_of(recipe, _planned_sources(recipe), recipe.student.revision)


def _planned_sources(recipe: Recipe) -> Sources:
    from synth.problems.problem import load_prompts, load_traces

    answerless = recipe.verify.majority is not None
    match recipe.sample, recipe.prompts:
        case ImportedTraces() as traces, _:
            found = load_traces(traces, recipe.teachers[0], answerless=answerless)
            return count_sources(prompt.row() for prompt in found.prompts)
        case _, ReasoningGymPrompts() as prompts:
            return {(f"reasoning-gym:{prompts.task}", prompts.license): prompts.size}
        case _, (JsonlPrompts() | HubPrompts()) as prompts if prompts.license is None:
            return count_sources(prompt.row() for prompt in load_prompts(prompts, answerless=answerless).prompts)
        case _, JsonlPrompts() as prompts:
            return {(prompts.source or Path(prompts.path).name, prompts.license): 0}
        case _, HubPrompts() as prompts:
            return {(prompts.dataset, prompts.license): 0}
    raise AssertionError("the recipe's schema asks for prompts or traces")


def count_sources(rows: Iterable[Mapping[str, Any]]) -> Sources:
    return collections.Counter((row["source"], row.get("license")) for row in rows)


def lineage_of(
    recipe: Recipe,
    sources: Sources,
    base_revision: str | None,
    files: tuple[str, ...] | None = None,
    asked_on: str | None = None,
    judged_on: str | None = None,
) -> Lineage:
    student, release = recipe.student, recipe.release
    inputs = []
    if not isinstance(student.base, RandomBase):
        inputs.append(Input(id=student.public_id, role="base", licence=student.license, revision=base_revision))
    inputs += [found for teacher in recipe.teachers for found in generators(teacher, asked_on)]
    if recipe.verify.judge is not None:
        inputs += generators(recipe.verify.judge.teacher, judged_on, "judge")
    inputs += [Input(id=name, role="data", licence=licence) for name, licence in sorted(sources, key=str)]
    declared = Declared(license=release.license, license_name=release.license_name)
    return Lineage(release=release.name, kind="model", declared=declared, inputs=tuple(inputs), files=files)


def run_lineage(run: Path) -> tuple[Lineage, Recipe]:
    """The lineage of a run directory and its recipe: as audited, or of the rows sampled so far, or as planned."""
    try:
        recipe = Recipe.model_validate_json((run / "recipe.json").read_bytes())
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"the run's recipe cannot be read: {first}", where=str(run / "recipe.json"), hint="run it once more"
        ) from error
    done = current_artefacts(run)
    if "audit" in done:
        return load_lineage(done["audit"].path / "lineage.yaml"), recipe
    if "prepare" in done and "sample" in done:
        sources = count_sources(read_rows(done["sample"].path / "prompts.jsonl"))
        asked_on = done["sample"].manifest["started_at"][:10]
        return lineage_of(recipe, sources, base_revision(done["prepare"]), asked_on=asked_on), recipe
    return planned_lineage(recipe), recipe


def base_revision(start: Artefact) -> str:
    """The base's revision; of a local folder its content's digest, by which a teacher of the same folder goes too."""
    base = start.facts["base"]
    return base["revision"] or f"content-{(base.get('content') or base['files_digest'])[:16]}"
