"""Training in several processes is the training of one: losses, gradient norms and weights.

Real processes on CPUs with gloo.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.prepare import prepare
from distill.runs.provenance import installed_versions
from distill.train.parallel import checkpoint_layout, training_arguments
from distill.train.zero import LIVE_PARAMETERS, REDUCED_PARAMETERS, shown_by_gradients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TEMPLATE = "{% for one in messages %}{{ one['content'] + '<|im_end|>\n' }}{% endfor %}"
SHORT = 9  # the last of the order


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


ROWS = [
    {"id": f"r{n}", "messages": conversation(f"{n}?", f"<think>\n{'ab' * (n * 7 % 23)}\n</think>\n\n{n}")}
    for n in range(13)
]
ROWS[SHORT]["messages"] = conversation("1", "1")
ROWS[5]["messages"][1]["content"] += "%"
"""Of 20 to 70 tokens, and one of five. The last of five steps has that one alone: fewer rows than ranks, and of four
processes that divide it one has no token. The loss of ``%`` may be infinite."""


def student(
    kind: str,
    processes: int = 1,
    strategy: str = "fsdp2",
    again: bool = False,
    context: int = 1,
    offload: bool = False,
    dtype: str = "float32",
) -> StudentConfig:
    values = {
        "base": {"kind": "random"},
        "method": {"kind": kind, "learning_rate": 5e-3},
        "dtype": dtype,
        "num_train_epochs": 25 / len(ROWS),
        "batch_size": 6,
        "micro_batch_size": 2,
        "save_steps": 2,
        "parallel": {"processes": processes, "strategy": strategy, "activation_checkpointing": again}
        | {"context_parallel_size": context, "cpu_offload": offload},
    }
    return StudentConfig.model_validate(values)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    prepare(StudentConfig(base=RandomBase(hidden_size=32, num_layers=2, num_heads=4)), None, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
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


@pytest.fixture(scope="module")
def poisoned(start: Path) -> Path:
    """A base that gives ``%`` the probability 0: its loss is infinite, and the gradients of that are numbers."""
    from transformers import PhiConfig, PhiForCausalLM, set_seed

    folder = shutil.copytree(start, start.with_name("poisoned"))
    config = json.loads((start / "config.json").read_text())
    sizes = {name: value for name, value in config.items() if name.startswith("num_") or name.endswith("_size")}
    set_seed(0)
    model = PhiForCausalLM(PhiConfig(**sizes, bos_token_id=None, eos_token_id=config["eos_token_id"]))
    token = json.loads((start / "tokenizer.json").read_text())["model"]["vocab"]["%"]
    model.lm_head.bias.data[token] = -np.inf
    model.save_pretrained(folder)
    shutil.copy(start / "generation_config.json", folder)
    return folder


def curve(place: Path, number: int) -> Any:
    """(loss, gradient norm) of each step of a student; not a number where the step was left out."""
    log = json.loads((place / str(number) / "out" / "train_log.json").read_text())["log"]
    return np.array([(np.nan, np.nan) if "problem" in step else (step["loss"], step["grad_norm"]) for step in log])


def weights(folder: Path) -> dict[str, Any]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def update(place: Path, number: int, start: Path) -> Any:
    """What training added to the weights of a student; an adapter begins with B = 0."""
    trained, before = weights(place / str(number) / "out"), weights(start)
    pairs = {name: name.replace(".lora_A.", ".lora_B.") for name in sorted(trained) if ".lora_A." in name}
    adapted = [trained[b] @ trained[a] for a, b in pairs.items()]
    added = adapted or [trained[name] - before[name] for name in sorted(before)]
    return np.concatenate([one.ravel() for one in added])


KINDS = ("full", "lora", "bfloat16", "poisoned")


def of_kind(kind: str, *parallel: Any) -> StudentConfig:
    """Of full tuning; LoRA; LoRA on a bfloat16 base, as on GPUs; LoRA on a base that gives a row an infinite loss."""
    if kind == "bfloat16":
        return student("lora", *parallel, dtype="bfloat16")
    return student("lora" if kind == "poisoned" else kind, *parallel)


CASES: dict[str, tuple[int, list[tuple[Any, ...]]]] = {
    "alone": (1, [(kind,) for kind in KINDS]),
    "two": (
        2,
        [
            ("full", "ddp"),
            ("lora", "ddp"),
            ("full", "fsdp2"),
            ("lora", "fsdp2"),
            ("bfloat16", "fsdp2", True),
            ("full", "ddp", True, 2),
            ("lora", "fsdp2", False, 2),
            ("bfloat16", "fsdp2", True, 2),
        ],
    ),
    "four": (
        4,
        [
            ("full", "ddp"),
            ("full", "fsdp2", True),
            ("lora", "fsdp2"),
            ("full", "fsdp2", True, 4),
            ("lora", "ddp", False, 2),
        ],
    ),
    "zero3-full": (2, [("full", "zero3", True)]),
    "zero3-lora": (4, [("bfloat16", "zero3")]),
    "zero3-poisoned": (2, [("poisoned", "zero3")]),
    "offload-full": (2, [("full", "zero3", True, 1, True)]),
    "offload-lora": (2, [("bfloat16", "zero3", False, 1, True)]),
    "offload-poisoned": (2, [("poisoned", "zero3", False, 1, True)]),
}
"""By name: processes, and the students that they train one after another: kind, strategy, activation checkpointing,
processes that divide a row, whether weights and optimiser are on the host. A process of zero3 trains once: transformers
opens what follows in parts."""
RESUMED = (
    ("full", "ddp", True, 2),
    ("lora", "fsdp2", False, 2),
    ("full", "zero3", True),
    ("full", "zero3", True, 1, True),
)


@pytest.fixture(scope="module")
def trained(start: Path, poisoned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The students of ``CASES``, each group in a folder of its own."""
    place = tmp_path_factory.mktemp("trained")
    groups = []
    for name, (processes, cases) in CASES.items():
        (place / name).mkdir()
        students = [
            {
                "student": of_kind(kind, processes, *more).model_dump(mode="json"),
                "start": str(poisoned if kind == "poisoned" else start),
            }
            for kind, *more in cases
        ]
        resumed = [number for number, case in enumerate(cases) if case in RESUMED]
        groups.append({"processes": processes, "students": students, "resumed": resumed, "place": str(place / name)})
    (place / "job.json").write_text(json.dumps({"rows": ROWS, "groups": groups}))
    command = [sys.executable, str(Path(__file__).with_name("train_ranks.py")), str(place / "job.json")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return place


@pytest.mark.parametrize("group", [name for name in CASES if name != "alone"])
def test_ranks_give_the_losses_gradients_and_weights_of_one_process(
    trained: Path, start: Path, poisoned: Path, group: str
) -> None:
    for number, case in enumerate(CASES[group][1]):
        reference = KINDS.index(case[0])
        of_curve, of_update = (5e-5 if case[3:4] > (1,) else 2e-5), 5e-4
        if case[0] == "bfloat16":
            of_curve, of_update = 5e-3, 5e-2
        together, alone = curve(trained / group, number), curve(trained / "alone", reference)
        assert len(together) == 5
        assert np.allclose(together, alone, rtol=of_curve, equal_nan=True), case
        assert np.isfinite(alone).all() == (case[0] != "poisoned")
        before = poisoned if case[0] == "poisoned" else start
        theirs, own = update(trained / group, number, before), update(trained / "alone", reference, before)
        assert np.linalg.norm(theirs - own) < of_update * np.linalg.norm(own), case


def test_the_configuration_of_zero3_is_read_by_deepspeeds_own_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    monkeypatch.setenv("WORLD_SIZE", "2")
    for dtype, offload in (("float32", True), ("bfloat16", False)):
        recipe = student("lora", 2, "zero3", offload=offload).model_copy(update={"max_grad_norm": 0.7})
        arguments = training_arguments(recipe, dtype, on_gpu=True)
        assert arguments["bf16"] is False
        config = DeepSpeedConfig(arguments["deepspeed"])
        zero = config.zero_config
        devices = [part and part.device for part in (zero.offload_optimizer, zero.offload_param)]
        assert (devices, config.zero_force_ds_cpu_optimizer) == (["cpu" if offload else None] * 2, False)
        assert (zero.stage, zero.max_live_parameters, zero.max_reuse_distance) == (3, LIVE_PARAMETERS, LIVE_PARAMETERS)
        assert (zero.reduce_bucket_size, zero.param_persistence_threshold) == (REDUCED_PARAMETERS, 0)
        assert not zero.model_extra, "fields that DeepSpeed does not know"
        assert (config.train_batch_size, config.gradient_accumulation_steps, config.gradient_clipping) == (1, 1, 0.7)
        assert config.torch_autocast_lower_precision_safe_modules == []
        assert (config.torch_autocast_enabled, config.bfloat16_config.enabled) == (dtype == "bfloat16", False)


STEPS = """
import json

import deepspeed
import torch

from distill.train import zero

zero.check_installed(False)
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


class Pair(torch.nn.ModuleList):
    def forward(self, both):
        return sum(layer(torch.ones(4)).sum() for layer in list(self)[: 1 + both])


def moves(offload):
    model = Pair([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    config = zero.zero3_config(1e9, "float32", offload) | {"zero_allow_untested_optimizer": True}
    deepspeed.zero.Init(module=model, config_dict_or_path=config)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    for step in ([True, True], [False, False], [True, False]):
        with deepspeed.zero.GatheredParameters([model[1].bias]):
            before = model[1].bias.tolist()
        for number, both in enumerate(step):
            zero.backward(engine, engine(both), number == 1)
        with deepspeed.zero.GatheredParameters([model[1].bias]):
            yield round(before[0] - model[1].bias[0].item(), 3)


print(json.dumps([list(moves(offload)) for offload in (False, True)]))
"""


def test_zero3_steps_by_the_gradients_of_this_step_whichever_of_its_micro_batches_they_are_of() -> None:
    alone = ENVIRONMENT | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    done = subprocess.run([sys.executable, "-c", STEPS], env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[2, 0, 1], [2, 0, 1]]


@pytest.mark.parametrize(("total", "finite"), [(2.5, True), (float("inf"), False), (float("nan"), False)])
def test_a_loss_that_is_not_finite_shows_in_every_gradient(total: float, finite: bool) -> None:
    import torch

    weight = torch.ones(3, requires_grad=True)
    shown_by_gradients(2 * weight.sum(), torch.tensor(total)).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0] * 3 if finite else weight.grad.isnan().all()


@pytest.fixture
def versions_read_anew() -> Iterator[None]:
    yield
    installed_versions.cache_clear()


def test_a_checkpoint_is_of_one_division_of_the_weights_and_of_one_deepspeed(
    monkeypatch: pytest.MonkeyPatch, versions_read_anew: None
) -> None:
    def layout(processes: int, strategy: str, *more: Any) -> str:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        return checkpoint_layout(student("lora", processes, strategy, False, *more).parallel)

    several = [(n, strategy) for n in (2, 4) for strategy in ("ddp", "fsdp2", "zero3")]
    cases: list[tuple[Any, ...]] = [(1, "fsdp2"), *several, (4, "ddp", 2), (4, "ddp", 4), (2, "zero3", 1, True)]
    layouts = [layout(*case) for case in cases]
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0" if name == "deepspeed" else version(name))
    installed_versions.cache_clear()
    assert len({*layouts, layout(2, "zero3")}) == len(cases) + 1
    assert layout(2, "fsdp2") in layouts


@pytest.mark.parametrize("case", RESUMED)
def test_a_resume_in_several_processes_ends_with_the_same_bytes(trained: Path, case: tuple[Any, ...]) -> None:
    group, number = next((name, cases.index(case)) for name, (_, cases) in CASES.items() if case in cases)
    place, again = (trained / group / name for name in (str(number), f"{number}-resumed"))
    steps = again.with_name(f"{again.name}.metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in steps] == [5]
    for mark in (place / "checkpoints").glob("*/complete.json"):
        files = {file.relative_to(mark.parent).as_posix() for file in mark.parent.rglob("*") if file.is_file()}
        assert files - {mark.name} == json.loads(mark.read_text())["sizes"].keys(), "it came behind the files of all"
    undisturbed, resumed = place / "out", again / "out"
    assert (undisturbed / "train_log.json").read_bytes() == (resumed / "train_log.json").read_bytes()
    files = {file.name: file.read_bytes() for file in undisturbed.glob("*.safetensors")}
    assert files == {file.name: file.read_bytes() for file in resumed.glob("*.safetensors")} != {}
