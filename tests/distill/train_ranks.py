"""Trains students in groups: those of a group one after another, in as many processes as it says.

Usage: train_ranks.py JOB, a JSON file {"rows": [...], "groups": [{"processes": 2, "students": [{"student": {...},
"start": folder}], "resumed": [0], "place": folder}]}. The processes are forks of this one, which has imported the
libraries and done nothing with them. A student in "resumed" is trained a second time, in new processes, from the older
checkpoint of the first. With TRITON_INTERPRET in the environment they run Triton's kernels.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401 - imported once, here
import peft  # noqa: F401
import torch.multiprocessing
from transformers import Trainer

from distill.config.recipe import StudentConfig
from distill.train.sft import train_sft


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    for group in job["groups"]:
        run(group, {Path(group["place"], str(number)): one for number, one in enumerate(group["students"])}, job)
        again = {}
        for number in group["resumed"]:
            place, resumed = (Path(group["place"], name) for name in (str(number), f"{number}-resumed"))
            shutil.copytree(place / "checkpoints", resumed / "checkpoints")
            shutil.rmtree(max(resumed.glob("checkpoints/checkpoint-*")))
            again[resumed] = group["students"][number]
        if again:
            run(group, again, job)


def run(group: dict[str, Any], students: dict[Path, Any], job: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = group["processes"]
    torch.multiprocessing.start_processes(train, (processes, students, job, port), processes, start_method="fork")


def train(rank: int, processes: int, students: dict[Path, Any], job: dict[str, Any], port: int) -> None:
    """One rank, with the environment that torchrun gives it; alone without one."""
    size = str(processes)
    if size != "1":
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if rank:
        Trainer._save_rng_state = late(Trainer._save_rng_state)
    for place, student in students.items():
        train_one(student, job, place)


def late(save: Callable[..., None]) -> Callable[..., None]:
    """As on a slow node: rank 0 has to wait for the last file of a checkpoint."""

    def save_late(*arguments: Any) -> None:
        time.sleep(0.1)
        save(*arguments)

    return save_late


def train_one(student: dict[str, Any], job: dict[str, Any], place: Path) -> None:
    train_sft(
        StudentConfig.model_validate(student["student"]),
        Path(student["start"]),
        iter(job["rows"]),
        place / "out",
        place / "checkpoints",
        lambda *_: None,
        rows_digest="rows",
        metrics=place.with_name(f"{place.name}.metrics.jsonl"),
    )


if __name__ == "__main__":
    if "TRITON_INTERPRET" in os.environ:
        from interpreted_triton.liger import complete

        complete()
    main()
