"""The memory forecast is within 20 % of what a training takes; the benchmark compares three sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_forecast_is_within_a_fifth_of_a_trainings_peak() -> None:
    script = Path(__file__).with_name("train_memory.py")
    command = [sys.executable, str(script), "--json", "--case", "small"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout).values()
    assert 0.8 < case["ratio"] < 1.2, case
