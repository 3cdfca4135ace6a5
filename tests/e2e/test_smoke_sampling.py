"""The smoke recipe's sampling, killed at random times: it ends with the samples of a run left alone."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from smoke import manifests
from waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = {"fixed": 5, "adaptive": 3}  # forty, without a process for each: test_synth_adaptive_sampling.py
POLICIES = {  # enough samples that all kills come before the end, on a machine that is slow to kill as well
    "fixed": ["--set", "sample.num_samples=8"],
    "adaptive": ["--set", "sample={policy: {kind: adaptive, target_correct: 2, max_samples: 8}, max_new_tokens: 64}"],
}
SLOWER = "teacher.latency_s=0.4"
WINDOW_S = 0.5  # after the problems are there: some kills come before the next sample, some after a few

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(runs: Path, policy: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "distill.cli",
        "run",
        "recipes/smoke.yaml",
        "--runs",
        str(runs),
        "--set",
        SLOWER,
    ]
    return subprocess.Popen(
        [*command, "--until", "sample", *POLICIES[policy]], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def problems_file(runs: Path) -> tuple[int, int] | None:
    """Which file the problems are in: it is written anew whenever the stage has them and is about to ask."""
    for path in runs.glob("smoke-*/staging/sample-*/problems.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # a folder of the killed run, which the next one clears
            return path.stat().st_ino, path.stat().st_mtime_ns
    return None


def committed(runs: Path) -> bytes:
    """The whole lines of the store."""
    text = b"".join(path.read_bytes() for path in runs.glob("smoke-*/store/samples.jsonl"))
    return text[: text.rfind(b"\n") + 1]


@pytest.mark.parametrize("policy", POLICIES)
def test_killed_at_random_times_sampling_ends_as_a_run_left_alone(tmp_path: Path, policy: str) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    left_alone = start(alone, policy)
    rng = random.Random(policy)
    before = b""
    for kill in range(KILLS[policy]):
        earlier = problems_file(killed)
        process = start(killed, policy)
        until(lambda: problems_file(killed) not in (None, earlier), "the problems", every_s=0.005)  # noqa: B023
        if kill % 4 == 0:
            until(lambda: len(committed(killed)) > len(before), "one more sample")  # noqa: B023
        time.sleep(rng.random() * WINDOW_S)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not list(killed.glob("smoke-*/stages/sample/*/manifest.json")), "it was finished before it was killed"
        after = committed(killed)
        assert after.startswith(before), f"kill {kill} lost a committed sample"
        before = after
    assert start(killed, policy).wait(timeout=600) == 0
    assert left_alone.wait(timeout=600) == 0
    expected = manifests(alone)["sample"]
    assert manifests(killed)["sample"] == expected
    names = {item["path"] for item in expected["files"]}
    assert ("problem_stops.parquet" in names) == (policy == "adaptive")
    ids = [json.loads(line)["request_id"] for line in committed(killed).splitlines()]
    assert len(set(ids)) == len(ids) == expected["facts"]["rows_out"], "no sample was bought twice"
