"""The benchmark runs, and its last line is one JSON object. Its seconds are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object_and_the_merge_takes_less_memory_than_pefts() -> None:
    command = [sys.executable, "tests/bench/merge.py", "--json", "--size", "200", "--repeat", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["equal"]
    assert result["model_mb"] > 100
    assert result["distill_extra_mb"] < result["peft_extra_mb"]
    assert all(result[name] > 0 for name in ("ratio", "distill_seconds", "peft_seconds"))
