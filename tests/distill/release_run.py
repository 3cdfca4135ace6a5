"""The finished stages of a run that never ran, for tests of what its release states: real base, made-up facts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase, Recipe
from distill.evaluate.run import scored_teachers
from distill.models.folder import MODEL
from distill.models.prepare import prepare
from distill.models.random_model import write_random_base
from distill.release.audit import write_audit
from distill.release.facts import ReleaseStages
from distill.release.package import write_package
from distill.runs.artefact import Artefact, file_entries
from distill.runs.facts import (
    Comparison,
    CurateFacts,
    EvaluateFacts,
    ExportFacts,
    Facts,
    LabelFacts,
    PrepareFacts,
    SampleFacts,
    SandboxFacts,
    Score,
    TeacherShare,
    TrainFacts,
    VerifyFacts,
)  # fmt: skip
from distill.runs.keys import base_content, pinned_teacher
from licensing.files import write_rows
from publish.facts import WaterfallStep
from synth.problems.problem import Prompt
from synth.sampling.samples_table import PROBLEMS

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
ENDPOINT = "http://10.11.12.13:8123/v1"
VERSIONS = {"transformers": "5.0.1", "mpmath": "1.3.0"}
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


def artefact(folder: Path, stage: str, facts: Facts, **manifest: Any) -> Artefact[Any]:
    path = folder / "stages" / stage
    path.mkdir(parents=True, exist_ok=True)
    recorded = {
        "facts": facts.as_json(),
        "files": list(file_entries(path)),
        "started_at": "2026-01-20T00:00:00Z",
        "versions": VERSIONS,
        "code": {"version": "0.1.0", "revision": "abc123", "dirty": False},
        "device": {"machine": "x86_64", "cpu": "Xeon", "gpus": ["NVIDIA H200"] * 2, "count": 2},
        **manifest,
    }
    return Artefact(stage, "key", path, stage, recorded, facts)


def finished_stages(
    folder: Path,
    recipe: Recipe,
    *,
    languages: Any = (("en", 4),),
    kinds: Any = ("math",),
    sandbox: SandboxFacts | None = None,
    sets: dict[str, int] | None = None,
) -> ReleaseStages:
    """Every stage up to the audit. ``languages``: (code, rows) of the training rows."""
    root = folder / "stages"
    base = prepare(recipe.student, recipe.persona, root / "prepare" / MODEL)
    base["base"]["content"] = base_content(recipe.student)
    prepared = artefact(folder, "prepare", PrepareFacts.model_validate(base))
    template = prepared.facts.template_digest
    shutil.copytree(root / "prepare" / MODEL, root / "export" / MODEL, dirs_exist_ok=True)
    names = [teacher.public_id for teacher in recipe.teachers]
    shares = {name: TeacherShare(rows_out=4, tokens=40, engines=("fake 1",)) for name in names}
    samples = artefact(
        folder,
        "sample",
        SampleFacts(
            rows_in=4, rows_out=8, tokens=80, prompt_tokens=8, problems=4, duplicate_problems=0, held_out_problems=0,
            bad_rows=0, finish_reasons={"stop": 8}, engines=("fake 1",), teachers=shares if len(shares) > 1 else None,
        ),
    )  # fmt: skip
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
    values = {"value": 0.5, "low": 0.0, "high": 1.0, "n": 8, "stop_rate": 1.0, "truncated": 0.0, "errors": 0.0,
              "mean_tokens": 9.0, "engine": f"fake 1 of {recipe.student.base}"}  # fmt: skip
    models = ("student_before", "student_after", *scored_teachers(recipe.evaluate, recipe.teacher), "student_control")
    scores = EvaluateFacts(
        rows_in=8,
        rows_out=32,
        tokens=288,
        template_digest=template,
        scores=tuple(Score.model_validate({"model": model, **values}) for model in models),
        comparisons=(Comparison(a="student_before", b="student_after", difference=0.5, low=0.1, high=0.9, p=0.1),),
        interval="paired bootstrap",
    )
    evaluate = root / "evaluate"
    evaluate.mkdir(parents=True, exist_ok=True)
    (evaluate / "scores.json").write_text(scores.model_dump_json())
    problems = [Prompt(id=f"h{n}", prompt=f"What is {n} + 1?", answer=str(n + 1), kind="math", source="sums",
                       license="mit") for n in range(8)]  # fmt: skip
    write_rows(evaluate / "problems.jsonl", (problem.row() for problem in problems))
    answered = {"sample_index": 0, "finish_reason": "stop", "score": 1.0, "reason": None, "prompt_tokens": 9,
                "completion_tokens": 5, "engine": "fake 1"}  # fmt: skip
    write_rows(evaluate / "items.jsonl", (
        {"model": model, "prompt_id": problem.id, "response": f"\\boxed{{{problem.answer}}}", "verdict": "correct",
         "extracted": problem.answer, **answered}
        for model in models for problem in problems
    ))  # fmt: skip
    write_rows(samples.path / PROBLEMS, [{"source": "sums", "license": "mit"}] * 4)
    verdicts = artefact(folder, "verify", VerifyFacts(rows_in=8, rows_out=8, verdicts={"correct": 8}, sandbox=sandbox))
    labels = artefact(folder, "label", LabelFacts(rows_in=0, rows_out=0, problems=0, contaminated=0))
    files = ("model.safetensors",)
    weights = artefact(
        folder,
        "export",
        ExportFacts(method="merged", dtype="bfloat16", template_digest=template, parameters=9, bytes=18, files=files),
    )
    pinned = recipe.model_copy(update={"teacher": pinned_teacher(recipe)})
    (root / "audit").mkdir(parents=True, exist_ok=True)
    data = artefact(
        folder, "curate", CurateFacts(rows_in=8, rows_out=4, waterfall=(WaterfallStep(step="sampled", rows=8),))
    )
    audited = write_audit(
        root / "audit", pinned, prepared, samples, weights, {("sums", "mit"): 4}, judged=verdicts, rewritten=data
    )
    return ReleaseStages(
        prepared=prepared,
        samples=samples,
        verdicts=verdicts,
        labels=labels,
        data=data,
        trained=artefact(
            folder,
            "train",
            TrainFacts(
                rows_in=4, rows_out=4, tokens=90, trained_tokens=40, steps=2, method="lora", dtype="float32",
                trained_parameters=5, left_out={}, template_digest=template,
            ),
        ),
        weights=weights,
        scores=artefact(folder, "evaluate", scores),
        audit=artefact(folder, "audit", audited),
    )  # fmt: skip


def with_manifest(stages: ReleaseStages, field: str, **changes: Any) -> ReleaseStages:
    """The same stages, with other values in one manifest."""
    old: Artefact[Any] = getattr(stages, field)
    return dataclasses.replace(stages, **{field: dataclasses.replace(old, manifest=old.manifest | changes)})


def package(
    folder: Path, recipe: Recipe, stages: ReleaseStages, name: str = "package", model: str = "fake-teacher"
) -> Path:
    """The release folder of the model; ``data_of`` is that of its data set. ``model``: of the training rows."""
    out = folder / "out" / name
    rows = ({**row, "model": model} for row in ROWS)
    facts = write_package(out, folder / "scratch" / name, recipe, pinned_teacher(recipe), stages, rows)
    return out / facts.folder


def data_of(release: Path) -> Path:
    """The release folder of the data set beside that of a model."""
    return release.with_name(f"{release.name}-traces")
