"""The label stage: shards, several processes, what is done again after a crash, limits of time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from trace_builder import FAST, labels_of, trace, write_tables

from licensing.errors import InputError, MissingDependency
from synth.labels.config import LabelConfig
from synth.labels.label import label
from synth.sampling.store import SAMPLE_LOG


@pytest.mark.slow
def test_several_processes_write_what_one_does_and_finished_shards_are_not_done_again(tmp_path: Path) -> None:
    rows = [trace(f"p{n // 3}", n % 3, text=f"<think>{n}</think>é {n}") for n in range(40)]
    tables = write_tables(tmp_path / "tables", rows)
    config = LabelConfig(languages=None, secrets=False)
    progress: list[tuple[int, int]] = []

    def labelled(name: str, workers: int, scratch: str) -> None:
        with tables.open() as traces:
            label(
                traces, tables.verdicts, config.model_copy(update={"workers": workers}), tmp_path / name,
                tmp_path / scratch, progress=lambda *done: progress.append(done), shard_rows=7,
            )  # fmt: skip

    labelled("one", 1, "scratch")
    assert progress[-1] == (6, 6)
    labelled("two", 2, "other")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sum(name.startswith("labels-") for name in names) == 6
    assert list(labels_of(tmp_path / "one")) == [row["request_id"] for row in rows]
    (shards,) = (tmp_path / "scratch").iterdir()
    (shards / "labels-00002.parquet").unlink()
    progress.clear()
    labelled("three", 1, "scratch")
    assert progress == [(6, 6)]
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes(), name


@pytest.mark.slow
def test_a_missing_text_is_named_from_whatever_process(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables", [trace(f"p{n}", 0) for n in range(20)])
    log = tables.store / SAMPLE_LOG
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:13] + lines[14:]))
    with tables.open() as traces, pytest.raises(InputError, match="p13-0") as raised:
        label(traces, tables.verdicts, FAST, tmp_path / "out", tmp_path / "scratch", shard_rows=5)
    assert str(tables.store) in str(raised.value.where)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "why"),
    [
        ("while True: pass", "no labels within 0.5 s of CPU time"),
        ("max(range(10**12))", "no labels: the process died: killed by SIGPROF"),
        ("import os; os.abort()", "no labels: the process died: killed by SIGABRT"),
        ("bytearray(1 << 40)", "no labels: out of memory"),
    ],
)
def test_a_trace_whose_labels_do_not_end_gets_none_with_a_reason_and_the_others_get_theirs(
    act: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A library that acts so on one text: the labels ask phonenumbers about what is written as a number.
    (tmp_path / "phonenumbers.py").write_text(
        "class NumberParseException(Exception): pass\n"
        f"def parse(text, region):\n    if text.endswith('1234'):\n        {act}\n    return text\n"
        "def is_valid_number(number): return True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [trace(f"p{n}", 0, text=f"<think>hm</think>call 415-867-{1230 + n}") for n in range(8)]
    config = LabelConfig(languages=None, near_duplicates=None, timeout_s=0.5, memory_mb=4096, workers=1)
    tables = write_tables(tmp_path / "tables", rows)
    with tables.open() as traces:
        label(traces, tables.verdicts, config, tmp_path / "out", tmp_path / "scratch")
    labels = labels_of(tmp_path / "out")
    assert list(labels) == [f"p{n}-0" for n in range(8)]
    for name, row in labels.items():
        if name == "p4-0":
            assert (row["personal_data"], row["personal_data_reason"], row["refusal_reason"]) == (None, why, why)
            assert (row["truncated"], row["language_mixing_reason"], row["contaminated_reason"]) == (False, None, None)
        else:
            assert (row["personal_data"], row["personal_data_reason"]) == (True, "phone number (1)")


@pytest.mark.slow
def test_a_library_that_is_missing_ends_the_stage_and_is_no_reason_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phonenumbers.py").write_text("raise ModuleNotFoundError('no phonenumbers')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [trace("p0", 0), trace("p1", 0, text="<think>hm</think>call 415-867-1230")]
    config = LabelConfig(languages=None, near_duplicates=None, workers=1)
    tables = write_tables(tmp_path / "tables", rows)
    with tables.open() as traces, pytest.raises(MissingDependency, match="phonenumbers is not installed"):
        label(traces, tables.verdicts, config, tmp_path / "out", tmp_path / "scratch")
