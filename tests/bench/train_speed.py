"""Training beside TRL: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/train_speed.py --json [--model models/SmolLM2-135M-Instruct] [--steps 4] [--repeat 3]

LoRA on rows of widely mixed length (32 to 1,024 tokens, most of them short), the same rows in the same steps of 16 in
every arm, each run in a process of its own (without GPUs a fork of one that has imported the libraries), arm after arm
in turn. Speeds are trained tokens a second from the end of the first step on, medians of the pairs.

distill    ``train_sft``: the layout is its own choice, ``micro_batch_size: 4``.
trl        ``SFTTrainer`` with the defaults of ``SFTConfig``: 8 rows a forward pass, activations recomputed.
tuned      ``SFTTrainer`` by hand: activations kept, rows sorted by length inside a step, 4 rows a forward pass.

ratio, ratio_tuned    speed of distill over trl, and over tuned.
loss_diff             largest difference of a step's loss between distill and tuned, in the numbers that are timed.
loss_diff_float32     the same of two steps in float32, not timed. Rows, order, adapters and the mean over trained
                      tokens are the same in both arms: what remains is rounding, 1e-5 in float32. bfloat16 has eight
                      bits, and packed and padded rows are summed in other orders.
flops_ratio           FLOPs of a step, by torch's FlopCounterMode, over those of its rows one at a time with the head on
                      labelled positions. Attention counts whole squares on both sides.
packing               real over computed tokens. head_ratio: positions that the head runs on over positions with loss.
loader_tokens_per_s   optimiser steps read from the Arrow file, as tensors. tokenise_tokens_per_s: rows into that file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from distill.runs.provenance import device  # noqa: E402

# Libraries that touch a GPU when they are imported could not be used after a fork.
PROCESSES = multiprocessing.get_context("spawn" if device()["gpus"] else "forkserver")
multiprocessing.set_forkserver_preload(["trl.trainer.sft_trainer", "peft", "transformers.models.llama.modeling_llama"])
BATCH, MICRO, LONGEST = 16, 4, 1024
ARMS = ("distill", "trl", "tuned")
WORDS = ("the", "sum", "of", "two", "and", "three", "is", "five", "so", "we", "add", "each", "term", "then", "check")


def make_rows(count: int, tokens_per_word: int) -> list[dict[str, Any]]:
    """Rows of log-normal length, a third of each the prompt."""
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    lengths = [min(900, max(16, round(draw.lognormvariate(4.8, 1.0)))) // tokens_per_word for _ in range(count)]
    return [
        {
            "id": f"r{n}",
            "messages": [
                {"role": "user", "content": text(length // 3)},
                {"role": "assistant", "content": text(length - length // 3)},
            ],
        }
        for n, length in enumerate(lengths)
    ]


def student(base: Any, dtype: str = "auto") -> Any:
    from distill.config.recipe import StudentConfig

    method = {"kind": "lora", "r": 16, "alpha": 32, "learning_rate": 1e-4}
    return StudentConfig.model_validate(
        {
            "base": base, "method": method, "max_length": LONGEST, "num_train_epochs": 1, "batch_size": BATCH,
            "micro_batch_size": MICRO, "warmup_ratio": 0, "lr_scheduler": "constant", "dtype": dtype,
        }
    )  # fmt: skip


def by_distill(config: Any, start: Path, rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Seconds, trained tokens and loss of each step."""
    from distill.train.sft import train_sft

    train_sft(
        config, start, rows, folder / "out", folder / "checkpoints", lambda *_: None,
        rows_digest="", metrics=folder / "metrics.jsonl",
    )  # fmt: skip
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: json.loads(line)[key] for key in ("seconds", "trained_tokens", "loss")} for line in lines]


def by_trl(config: Any, start: Path, data: Any, order: list[int], folder: Path, tuned: bool) -> list[dict[str, Any]]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from distill.train.weights import training_dtype

    dtype = training_dtype(config.dtype)
    batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    if tuned:
        order = [row for batch in batches for row in sorted(batch, key=lambda row: -data.lengths[row])]
    steps: list[dict[str, Any]] = []
    before = 0.0

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            nonlocal before
            before = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                rows = batches[state.global_step - 1]
                trained = int(data.lengths[rows].sum() - data.prompt_lengths[rows].sum())
                steps.append({"seconds": time.monotonic() - before, "trained_tokens": trained, "loss": logs["loss"]})

    size = MICRO if tuned else SFTConfig(str(folder), report_to="none", use_cpu=True).per_device_train_batch_size
    arguments = SFTConfig(
        output_dir=str(folder), report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1, seed=0,
        use_cpu=not torch.cuda.is_available(), bf16=dtype == "bfloat16", num_train_epochs=1,
        train_sampling_strategy="sequential", dataset_kwargs={"skip_prepare_dataset": True},
        per_device_train_batch_size=size, gradient_accumulation_steps=BATCH // size,
        learning_rate=1e-4, lr_scheduler_type="constant", **({"gradient_checkpointing": False} if tuned else {}),
    )  # fmt: skip
    texts = [data.input_ids(row).tolist() for row in order]
    prompts = [int(data.prompt_lengths[row]) for row in order]
    labels = [[-100] * prompt + text[prompt:] for prompt, text in zip(prompts, texts, strict=True)]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(start, dtype=getattr(torch, dtype)),
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(start),
        train_dataset=Dataset.from_dict({"input_ids": texts, "labels": labels}),
        callbacks=[Clock()],
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer._send_telemetry = lambda *_, **__: None
    trainer.train()
    return steps


def work(config: Any, start: Path, data: Any, steps: Any) -> dict[str, float]:
    """What the first step computes, beside what it has to."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    from distill.train import attention
    from distill.train.batches import collate
    from distill.train.layout_check import check_layouts
    from distill.train.loss import LabelledHead
    from distill.train.weights import adapted

    attention._WRITTEN_OUT_UP_TO = LONGEST  # the counter does not know a CPU's fused attention
    model = adapted(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32), config.method)
    checked = check_layouts(model, data, steps.rows(0), 0)
    head = model.get_base_model().get_output_embeddings()
    project, positions = head.forward, 0

    def counted(hidden: Any) -> Any:
        nonlocal positions
        positions += hidden.numel() // hidden.shape[-1]
        return project(hidden)

    head.forward = counted
    labelled = LabelledHead(model)

    def flops(batches: list[dict[str, Any]]) -> int:
        with FlopCounterMode(display=False) as counter:
            for batch in batches:
                labelled.losses(model, batch)[0].sum().backward()
        return int(counter.get_total_flops())

    batches = steps[0]
    issued, scored = flops(batches), positions
    rows = steps.rows(0)
    model.set_attn_implementation("eager")
    ideal = flops([collate(data, [row], "single", 0) for row in rows])
    computed = sum(batch["input_ids"].numel() for batch in batches)
    return {
        "layout": checked.layout,
        "flops_ratio": issued / ideal,
        "packing": int(data.lengths[rows].sum()) / computed,
        "head_ratio": scored / int(data.lengths[rows].sum() - data.prompt_lengths[rows].sum()),
    }


def loader(steps: Callable[[Any], Any], start: Path, rows: list[dict[str, Any]], folder: Path) -> dict[str, float]:
    """Speed of tokenising rows and of reading them as steps."""
    from distill.train.rows import token_rows

    began = time.monotonic()
    data = token_rows(start, iter(rows), LONGEST, folder, "loader")
    tokenised = time.monotonic()
    read = steps(data)
    for step in range(len(read)):
        read[step]
    return {
        "tokenise_tokens_per_s": round(data.tokens / (tokenised - began)),
        "loader_tokens_per_s": round(data.tokens / (time.monotonic() - tokenised)),
    }


def one_process(arm: str, start: Path, base: Any, count: int, dtype: str) -> Any:
    """What one process does: an arm, or ``work``."""
    from distill.train.batches import Steps, training_order
    from distill.train.rows import token_rows

    config = student(base, dtype)
    tokens_per_word = 1 if isinstance(base, str) else 6  # a random base spells words out
    rows = make_rows(count, tokens_per_word)

    def steps(data: Any) -> Steps:
        order = training_order(len(data), len(data), config.seed)
        return Steps(data, order, BATCH, MICRO * int(data.lengths.max()), 0, "packed")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = token_rows(start, iter(rows), LONGEST, folder, "bench")
        assert not data.left_out
        if arm == "work":
            (folder / "loader").mkdir()
            return work(config, start, data, steps(data)) | loader(
                steps, start, make_rows(4000, tokens_per_word), folder / "loader"
            )
        if arm == "distill":
            return by_distill(config, start, rows, folder)
        order = training_order(len(data), len(data), config.seed)
        return by_trl(config, start, data, order, folder / "trl", tuned=arm == "tuned")


def run(arm: str, start: Path, base: str, count: int, dtype: str = "auto") -> Any:
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
        return pool.submit(one_process, arm, start, parsed(base), count, dtype).result()


def speed(steps: list[dict[str, Any]]) -> float:
    return float(sum(step["trained_tokens"] for step in steps[1:]) / sum(step["seconds"] for step in steps[1:]))


def loss_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    return round(max(abs(one["loss"] - other["loss"]) for one, other in zip(ours, theirs, strict=True)), 7)


def measure(base: str, steps: int, repeat: int) -> dict[str, Any]:
    from distill.models.prepare import prepare

    with tempfile.TemporaryDirectory() as name:
        start = Path(name) / "start"
        prepare(student(parsed(base)), None, start)
        runs: dict[str, list[Any]] = {arm: [] for arm in ARMS}
        for _ in range(repeat):
            for arm in ARMS:
                runs[arm].append(run(arm, start, base, steps * BATCH))
                print(f"{arm}: {speed(runs[arm][-1]):.1f} trained tokens/s", file=sys.stderr, flush=True)
        result: dict[str, Any] = {"steps": steps, "rows": steps * BATCH}
        for arm in ARMS:
            result[f"{arm}_tokens_per_s"] = round(statistics.median(map(speed, runs[arm])), 1)
        for name_, other in (("ratio", "trl"), ("ratio_tuned", "tuned")):
            pairs = zip(runs["distill"], runs[other], strict=True)
            result[name_] = round(statistics.median(speed(ours) / speed(theirs) for ours, theirs in pairs), 3)
        result["loss_diff"] = loss_difference(runs["distill"][0], runs["tuned"][0])
        result["loss_diff_float32"] = loss_difference(
            *(run(arm, start, base, 2 * BATCH, "float32") for arm in ("distill", "tuned"))
        )
        work_done = run("work", start, base, steps * BATCH)
    return result | {key: round(value, 4) if isinstance(value, float) else value for key, value in work_done.items()}


def parsed(base: str) -> Any:
    return json.loads(base) if base.startswith("{") else base


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--model", default="models/SmolLM2-135M-Instruct", help='a folder, or {"kind": "random"}')
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--repeat", type=int, default=3)
    arguments = options.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    result = measure(arguments.model, arguments.steps, arguments.repeat)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
