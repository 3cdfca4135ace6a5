"""The release of a run: the folder of the model, and beside it that of the data set that it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import MODEL
from distill.release.audit import as_yaml
from distill.release.evaluation_items import evaluation_items
from distill.release.facts import ReleaseStages, card_sections, release_facts, suite_evaluations
from distill.release.openness import openness_files
from distill.release.provenance import slsa_predicate
from distill.release.public import Redaction
from distill.release.training_data import write_data_set
from distill.runs.facts import PackageFacts
from licensing.files import read_json, write_json
from licensing.lineage import load_lineage
from publish.cards.eu_summary import eu_summary
from publish.cards.front_matter import hub_eval_results
from publish.checksums import Progress
from publish.evaluation import evaluation_files
from publish.package import build_release
from publish.scan import refuse_leaks, scan_text
from synth.teachers.mixture import TeachersConfig


def check_release_texts(recipe: Recipe) -> None:
    """Scan recipe.yaml, as it ships, and the card's own sections before the run has cost anything.

    Raises Refused for what the scan of the release would refuse, such as a path in a system prompt; InputError where
    the sections cannot be read.
    """
    texts = {"recipe.yaml": _recipe_text(recipe), "README.md": card_sections(recipe) or ""}
    allow = recipe.release.scan_allow
    refuse_leaks(
        [leak for name, text in texts.items() for leak in scan_text(name, text.splitlines(), allow)], "release"
    )


def write_package(
    out: Path,
    scratch: Path,
    recipe: Recipe,
    teacher: TeachersConfig,
    stages: ReleaseStages,
    training_rows: Iterable[Mapping[str, Any]],
    progress: Progress | None = None,
) -> PackageFacts:
    """Write the release folders below ``out``, and facts.json, the ``ReleaseFacts``, beside them.

    ``teacher``: the pinned section. ``training_rows``: the rows that the student was trained on, read once.
    ``progress``: bytes hashed, of how many.
    """
    facts, redaction, release = release_facts(recipe, teacher, stages), Redaction(recipe), recipe.release
    audit = stages.audit.path
    documents: dict[str, Path | str | bytes] = {
        name: audit / name for name in (entry["path"] for entry in stages.audit.manifest["files"])
    }
    recipe_text = _recipe_text(recipe)
    documents["recipe.yaml"] = recipe_text
    documents["evaluation.json"] = _json(redaction.value(_evaluation(recipe, stages)))
    documents |= evaluation_files(facts, evaluation_items(recipe, stages.scores) if release.evaluation_items else ())
    assert facts.evaluation is not None
    for suite in suite_evaluations(recipe, facts.evaluation, stages.scores):
        documents |= evaluation_files(facts.model_copy(update={"evaluation": suite}))
    documents |= hub_eval_results(facts)
    if release.eu_summary:
        documents["eu_summary.md"] = eu_summary(facts, load_lineage(audit / "lineage.yaml"))
    weights = stages.weights.path / MODEL
    files = [path.relative_to(weights).as_posix() for path in weights.rglob("*") if path.is_file()]
    names = [*files, *documents, "README.md"]
    facts, openness = openness_files(recipe, facts, audit / "lineage.yaml", names)
    folder = _folder(release.name)
    recipe_sha256 = hashlib.sha256(recipe_text.encode()).hexdigest()
    build_release(
        facts,
        weights,
        out / folder,
        documents | openness,
        allow=release.scan_allow,
        provenance=slsa_predicate(recipe, teacher, stages, recipe_sha256),
        progress=progress,
    )
    write_json(out / "facts.json", facts.model_dump(mode="json"))
    data_folder = _folder(release.data_set) if release.data_set else None
    if data_folder is not None:
        made_from = slsa_predicate(recipe, teacher, stages, recipe_sha256, of_data=True)
        write_data_set(out / data_folder, scratch / "data", recipe, facts, stages, training_rows, made_from)
    return PackageFacts(folder=folder, data_folder=data_folder, template_digest=facts.template_digest)


def _recipe_text(recipe: Recipe) -> str:
    return as_yaml(Redaction(recipe).value(recipe.model_dump(mode="json", exclude_none=True)))


def _folder(name: str) -> str:
    return name.rpartition("/")[2]


def _evaluation(recipe: Recipe, stages: ReleaseStages) -> dict[str, Any]:
    """The scores, and the settings under which anyone can score again."""
    scores: dict[str, Any] = read_json(stages.scores.path / "scores.json")
    settings = recipe.evaluate.model_dump(mode="json", exclude={"prompts", "teacher"})
    settings |= recipe.student.model_dump(mode="json", include={"prompt_template"})
    if (probes := stages.scores.facts.persona_probes) is not None:
        scores["persona_probes"] = probes.model_dump(mode="json")
    return {**scores, "settings": settings, "verify": recipe.verify.rules().model_dump(mode="json")}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
