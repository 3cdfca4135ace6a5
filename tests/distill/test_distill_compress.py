"""Stage compress around llmcompressor: what it is given, what becomes of its weights. A stand-in rounds them to the
nearest value; llmcompressor itself needs an environment of its own (recipes/LOG.md has runs with it)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from release_run import artefact, finished_stages, package, private_recipe

from distill.runs.facts import FormatsFacts, PackageFacts
from distill.runs.stage import StageContext
from distill.runs.tables import ADDED_ROWS
from distill.stages.compress import Compress
from licensing.errors import InputError, Refused
from licensing.files import read_json, read_rows, write_rows
from publish.formats.compressed import CALIBRATED, CompressedType
from publish.weights import INDEX
from synth.sampling.samples_table import PROBLEMS, SAMPLES

pytestmark = pytest.mark.slow

STAND_IN = """
import json, pathlib, sys
import numpy as np
from safetensors.numpy import load_file, save_file
plan = json.loads(pathlib.Path(sys.argv[-1]).read_text())
model, out = pathlib.Path(plan["model"]), pathlib.Path(plan["out"])
if (model / "no").exists():
    sys.exit("ValueError: no such model")
bits = {"W8A8": 8, "W4A16": 4, "AWQ": 4}[plan["scheme"]]
symmetric = plan["scheme"] != "AWQ"
tensors = load_file(model / "model.safetensors")
for name in [] if (model / "no-linear-layers").exists() else [name for name in tensors if "_proj." in name]:
    weight, layer = tensors.pop(name), name.removesuffix("weight")
    scale = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    rounded = np.rint(weight / scale).astype(np.int64)
    tensors[layer + "weight_scale"] = scale
    if bits == 8:
        tensors[name] = rounded.astype(np.int8)
    else:  # eight of four bits in an integer of 32, the first lowest
        eights = (rounded + 8).reshape(len(weight), -1, 8)
        tensors[layer + "weight_packed"] = (eights << 4 * np.arange(8)).sum(axis=2).astype(np.uint32).view(np.int32)
        tensors[layer + "weight_shape"] = np.array(weight.shape)
        if not symmetric:  # eight zero points of eight in an integer of 32
            zeros = np.full((-(-len(weight) // 8), 1), 0x88888888, np.uint32)
            tensors[layer + "weight_zero_point"] = zeros.view(np.int32)
out.mkdir(exist_ok=True)
save_file(tensors, out / "model.safetensors", {"format": "pt"})
weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "channel", "dynamic": False}
group = {"targets": ["Linear"], "weights": weights}
if bits == 8:
    group["input_activations"] = weights | {"strategy": "token", "dynamic": True}
form = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"],
        "format": {8: "int-quantized", 4: "pack-quantized"}[bits], "quantization_status": "compressed"}
config = json.loads((model / "config.json").read_text()) | {"quantization_config": form}
(out / "config.json").write_text(json.dumps(config))
for name in ("generation_config.json", "recipe.yaml"):
    (out / name).write_text("{}")
"""


@pytest.fixture
def stage(tmp_path: Path) -> Compress:
    """The stage behind a finished run of the tiny model, with a short training row and a long one."""
    recipe = private_recipe(tmp_path, "release.name=acme/Ada", "evaluate.engine=transformers")
    stages = finished_stages(tmp_path, recipe)
    release = package(tmp_path, recipe, stages)
    template = stages.prepared.facts.template_digest
    packaged = artefact(tmp_path, "package", PackageFacts(folder=release.name, template_digest=template))
    shutil.copytree(release.parent, packaged.path, dirs_exist_ok=True)
    pq.write_table(pa.table({"prompt_id": pa.array([], pa.string())}), stages.samples.path / SAMPLES)
    write_rows(stages.samples.path / PROBLEMS, [])
    write_rows(stages.data.path / ADDED_ROWS, [training_row("2"), training_row("1 + " * 1000)])
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return Compress(
        types=("w8a8", "w4a16", "awq"),
        compressor=str(write_interpreter(tmp_path, "0.14")),
        student=recipe.student,
        evaluate=recipe.evaluate,
        stop_rate=0.0,
        verify=recipe.verify.rules(),
        scan_allow=(),
        samples=stages.samples,
        verdicts=stages.verdicts,
        labels=stages.labels,
        data=stages.data,
        scores=stages.scores,
        package=packaged,
    )


def write_interpreter(folder: Path, version: str) -> Path:
    """The Python of an environment with this version of llmcompressor."""
    python, versions = folder / "python", json.dumps([["llmcompressor", version], ["torch", "2.13"]])
    command = f"exec {sys.executable} {folder}/stand_in.py $*"
    python.write_text(f"#!/bin/sh\ncase $*: in -I\\ -c*) echo '{versions}';; -I*) {command};; esac\n")
    python.chmod(0o755)
    return python


def training_row(answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": answer}]}


def run(stage: Compress, root: Path) -> FormatsFacts:
    (root / "formats").mkdir(exist_ok=True)
    return stage.run(
        StageContext(
            root / "formats", root / "scratch" / "compress", root, root, lambda done, total=None, note="": None
        )
    )


def test_each_type_is_a_scored_repository_of_its_own_with_the_release_s_tokenizer_and_template(
    stage: Compress, tmp_path: Path
) -> None:
    killed = tmp_path / "scratch" / "compress" / "work" / "unfinished-w8a8"  # of another attempt
    killed.mkdir(parents=True)
    (killed / INDEX).write_text('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}')
    facts = run(stage, tmp_path)
    assert facts.folders == ("Ada-W8A8", "Ada-W4A16", "Ada-AWQ")
    release = stage.package.path / stage.package.facts.folder
    for name in facts.folders:
        folder = tmp_path / "formats" / name
        subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
        for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE", "audit.json"):
            assert (folder / file).read_bytes() == (release / file).read_bytes()
        card = (folder / "README.md").read_text()
        assert "base_model_relation: quantized" in card
        assert f"| {name} | transformers" in card
    assert [(score.model, score.n) for score in facts.scores][1:] == [("Ada-W8A8", 8), ("Ada-W4A16", 8), ("Ada-AWQ", 8)]
    problems = [row["id"] for row in read_rows(stage.scores.path / "problems.jsonl")]
    rows = list(read_rows(tmp_path / "formats" / "items.jsonl"))
    assert [row["prompt_id"] for row in rows] == problems * 3
    lengths = [len(row) for row in read_json(tmp_path / "scratch" / "compress" / "work" / "plan.json")["rows"]]
    assert 0 < lengths[0] < lengths[1] == 512
    assert "GPTQ chose the weights on 2 rows" in (tmp_path / "formats" / "Ada-W4A16" / "README.md").read_text()
    assert "by their activations on 2 rows" in (tmp_path / "formats" / "Ada-AWQ" / "README.md").read_text()


@pytest.mark.parametrize("kind", CALIBRATED)
def test_four_bits_without_a_row_to_calibrate_on_are_refused(
    stage: Compress, tmp_path: Path, kind: CompressedType
) -> None:
    write_rows(stage.data.path / ADDED_ROWS, [])
    with pytest.raises(Refused, match=f"no training row can be rendered, and {kind}"):
        run(dataclasses.replace(stage, types=(kind,)), tmp_path)


def test_weights_that_do_not_stop_are_not_released_nor_compressed_again(stage: Compress, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"stop rate 0\.000 of Ada-W8A8"):
        run(dataclasses.replace(stage, stop_rate=0.5), tmp_path)
    assert list((tmp_path / "formats").iterdir()) == []
    (tmp_path / "stand_in.py").unlink()
    write_interpreter(tmp_path, "0.15")
    assert run(dataclasses.replace(stage, types=("w8a8",)), tmp_path).folders == ("Ada-W8A8",)
    card = (tmp_path / "formats" / "Ada-W8A8" / "README.md").read_text()
    assert "llmcompressor 0.14 (torch 2.13) compressed" in card, "the versions that made the weights"


def test_what_llmcompressor_says_of_a_model_is_passed_on(stage: Compress, tmp_path: Path) -> None:
    (stage.package.path / stage.package.facts.folder / "no").touch()
    with pytest.raises(InputError, match="llmcompressor does not take this model: ValueError: no such model"):
        run(stage, tmp_path)


def test_weights_that_llmcompressor_left_as_they_were_are_not_released(stage: Compress, tmp_path: Path) -> None:
    (stage.package.path / stage.package.facts.folder / "no-linear-layers").touch()
    with pytest.raises(Refused, match=r"left the weights as they were \(F32\), and w8a8 was to be made"):
        run(stage, tmp_path)
    assert list((tmp_path / "formats").iterdir()) == []
