"""The benchmark runs, and its last line is one JSON object. Of its figures those are tested that a run promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["fixed", "adaptive"])
def test_the_last_line_is_one_object_that_counts_texts_and_verifications(policy: str) -> None:
    command = [sys.executable, "tests/bench/run_bytes.py", "--json", "--problems", "12", "--policy", policy]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answers"] == 48 if policy == "fixed" else 36 <= found["answers"] <= 48
    assert found["text_bytes"] == 1000 * found["answers"]
    assert 1.1 >= found["written_ratio"] >= found["kept_ratio"] >= 1, "the sample log alone holds every text"
    assert found["by_file"]["store/samples.jsonl"] == 1
    assert found["verifications_per_sample"] == 1, "every text is verified once"
