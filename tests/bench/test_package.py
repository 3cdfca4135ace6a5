"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object_with_a_rate_for_each_work() -> None:
    command = [sys.executable, "tests/bench/package.py", "--json", "--mb", "40", "--shard-mb", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mb"] == 40
    for work in ("shard", "cp", "hash", "sha256sum", "one", "sha256sum_one", "sign"):
        assert found[f"{work}_mb_s"] > 0, work
    for work in ("shard", "hash", "one"):
        assert found[f"{work}_ratio"] > 0, work
