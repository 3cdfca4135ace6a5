"""The training data as a part of the release: Parquet, a card, notices, under a licence that is audited by itself.

Open means that the data ship with the weights. Passing rows on asks for more than training on them, so a data set has a
lineage and an audit of its own: the release's, without the base model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import Recipe
from distill.runs.artefact import Artefact
from licensing.audit import Audit, audit, notice_text
from licensing.errors import Refused
from licensing.license_texts import license_text
from licensing.lineage import Declared, Lineage, load_lineage
from licensing.registry import resolve
from publish import facts as card
from publish.cards.data_card import data_card
from publish.training_data import write_shards
from synth.verify.config import VerifyConfig

__all__ = ["DATA", "check_data", "data_facts", "write_data"]

DATA = "data"
"""Folder of the release that holds the data set."""

_GROUPS = ("source", "teacher", "difficulty", "language", "kind", "license")


def check_data(recipe: Recipe, lineage: Lineage) -> Audit:
    """The audit of the data set behind a model's lineage. Raises Refused where it may not be passed on as the recipe
    says; the model may still be."""
    result = audit(_data_lineage(recipe, lineage), allow=recipe.release.allow)
    try:
        result.raise_if_blocked()
    except Refused as refused:
        raise Refused(
            f"the training data cannot be released with the model: {refused.what}",
            where=refused.where,
            hint=f"{refused.hint or 'see the audit'}; or set release.data_license, or release.data: false",
        ) from refused
    return result


def _data_lineage(recipe: Recipe, lineage: Lineage) -> Lineage:
    release = recipe.release
    named = release.license_name if release.data_license is None else None
    declared = Declared(license=release.data_license or release.license, license_name=named)
    inputs = tuple(one for one in lineage.inputs if one.role != "base")
    return lineage.model_copy(update={"kind": "dataset", "declared": declared, "inputs": inputs, "files": None})


def write_data(
    recipe: Recipe,
    facts: card.ReleaseFacts,
    data: Artefact,
    rows: Iterable[Mapping[str, Any]],
    verdict: Artefact,
    out: Path,
) -> None:
    """The data set in the folder ``out``, which is made anew: shards, README.md, NOTICE, and LICENSE where its text is
    at hand. ``rows``: the training rows, read once. Raises Refused where the licenses of prompts or teachers do not
    allow it."""
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed here
    lineage = load_lineage(verdict.path / "lineage.yaml")
    result = check_data(recipe, lineage)
    notice = notice_text(_data_lineage(recipe, lineage), result)
    sampling = json.dumps(facts.sampling.settings if facts.sampling else {}, sort_keys=True)
    names = [name for name in ("math-verify", "reasoning_gym") if name in facts.versions]
    verifier = ", ".join(f"{name.replace('_', '-')} {facts.versions[name]}" for name in names)
    shared = {
        teacher.id: {"teacher_revision": teacher.revision, "sampling": sampling, "verifier": verifier or None}
        for teacher in facts.teachers
    }
    beside = columns_beside(recipe.verify)
    shards = write_shards(rows, shared, out, beside=beside)
    known = data_facts(recipe, facts, data, result, notice, shards)
    (out / "README.md").write_text(data_card(known), encoding="utf-8")
    (out / "NOTICE").write_text(notice, encoding="utf-8")
    same = recipe.release.data_license in (None, recipe.release.license)
    text = (
        (verdict.path / "LICENSE").read_text(encoding="utf-8")
        if same
        else license_text(str(recipe.release.data_license))
    )
    if text is not None:
        (out / "LICENSE").write_text(text, encoding="utf-8")


def data_facts(
    recipe: Recipe, facts: card.ReleaseFacts, data: Artefact, result: Audit, notice: str, shards: list[str]
) -> card.DatasetFacts:
    """What the data set's card says: from the release's facts and what curation counted."""
    counted = _read(data.path / "statistics.json")
    found = _read(data.path / "decontamination.json")
    near = _read(data.path / "near_duplicates.json")
    duties = (f"{f.code} ({f.input}): {f.fix or f.why}" for f in result.findings if f.code.startswith("O-"))
    return card.DatasetFacts(
        name=f"{facts.name} training data",
        version=facts.version,
        licence=_licence(recipe, facts),
        languages=tuple(group["name"] for group in counted["by_language"] if group["name"]),
        rows=counted["rows"],
        problems=counted["problems"],
        tokens=counted["tokens"],
        groups={name: tuple(card.Group(**group) for group in counted[f"by_{name}"]) for name in _GROUPS},
        lengths=counted["token_quantiles"] or {},
        teachers=facts.teachers,
        prompt_sources=facts.prompt_sources,
        sampling=facts.sampling,
        verification=facts.verification,
        waterfall=facts.waterfall,
        decontamination=card.DecontaminationFacts(
            sets=found["sets"],
            prompts=found["prompts"],
            found=found["contaminated"],
            left_out=recipe.curate.filters.contaminated,
            recall=found["recall"],
            false_positive_rate=found["false_positive_rate"],
        )
        if found.get("items")
        else None,
        near_duplicates=_near(near),
        obligations=tuple(dict.fromkeys(duties)),
        allowed=tuple(f"{one.code}: {one.because}" for one in result.allowed),
        notice=tuple(notice.splitlines()),
        limitations=facts.limitations,
        code_revision=facts.code_revision,
        columns_beside=columns_beside(recipe.verify),
        shards=tuple(shards),
    )


def _licence(recipe: Recipe, facts: card.ReleaseFacts) -> card.LicenceFacts:
    named = recipe.release.data_license
    if named is None or named == recipe.release.license:
        return facts.licence
    known = resolve(named)
    tag = (known.hub_license if known else None) or named
    other = tag == "other"
    return card.LicenceFacts(
        id=known.id if known else named,
        license=tag,
        license_name=(known.hub_license_name if known else None) or named if other else None,
        license_link="LICENSE" if other else None,
    )


def _near(found: dict[str, Any]) -> str | None:
    if not found.get("threshold"):
        return None
    counts = ", ".join(
        f"{found[kind]['in_clusters']:,} of {found[kind]['items']:,} {kind} in {found[kind]['clusters']:,} clusters"
        for kind in ("prompts", "traces")
    )
    return f"MinHash of {found['shingle_words']}-word shingles, threshold {found['threshold']}: {counts}."


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def columns_beside(config: VerifyConfig) -> tuple[str, ...]:
    """The keys of a training row that the recipe asked for beside the verdict; columns of the data that ship."""
    judged = ("judge_verdict", "counts_as") if config.judge else ()
    return (*(("format_verdict",) if config.format else ()), *judged, *(("majority",) if config.majority else ()))
