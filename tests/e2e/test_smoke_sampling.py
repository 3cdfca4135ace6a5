"""The smoke recipe's sampling, killed at random times: it ends with the samples of a run left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = int(os.environ.get("DISTILL_KILLS", "10"))
POLICIES = {
    "fixed": [],
    "adaptive": ["--set", "sample={policy: {kind: adaptive, target_correct: 2, max_samples: 8}, max_new_tokens: 64}"],
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(runs: Path, policy: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distill.cli", "run", "recipes/smoke.yaml", "--runs", str(runs)]
    return subprocess.Popen(
        [*command, "--until", "sample", *POLICIES[policy]], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def lines(runs: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs.glob("smoke-*/stages/sample/*/samples.jsonl"))


def manifest(runs: Path) -> dict[str, Any]:
    (path,) = runs.glob("smoke-*/stages/sample/*/manifest.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "started_at")}


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_at_random_times_sampling_ends_as_a_run_left_alone(tmp_path: Path, policy: str) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert start(alone, policy).wait(timeout=300) == 0
    rng = random.Random(policy)
    room = max(1, 70 // KILLS)
    for _ in range(KILLS):
        process = start(killed, policy)
        goal, deadline = lines(killed) + rng.randint(0, room), time.monotonic() + 120
        while lines(killed) < max(goal, 1):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(killed.glob("smoke-*/stages/sample/*/manifest.json")), "it was finished before it was killed"
    assert start(killed, policy).wait(timeout=300) == 0
    assert manifest(killed) == manifest(alone)
    names = {item["path"] for item in manifest(alone)["files"]}
    assert ("problems.jsonl" in names) == (policy == "adaptive")
