"""``distill merge`` beside PEFT: run it by hand, the last line of ``--json`` is one object.

    python tests/bench/merge.py --json [--size 2200] [--repeat 3]

Makes a model of random weights in the shape of Llama and an adapter on all its linear layers, and merges it with
``distill merge`` and with PEFT's ``merge_and_unload`` and ``save_pretrained``, each in a fresh process that starts with
its imports. ``distill merge`` flushes its files to the disk, PEFT does not.

seconds    of the whole process, the best of the repetitions; ``ratio`` is PEFT's over ours. ``cpu_seconds``: user and
           system time, which other work on the machine changes less.
peak_mb    the largest anonymous memory of the process, sampled; ``extra_mb`` is that less what a process holds that has
           imported the libraries and done nothing.
equal      every tensor of the two results is bit-equal.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

IMPORTS = "import torch; from peft import PeftModel; from transformers import AutoModelForCausalLM, LlamaForCausalLM\n"
BY_PEFT = (
    IMPORTS + "import sys; base, adapter, out = sys.argv[1:]\n"
    "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)\n"
    "model.merge_and_unload().save_pretrained(out)\n"
)
LAYER_SIZE = 1024


def make_model(base: Path, adapter: Path, megabytes: int) -> float:
    """Writes both; returns the size of the largest tensor in MB."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    width = LAYER_SIZE * (2 if megabytes >= 1000 else 1)
    vocabulary = 16 * width
    layer = 2 * (4 * width * width + 3 * width * 3 * width)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_attention_heads=16,
        num_hidden_layers=max(1, (megabytes * 10**6 - 4 * vocabulary * width) // layer), tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(base, max_shard_size="500MB")
    wrapped = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, tensor in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.02)
    wrapped.save_pretrained(adapter)
    return 2 * vocabulary * width / 1e6


def measure(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak anonymous memory in MB of a process that must succeed."""
    os.sync()
    peak = 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.005)
    seconds = time.monotonic() - started
    assert process.stderr
    assert process.returncode == 0, process.stderr.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, peak * 1024 / 1e6


def same_tensors(one: Path, other: Path) -> bool:
    import contextlib

    from publish.shards import TensorFiles
    from publish.weights import weight_files

    with contextlib.ExitStack() as stack:
        ours, theirs = (TensorFiles(stack, weight_files(folder)) for folder in (one, other))
        return ours.specs == theirs.specs and all(ours[name].equal(theirs[name]) for name in ours.specs)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--size", type=int, default=2200, metavar="MB", help="of the model")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--folder", type=Path, help="where to work; the temporary folder by default")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        base, adapter, ours, theirs = (Path(folder) / name for name in ("base", "adapter", "ours", "peft"))
        largest = make_model(base, adapter, asked.size)
        size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        _, _, imports = measure([sys.executable, "-c", IMPORTS])
        runs: dict[str, list[tuple[float, float, float]]] = {"distill": [], "peft": []}
        for _ in range(asked.repeat):
            for out in (ours, theirs):
                shutil.rmtree(out, ignore_errors=True)
            arguments = [str(base), str(adapter)]
            runs["distill"].append(measure([sys.executable, "-m", "distill.cli", "merge", *arguments, str(ours)]))
            runs["peft"].append(measure([sys.executable, "-c", BY_PEFT, *arguments, str(theirs)]))
        result: dict[str, Any] = {
            "model_mb": round(size / 1e6, 1),
            "largest_tensor_mb": round(largest, 1),
            "equal": same_tensors(ours, theirs),
        }
    best = {
        name: (min(run[0] for run in values), min(run[1] for run in values), max(run[2] for run in values))
        for name, values in runs.items()
    }
    for name, (seconds, cpu, peak) in best.items():
        result |= {
            f"{name}_seconds": round(seconds, 2),
            f"{name}_cpu_seconds": round(cpu, 2),
            f"{name}_peak_mb": round(peak, 1),
            f"{name}_extra_mb": round(peak - imports, 1),
        }
    result["ratio"] = round(best["peft"][0] / best["distill"][0], 2)
    if asked.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
