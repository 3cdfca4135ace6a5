"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object() -> None:
    command = [sys.executable, "tests/bench/audit_scale.py", "--json", "--sizes", "50", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [(row["form"], row["inputs"]) for row in found["sizes"]] == [
        ("json", 50), ("json", 500), ("yaml", 50), ("yaml", 500),
    ]  # fmt: skip
    assert all(row["findings"] > row["inputs"] / 2 for row in found["sizes"])
    assert set(found["growth_exponent"]) == {"json", "yaml"}
