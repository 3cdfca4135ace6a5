"""What a run knows of its own openness: parts that stand elsewhere, the papers that say so, the lines of the card."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from distill.config.recipe import Recipe
from licensing.audit import audit
from licensing.bom import cyclonedx
from licensing.lineage import load_lineage
from licensing.openness import Name, Part, openness
from publish.facts import ReleaseFacts
from synth.problems.config import HubPrompts, ReasoningGymPrompts

LICENCE = "apache-2.0"
"""Of this toolkit, which trains, evaluates and filters, and of transformers, which holds the architecture."""

OPENNESS = "openness.json"
BOM = "bom.cdx.json"


def stated(recipe: Recipe, facts: ReleaseFacts) -> tuple[Part, ...]:
    """Parts of a release that are no files of it. Code of an unknown or changed revision is not public code."""
    revision = None if facts.dirty else facts.code_revision
    code: tuple[Name, ...] = ("training code", "inference code", "evaluation code", "preprocessing code")
    where = f"distill-release at revision {revision}" if revision else ""
    found = [Part(name=name, where=where, licence=LICENCE) for name in code]
    release = facts.versions.get("transformers")
    if release:
        found.append(Part(name="architecture", where=f"transformers {release}", licence=LICENCE))
    match recipe.evaluate.prompts:
        case ReasoningGymPrompts() as asked:
            made = f"made by reasoning-gym, task {asked.task}, as recipe.yaml says"
            found.append(Part(name="evaluation data", where=made, licence=asked.license))
        case HubPrompts() as asked:
            found.append(Part(name="evaluation data", where=asked.dataset, licence=asked.license))
    return tuple(found)


def say_openness(
    recipe: Recipe, facts: ReleaseFacts, lineage: Path, files: Iterable[str]
) -> tuple[ReleaseFacts, dict[str, str]]:
    """The facts with the card's lines, and the papers for the folder: openness.json and, where its library is there, a
    bill of materials. A run does not need that library: a paper's form is no reason to lose what was trained."""
    given = load_lineage(lineage)
    given = given.model_copy(update={"files": tuple(sorted(set(files)))})
    found = openness(given, stated(recipe, facts))
    papers = {OPENNESS: found.model_dump_json(indent=1) + "\n"}
    if find_spec("cyclonedx") is not None:
        papers[BOM] = cyclonedx(given, audit(given), found)
    return facts.model_copy(update={"openness": found.lines()}), papers
