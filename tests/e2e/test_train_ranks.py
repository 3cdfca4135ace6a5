"""The stage train in two processes: one that is killed ends it, its log is named, and two nodes finish it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from smoke import COMMAND, ROOT, events, run_smoke, the_run
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALLER = ("--set", "teacher.latency_s=0", "--set", "student.micro_batch_size=2", "--set", "student.dtype=float32")


def test_a_killed_rank_ends_the_stage_by_name_and_two_nodes_go_on_at_its_checkpoint(tmp_path: Path) -> None:
    run_smoke(tmp_path, "--until", "curate", *SMALLER)
    run = the_run(tmp_path)
    command = [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(tmp_path), "--only", "train", *SMALLER]

    stage = subprocess.Popen(
        [*command, "--set", "student.parallel.processes=2"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until(lambda: list(run.glob("scratch/train-*/checkpoint-2/complete.json")), "the first checkpoint", 600)
    ranks = psutil.Process(events(tmp_path)[-1]["pid"]).children(recursive=True)
    (second,) = [rank for rank in ranks if rank.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)
    _, said = stage.communicate(timeout=600)
    assert stage.returncode == 3
    assert "rank 1 of 2 was killed by signal 9" in said
    assert str(run / "logs" / "train-rank1.log") in said

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = {"nodes": 2, "processes": 1, "rendezvous": f"'{address}'"}
    settings = [word for name, value in nodes.items() for word in ("--set", f"student.parallel.{name}={value}")]
    first = subprocess.Popen([*command, *settings], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    line = next(line for line in first.stderr if "waits for node 1" in line)
    arguments = shlex.split(line.partition("torchrun")[2])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    other = subprocess.run([sys.executable, "-m", "torch.distributed.run", *arguments], env=environment, timeout=300)
    assert (first.wait(300), other.returncode) == (0, 0), first.stderr.read()
    (log,) = run.glob("stages/train/*/model/train_log.json")
    steps = [entry["step"] for entry in json.loads(log.read_text())["log"]]
    assert steps == list(range(1, len(steps) + 1))
    metrics = [json.loads(row)["step"] for row in (run / "logs" / "train.metrics.jsonl").read_text().splitlines()]
    assert metrics == steps
