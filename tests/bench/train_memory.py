"""The memory forecast of training against what trainings take on this machine.

    python tests/bench/train_memory.py --json

Trains random models on rows of one length, each case in a process of its own, and compares the peak of its resident
memory above what it held before with ``distill.check.memory``. On Linux alone, which lets a process forget its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "small": {"hidden_size": 256, "num_layers": 8, "length": 1024, "method": "lora"},
    "medium": {"hidden_size": 512, "num_layers": 8, "length": 1024, "method": "full"},
    "large": {"hidden_size": 768, "num_layers": 12, "length": 2048, "method": "full", "again": True},
}


def student(case: dict[str, Any]) -> Any:
    from distill.config.recipe import StudentConfig

    size, length = case["hidden_size"], case["length"]
    base = {"hidden_size": size, "num_layers": case["num_layers"], "num_heads": size // 64}
    return StudentConfig.model_validate(
        {
            "base": {"kind": "random", "max_position_embeddings": max(2048, length), **base},
            "method": {"kind": case["method"]},
            "dtype": "float32",
            "max_length": length,
            "num_train_epochs": 1,
            "batch_size": 4,
            "micro_batch_size": 2,
            "parallel": {"activation_checkpointing": case.get("again", False)},
        }
    )


def train(case: dict[str, Any], place: Path) -> Path:
    """Train on eight rows of the case's length; returns the folder of the base."""
    from distill.models.prepare import prepare
    from distill.train.sft import train_sft

    config = student(case)
    start = place / "start"
    prepare(config, None, start)
    answer = "x" * (case["length"] - 64)
    rows = [
        {"id": str(n), "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
        for n in range(8)
    ]
    train_sft(
        config, start, rows, place / "out", place / "checkpoints", lambda *_: None, rows_digest="rows",
        metrics=place / "metrics.jsonl",
    )  # fmt: skip
    return start


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Forecast and measured bytes of a case, in this process."""
    import psutil

    from distill.check.memory import forecast

    with tempfile.TemporaryDirectory() as folder:
        warm = {"hidden_size": 64, "num_layers": 1, "length": 512, "method": case["method"]}
        train(warm, Path(folder, "warm"))  # libraries and their buffers are there now
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")
        start = train(case, Path(folder, "real"))
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        expected = forecast(student(case), start, "float32", 1, case.get("again", False))
    measured = int(peak.split()[1]) * 1024 - before
    return {**case, "parameters": expected.parameters, "forecast": expected.total, "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=[*CASES], action="append")
    parser.add_argument("--here", choices=[*CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(CASES[options.here])))
        return
    # Freed memory goes back to the system at once, so that the peak is that of live tensors.
    environment = {"OMP_NUM_THREADS": "2"} | os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    results = {}
    for name in options.case or CASES:
        command = [sys.executable, __file__, "--here", name]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
        results[name]["ratio"] = results[name]["forecast"] / results[name]["measured"]
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name, one in results.items():
        sizes = f"forecast {one['forecast'] / 2**20:,.0f} MiB, measured {one['measured'] / 2**20:,.0f} MiB"
        print(f"{name}: {one['parameters'] / 1e6:.0f}M, {one['method']}, {sizes}, ratio {one['ratio']:.2f}")


if __name__ == "__main__":
    main()
