"""What ``make release-demo`` shows works: the smoke run's release goes to a hub and is confirmed from there."""

import subprocess
import sys
from pathlib import Path

import pytest
from smoke import ROOT, copy_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_release_is_signed_pushed_and_confirmed_from_the_hub(alone: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tests" / "publish" / "release_demo.py"),
        str(copy_of(alone, tmp_path / "runs")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    names = ("files", "signature", "provenance", "licenses", "card", "template", "load transformers", "evaluation")
    for name in names:
        assert f"{name} ".ljust(19) + "ok " in done.stdout
    assert "8 verdicts and 8 answers equal" in done.stdout, "greedy, one engine, one machine"
    assert "confirmed: demo/Smoke-Tiny at " in done.stdout
