"""Trains students in groups: those of a group one after another, in as many processes as it says.

Usage: train_ranks.py JOB, a JSON file {"start": folder, "rows": [...], "groups": [{"processes": 2, "students": [...],
"resumed": [0], "place": folder}]}. The processes are forks of this one, which has imported the libraries and done
nothing with them. A student in "resumed" is trained a second time, from the older checkpoint of the first.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import peft  # noqa: F401 - imported once, here
import torch.multiprocessing
from transformers import Trainer  # noqa: F401

from distill.config.recipe import StudentConfig
from distill.train.sft import train_sft


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    for group in job["groups"]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        processes = group["processes"]
        torch.multiprocessing.start_processes(train, (group, job, port), nprocs=processes, start_method="fork")


def train(rank: int, group: dict[str, Any], job: dict[str, Any], port: int) -> None:
    """One rank, with the environment that torchrun gives it; alone without one."""
    size = str(group["processes"])
    if size != "1":
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, student in enumerate(group["students"]):
        place = Path(group["place"], str(number))
        train_one(student, job, place)
        if number in group["resumed"]:
            resumed = place.with_name(f"{number}-resumed")
            if rank == 0:
                shutil.copytree(place / "checkpoints", resumed / "checkpoints")
                shutil.rmtree(max(resumed.glob("checkpoints/checkpoint-*")))
            if size != "1":
                torch.distributed.barrier()
            train_one(student, job, resumed)


def train_one(student: dict[str, Any], job: dict[str, Any], place: Path) -> None:
    train_sft(
        StudentConfig.model_validate(student),
        Path(job["start"]),
        iter(job["rows"]),
        place / "out",
        place / "checkpoints",
        lambda *_: None,
        rows_digest="rows",
        metrics=place.with_name(f"{place.name}.metrics.jsonl"),
    )


if __name__ == "__main__":
    main()
