"""From a run to a release: its lineage, the audit of it, the facts for the card, the folder.

The audit runs twice: on the planned lineage before anything is spent, and as a stage on the lineage that the rows
themselves carry.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import LoraMethod, Recipe
from distill.release.endpoints import governing
from distill.release.lineage import base_revision, count_sources, lineage_of
from distill.release.openness import say_openness
from distill.runs.provenance import code_revision, installed_versions
from distill.runs.store import Artefact, StageContext
from distill.stages.verdicts import told_beside
from distill.stages.work import MODEL, agree, read_rows
from licensing.audit import Audit, audit, notice_text
from licensing.errors import InputError, Refused
from licensing.license_texts import titled_text
from licensing.registry import resolve
from licensing.suggest import TEXTS
from publish import facts as card
from synth.problems.config import ReasoningGymPrompts
from synth.sampling.config import TeacherSampling
from synth.sampling.sample import ENGINES
from synth.teachers.mixture import TeacherMixture, TeachersConfig, members_of
from synth.teachers.router import read_engine_info

# --- stages ------------------------------------------------------------------------------------------------------


def do_audit(
    place: StageContext,
    recipe: Recipe,
    start: Artefact,
    raw: Artefact,
    weights: Artefact,
    judged: Artefact | None = None,
) -> dict[str, Any]:
    """The audit on what the rows themselves say: lineage.yaml, audit.json, NOTICE, LICENSE, LICENSES/.

    ``judged``: stage verify, where the recipe has a judge.
    """
    sources = count_sources(read_rows(raw.path / "prompts.jsonl"))
    base = base_revision(start)
    texts = _licence_texts(recipe, audit(lineage_of(recipe, sources, base)))
    asked_on = raw.manifest["started_at"][:10]  # only lineages of endpoints say it
    judged_on = judged.manifest["started_at"][:10] if judged else None
    files = (*sorted(texts), "NOTICE", "README.md")
    lineage = lineage_of(recipe, sources, base, files=files, asked_on=asked_on, judged_on=judged_on)
    result = audit(lineage, allow=recipe.release.allow)
    result.raise_if_blocked()
    for name, text in texts.items():
        (place.out / name).parent.mkdir(exist_ok=True)
        (place.out / name).write_text(text, encoding="utf-8")
    (place.out / "NOTICE").write_text(notice_text(lineage, result), encoding="utf-8")
    (place.out / "audit.json").write_text(result.to_json() + "\n", encoding="utf-8")
    (place.out / "lineage.yaml").write_text(
        as_yaml(lineage.model_dump(mode="json", exclude_none=True)), encoding="utf-8"
    )
    return {
        "verdict": result.verdict,
        "obligations": list(result.obligations),
        "violations": list(result.violations),
        "warnings": list(result.warnings),
        "allowed": [one.model_dump() for one in result.allowed],
        "weights": weights.digest,
    }


def _licence_texts(recipe: Recipe, result: Audit) -> dict[str, str]:
    """LICENSE, and the text of every other licence whose copy is owed: from the base's own files, else from ours."""
    release = recipe.release
    if release.license_file:
        own: str | None = _read_text(Path(release.license_file), "release.license_file")
    else:
        own = titled_text(release.license, release.copyright or f"Copyright (c) the makers of {release.name}")
    upstream = _base_licence(recipe)
    if own is None and upstream and _same_licence(release.license, recipe.student.license):
        own = upstream
    if own is None:
        raise InputError(
            f"the text of {release.license} is not at hand", where="release.license", hint="set release.license_file"
        )
    texts = {"LICENSE": own}
    for code in result.obligations:
        name, _, owed = code.partition(":")
        if name != "O-SHIP-LICENCE" or _same_licence(owed, release.license):
            continue
        text = upstream if _same_licence(owed, recipe.student.license) else None
        text = text or titled_text(owed, f"Copyright (c) the makers of {recipe.student.public_id}")
        if text is None:
            raise Refused(
                f"a copy of {owed} must ship and its text is not at hand",
                where="stage audit",
                hint="put the upstream's LICENSE file into the base's folder",
            )
        texts[f"{TEXTS}/LICENSE-{owed}.txt"] = text
    return texts


def _same_licence(one: str | None, other: str | None) -> bool:
    a, b = resolve(one), resolve(other)
    return a is not None and b is not None and a.id == b.id


def _base_licence(recipe: Recipe) -> str | None:
    base = recipe.student.base
    files = sorted(Path(base).glob("LICEN[CS]E*")) if isinstance(base, str) and Path(base).is_dir() else []
    return _read_text(files[0], "student.base") if files else None


def _read_text(path: Path, field: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=f"{field}: {path}", hint="name a text file") from None


def do_package(
    place: StageContext,
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
    from distill.release.training_data import DATA, write_data
    from publish.package import build_release

    student = next(row for row in scores.facts["scores"] if row["model"] == "student_after")
    bound = recipe.evaluate.min_stop_rate
    if student["stop_rate"] < bound:
        raise Refused(
            f"only {student['stop_rate']:.3f} of the student's answers end by themselves; the recipe asks for {bound}",
            where="stage package",
            hint="train longer, or lower evaluate.min_stop_rate knowingly",
        )
    agree(start, scores.facts["template_digest"], "evaluate")
    folder = recipe.release.name.rsplit("/", 1)[-1]
    facts = release_facts(recipe, teacher, start, raw, data, trained, scores, verdict)
    papers: dict[str, Path | str] = {
        name: verdict.path / name for name in (item["path"] for item in verdict.manifest["files"])
    }
    papers["recipe.yaml"] = as_yaml(recipe.model_dump(mode="json", exclude_none=True))
    papers["evaluation.json"] = scores.path / "scores.json"
    shipped = place.scratch / DATA if recipe.release.data else None
    if shipped is not None:
        write_data(recipe, facts, data, verdict, shipped)
    parts = [(weights.path / MODEL, ""), *([(shipped, "data/")] if shipped else [])]
    files = [f"{at}{path.relative_to(root)}" for root, at in parts for path in root.rglob("*") if path.is_file()]
    facts, told = say_openness(recipe, facts, verdict.path / "lineage.yaml", [*files, *papers, "README.md"])
    papers |= told
    build_release(facts, weights.path / MODEL, place.out / folder, papers, data=shipped)
    return {"folder": folder, "template_digest": facts.template_digest}


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
    ran = read_engine_info(raw.path / ENGINES)
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


def as_yaml(value: Any) -> str:
    """YAML text of plain data, keys in the order given."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
