"""The stage train in two processes: one that is killed ends it, and its log is named."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from smoke import COMMAND, ROOT, events, run_smoke, the_run
from waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALLER = ("--set", "teacher.latency_s=0", "--set", "student.micro_batch_size=2", "--set", "student.dtype=float32")


def test_a_killed_rank_ends_the_stage_by_name(tmp_path: Path) -> None:
    run_smoke(tmp_path, "--until", "curate", *SMALLER)
    run = the_run(tmp_path)
    command = [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(tmp_path), "--only", "train", *SMALLER]

    stage = subprocess.Popen(
        [*command, "--set", "student.parallel={processes: 2, context_parallel_size: 2}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(run.glob("scratch/train-*/checkpoint-2/complete.json")), "the first checkpoint", 600)
    ranks = psutil.Process(events(tmp_path)[-1]["pid"]).children(recursive=True)
    (second,) = [rank for rank in ranks if rank.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)
    _, said = stage.communicate(timeout=600)
    assert stage.returncode == 3
    assert "rank 1 of 2 was killed by signal 9" in said
    assert str(run / "logs" / "train-rank1.log") in said
