"""`make gpu-check` on a machine without a GPU: what it refuses, what it would run, and the parts that need none."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter

from synth.teachers.config import TeacherConfig

SCRIPT = Path(__file__).parents[2] / "recipes" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_runs_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    out = tmp_path / "out.json"
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert not out.exists()


def test_two_gpus_show_experts_and_data_in_parallel_and_one_shows_what_it_can(gpu_check: ModuleType) -> None:
    assert [step.name for step in gpu_check.steps_for(1, "a/b", "c/d")] == ["vllm_dense", "train"]
    steps = {step.name: step for step in gpu_check.steps_for(6, "a/b", "c/d")}
    served = ["vllm_moe_dp", "vllm_moe_dp_ep"]
    assert list(steps) == ["vllm_dense", "vllm_moe_tp", "vllm_moe_tp_ep", *served, "train"]
    assert {step.gpus for name, step in steps.items() if "moe" in name} == {4}


def test_every_engine_that_it_tries_is_one_a_recipe_can_name(gpu_check: ModuleType) -> None:
    for step in gpu_check.steps_for(8, "a/b", "c/d"):
        if step.teacher is not None:
            TypeAdapter(TeacherConfig).validate_python(step.teacher)


@pytest.mark.slow
def test_a_step_that_fails_or_hangs_is_a_row_and_the_next_one_runs(gpu_check: ModuleType) -> None:
    programs = {
        "fails": "import sys; sys.exit(7)",
        "hangs": "import time; time.sleep(6000)",
        "works": "print('noise'); print('{\"ok\": true, \"tokens_per_s\": 5.0}')",
    }

    def runner(step: Any, timeout_s: float) -> dict[str, Any]:
        command = [sys.executable, "-c", programs[step.name]]
        row: dict[str, Any] = gpu_check.run_step(command, 2.0 if step.name == "hangs" else timeout_s)
        return row

    rows = gpu_check.check([gpu_check.Step(name) for name in programs], 1, runner)
    assert [row["ok"] for row in rows] == [False, False, True]
    assert rows[0]["reason"] == "ended with 7 and no result"
    assert rows[1]["reason"] == "not done after 2 s"
    assert rows[2]["tokens_per_s"] == 5.0


def test_a_throughput_counts_what_came_after_the_first_answer(gpu_check: ModuleType) -> None:
    row = gpu_check.measure({"kind": "fake", "latency_s": 0.01, "concurrency": 4}, 40, 100)
    assert row["requests"] == 40
    assert row["engine"] == "fake 1"
    seconds = row["seconds"] - 0.005  # as little as the rounded figure may stand for
    assert 0 < row["tokens_per_s"] * seconds <= row["completion_tokens"]


def test_a_step_of_its_own_process_reports_an_unknown_engine(gpu_check: ModuleType, capsys: Any) -> None:
    step = {"name": "x", "teacher": {"kind": "no such"}}
    assert gpu_check.main(["--step", json.dumps(step)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["ok"] is False
    assert "no such" in row["reason"]


@pytest.mark.slow
def test_the_short_training_learns_on_any_machine(gpu_check: ModuleType) -> None:
    pytest.importorskip("trl")
    row = gpu_check.train({"kind": "random", "hidden_size": 32}, 32, 2)
    assert row["steps"] == 4
    assert row["last_loss"] < row["first_loss"]
    assert row["tokens_per_s"] > 0
