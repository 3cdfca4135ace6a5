"""The smoke recipe on a Ray cluster that the run starts itself: the samples of a local run, and a clean stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]


def run(runs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from distill.cli.app import main; main()",
        "run",
        str(ROOT / "recipes" / "smoke.yaml"),
    ]
    command += ["--runs", str(runs), "--until", "sample", "--json", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, cwd=ROOT)


def test_a_run_on_ray_ends_with_the_samples_of_a_local_run_and_prints_only_its_result(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    engine = ["--set", "engine.kind=ray", "--set", "engine.address=local", "--set", "engine.replicas=2"]
    on_ray = run(tmp_path / "ray", *engine)
    assert on_ray.returncode == 0, on_ray.stderr
    json.loads(on_ray.stdout)
    here = run(tmp_path / "local")
    assert here.returncode == 0, here.stderr
    (ours,) = (tmp_path / "ray").glob("*/stages/sample/*/samples.parquet")
    (theirs,) = (tmp_path / "local").glob("*/stages/sample/*/samples.parquet")
    assert ours.read_bytes() == theirs.read_bytes()
    (store,) = (tmp_path / "ray").glob("*/store/samples.jsonl")
    assert store.read_bytes().count(b"\n") == 96
