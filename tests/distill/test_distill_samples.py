"""``distill samples merge``: sample logs of several runs or shards as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Answer
from sample_runs import draw, problems, stored

from synth.sampling.config import TeacherSampling
from synth.sampling.reuse import reuse_samples
from synth.sampling.sample import ENGINES
from synth.sampling.store import SampleStore
from synth.teachers.config import FakeTeacher
from synth.teachers.router import write_engine_info

Distill = Callable[..., Answer]


def row(number: int, text: str = "four", **changes: Any) -> dict[str, Any]:
    return {
        "request_id": hashlib.sha256(str(number).encode()).hexdigest()[:32], "text": text, "finish_reason": "stop",
        "error": None, "prompt_tokens": 7, "completion_tokens": 10, "engine": "e", **changes,
    }  # fmt: skip


def failed(number: int, **changes: Any) -> dict[str, Any]:
    tokens = {"prompt_tokens": 7, "completion_tokens": 3}
    return row(number, "", finish_reason="error", error="cut", **{**tokens, **changes})


def log(path: Path, *rows: dict[str, Any], end: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + end)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counts(summary: dict[str, Any], *names: str) -> tuple[int, ...]:
    return tuple(summary[name] for name in names)


def test_equal_answers_count_once_and_of_different_ones_the_first_log_decides(tmp_path: Path, distill: Distill) -> None:
    one = log(tmp_path / "one.jsonl", row(1), row(2, "first"))
    two = log(tmp_path / "two.jsonl", row(2, "second"), row(1, engine="other"), row(3))
    answer = distill("samples", "merge", tmp_path / "out", one, two, "--json")
    assert answer.code == 0, answer.err
    assert counts(answer.json, "logs", "rows_in", "requests", "duplicates", "conflicts") == (2, 5, 3, 1, 1)
    assert counts(answer.json, "completion_tokens", "prompt_tokens", "conflict_tokens") == (30, 21, 10)
    assert lines(tmp_path / "out/samples.jsonl") == [row(1), row(2, "first"), row(3)]
    assert lines(tmp_path / "out/conflicts.jsonl") == [row(2, "second")]
    answer = distill("samples", "merge", tmp_path / "turned", two, one)
    assert "3 requests, 0 of them failed; 30 generated tokens" in answer.out
    assert "1 duplicates, 1 conflicts" in answer.out
    assert str(tmp_path / "turned/conflicts.jsonl") in answer.out
    assert lines(tmp_path / "turned/conflicts.jsonl") == [row(2, "first")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_answer_replaces_a_failed_request_whatever_the_order(
    tmp_path: Path, distill: Distill, order: tuple[int, int]
) -> None:
    logs = [log(tmp_path / "a.jsonl", failed(1), failed(2)), log(tmp_path / "b.jsonl", row(1), failed(2))]
    answer = distill("samples", "merge", tmp_path / "out", *(logs[at] for at in order), "--json")
    assert counts(answer.json, "rows_in", "requests", "failed", "retried", "duplicates") == (4, 2, 1, 1, 1)
    with SampleStore(tmp_path / "out", read_only=True) as merged:
        row_id = merged.find(row(1)["request_id"])
        assert row_id is not None
        assert merged.row(row_id) == row(1)
    assert not (tmp_path / "out/conflicts.jsonl").exists()


def test_a_torn_last_line_is_left_out_and_lines_are_copied_as_they_are(tmp_path: Path, distill: Distill) -> None:
    spaced = b'{"finish_reason":"stop",  "request_id":"r", "text":"\xc3\xa9 \\ud800", "score": NaN}\n'
    one = log(tmp_path / "one.jsonl", row(1), end=spaced + b"\0\0\n" + json.dumps(row(2)).encode())
    answer = distill("samples", "merge", tmp_path / "out", one, log(tmp_path / "empty.jsonl"), "--json")
    assert counts(answer.json, "rows_in", "requests", "damaged") == (2, 2, 2)
    assert (tmp_path / "out/samples.jsonl").read_bytes() == json.dumps(row(1)).encode() + b"\n" + spaced


def test_a_recipe_takes_the_merged_shards_and_samples_nothing_anew(tmp_path: Path, distill: Distill) -> None:
    sampling, teacher = TeacherSampling(num_samples=2), FakeTeacher(latency_s=0.0)
    whole = draw(tmp_path / "whole", problems(6), sampling, teacher)
    for shard, part in (("a", problems(6)[:3]), ("b", problems(6)[2:])):
        draw(tmp_path / shard, part, sampling, teacher)
        write_engine_info(tmp_path / shard / "store" / ENGINES, [{"model": "fake-teacher", "engine": shard}])
    merged = tmp_path / "merged"
    answer = distill("samples", "merge", merged, tmp_path / "a", tmp_path / "b" / "store" / "samples.jsonl", "--json")
    assert counts(answer.json, "requests", "duplicates", "conflicts") == (12, 2, 0)
    assert [one["engine"] for one in lines(merged / ENGINES)] == ["a", "b"]
    again = distill("samples", "merge", tmp_path / "again", merged, "--json")
    assert counts(again.json, "requests", "duplicates") == (12, 0)
    count = reuse_samples(problems(6), teacher, sampling, [merged], tmp_path / "run/store", ENGINES)
    assert count == 12
    done = draw(tmp_path / "run", problems(6), sampling, teacher)
    assert (done.reused, done.samples_digest) == (12, whole.samples_digest)
    assert len(stored(tmp_path / "run")) == 12


def test_what_is_no_sample_log_is_refused_and_nothing_is_left_behind(tmp_path: Path, distill: Distill) -> None:
    good = log(tmp_path / "good.jsonl", row(1))
    verdicts = log(tmp_path / "verdicts.jsonl", {"request_id": "r", "verdict": "correct"})
    for source, what in ((tmp_path / "none", "there is no sample log"), (verdicts, "the log has no sample")):
        answer = distill("samples", "merge", tmp_path / "out", good, source)
        assert (answer.code, what in answer.err, str(source) in answer.err) == (2, True, True), answer.err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["good.jsonl", "verdicts.jsonl"]
    answer = distill("samples", "merge", tmp_path, good)
    assert (answer.code, "not empty" in answer.err) == (2, True), answer.err
