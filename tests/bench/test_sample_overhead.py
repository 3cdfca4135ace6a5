"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object_and_the_recorded_comparison_holds() -> None:
    options = "--only log adaptive openai client --samples 3000 --endpoint-requests 64 --client-answers 8 --pairs 1"
    done = subprocess.run(
        [sys.executable, "tests/bench/sample_overhead.py", "--json", *options.split(), "--latency", "0.05"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["log_samples"] == 3000
    assert found["openai_ratio"] > 0
    assert found["openai_ratio_unstreamed"] > 0
    assert found["client_tokens_per_core_s_1_an_event"] > 0
    assert 0 < found["adaptive_tokens_ratio"] < 1
    for figures in found["adaptive"].values():
        assert all(0 < ratio < 1 for ratio in figures["ratios"].values())
        assert figures["problems"] > 0
