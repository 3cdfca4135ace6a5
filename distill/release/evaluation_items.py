"""The held-out problems with the answers of the release, as part of it: whether they may ship, and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.config.recipe import Recipe
from distill.release.facts import model_name
from distill.release.lineage import sources_of_prompts
from distill.release.public import Redaction
from distill.runs.artefact import Artefact
from distill.runs.facts import STUDENT, EvaluateFacts
from licensing.audit import Audit, audit
from licensing.errors import Refused
from licensing.files import read_rows
from licensing.lineage import Declaration, Input, Lineage
from publish.evaluation import EvaluatedItem
from synth.sampling.samples_table import PROBLEMS

_HINT = "set evaluate.prompts.license where it is missing, or release.evaluation_items: false"


def check_evaluation_items(recipe: Recipe, *, fetch: bool = True) -> Audit:
    """Audit the held-out problems as a data set under the license of the release. Raises Refused where they may not
    be passed on under it. ``fetch``: as of ``planned_lineage``."""
    sources = sources_of_prompts(recipe.evaluate.prompts, fetch=fetch)
    inputs = tuple(Input(id=name, role="data", licence=license) for name, license in sorted(sources, key=str))
    declared = Declaration(license=recipe.release.license, license_name=recipe.release.license_name)
    lineage = Lineage(release=recipe.release.name, kind="dataset", declared=declared, inputs=inputs)
    result = audit(Lineage.model_validate(Redaction(recipe).value(lineage.model_dump())), allow=recipe.release.allow)
    try:
        result.raise_if_blocked()
    except Refused as refused:
        what = f"the held-out problems cannot be part of the release: {refused.what}"
        raise Refused(what, where=refused.where, hint=_HINT) from refused
    return result


def evaluation_items(recipe: Recipe, scores: Artefact[EvaluateFacts]) -> list[EvaluatedItem]:
    """The problems in the order in which they were evaluated, with every answer of the release and all verdicts."""
    redaction = Redaction(recipe)
    problems = {row["id"]: row for row in read_rows(scores.path / PROBLEMS)}
    verdicts: dict[tuple[str, int], dict[str, str | None]] = {}
    for row in read_rows(scores.path / "items.jsonl"):
        if row["model"] != STUDENT:
            verdicts.setdefault(_sample(row), {})[model_name(row["model"], recipe)] = row["verdict"]
    return [
        EvaluatedItem(
            problem=redaction.value(problems[row["prompt_id"]]),
            others=verdicts.get(_sample(row), {}),
            **{name: row[name] for name in EvaluatedItem.model_fields if name in row},
        )
        for row in read_rows(scores.path / "items.jsonl")
        if row["model"] == STUDENT
    ]


def _sample(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["prompt_id"], row["sample_index"]
