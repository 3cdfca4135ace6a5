"""Imported traces: read, committed to the store, verified; none of their columns replaces a measured one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_runs import rows_of, stored, traces_of

from licensing.errors import InputError
from synth.parquet_files import read_parquet
from synth.problems.config import ImportedTraces
from synth.sampling.imported_traces import import_traces, load_traces
from synth.sampling.samples_table import write_problems
from synth.sampling.selection import SampleSummary
from synth.teachers.config import FakeTeacher
from synth.trace import TraceSet
from synth.verify.config import VerifyConfig
from synth.verify.verify_traces import VERDICTS, verify_traces


def problem(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "prompt": f"What is {number} + 1?", "answer": str(number + 1), "kind": "math", **more}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def imported(folder: Path, *rows: dict[str, Any], teacher: FakeTeacher | None = None) -> SampleSummary:
    path = write(folder / "traces.jsonl", *rows)
    traces = load_traces(ImportedTraces(path=path), teacher or FakeTeacher(name="some/teacher"))
    (folder / "out").mkdir(exist_ok=True)
    write_problems(folder / "out", traces.prompts)
    return import_traces(traces, [prompt.id for prompt in traces.prompts], folder / "out", folder / "store")


def verified(folder: Path) -> list[dict[str, Any]]:
    with TraceSet(folder / "out", folder / "store") as traces:
        verify_traces(traces, VerifyConfig(workers=1), folder / "verify", folder / "store", folder / "scratch")
    return list(read_parquet(folder / "verify" / VERDICTS))


def test_traces_become_problems_and_samples_of_the_store(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "It is \\boxed{2}"}]
    summary = imported(
        tmp_path,
        {**problem(1), "response": "\\boxed{2}", "model": "a/b", "completion_tokens": 5, "finish_reason": "length"},
        {"id": "other-name", "messages": chat, "answer": "2", "kind": "math"},
        {**problem(1), "response": "\\boxed{2}", "model": "a/b"},
        {**problem(2), "response": "\\boxed{3}"},
    )
    rows = rows_of(tmp_path)
    assert [(s["problem_id"], s["sample_index"], s["teacher"], s["finish_reason"]) for s in rows] == [
        ("p1", 0, "a/b", "length"),
        ("p1", 1, "some/teacher", "stop"),
        ("p2", 0, "some/teacher", "stop"),
    ]
    assert [row["completion_tokens"] for row in rows] == [5, None, None]
    assert rows[1]["text"] == "It is \\boxed{2}"
    assert {row["engine"] for row in rows} == {"imported"}
    assert len({row["request_id"] for row in rows}) == len(stored(tmp_path)) == 3
    assert (summary.rows, summary.completion_tokens, summary.engines) == (3, 5, ["imported"])
    assert (summary.first_completed, summary.last_completed) == (None, None), "nobody says when they were drawn"


def test_traces_that_are_imported_again_are_not_stored_again(tmp_path: Path) -> None:
    rows = [{**problem(n), "response": f"\\boxed{{{n}}}", "finish_reason": "error" if n else "stop"} for n in range(3)]
    first = imported(tmp_path, *rows)
    assert imported(tmp_path, *rows).samples_digest == first.samples_digest
    assert len(stored(tmp_path)) == 3


def test_thinking_that_was_kept_apart_is_joined_in_the_tags_of_the_teacher(tmp_path: Path) -> None:
    final = {"role": "assistant", "content": "\\boxed{2}", "reasoning_content": "maybe \\boxed{5}\n"}
    row = {"messages": [{"role": "user", "content": "1 + 1?"}, final], "answer": "2", "kind": "math", "model": "m"}
    imported(tmp_path, row)
    (trace,) = traces_of(tmp_path)
    assert trace.text == "<think>\nmaybe \\boxed{5}\n</think>\n\n\\boxed{2}"
    (tmp_path / "other").mkdir()
    imported(tmp_path / "other", row, teacher=FakeTeacher(think_open="[THINK]", think_close="[/THINK]"))
    (trace,) = traces_of(tmp_path / "other")
    assert trace.text == "[THINK]\nmaybe \\boxed{5}\n[/THINK]\n\n\\boxed{2}"
    assert (trace.reasoning.thinking, trace.reasoning.answer) == ("\nmaybe \\boxed{5}\n", "\n\n\\boxed{2}")


def test_a_trace_that_says_it_failed_is_no_judged_sample_whatever_its_text_says(tmp_path: Path) -> None:
    imported(
        tmp_path,
        {**problem(1), "response": "\\boxed{2}", "finish_reason": "error"},
        {**problem(1), "response": "so \\boxed{2}"},
        {**problem(2), "finish_reason": "error", "error": "out of memory"},
    )
    failed, good, empty = verified(tmp_path)
    assert (failed["verdict"], failed["judged"]) == ("error", False)
    assert failed["reason"] == "the request failed: the imported trace is a failed request"
    assert (good["verdict"], good["judged"]) == ("correct", True)
    assert (empty["judged"], empty["reason"]) == (False, "the request failed: out of memory")


def test_columns_of_the_user_never_stand_for_something_measured(tmp_path: Path) -> None:
    forged = {"verdict": "correct", "score": 1.0, "pass_rate": 0.05, "labels": ["suspect_gold"], "counts_as": "correct",
              "judge_verdict": "correct", "majority": {"answer": "9"}, "format_verdict": "ok", "engine": "mine",
              "request_id": "mine", "teacher": "mine", "text": "mine", "think_open": "", "extra": {"level": 3},
              "error": "mine"}  # fmt: skip
    imported(tmp_path, {**problem(1), "response": "\\boxed{9}", **forged})
    (trace,) = traces_of(tmp_path)
    assert (trace.text, trace.engine, trace.teacher, trace.error) == ("\\boxed{9}", "imported", "some/teacher", None)
    assert set(trace.problem) == {"id", "messages", "answer", "kind", "source", "license", "extra"}
    assert trace.problem["extra"] == {name: value for name, value in forged.items() if name != "error"}
    (row,) = verified(tmp_path)
    assert (row["verdict"], row["score"], row["counts_as"], row["majority_answer"]) == ("wrong", 0.0, None, None)
    assert (row["format_verdict"], row["judge_verdict"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response": None}, "needs a `response`"),
        ({"response": " "}, "needs a `response`"),
        ({"model": None}, "no model is named"),
        ({"finish_reason": "eos"}, "finish_reason 'eos'"),
        ({"completion_tokens": "many"}, "not a count"),
        ({"answer": None}, "needs an `answer`"),
    ],
)
def test_a_bad_trace_is_named_by_line(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    good = {**problem(1), "response": "r", "model": "m"}
    path = write(tmp_path / "t.jsonl", good, {**good, **change})
    with pytest.raises(InputError) as caught:
        load_traces(ImportedTraces(path=path))
    assert reason in caught.value.what
    assert caught.value.where == f"{path}:2"
    assert "sample.on_bad_row=skip" in (caught.value.hint or "")
    assert len(load_traces(ImportedTraces(path=path, on_bad_row="skip")).samples) == 1
