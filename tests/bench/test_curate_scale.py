"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object() -> None:
    command = [sys.executable, "tests/bench/curate_scale.py", "--json", "--sizes", "200", "400", "--rows", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [size["rows"] for size in found["scale"]] == [200, 400]
    assert found["memory_growth"] > 0
    assert found["minhash_in_clusters"] > 0
    assert found["decontaminate_flagged"] == 0
