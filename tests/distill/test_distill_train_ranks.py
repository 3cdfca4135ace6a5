"""Training in several processes is the training of one: losses, gradient norms and weights.

Real processes on CPUs with gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.prepare import prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
ROWS = [
    {
        "id": f"r{n}",
        "messages": [
            {"role": "user", "content": f"{n}?"},
            {"role": "assistant", "content": f"<think>\n{'ab' * (n * 7 % 23)}\n</think>\n\n{n}"},
        ],
    }
    for n in range(13)
]
"""Of 40 to 90 tokens. The last of five steps has two rows, fewer than four ranks."""


def student(
    kind: str,
    processes: int = 1,
    strategy: str = "fsdp2",
    again: bool = False,
    context: int = 1,
    dtype: str = "float32",
) -> StudentConfig:
    values = {
        "base": {"kind": "random"},
        "method": {"kind": kind, "learning_rate": 5e-3},
        "dtype": dtype,
        "num_train_epochs": 2,
        "batch_size": 6,
        "micro_batch_size": 2,
        "save_steps": 2,
        "parallel": {"processes": processes, "strategy": strategy, "activation_checkpointing": again}
        | {"context_parallel_size": context},
    }
    return StudentConfig.model_validate(values)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=32, num_layers=2, num_heads=4)), None, folder)
    # Two of the four heads have keys and values, as in most models.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    halves = {name: value[:16] for name, value in tensors.items() if ".k_proj." in name or ".v_proj." in name}
    assert halves
    file.unlink()
    save_file(tensors | halves, file, metadata={"format": "pt"})
    return folder


def curve(place: Path, number: int) -> Any:
    """(loss, gradient norm) of each step of a student."""
    log = json.loads((place / str(number) / "out" / "train_log.json").read_text())["log"]
    return np.array([(entry["loss"], entry["grad_norm"]) for entry in log])


def weights(place: Path, number: int) -> dict[str, Any]:
    files = (place / str(number) / "out").glob("*.safetensors")
    return {name: value for file in files for name, value in load_file(file).items()}


KINDS = ("full", "lora", "bfloat16")


def of_kind(kind: str, *parallel: Any) -> StudentConfig:
    """Of full tuning; LoRA; LoRA on a bfloat16 base, as on GPUs."""
    return student("lora", *parallel, dtype="bfloat16") if kind == "bfloat16" else student(kind, *parallel)


CASES: dict[int, list[tuple[Any, ...]]] = {
    1: [(kind,) for kind in KINDS],
    2: [
        ("full", "ddp"),
        ("lora", "ddp"),
        ("full", "fsdp2"),
        ("lora", "fsdp2"),
        ("bfloat16", "fsdp2", True),
        ("full", "ddp", True, 2),
        ("lora", "fsdp2", False, 2),
        ("bfloat16", "fsdp2", True, 2),
    ],
    4: [("full", "fsdp2", True), ("lora", "fsdp2"), ("full", "fsdp2", True, 2)],
}
"""Students by number of processes: kind, strategy, activation checkpointing, processes that divide a row."""
RESUMED = (("full", "ddp", True, 2), ("lora", "fsdp2", False, 2))


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The students of ``CASES``, each number of processes in a folder of its own."""
    place = tmp_path_factory.mktemp("trained")
    groups = []
    for processes, cases in CASES.items():
        (place / str(processes)).mkdir()
        students = [of_kind(kind, processes, *more).model_dump(mode="json") for kind, *more in cases]
        resumed = [number for number, case in enumerate(cases) if case in RESUMED]
        folder = str(place / str(processes))
        groups.append({"processes": processes, "students": students, "resumed": resumed, "place": folder})
    (place / "job.json").write_text(json.dumps({"start": str(start), "rows": ROWS, "groups": groups}))
    command = [sys.executable, str(Path(__file__).with_name("train_ranks.py")), str(place / "job.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return place


@pytest.mark.parametrize("processes", [2, 4])
def test_ranks_give_the_losses_gradients_and_weights_of_one_process(trained: Path, processes: int) -> None:
    alone, together = trained / "1", trained / str(processes)
    for number, case in enumerate(CASES[processes]):
        reference = KINDS.index(case[0])
        rounding = 200 if case[0] == "bfloat16" else 1
        assert len(curve(together, number)) == 5
        assert np.allclose(curve(together, number), curve(alone, reference), rtol=rounding * 2e-5), case
        theirs, wanted = weights(together, number), weights(alone, reference)
        assert theirs.keys() == wanted.keys(), case
        differences = [np.abs(theirs[name] - wanted[name]).max() for name in wanted]
        # Adam divides a gradient by its own size: where it is all rounding, so is the step of up to 5e-3.
        assert max(differences) < rounding * 5e-4, case


def test_a_resume_in_several_processes_ends_with_the_same_bytes(trained: Path) -> None:
    for case in RESUMED:
        number = CASES[2].index(case)
        place, again = (trained / "2" / name for name in (str(number), f"{number}-resumed"))
        steps = again.with_name(f"{again.name}.metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in steps] == [5]
        undisturbed, resumed = place / "out", again / "out"
        assert (undisturbed / "train_log.json").read_bytes() == (resumed / "train_log.json").read_bytes()
        files = {file.name: file.read_bytes() for file in undisturbed.glob("*.safetensors")}
        assert files == {file.name: file.read_bytes() for file in resumed.glob("*.safetensors")} != {}
