"""The sample store: append-only, durable, indexed; no text in memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from licensing.errors import MissingDependency
from synth.sampling.store import SAMPLE_LOG, SampleStore


def row(number: int, **changes: Any) -> dict[str, Any]:
    request_id = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return {
        "request_id": request_id, "text": f"text {number}", "finish_reason": "stop", "error": None,
        "prompt_tokens": 7, "completion_tokens": number, "engine": "e", **changes,
    }  # fmt: skip


def write(store: Path, lines: bytes) -> None:
    store.mkdir(exist_ok=True)
    (store / SAMPLE_LOG).write_bytes(lines)


def line(item: dict[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


@pytest.mark.slow
def test_ten_thousand_rows_are_found_again_after_a_restart(tmp_path: Path) -> None:
    rows = [row(number) for number in range(10_000)]
    with SampleStore(tmp_path) as store:
        assert [store.append(item) for item in rows] == list(range(10_000))
    with SampleStore(tmp_path) as store:
        assert len(store) == 10_000
        for number in range(0, 10_000, 37):
            row_id = store.find(rows[number]["request_id"])
            assert row_id == number
            assert store.row(row_id) == rows[number]
            assert store.completion_tokens(row_id) == number
        assert row(10_001)["request_id"] not in store


def test_a_row_longer_than_any_buffer_comes_back_whole(tmp_path: Path) -> None:
    with SampleStore(tmp_path) as store:
        for size in (1, 16_000, 16_384, 20_000, 300_000):
            long = row(size, text="é" * size)
            assert store.row(store.append(long)) == long


TEXTS = st.text(max_size=60) | st.sampled_from(
    [
        '", "finish_reason": "length", "error": null, "prompt_tokens": 1, "completion_tokens": 1, "engine": "',
        "\\",
        '\\"',
    ]
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS | st.none(), st.sampled_from(["stop", "length", "error"]), st.none() | st.integers(0, 9), TEXTS)
def test_the_index_of_a_reopened_store_says_what_the_rows_say(
    tmp_path_factory: pytest.TempPathFactory, text: str, error: str | None, reason: str, tokens: int | None, engine: str
) -> None:
    folder = tmp_path_factory.mktemp("store")
    item = row(1, text=text, error=error, finish_reason=reason, completion_tokens=tokens, engine=engine)
    with SampleStore(folder) as store:
        store.append(item)
    with SampleStore(folder, read_only=True) as store:
        row_id = store.find(item["request_id"])
        assert row_id == 0
        assert store.row(0) == item
        assert store.finish_reason(0) == reason
        assert (store.counted(0), store.completion_tokens(0)) == (tokens is not None, tokens or 0)
        assert store.prompt_tokens(0) == 7


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_cut_off_and_a_blanked_one_is_no_row(tmp_path: Path, cut: int) -> None:
    blanked = line(row(2))[:60] + b"\0" * 40 + line(row(2))[100:]
    write(tmp_path, line(row(1)) + blanked + line(row(3)) + line(row(4))[:-cut])
    with SampleStore(tmp_path) as store:
        assert (tmp_path / SAMPLE_LOG).read_bytes() == line(row(1)) + blanked + line(row(3))
        assert (len(store), store.damaged) == (2, 2)
        assert row(2)["request_id"] not in store
        assert row(4)["request_id"] not in store
        store.append(row(4))
    with SampleStore(tmp_path, read_only=True) as store:
        assert (len(store), store.damaged) == (3, 1)
        row_id = store.find(row(4)["request_id"])
        assert row_id is not None
        assert store.row(row_id) == row(4)


def test_of_two_rows_with_one_id_the_first_counts_unless_its_request_failed(tmp_path: Path) -> None:
    failed = row(2, text="", finish_reason="error", error="too long")
    rows = [row(1), row(1, text="again"), failed, row(2), row(2, text="again")]
    with SampleStore(tmp_path) as store:
        for item in rows:
            store.append(item)
        texts = [store.row(0)["text"], store.row(1)["text"]]
    assert texts == ["text 1", "text 2"]
    with SampleStore(tmp_path, read_only=True) as store:
        assert [store.row(0)["text"], store.row(1)["text"]] == texts
        assert (len(store), store.finish_reason(1), store.completion_tokens(1)) == (2, "stop", 2)


def test_half_a_surrogate_pair_is_written_and_read(tmp_path: Path) -> None:
    odd = row(1, text="\ud83d")
    with SampleStore(tmp_path) as store:
        store.append(odd)
        assert store.row(0) == odd


def test_a_store_that_does_not_exist_reads_as_an_empty_one(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "none", read_only=True) as store:
        assert len(store) == 0
    assert not (tmp_path / "none").exists()


def test_a_failed_fsync_after_the_last_append_is_raised_when_the_store_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, 0

    def fails_once(fd: int) -> None:  # as Linux does: the second fsync says nothing of what the first one lost
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    store = SampleStore(tmp_path)
    monkeypatch.setattr("synth.sampling.append_log.os.fsync", fails_once)
    store.append(row(1))
    until(lambda: calls, "an fsync")
    with pytest.raises(OSError, match="Input/output error"):
        store.close()


def append_until_refused(store: SampleStore) -> None:
    for number in range(1_000):
        store.append(row(number))
        time.sleep(0.01)


def test_a_failed_fsync_is_raised_by_the_next_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def full(_: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    store = SampleStore(tmp_path)
    monkeypatch.setattr("synth.sampling.append_log.os.fsync", full)
    store.append(row(1))
    until(lambda: calls, "an fsync")
    with pytest.raises(MissingDependency, match="no space left"):
        append_until_refused(store)  # the thread may be between the failure and its note of it
    with pytest.raises(MissingDependency, match="no space left"):
        store.close()


MEMORY = """
import hashlib
import sys
from pathlib import Path
from synth.sampling.store import SampleStore
def row(number):
    request_id = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return {"request_id": request_id, "text": "x" * 1000, "finish_reason": "stop", "error": None,
            "prompt_tokens": 7, "completion_tokens": number, "engine": "e"}
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with SampleStore(Path(sys.argv[1])) as store:
    sizes = []
    for number in range(60_000):
        store.append(row(number))
        if number in (20_000, 59_999):
            sizes.append(resident())
print((sizes[1] - sizes[0]) / 40_000)
"""


@pytest.mark.slow
def test_memory_grows_by_less_than_a_hundred_bytes_a_sample(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert float(done.stdout) < 100
