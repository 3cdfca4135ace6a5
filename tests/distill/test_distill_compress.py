"""Stage compress around llmcompressor: what it is given, what becomes of its weights. A stand-in copies them as they
are; llmcompressor itself needs an environment of its own (recipes/LOG.md has runs with it)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from release_run import artefact, finished_stages, package, private_recipe

from distill.runs.facts import FormatsFacts, PackageFacts
from distill.runs.stage import StageContext
from distill.stages.compress import Compress
from licensing.errors import InputError, Refused
from licensing.files import read_rows

pytestmark = pytest.mark.slow

STAND_IN = """
import json, pathlib, shutil, sys
plan = json.loads(pathlib.Path(sys.argv[2]).read_text())
if pathlib.Path(plan["model"], "no").exists():
    sys.exit("ValueError: no such model")
out = pathlib.Path(plan["out"])
out.mkdir()
for name in ("config.json", "model.safetensors"):
    shutil.copy(pathlib.Path(plan["model"], name), out)
for name in ("generation_config.json", "recipe.yaml"):
    (out / name).write_text("{}")
"""


@pytest.fixture
def stage(tmp_path: Path) -> Compress:
    """The stage behind a finished run of the tiny model, whose data-free types need none of its rows."""
    recipe = private_recipe(tmp_path, "release.name=acme/Ada", "evaluate.engine=transformers")
    stages = finished_stages(tmp_path, recipe)
    release = package(tmp_path, recipe, stages)
    template = stages.prepared.facts.template_digest
    packaged = artefact(tmp_path, "package", PackageFacts(folder=release.name, template_digest=template))
    shutil.copytree(release.parent, packaged.path, dirs_exist_ok=True)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    compressor = tmp_path / "python"
    versions = json.dumps([["llmcompressor", "0.14"], ["torch", "2.13"]])
    compressor.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && echo \'{versions}\' || exec {sys.executable} {tmp_path}/stand_in.py "$@"\n'
    )
    compressor.chmod(0o755)
    return Compress(
        types=("fp8", "w8a8"),
        compressor=str(compressor),
        student=recipe.student,
        evaluate=recipe.evaluate,
        stop_rate=0.0,
        verify=recipe.verify.rules(),
        scan_allow=(),
        samples=stages.samples,
        verdicts=stages.verdicts,
        labels=stages.prepared,  # type: ignore[arg-type]
        data=stages.data,
        scores=stages.scores,
        package=packaged,
    )


def run(stage: Compress, root: Path) -> FormatsFacts:
    (root / "formats").mkdir(exist_ok=True)
    return stage.run(
        StageContext(root / "formats", root / "scratch", root, root, lambda done, total=None, note="": None)
    )


def test_each_type_is_a_scored_repository_of_its_own_with_the_release_s_tokenizer_and_template(
    stage: Compress, tmp_path: Path
) -> None:
    facts = run(stage, tmp_path)
    assert facts.folders == ("Ada-FP8", "Ada-W8A8")
    release = stage.package.path / stage.package.facts.folder
    for name in facts.folders:
        folder = tmp_path / "formats" / name
        subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
        for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE", "audit.json"):
            assert (folder / file).read_bytes() == (release / file).read_bytes()
        card = (folder / "README.md").read_text()
        assert "base_model_relation: quantized" in card
        assert f"| {name} | transformers" in card
    assert [(score.model, score.n) for score in facts.scores][1:] == [("Ada-FP8", 8), ("Ada-W8A8", 8)]
    problems = [row["id"] for row in read_rows(stage.scores.path / "problems.jsonl")]
    rows = list(read_rows(tmp_path / "formats" / "items.jsonl"))
    assert [row["prompt_id"] for row in rows] == problems * 2


def test_weights_that_do_not_stop_are_not_released_nor_compressed_again(stage: Compress, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"stop rate 0\.000 of Ada-FP8"):
        run(dataclasses.replace(stage, stop_rate=0.5), tmp_path)
    assert list((tmp_path / "formats").iterdir()) == []
    (tmp_path / "stand_in.py").unlink()
    assert run(dataclasses.replace(stage, types=("fp8",)), tmp_path).folders == ("Ada-FP8",)


def test_what_llmcompressor_says_of_a_model_is_passed_on(stage: Compress, tmp_path: Path) -> None:
    (stage.package.path / stage.package.facts.folder / "no").touch()
    with pytest.raises(InputError, match="llmcompressor does not take this model: ValueError: no such model"):
        run(stage, tmp_path)
