"""The training data as a release of its own beside the model: Parquet, a card, notices, a license.

An open release ships its data with the weights. Licenses ask more of redistribution than of training, so the data set
has a lineage and an audit of its own: those of the model, without the base and a teacher of logits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import MODEL
from distill.release.audit import as_yaml
from distill.release.facts import ReleaseStages, duties, license_facts
from distill.release.public import Redaction
from distill.runs.provenance import PROJECT
from licensing.audit import Audit, audit
from licensing.errors import Refused
from licensing.files import read_json, read_rows
from licensing.license_texts import release_license_files
from licensing.lineage import Declaration, Lineage, load_lineage
from licensing.registry import resolve
from publish import facts as card
from publish.package import build_data_release
from publish.training_data import write_shards
from synth.sampling.config import CascadePolicy, TeacherSampling

_PUBLIC = ("model", "engine", "source")
"""Keys of a training row that may name a folder or an address of this machine."""

_HELD_OUT = "the held-out problems of the evaluation"
_GROUPS = ("source", "teacher", "difficulty", "language", "kind", "license")


def check_data(recipe: Recipe, lineage: Lineage) -> Audit:
    """Audit the data set behind a model's lineage.

    Raises Refused where its license is not allowed, or a license text that has to ship is missing.
    """
    data_lineage = _data_lineage(recipe, lineage)
    result = audit(data_lineage, allow=recipe.release.allow)
    try:
        result.raise_if_blocked()
        _license_files(recipe, data_lineage, result, "the text that stage audit finds")
    except Refused as refused:
        raise Refused(
            f"the training data cannot be released with the model: {refused.what}",
            where=refused.where,
            hint=f"{refused.hint or 'see the audit'}; or set release.data_license, or release.data: false",
        ) from refused
    return result


def _data_lineage(recipe: Recipe, lineage: Lineage) -> Lineage:
    release = recipe.release
    name = release.license_name if release.data_license is None else None
    declared = Declaration(license=release.data_license or release.license, license_name=name)
    inputs = tuple(one for one in lineage.inputs if one.role not in ("base", "logits"))  # they made the weights
    changes = {"release": release.data_set, "kind": "dataset", "declared": declared, "inputs": inputs, "files": None}
    return lineage.model_copy(update=changes)


def _license_files(recipe: Recipe, lineage: Lineage, result: Audit, license: str) -> dict[str, str]:
    """NOTICE, LICENSE, and LICENSES/. ``license``: the text of the model's license, which the data may share."""
    entry = resolve(recipe.release.license)
    return release_license_files(lineage, result, {entry.id: license} if entry else None)


def write_data_set(
    out: Path,
    scratch: Path,
    recipe: Recipe,
    facts: card.ReleaseFacts,
    stages: ReleaseStages,
    rows: Iterable[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> None:
    """Write the release folder of the data set: shards, card, lineage, audit, NOTICE, and license texts.

    ``rows``: the training rows, as ``publish.training_data.write_shards`` reads them. ``provenance``: the predicate of
    its SLSA statement. Raises Refused where the licenses
    of prompts or teachers do not allow it.
    """
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed here
    model_lineage = load_lineage(stages.audit.path / "lineage.yaml")
    lineage, result = _data_lineage(recipe, model_lineage), check_data(recipe, model_lineage)
    sampling = json.dumps(facts.sampling.settings if facts.sampling else {}, sort_keys=True)
    verifiers = {PROJECT: stages.verdicts.manifest["code"]["version"], **stages.verdicts.manifest["versions"]}
    named = [name for name in (PROJECT, "reasoning_gym") if verifiers.get(name)]
    verifier = ", ".join(f"{name.replace('_', '-')} {verifiers[name]}" for name in named)
    shared = {
        teacher.id: {"teacher_revision": teacher.revision, "sampling": sampling, "verifier": verifier or None}
        for teacher in facts.teachers
    }
    if (student := facts.first_student) is not None:
        settings = json.dumps(student.settings, sort_keys=True)
        shared[student.id] = {"teacher_revision": student.revision, "sampling": settings, "verifier": verifier or None}
    redaction = Redaction(recipe)
    columns = optional_columns(recipe, stages)
    left_out = read_rows(stages.trained.path / MODEL / "left_out.jsonl") if "not_trained" in columns else ()
    reasons = {row["id"]: row["reason"] for row in left_out}
    public_rows = (
        row
        | {key: redaction.value(row[key]) for key in _PUBLIC if key in row}
        | {"not_trained": reasons.get(row["id"])}
        for row in map(dict, rows)
    )
    shards = write_shards(public_rows, shared, scratch, optional=columns)
    license = (stages.audit.path / "LICENSE").read_text(encoding="utf-8")
    documents = {"LICENSE": license} if recipe.release.data_license in (None, recipe.release.license) else {}
    documents |= _license_files(recipe, lineage, result, license)
    notice = documents["NOTICE"]
    data = redaction.value(data_facts(recipe, facts, stages, result, notice).model_dump())
    documents["audit.json"] = result.to_json() + "\n"
    files = (*shards, *documents, "README.md")
    lineage = lineage.model_copy(update={"files": tuple(sorted(files))})
    documents["lineage.yaml"] = as_yaml(lineage.model_dump(mode="json", exclude_none=True))
    card_facts = card.DatasetFacts.model_validate(data)
    build_data_release(card_facts, scratch, out, documents, allow=recipe.release.scan_allow, provenance=provenance)


def data_facts(
    recipe: Recipe,
    facts: card.ReleaseFacts,
    stages: ReleaseStages,
    result: Audit,
    notice: str,
) -> card.DatasetFacts:
    """The facts on the card of the data set: those of the release, and what curation and training counted."""
    curated = stages.data.path
    statistics = read_json(curated / "statistics.json")
    overlap = read_json(curated / "decontamination.json")
    lengths = statistics.get("lengths", {})
    declared = recipe.release.data_license
    origin = {name: getattr(facts, name) for name in card.OriginFacts.model_fields}
    own = {
        "name": facts.data_name,
        "license": facts.license if declared in (None, recipe.release.license) else license_facts(declared),
        "duties": duties(result.to_dict()["findings"]),
        "allowed": tuple(f"{one.code}: {one.because}" for one in result.allowed),
        "notice": tuple(notice.splitlines()),
    }
    return card.DatasetFacts(
        **origin | own,
        model=facts.name,
        rows=statistics["rows"],
        problems=statistics["problems"],
        persona_rows=(stages.data.facts.added or {}).get("persona", 0),
        replayed_rows=(stages.data.facts.added or {}).get("replay", 0),
        not_trained=stages.trained.facts.left_out,
        tokens=statistics["tokens"],
        groups={name: tuple(card.Group(**group) for group in statistics[f"by_{name}"]) for name in _GROUPS},
        lengths=statistics["token_quantiles"] or {},
        length_edges=tuple(lengths.get("edges", ())),
        length_counts=tuple(lengths.get("kept", ())),
        decontamination=card.DecontaminationFacts(
            sets={_HELD_OUT if name == "evaluate" else name: items for name, items in overlap["sets"].items()},
            prompts=overlap["prompts"],
            overlapping=overlap["contaminated"],
            dropped=recipe.curate.filters.contaminated,
            recall=overlap["recall"],
        )
        if overlap.get("items")
        else None,
        near_duplicates=_near(read_json(curated / "near_duplicates.json")),
        optional_columns=optional_columns(recipe, stages),
    )


def _near(clusters: Mapping[str, Any]) -> str | None:
    if not clusters.get("threshold"):
        return None
    counts = ", ".join(
        f"{clusters[kind]['in_clusters']:,} of {clusters[kind]['items']:,} {kind} in "
        f"{clusters[kind]['clusters']:,} clusters"
        for kind in ("prompts", "traces")
    )
    return f"MinHash of {clusters['shingle_words']}-word shingles, threshold {clusters['threshold']}: {counts}."


def optional_columns(recipe: Recipe, stages: ReleaseStages) -> tuple[str, ...]:
    """The columns that only a recipe with a format check, a judge, a cascade, a majority vote or rewritten traces has,
    and a training that left rows out."""
    config, persona = recipe.verify, recipe.persona
    names = (["format_verdict"] if config.format else []) + (["judge_verdict", "counts_as"] if config.judge else [])
    cascade = isinstance(recipe.sample, TeacherSampling) and isinstance(recipe.sample.policy, CascadePolicy)
    names += ["pass_rate_teacher"] if cascade else []
    names += ["rewritten"] if persona is not None and persona.identity_talk == "rewrite" else []
    names += ["not_trained"] if stages.trained.facts.left_out else []
    return (*names, *(["majority"] if config.majority else []))
