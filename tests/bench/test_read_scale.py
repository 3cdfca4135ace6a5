"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object_with_figures_of_every_way_to_read() -> None:
    command = [sys.executable, "tests/bench/read_scale.py", "--json", "--rows", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for way in ("jsonl", "parquet", "random", "traces"):
        assert (found[way]["problems"], found[way]["left_out"]) == (450, 50)
        assert found[way]["rows_per_s"] > 0
        assert found[way]["peak_mib"] > 0
