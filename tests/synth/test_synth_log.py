from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.sampling.store import SampleStore, _figures, _of_row, parsed, row_line


def row(number: int, **changes: Any) -> dict[str, Any]:
    identity = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return {
        "request_id": identity, "prompt_id": f"p{number}", "sample_index": 0, "text": f"text {number}",
        "finish_reason": "stop", "error": None, "prompt_tokens": 7, "completion_tokens": number, "model": "m",
        "engine": "e", **changes,
    }  # fmt: skip


def test_ten_thousand_rows_are_found_again_where_they_are_and_after_a_restart(tmp_path: Path) -> None:
    rows = [row(number) for number in range(10_000)]
    with SampleStore(tmp_path / "log") as log:
        assert [log.append(item) for item in rows] == list(range(10_000))
    with SampleStore(tmp_path / "log") as log:
        assert len(log) == 10_000
        for number in range(0, 10_000, 37):
            place = log.find(rows[number]["request_id"])
            assert place == number
            assert log.row(place) == rows[number]
            assert log.completion_tokens(place) == number
        assert row(10_001)["request_id"] not in log


def test_a_row_longer_than_any_buffer_comes_back_whole(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "log") as log:
        for size in (1, 4000, 4096, 5000, 300_000):
            long = row(size, text="é" * size)
            assert log.row(log.append(long)) == long


TEXTS = st.text(max_size=60) | st.sampled_from(
    ['", "finish_reason": "length", "error": null, "prompt_tokens": 1, "completion_tokens": 1, "model": "', "\\", '\\"']
)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS | st.none(), st.sampled_from(["stop", "length", "error"]), st.none() | st.integers(0, 9), TEXTS)
def test_reading_a_line_from_its_ends_finds_what_parsing_it_finds(
    text: str, error: str | None, reason: str, tokens: int | None, model: str
) -> None:
    line = row_line(row(1, text=text, error=error, finish_reason=reason, completion_tokens=tokens, model=model))
    whole = parsed(line)
    assert whole is not None
    assert _figures(line) == _of_row(whole)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_or_blanked_line_is_none(cut: int) -> None:
    line = row_line(row(1))
    assert _figures(line[:-cut]) is None
    assert _figures(line[:80] + b"\0" * 40 + line[120:]) is None


def test_half_a_surrogate_pair_is_written_and_read(tmp_path: Path) -> None:
    odd = row(1, text="\ud83d")
    with SampleStore(tmp_path / "log") as log:
        log.append(odd)
        assert log.row(0) == odd
    assert json.loads((tmp_path / "log").read_bytes()) == odd


@pytest.mark.slow
def test_memory_grows_by_less_than_a_hundred_bytes_a_sample(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_synth_log import row
from synth.sampling.store import SampleStore
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with SampleStore(Path(sys.argv[1])) as log:
    sizes = []
    for number in range(60_000):
        log.append(row(number, text="x" * 1000))
        if number in (20_000, 59_999):
            sizes.append(resident())
print((sizes[1] - sizes[0]) / 40_000)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "log"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert float(done.stdout) < 100
