"""The benchmark runs, and its last line is one JSON object. Its seconds are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_last_line_is_one_object_and_nothing_is_computed_in_vain() -> None:
    model = json.dumps({"kind": "random", "hidden_size": 16, "num_layers": 1, "num_heads": 2})
    command = [
        sys.executable,
        "tests/bench/train_speed.py",
        "--json",
        "--steps",
        "2",
        "--repeat",
        "1",
        "--model",
        model,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["layout"] == "packed"
    assert (result["packing"], result["head_ratio"]) == (1.0, 1.0)
    assert result["flops_ratio"] == pytest.approx(1.0, abs=0.01)
    assert result["loss_diff"] < 0.01
    assert result["loss_diff_float32"] < 1e-5
    assert all(result[name] > 0 for name in ("ratio", "ratio_tuned", "loader_tokens_per_s", "tokenise_tokens_per_s"))
