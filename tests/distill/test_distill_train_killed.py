"""Distillation that is killed with SIGKILL ends with the bytes of one left alone, whoever teaches."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from test_distill_across_tokenizers import ACROSS, MERGES, TEMPLATE, retold, weighted
from test_distill_train import contents
from test_distill_train_logits import captured, logits
from test_distill_train_on_policy import EXAMPLES, alone, on_policy, prepared, sft

from distill.config.recipe import StudentConfig
from distill.models.vocabulary import vocabulary_size
from distill.train.distillkit import DistillKitRows
from distill.train.result import TrainResult
from distill.train.rollouts import ROLLOUTS

K = 12
CONTEXT = multiprocessing.get_context("forkserver")  # the libraries are imported once for all that are killed
CONTEXT.set_forkserver_preload(
    [
        "distill.train.on_policy",
        "peft",
        "transformers.models.llama.modeling_llama",
        "trl.experimental.gold.gold_trainer",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def fork_server_ends() -> Iterator[None]:
    """It holds the libraries in memory, and is a child that tests of other processes would count."""
    yield
    forkserver._forkserver._stop()


def on_forward(patch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """``act`` gets the number of each forward pass, from 1, before it: of answers, of scores and of training."""
    from transformers import LlamaForCausalLM

    forward, number = LlamaForCausalLM.forward, 0

    def counted(model: Any, *args: Any, **named: Any) -> Any:
        nonlocal number
        number += 1
        act(number)
        return forward(model, *args, **named)

    patch.setattr(LlamaForCausalLM, "forward", counted)


def train_until(end: int, train: Callable[[Path], Any], place: Path) -> None:
    """Kills this process at the forward pass of number ``end``."""
    import torch

    torch.set_num_threads(1)

    def kill(number: int) -> None:
        if number == end:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        on_forward(patch, kill)
        train(place)


def assert_a_kill_changes_no_byte(train: Callable[[Path], Any], place: Path) -> None:
    """``train`` trains in a folder, with a checkpoint every second step, and returns what it did. It is pickled."""
    passes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        on_forward(patch, passes.append)
        left_alone = train(place / "alone")
    seed = random.SystemRandom().randrange(2**32)
    end = random.Random(seed).randint(len(passes) // 2, len(passes))
    print(f"killed at forward pass {end} of {len(passes)}; seed {seed}")
    process = CONTEXT.Process(target=train_until, args=(end, train, place / "killed"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    steps = [int(path.name.rpartition("-")[2]) for path in (place / "killed" / "checkpoints").glob("checkpoint-*")]
    resumed = train(place / "killed")
    assert resumed.resumed_from == max(steps)
    assert resumed.history == left_alone.history
    assert resumed.facts == left_alone.facts
    files = [
        contents(place / name / "out") | {path.name: path.read_bytes() for path in (place / name).glob(ROLLOUTS)}
        for name in ("killed", "alone")
    ]
    assert files[0] == files[1]


def on_captured(
    config: StudentConfig, start: Path, trained: Path, data: Path, vocabulary: int, place: Path
) -> TrainResult:
    rows = DistillKitRows(data, vocabulary, K)
    return logits(config, start, trained, rows, K, place, batch_size=2, num_train_epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["beside, lora", "beside, full", "itself", "across tokenizers", "logits"])
def test_a_distillation_killed_at_a_random_step_ends_with_the_bytes_of_one_left_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch)
    start, other = prepared(tmp_path / "start", 0), prepared(tmp_path / "other", 5)
    train: Callable[[Path], Any]
    if kind == "across tokenizers":
        start = weighted(retold(start, "<|im_end|>"), 0)
        other = weighted(retold(other, "<|end|>", MERGES, TEMPLATE), 5)
    config, trained = sft("full" if kind == "beside, full" else "lora", start, tmp_path / "sft")
    if kind == "logits":
        captured(other, start, K, tmp_path / "data")
        train = partial(on_captured, config, start, trained, tmp_path / "data", vocabulary_size(start))
    elif kind == "itself":
        train = partial(on_policy, config, start, trained, None, steps=7, examples=EXAMPLES)
    else:
        more = ACROSS if kind == "across tokenizers" else {}
        train = partial(on_policy, config, start, trained, other, steps=7, **more)
    assert_a_kill_changes_no_byte(train, tmp_path)
