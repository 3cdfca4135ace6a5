"""The stage train in two processes: one that is killed ends it by name, and resumed it ends as two nodes left alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
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
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",  # a sum over other threads has other bits
}


def training(runs: Path, *parallel: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(runs), "--only", "train", *SMALLER]
    for value in parallel:
        command += ["--set", f"student.parallel.{value}"]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def metrics(runs: Path) -> list[str]:
    return (the_run(runs) / "logs" / "train.metrics.jsonl").read_text().splitlines()


def weights(runs: Path) -> bytes:
    (file,) = the_run(runs).glob("stages/train/*/model/adapter_model.safetensors")
    return file.read_bytes()


def test_a_killed_rank_ends_the_stage_by_name_and_the_next_call_ends_as_two_nodes_do(
    tmp_path: Path,
) -> None:
    two_nodes, killed = tmp_path / "nodes", tmp_path / "killed"
    run_smoke(two_nodes, "--until", "curate", *SMALLER)
    shutil.copytree(two_nodes, killed)
    stage = training(killed, "processes=2", "context_parallel_size=2")
    run = the_run(killed)
    until(lambda: list(run.glob("scratch/train-*/checkpoint-2/complete.json")), "the first checkpoint", 600)
    ranks = psutil.Process(events(killed)[-1]["pid"]).children(recursive=True)
    (second,) = [rank for rank in ranks if rank.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)
    _, errors = stage.communicate(timeout=600)
    assert stage.returncode == 3
    assert "rank 1 of 2 was killed by signal 9" in errors
    assert str(run / "logs" / "train-rank1.log") in errors
    first_steps = metrics(killed)[:2]

    resumed = training(killed, "processes=2", "context_parallel_size=2")
    _, errors = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, errors
    assert metrics(killed)[:2] == first_steps, "their seconds, too: they were not taken again"

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    first_node = training(
        two_nodes, "nodes=2", "processes=1", "context_parallel_size=2", f"rendezvous=localhost:{port}"
    )
    assert first_node.stderr is not None
    (join,) = re.findall(r"`(torchrun .*)`", first_node.stderr.readline())
    until(lambda: list(the_run(two_nodes).glob("scratch/train-*/ranks/job.json")), "the job for the other node", 600)
    subprocess.run(shlex.split(join), cwd=ROOT, env=ENVIRONMENT, check=True, timeout=600)
    _, errors = first_node.communicate(timeout=600)
    assert first_node.returncode == 0, errors
    assert weights(two_nodes) == weights(killed)
