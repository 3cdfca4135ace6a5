"""The release folder of a run: exported weights, cards, licenses, recipe, lineage, training data, checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import MODEL
from distill.release.audit import as_yaml
from distill.release.facts import ReleaseStages, release_facts
from distill.release.openness import openness_files
from distill.release.provenance import slsa_predicate
from distill.release.public import Redaction
from distill.release.training_data import DATA, write_data
from distill.runs.facts import PackageFacts
from licensing.files import read_json
from publish.checksums import Progress
from publish.package import build_release
from synth.teachers.mixture import TeachersConfig

__all__ = ["write_package"]


def write_package(
    out: Path,
    scratch: Path,
    recipe: Recipe,
    teacher: TeachersConfig,
    stages: ReleaseStages,
    training_rows: Iterable[Mapping[str, Any]],
    progress: Progress | None = None,
) -> PackageFacts:
    """Write the release folder below ``out``.

    ``teacher``: the pinned section. ``training_rows``: the rows that the student was trained on, read once.
    ``progress``: bytes hashed, of how many.
    """
    facts, redaction = release_facts(recipe, teacher, stages), Redaction(recipe)
    audit = stages.audit.path
    documents: dict[str, Path | str] = {
        name: audit / name for name in (entry["path"] for entry in stages.audit.manifest["files"])
    }
    recipe_text = as_yaml(redaction.value(recipe.model_dump(mode="json", exclude_none=True)))
    documents["recipe.yaml"] = recipe_text
    scores = redaction.value(read_json(stages.scores.path / "scores.json"))
    documents["evaluation.json"] = json.dumps(scores, indent=1, ensure_ascii=False) + "\n"
    data = scratch / DATA if recipe.release.data else None
    if data is not None:
        write_data(recipe, facts, stages, training_rows, data)
    weights = stages.weights.path / MODEL
    folders = [(weights, ""), *([(data, f"{DATA}/")] if data else [])]
    files = [f"{at}{path.relative_to(root)}" for root, at in folders for path in root.rglob("*") if path.is_file()]
    facts, openness = openness_files(recipe, facts, audit / "lineage.yaml", [*files, *documents, "README.md"])
    folder = recipe.release.name.rsplit("/", 1)[-1]
    recipe_sha256 = hashlib.sha256(recipe_text.encode()).hexdigest()
    build_release(
        facts,
        weights,
        out / folder,
        documents | openness,
        data=data,
        provenance=slsa_predicate(recipe, teacher, stages, recipe_sha256),
        progress=progress,
    )
    return PackageFacts(folder=folder, template_digest=facts.template_digest)
