"""The release folder of a run: exported weights, cards, licenses, recipe, lineage, training data, checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import MODEL, check_same_template
from distill.release.audit import as_yaml
from distill.release.facts import release_facts
from distill.release.openness import say_openness
from distill.release.training_data import DATA, write_data
from distill.runs.artefact import Artefact
from licensing.errors import Refused
from publish.package import build_release
from synth.teachers.mixture import TeachersConfig

__all__ = ["write_package"]


def write_package(
    out: Path,
    scratch: Path,
    recipe: Recipe,
    teacher: TeachersConfig,
    start: Artefact,
    raw: Artefact,
    data: Artefact,
    trained: Artefact,
    weights: Artefact,
    scores: Artefact,
    verdict: Artefact,
) -> dict[str, Any]:
    """The release folder: the exported weights unchanged, card, licences, recipe, lineage, checksums."""
    student = next(row for row in scores.facts["scores"] if row["model"] == "student_after")
    bound = recipe.evaluate.min_stop_rate
    if student["stop_rate"] < bound:
        raise Refused(
            f"only {student['stop_rate']:.3f} of the student's answers end by themselves; the recipe asks for {bound}",
            where="stage package",
            hint="train longer, or lower evaluate.min_stop_rate knowingly",
        )
    check_same_template(start.facts["template_digest"], scores.facts["template_digest"], "evaluate")
    folder = recipe.release.name.rsplit("/", 1)[-1]
    facts = release_facts(recipe, teacher, start, raw, data, trained, scores, verdict)
    papers: dict[str, Path | str] = {
        name: verdict.path / name for name in (item["path"] for item in verdict.manifest["files"])
    }
    papers["recipe.yaml"] = as_yaml(recipe.model_dump(mode="json", exclude_none=True))
    papers["evaluation.json"] = scores.path / "scores.json"
    shipped = scratch / DATA if recipe.release.data else None
    if shipped is not None:
        write_data(recipe, facts, data, verdict, shipped)
    parts = [(weights.path / MODEL, ""), *([(shipped, "data/")] if shipped else [])]
    files = [f"{at}{path.relative_to(root)}" for root, at in parts for path in root.rglob("*") if path.is_file()]
    facts, told = say_openness(recipe, facts, verdict.path / "lineage.yaml", [*files, *papers, "README.md"])
    papers |= told
    build_release(facts, weights.path / MODEL, out / folder, papers, data=shipped)
    return {"folder": folder, "template_digest": facts.template_digest}
