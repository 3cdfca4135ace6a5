"""What a release was made from, for its SLSA provenance: every digest is one that a stage's manifest recorded.

Where a run knows no digest (a teacher behind an endpoint), the entry says so. Nothing is read from the process that
packages, and no time is stated, so that equal runs give equal provenance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from distill.config.recipe import Recipe
from distill.models.folder import MODEL, public_name
from distill.release.facts import ReleaseStages, teacher_facts
from distill.release.lineage import Sources, base_revision, replayed_sources
from distill.release.public import PRIVATE_ENDPOINT, Redaction, public_endpoint
from distill.runs.artefact import Artefact
from distill.runs.provenance import PROJECT
from distill.runs.tables import REPLAY
from synth.sampling.samples_table import PROBLEMS
from synth.teachers.config import OpenAITeacher
from synth.teachers.mixture import TeachersConfig, teacher_configs

BUILD_TYPE = f"urn:{PROJECT}:run:v1"
"""A run of a recipe; docs/confirm.md says what the parameters mean."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_DIGEST = "unknown"


def slsa_predicate(
    recipe: Recipe, teacher: TeachersConfig, stages: ReleaseStages, recipe_sha256: str, *, of_data: bool = False
) -> dict[str, Any]:
    """The predicate https://slsa.dev/provenance/v1 of a release, or of its data set (without the training, and
    without the base unless its student wrote some rows).

    ``teacher``: the pinned section; ``recipe_sha256``: digest of the recipe.yaml that ships.
    """
    replay = () if stages.replay is None else (stages.replay,)
    made = [stages.samples, *stages.first_round, stages.verdicts, *replay, stages.data]
    if not of_data:
        made = [stages.prepared, *made, *stages.trainings, stages.weights, stages.scores]
    artefacts: dict[str, Artefact[Any]] = {one.stage: one for one in (*made, stages.audit)}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"recipe": {"name": "recipe.yaml", "digest": {"sha256": recipe_sha256}}},
            "internalParameters": {
                "stages": {stage: {"key": one.key, "digest": one.digest} for stage, one in artefacts.items()},
                "versions": {stage: one.manifest["versions"] for stage, one in artefacts.items()},
                "devices": {stage: one.manifest["device"] for stage, one in artefacts.items()},
            },
            "resolvedDependencies": [
                *([] if of_data and not stages.first_round else _base(recipe, stages)),
                *([] if of_data else _logits_teachers(recipe, stages)),
                *_teachers(recipe, teacher, stages),
                *_problems(artefacts, stages.sources, replayed_sources(recipe, stages.replay)),
                *_programs(stages),
                *_code(artefacts),
            ],
        },
        "runDetails": {
            "builder": {
                "id": f"urn:{PROJECT}",
                "version": {PROJECT: stages.audit.manifest["code"]["version"]},
            }
        },
    }
    value: dict[str, Any] = Redaction(recipe).value(predicate)
    return value


def _base(recipe: Recipe, stages: ReleaseStages) -> Iterator[dict[str, Any]]:
    """The base by its revision and the digest over its files, and each of its weight files by its sha256."""
    name, revision = public_name(recipe.student), base_revision(stages.prepared)
    digest = {"gitCommit": revision, "filesSha256": stages.prepared.facts.base.files_digest}
    yield _dependency(name, "base", digest, revision=revision, license=recipe.student.license)
    for file in stages.prepared.manifest["files"]:
        path = file["path"].removeprefix(f"{MODEL}/")
        if path.endswith(".safetensors"):
            yield _dependency(f"{name}/{path}", "base", {"sha256": file["sha256"]})


def _logits_teachers(recipe: Recipe, stages: ReleaseStages) -> Iterator[dict[str, Any]]:
    config = recipe.train.on_policy
    if config is None or stages.on_policy is None:
        return
    facts = stages.on_policy.facts
    ran: list[tuple[str | None, str | None]] = [(one.revision, one.engine) for one in facts.routes or ()]
    ran = ran or [(facts.teacher_revision, facts.teacher_engine)]
    for teacher, (revision, engine) in zip(config.logits_teachers.values(), ran, strict=False):  # or the student itself
        yield _dependency(
            teacher.public_id,
            "logits",
            {"gitCommit": revision},
            revision=revision,
            license=teacher.license,
            engine=engine,
            endpoint=None if teacher.url is None else PRIVATE_ENDPOINT,
        )


def _teachers(recipe: Recipe, section: TeachersConfig, stages: ReleaseStages) -> Iterator[dict[str, Any]]:
    models = [("teacher", one) for one in teacher_configs(section)]
    models += [(model.role, model.teacher) for model in recipe.auxiliary_models.values()]
    facts = {one.id: one for one in teacher_facts(recipe, section, stages.samples)}
    for role, teacher in models:
        sample_facts = facts.get(teacher.public_id)
        revision = sample_facts.revision if sample_facts else teacher.revision
        yield _dependency(
            teacher.public_id,
            role,
            {"gitCommit": revision},
            revision=revision,
            license=teacher.license,
            ran_by=teacher.ran_by,
            engine=sample_facts.engine if sample_facts else None,
            endpoint=public_endpoint(teacher) if isinstance(teacher, OpenAITeacher) else None,
        )


def _problems(artefacts: Mapping[str, Artefact[Any]], sources: Sources, replayed: Sources) -> Iterator[dict[str, Any]]:
    """The problems as they were sampled, the base's own answers to other prompts, and the held-out problems, by the
    files of the run that hold them."""
    for stage, path, name, notes in (
        ("sample", PROBLEMS, "problems", {"sources": _origin(sources)}),
        ("replay", REPLAY, "replayed rows", {"sources": _origin(replayed)} if replayed else {}),
        ("evaluate", PROBLEMS, "held-out problems", {}),
    ):
        files = artefacts[stage].manifest["files"] if stage in artefacts else []
        for file in files:
            if file["path"] == path:
                yield _dependency(name, "data", {"sha256": file["sha256"]}, **notes)


def _origin(sources: Sources) -> str:
    return ", ".join(f"{name} ({text or 'license unknown'})" for name, text in sorted(sources, key=str))


def _programs(stages: ReleaseStages) -> Iterator[dict[str, Any]]:
    """The packages that programs under test found."""
    sandbox = stages.verdicts.facts.sandbox
    for package in sandbox.packages if sandbox is not None else ():
        name, _, version = package.partition("==")
        yield _dependency(f"pkg:pypi/{name}@{version}", "package of programs under test", {})


def _code(artefacts: Mapping[str, Artefact[Any]]) -> Iterator[dict[str, Any]]:
    """Each revision of this project's code that a stage ran with."""
    stages_by_code: dict[tuple[Any, ...], list[str]] = {}
    for stage, artefact in artefacts.items():
        code = artefact.manifest["code"]
        stages_by_code.setdefault((code["version"], code["revision"], code["dirty"]), []).append(stage)
    for (version, revision, dirty), stages in stages_by_code.items():
        yield _dependency(PROJECT, "code", {"gitCommit": revision}, version=version, dirty=dirty, stages=stages)


def _dependency(name: str, role: str, digest: Mapping[str, str | None], **annotations: Any) -> dict[str, Any]:
    """A resource descriptor of in-toto. One without a digest (a revision that is no commit is none) says so."""
    digests = {
        kind: value for kind, value in digest.items() if value and (kind != "gitCommit" or _COMMIT.fullmatch(value))
    }
    notes = {"role": role} | {key: value for key, value in annotations.items() if value is not None}
    if not digests:
        return {"name": name, "annotations": notes | {"digest": _NO_DIGEST}}
    return {"name": name, "digest": digests, "annotations": notes}
