"""Liger's kernels train what the model's own modules train, or are not used, and the run says why.

The real kernels, on Triton's interpreter, which runs them on a CPU, in a process that imports Triton for that.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreted_triton.liger import complete
from test_distill_train import run, training_rows

from distill.config.recipe import StudentConfig
from distill.models.prepare import prepare
from distill.train import parallel
from distill.train.kernels import require_kernels, use_kernels

pytestmark = [
    pytest.mark.slow,  # importing torch and transformers takes seconds
    pytest.mark.skipif(not (find_spec("liger_kernel") and find_spec("triton")), reason="liger_kernel is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
ROWS = training_rows([f"<think>{n}</think>{'x' * (3 * n + 1)}" for n in range(4)])
BASE = {"kind": "random", "hidden_size": 16, "num_layers": 1, "num_heads": 2}


def student(kind: str, **more: Any) -> StudentConfig:
    values = {
        "base": BASE, "method": {"kind": kind, "learning_rate": 5e-3}, "num_train_epochs": 1, "batch_size": 2,
        "micro_batch_size": 2, "dtype": "float32",
    }  # fmt: skip
    return StudentConfig.model_validate(values | more)


@pytest.fixture(scope="module")
def apart() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process where Triton's kernels are interpreted."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")  # read while Triton is imported
            patch.setenv("OMP_NUM_THREADS", "1")
            pool.submit(complete).result()
        yield lambda function, *values: pool.submit(function, *values).result()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    prepare(student("lora"), None, folder)
    return folder


def trained(config: StudentConfig, start: Path, place: Path) -> tuple[dict[str, Any], Any, dict[str, Any], list[str]]:
    """Facts (and the step that it was resumed from), history, weights and notes of a training."""
    from safetensors.numpy import load_file

    notes: list[str] = []
    result = run(config, start, ROWS, place, lambda done, total=None, note="": notes.append(note))
    (file,) = (place / "out").glob("*.safetensors")
    return result.facts | {"resumed_from": result.resumed_from}, result.history, load_file(file), notes


def counted(config: StudentConfig, start: Path, place: Path) -> Any:
    """As ``trained``, and the number of MLPs that the kernel computed."""
    from liger_kernel.ops import swiglu

    right, calls = swiglu.swiglu_forward, 0

    def count(*values: Any) -> Any:
        nonlocal calls
        calls += 1
        return right(*values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swiglu, "swiglu_forward", count)
        return *trained(config, start, place), calls


def wrong_backwards(config: StudentConfig, start: Path, place: Path) -> Any:
    """As ``trained``, with a norm whose gradient is 1 % too large; for LoRA where the norm is frozen."""
    from liger_kernel.ops import rms_norm

    right, lora = rms_norm.rms_norm_backward, config.method.kind == "lora"

    def wrong(*values: Any, **named: Any) -> Any:
        inputs, weights = right(*values, **named)
        return inputs * (1 if lora and weights is not None else 1.01), weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rms_norm, "rms_norm_backward", wrong)
        return trained(config, start, place)


def breaking(config: StudentConfig, start: Path, place: Path) -> Any:
    """As ``trained``, with kernels that Triton cannot run."""
    from liger_kernel.ops import swiglu

    def broken(*_: Any) -> Any:
        raise RuntimeError("no kernel image is available\nfor this device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swiglu, "swiglu_forward", broken)
        return trained(config, start, place)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_training_with_ligers_kernels_is_training_without(apart, start: Path, tmp_path: Path, kind: str) -> None:
    _, own, weights, _, never = apart(counted, student(kind), start, tmp_path / "own")
    facts, history, with_kernels, _, calls = apart(counted, student(kind, liger=True), start, tmp_path / "liger")
    assert facts["liger"] == "used"
    assert never == 0
    assert calls == 2 + facts["steps"]  # two rows are compared, then a step is one packed row
    for one, other in zip(history, own, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert with_kernels.keys() == weights.keys()
    assert all(abs(with_kernels[name] - weight).max() < 1e-4 for name, weight in weights.items())


def fault_of(kind: str) -> str | None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8, "vocab_size": 32}
    heads = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads))
    for name, weight in model.named_parameters():
        if "norm" in name:  # they begin as ones, which hide where they are multiplied
            torch.nn.init.normal_(weight, 1, 0.3)
    require_kernels(model)
    return use_kernels(model, [np.arange(3, 13), np.arange(5, 9)], "float32", "cpu")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "qwen3_5_text", "olmo3", "mistral", "phi3", "granite"])
def test_the_kernels_of_dense_models_agree_with_their_modules(apart, kind: str) -> None:
    assert apart(fault_of, kind) is None


def test_kernels_are_used_where_weights_are_divided_among_processes(start: Path, tmp_path: Path) -> None:
    cases = [("full", "fsdp2"), ("lora", "zero3")]
    alone = [student(kind, liger=True) for kind, _ in cases]
    groups = [{"processes": 1, "students": alone, "place": "alone"}]
    for kind, strategy in cases:
        parallel = {"processes": 2, "strategy": strategy, "activation_checkpointing": True}
        groups.append({"processes": 2, "students": [student(kind, liger=True, parallel=parallel)], "place": strategy})
    for group in groups:
        group["students"] = [{"student": one.model_dump(mode="json"), "start": str(start)} for one in group["students"]]
        group |= {"resumed": [], "place": str(tmp_path / group["place"])}
        Path(group["place"]).mkdir()
    (tmp_path / "job.json").write_text(json.dumps({"rows": ROWS, "groups": groups}))
    command = [sys.executable, str(Path(__file__).with_name("train_ranks.py")), str(tmp_path / "job.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for number, (_, strategy) in enumerate(cases):
        logs = [tmp_path / "alone" / str(number), tmp_path / strategy / "0"]
        one, other = (json.loads((place / "out" / "train_log.json").read_text()) for place in logs)
        assert one["liger"] == other["liger"] == "used"
        for mine, theirs in zip(one["log"], other["log"], strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=2e-5)
            assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=2e-5)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_kernels_that_are_wrong_backwards_are_not_used(apart, start: Path, tmp_path: Path, kind: str) -> None:
    """Their losses are right."""
    _, _, weights, _ = apart(trained, student(kind), start, tmp_path / "own")
    facts, _, without_kernels, notes = apart(wrong_backwards, student(kind, liger=True), start, tmp_path / "wrong")
    assert "gradients in float32 differ by 0.0" in facts["liger"]
    assert f"training without Liger's kernels: {facts['liger']}" in notes
    assert all((without_kernels[name] == weight).all() for name, weight in weights.items())


def test_kernels_that_are_wrong_in_bfloat16_alone_are_not_used(apart, start: Path, tmp_path: Path) -> None:
    """As those are that Triton's interpreter runs."""
    facts, *_ = apart(trained, student("lora", liger=True, dtype="bfloat16"), start, tmp_path)
    assert "gradients in bfloat16 differ by" in facts["liger"]


def test_kernels_that_the_device_cannot_run_are_not_used(apart, start: Path, tmp_path: Path) -> None:
    facts, *_ = apart(breaking, student("lora", liger=True), start, tmp_path)
    assert facts["liger"] == "RuntimeError: no kernel image is available for this device"


def without_another(config: StudentConfig, start: Path, place: Path) -> Any:
    """As ``trained``, where another process has found a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "sum_of_ranks", lambda value: value + 1 if value.ndim == 0 and value == 0 else value)
        return trained(config, start, place)


def test_all_processes_train_without_them_where_one_does(apart, start: Path, tmp_path: Path) -> None:
    facts, *_ = apart(without_another, student("lora", liger=True), start, tmp_path)
    assert facts["liger"] == "they differ in another process"


def test_a_training_that_began_with_kernels_does_not_go_on_without(apart, start: Path, tmp_path: Path) -> None:
    config = student("lora", liger=True, save_steps=1)
    facts = [apart(how, config, start, tmp_path)[0] for how in (trained, trained, breaking)]
    assert [one["resumed_from"] for one in facts] == [0, 2, 0]


def test_on_a_cpu_training_goes_on_without_them(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    facts, *_ = trained(student("lora", liger=True), start, tmp_path)
    assert facts["liger"] == "Triton runs them on GPUs alone"
