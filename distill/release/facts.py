"""The facts that the cards of a release state, from a run's recipe and artefacts."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

from distill.config.recipe import LoraMethod, Recipe
from distill.models.folder import MODEL
from distill.release.endpoints import governing
from distill.release.lineage import base_revision, count_sources
from distill.runs.artefact import Artefact
from distill.runs.provenance import code_revision, installed_versions
from licensing.files import read_rows
from licensing.registry import resolve
from publish import facts as card
from synth.problems.config import ReasoningGymPrompts
from synth.sampling.config import TeacherSampling
from synth.sampling.sample import ENGINES
from synth.teachers.mixture import TeacherMixture, TeachersConfig, members_of
from synth.teachers.router import read_engines
from synth.verify.config import VerifyConfig

__all__ = ["release_facts", "told_beside"]


def release_facts(
    recipe: Recipe,
    teacher: TeachersConfig,
    start: Artefact,
    raw: Artefact,
    data: Artefact,
    trained: Artefact,
    scores: Artefact,
    verdict: Artefact,
) -> card.ReleaseFacts:
    """Everything that the card says, from manifests and recipe. No times: equal runs give equal cards."""
    student, release = recipe.student, recipe.release
    licence = resolve(release.license)
    tag = (licence.hub_license if licence else None) or release.license
    revision = code_revision()
    sampling = recipe.sample
    sources = count_sources(read_rows(raw.path / "prompts.jsonl"))
    return card.ReleaseFacts(
        name=release.name,
        version=release.version,
        licence=card.LicenceFacts(
            id=licence.id if licence else release.license,
            license=tag,
            license_name=release.license_name or (licence.hub_license_name if licence and tag == "other" else None),
            license_link=release.license_link or ("LICENSE" if tag == "other" else None),
        ),
        languages=release.languages,
        base=card.BaseFacts(id=student.public_id, revision=base_revision(start), licence=student.license),
        teachers=_teachers(teacher, raw),
        prompt_sources=tuple(
            card.PromptSource(name=name, licence=text, problems=count)
            for (name, text), count in sorted(sources.items(), key=str)
        ),
        persona=card.PersonaFacts(**recipe.persona.model_dump()) if recipe.persona else None,
        training=_training(recipe, trained),
        sampling=card.SamplingFacts(
            settings=_settings(sampling.model_dump(exclude={"source", "budget"}) | _shares(teacher))
            if isinstance(sampling, TeacherSampling)
            else {},
            samples=raw.facts["rows_out"],
            tokens=raw.facts["tokens"],
        ),
        verification="math-verify and reasoning-gym's own scorers, in worker processes that can be killed; programs "
        "against their tests, in a sandbox" + told_beside(recipe.verify),
        waterfall=tuple(card.WaterfallStep(**step) for step in data.facts["waterfall"]),
        evaluation=_evaluation(recipe, scores),
        generation=json.loads((start.path / MODEL / "generation_config.json").read_text(encoding="utf-8")),
        obligations=_duties(verdict),
        allowed=tuple(f"{one['code']}: {one['because']}" for one in verdict.facts["allowed"]),
        notice=tuple((verdict.path / "NOTICE").read_text(encoding="utf-8").splitlines()),
        versions=installed_versions(),
        code_revision=revision["revision"],
        dirty=revision["dirty"],
        template_digest=start.facts["template_digest"],
        limitations=release.limitations,
        tags=("distillation", "reasoning"),
    )


def _shares(section: TeachersConfig) -> dict[str, Any]:
    """Of several teachers, each one's share of the samples."""
    if not isinstance(section, TeacherMixture):
        return {}
    return {f"share of {member.teacher.public_id}": member.share for member in section.teachers}


def _teachers(section: TeachersConfig, raw: Artefact) -> tuple[card.TeacherFacts, ...]:
    """The teachers with their engines; the revision is that of the weights which an engine says it loaded."""
    ran = read_engines(raw.path / ENGINES)
    members = members_of(section)
    found = []
    for teacher in members:
        own = [row for row in ran if row["model"] == teacher.public_id]
        engines = raw.facts["teachers"][teacher.public_id]["engines"] if len(members) > 1 else raw.facts["engines"]
        revisions = sorted({row["revision"] for row in own if row["revision"]})
        found.append(
            card.TeacherFacts(
                id=teacher.public_id,
                revision=teacher.revision or ", ".join(revisions) or None,
                licence=governing(teacher),
                ran_by=teacher.ran_by,
                engine=", ".join(engines) or None,
            )
        )
    return tuple(found)


def _duties(verdict: Artefact) -> tuple[str, ...]:
    """The obligations in words, each with its code, and what meets it."""
    findings = json.loads((verdict.path / "audit.json").read_text(encoding="utf-8"))["findings"]
    lines = (f"{f['code']} ({f['input']}): {f['fix'] or f['why']}" for f in findings if f["code"].startswith("O-"))
    return tuple(dict.fromkeys(lines))


def _training(recipe: Recipe, trained: Artefact) -> card.TrainingFacts:
    student = recipe.student
    kept = ("num_train_epochs", "batch_size", "max_length", "lr_scheduler", "warmup_ratio", "weight_decay", "seed")
    settings = {**student.method.model_dump(), **student.model_dump(include=set(kept))}
    method = "LoRA, merged into the weights" if isinstance(student.method, LoraMethod) else "full fine-tuning"
    return card.TrainingFacts(
        method=f"{method}; loss on the answers only",
        hyperparameters=_settings({key: value for key, value in settings.items() if key != "kind"}),
        rows=trained.facts["rows_out"],
        tokens=trained.facts["tokens"],
        steps=trained.facts["steps"],
        hardware=platform.machine(),
    )


def _settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings for the card, one a line: a section's own under ``section.key``, its ``kind`` under its name."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix.rstrip(".") if prefix and key == "kind" else f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _settings(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            flat[name] = value
        elif value is not None:
            flat[name] = str(value)
    return flat


def _evaluation(recipe: Recipe, scores: Artefact) -> card.EvaluationFacts:
    config, facts = recipe.evaluate, scores.facts
    on = config.prompts
    name = f"reasoning-gym {on.task}" if isinstance(on, ReasoningGymPrompts) else getattr(on, "path", None)
    decoding = "greedy" if config.temperature == 0 else f"temperature {config.temperature}, top_p {config.top_p}"
    student = next(row for row in facts["scores"] if row["model"] == "student_after")
    fields = set(card.Score.model_fields)
    return card.EvaluationFacts(
        measured_on=f"{name or getattr(on, 'dataset', 'problems')}, held out: no problem of the training set",
        n=facts["scores"][0]["n"],
        decoding=f"{decoding}, at most {config.max_new_tokens} new tokens",
        scores=tuple(card.Score(**{k: v for k, v in row.items() if k in fields}) for row in facts["scores"]),
        comparisons=tuple(
            card.Comparison(**{k: v for k, v in row.items() if k in card.Comparison.model_fields})
            for row in facts["comparisons"]
        ),
        interval="paired bootstrap over problems, 95 % percentile interval",
        stop_rate=student["stop_rate"],
    )


def told_beside(config: VerifyConfig) -> str:
    """What a card says of it, to be put behind its sentence on the rules; empty where there is nothing."""
    told = ""
    if config.sandbox == "weak":
        told += "; programs in a sandbox without namespaces (sandbox: weak)"
    if config.judge is not None:
        counting = {
            "rules": "which decides nothing",
            "judge": "whose verdict counts where it gives one",
            "either": "and an answer counts as correct where either says so",
        }
        asked = " or ".join(config.judge.when)
        told += f"; where they say {asked}, the model {config.judge.teacher.public_id} was asked too, "
        told += counting[config.judge.counts]
    if config.majority is not None:
        told += "; problems without a reference answer were verified against the answer that most samples gave"
    return told
