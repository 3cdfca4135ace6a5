"""The finished stages of a run that never ran, for tests of what its release states: real base, made-up facts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase, Recipe
from distill.models.folder import MODEL
from distill.models.prepare import prepare
from distill.models.random_model import write_random_base
from distill.release.audit import write_audit
from distill.release.facts import ReleaseStages
from distill.release.lineage import count_sources
from distill.release.package import write_package
from distill.runs.keys import base_fingerprint, pinned_teacher
from distill.runs.store import Artefact

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
ENDPOINT = "http://10.11.12.13:8123/v1"
VERSIONS = {"transformers": "5.0.1", "math-verify": "0.9.0"}
ROWS = [
    {"id": f"r{number}", "prompt_id": f"p{number}", "kind": "math", "source": "sums", "license": "mit",
     "messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "\\boxed{2}"}],
     "model": "fake-teacher", "engine": "fake 1", "verdict": "correct"}
    for number in range(4)
]  # fmt: skip


def private_recipe(folder: Path, *overrides: str) -> Recipe:
    """A recipe whose base, problems, test sets and teacher are on this machine and its network."""
    base = folder / "private" / "my-base"
    if not base.exists():
        base.mkdir(parents=True)
        write_random_base(RandomBase(hidden_size=8, num_heads=2, num_layers=1), base)
    problems = {"kind": "jsonl", "path": str(folder / "private" / "sums.jsonl"), "license": "mit"}
    teacher = {"kind": "openai", "model": "served-model", "base_url": ENDPOINT, "license": "mit"}
    test_set = folder / "private" / "test-set.jsonl"
    return load_recipe(SMOKE, [
        f"student.base={base}", f"prompts={json.dumps(problems)}", f"teacher={json.dumps(teacher)}",
        f"evaluate.prompts={json.dumps(problems | {'path': str(folder / 'private' / 'held-out.jsonl')})}",
        f"label.decontaminate.against=[{test_set}]", *overrides,
    ])  # fmt: skip


def artefact(folder: Path, stage: str, facts: dict[str, Any], **manifest: Any) -> Artefact:
    path = folder / "stages" / stage
    path.mkdir(parents=True, exist_ok=True)
    files = [{"path": file.relative_to(path).as_posix()} for file in sorted(path.rglob("*")) if file.is_file()]
    recorded = {
        "facts": facts,
        "files": files,
        "started_at": "2026-01-20T00:00:00Z",
        "versions": VERSIONS,
        "code": {"version": "0.1.0", "revision": "abc123", "dirty": False},
        "device": {"machine": "x86_64", "cpu": "Xeon", "gpus": ["NVIDIA H200"] * 2, "count": 2},
        **manifest,
    }
    return Artefact(stage, "key", path, stage, recorded)


def finished_stages(
    folder: Path,
    recipe: Recipe,
    *,
    languages: Any = (("en", 4),),
    kinds: Any = ("math",),
    verified: dict[str, Any] | None = None,
    sets: dict[str, int] | None = None,
) -> ReleaseStages:
    """Every stage up to the audit. ``languages``: (code, rows) of the training rows."""
    root = folder / "stages"
    facts = prepare(recipe.student, recipe.persona, root / "prepare" / MODEL)
    facts["base"]["content"] = base_fingerprint(recipe.student)
    prepared = artefact(folder, "prepare", facts)
    shutil.copytree(root / "prepare" / MODEL, root / "export" / MODEL, dirs_exist_ok=True)
    names = [teacher.public_id for teacher in recipe.teachers]
    per_teacher = {name: {"rows_out": 4, "tokens": 40, "engines": ["fake 1"]} for name in names}
    sample = artefact(folder, "sample", {"rows_out": 8, "tokens": 80, "engines": ["fake 1"], "teachers": per_teacher})
    curate = root / "curate"
    curate.mkdir(parents=True, exist_ok=True)
    statistics: dict[str, Any] = {"rows": 4, "problems": 4, "tokens": 40, "token_quantiles": {"p50": 10.0}}
    for name in ("source", "teacher", "difficulty", "license"):
        statistics[f"by_{name}"] = [{"name": "sums", "rows": 4, "tokens": 40}]
    statistics["by_language"] = [{"name": code, "rows": rows, "tokens": rows} for code, rows in languages]
    statistics["rows"] = sum(rows for _, rows in languages)
    statistics["by_kind"] = [{"name": kind, "rows": 1, "tokens": 1} for kind in kinds]
    overlap = {"items": 8, "sets": {"evaluate": 8} if sets is None else sets, "prompts": 4, "contaminated": 0,
               "recall": {}, "false_positive_rate": 0.0}  # fmt: skip
    for stem, value in (("statistics", statistics), ("decontamination", overlap), ("near_duplicates", {})):
        (curate / f"{stem}.json").write_text(json.dumps(value))
    score = {"metric": "pass@1", "n": 8, "low": 0.0, "high": 1.0, "stop_rate": 1.0, "engine": "fake 1"}
    models = ["student_before", "student_after", "teacher", "student_control"]
    scores = {
        "scores": [score | {"model": model, "value": 0.5} for model in models],
        "comparisons": [{"a": "student_before", "b": "student_after", "difference": 0.5, "low": 0.1, "high": 0.9,
                         "p": 0.1}],
        "interval": "paired bootstrap",
    }  # fmt: skip
    evaluate = root / "evaluate"
    evaluate.mkdir(parents=True, exist_ok=True)
    (evaluate / "scores.json").write_text(json.dumps(scores))
    verify = artefact(folder, "verify", verified or {})
    sources = count_sources([{"source": "sums", "license": "mit"}] * 4)
    pinned = recipe.model_copy(update={"teacher": pinned_teacher(recipe)})
    (root / "audit").mkdir(parents=True, exist_ok=True)
    audited = write_audit(root / "audit", pinned, prepared, sample, verify, sources)
    return ReleaseStages(
        prepare=prepared,
        sample=sample,
        verify=verify,
        curate=artefact(folder, "curate", {"waterfall": [{"step": "sampled", "rows": 8}]}),
        train=artefact(folder, "train", {"rows_out": 4, "tokens": 90, "steps": 2}),
        export=artefact(folder, "export", {}),
        evaluate=artefact(folder, "evaluate", scores | {"template_digest": facts["template_digest"]}),
        audit=artefact(folder, "audit", audited),
        sources=sources,
    )


def with_manifest(stages: ReleaseStages, stage: str, **changes: Any) -> ReleaseStages:
    """The same stages, with other values in one manifest."""
    old: Artefact = getattr(stages, stage)
    return dataclasses.replace(stages, **{stage: dataclasses.replace(old, manifest=old.manifest | changes)})


def package(folder: Path, recipe: Recipe, stages: ReleaseStages, name: str = "package") -> Path:
    """The release folder of the stages."""
    out = folder / "out" / name
    facts = write_package(out, folder / "scratch" / name, recipe, pinned_teacher(recipe), stages, iter(ROWS))
    return out / str(facts["folder"])
