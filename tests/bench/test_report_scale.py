"""The benchmark runs, and its last line is one JSON object. Its figures are not tested here: they are a machine's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import needs_chromium

ROOT = Path(__file__).resolve().parents[2]


@needs_chromium
@pytest.mark.slow
def test_the_last_line_is_one_object_with_figures_of_page_and_browser() -> None:
    command = [sys.executable, "tests/bench/report_scale.py", "--json", "--traces", "1200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["traces"] == 1200
    assert found["page_mb"] > 0.7
    assert all(found[name] > 0 for name in ("build_s", "ratio", "first_paint_s", "usable_s", "search_s"))
