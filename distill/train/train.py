"""Training, one file an algorithm: ``sft`` is supervised fine-tuning, full or LoRA, on verified traces.

``train`` reads the recipe's student section and runs its algorithm. Nothing heavy is imported before it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import StudentConfig
from distill.runs.stage import Reporter
from distill.train.data import LeftOut, TrainResult

__all__ = ["LeftOut", "TrainResult", "train"]


def train(
    student: StudentConfig,
    start: Path,
    rows: Iterable[Mapping[str, Any]],
    out: Path,
    checkpoints: Path,
    progress: Reporter,
) -> TrainResult:
    """Train the student of folder ``start`` (as ``prepare`` writes it) on ``rows`` (with id and messages; read once).

    ``out`` becomes an adapter folder or a folder of full safetensors weights, plus train_log.json and left_out.jsonl,
    with equal bytes for equal inputs on one kind of CPU and one number of threads. ``checkpoints`` is a private folder:
    a call after a crash continues from the newest whole one and ends with the bytes of a call left alone.

    Raises Refused where the end-of-turn token would not be trained or the loss is not finite, InputError where no row
    can be trained on or the template alters answers, MissingDependency without torch, trl or peft, memory or disk.
    Not covered: packing, several processes, quantised bases.
    """
    from distill.train.sft import train_sft

    return train_sft(student, start, rows, out, checkpoints, progress)
