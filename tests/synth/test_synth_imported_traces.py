"""Imported traces: read, committed to the store, verified; none of their columns replaces a measured one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from sample_runs import rows_of, stored, traces_of

from licensing.errors import InputError
from synth.parquet_files import read_parquet
from synth.problems.config import ImportedTraces
from synth.sampling.imported_traces import SOURCE_CLAIMS, ImportedTraceSet, import_traces, load_traces
from synth.sampling.samples_table import write_problems
from synth.sampling.selection import SampleSummary
from synth.teachers.config import FakeTeacher, OfflineTeacher
from synth.trace_set import TraceSet
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


@pytest.mark.parametrize(
    "row",
    [
        {"thinking": "maybe", "response": "\\boxed{2}"},
        {"reasoning_content": "maybe", "response": "\\boxed{2}"},
        {"response": [{"type": "thinking", "thinking": "maybe"}, {"type": "text", "text": "\\boxed{2}"}]},
        {"response": [{"type": "thinking", "thinking": [{"type": "text", "text": "maybe"}]},
                      {"type": "text", "text": "\\boxed{2}"}]},
        {"response": {"role": "assistant", "content": "\\boxed{2}", "thinking": "maybe"}},
    ],
)  # fmt: skip
def test_thinking_is_never_lost_whatever_part_holds_it(tmp_path: Path, row: dict[str, Any]) -> None:
    imported(tmp_path, {**problem(1), **row})
    (trace,) = traces_of(tmp_path)
    assert trace.text == "<think>\nmaybe\n</think>\n\n\\boxed{2}"
    assert "thinking" not in trace.problem.get("extra", {})


def load(path: str, **fields: Any) -> ImportedTraceSet:
    return load_traces(ImportedTraces(path=path, row_kind="math", **fields), OfflineTeacher(model="a/b"))


COLUMNS: dict[str, Any] = {"prompt": "q", "answer": "gold"}


def test_traces_stand_in_lists_and_columns_and_keep_what_the_set_says_of_each(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl",
        {"q": "1 + 1?", "gold": "2", "many": ["a \\boxed{2}", None, "b \\boxed{3}"], "right": [True, None, False],
         "other": "c", "by": "x/y"},
    )  # fmt: skip
    entries = ({"response": "many", "right": "right"}, {"response": "other", "model": "by", "thinking": {"value": "t"}})
    traces = load(path, columns=COLUMNS, traces=entries)
    assert [(one["text"], one["teacher"], one["claims"]) for one in traces.samples()] == [
        ("a \\boxed{2}", "a/b", {"right": True}),
        ("b \\boxed{3}", "a/b", {"right": False}),
        ("<think>\nt\n</think>\n\nc", "x/y", {}),
    ]
    assert [one["sample_index"] for one in traces.samples()] == [0, 1, 2]
    right = load(path, columns=COLUMNS, traces=entries, trace_where={"right": True})
    assert ([one["text"] for one in right.samples()], right.left_out) == (["a \\boxed{2}"], {"trace right": 2})
    out = tmp_path / "out"
    out.mkdir()
    import_traces(traces, [prompt.id for prompt in traces.prompts], out, tmp_path / "store")
    claims = {row["request_id"]: json.loads(row["claims"]) for row in read_parquet(out / SOURCE_CLAIMS)}
    assert claims == {one["request_id"]: one["claims"] for one in itertools.islice(traces.samples(), 2)}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"many": ["a", "b"], "right": [True]}, "2 responses but 1 values of `right`"),
        ({"many": None, "right": None}, "the row has no trace"),
        ({"many": [], "right": []}, "the row has no trace"),
    ],
)
def test_a_row_whose_traces_do_not_fit_together_is_bad(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {"q": "1 + 1?", "gold": "2", "many": ["a"], "right": [True]}
    path = write(tmp_path / "t.jsonl", good, {"q": "2 + 2?", "gold": "4", **row})
    entries = ({"response": "many", "right": "right"},)
    with pytest.raises(InputError, match=reason) as caught:
        load(path, columns=COLUMNS, traces=entries)
    assert caught.value.where == f"{path}:2"
    assert len(load(path, columns=COLUMNS, traces=entries, on_bad_row="skip").index) == 1


def test_traces_of_another_model_than_the_recipes_teacher_are_refused(tmp_path: Path) -> None:
    rows = [{**problem(n), "response": "x", "model": model} for n, model in enumerate(["a/b", "c/d", "c/d"])]
    traces = load(write(tmp_path / "t.jsonl", *rows))
    with pytest.raises(InputError, match=r"c/d \(2\)") as caught:
        traces.check_models("a/b")
    assert "trace_where.model" in (caught.value.hint or "")


def test_a_file_that_changes_between_two_readings_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {**problem(1), "response": "a"}, {**problem(2), "response": "b"})
    traces = load(path)
    write(tmp_path / "t.jsonl", {**problem(1), "response": "a"}, {**problem(2), "response": "c"})
    with pytest.raises(InputError, match="changed while they were read"):
        [*traces.samples()]


def test_parquet_holds_traces_too(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist([{"q": "1 + 1?", "gold": "2", "r": "\\boxed{2}"}]), tmp_path / "t.parquet")
    traces = load(str(tmp_path / "t.parquet"), columns=COLUMNS, traces=({"response": "r"},), keep=())
    assert [one["text"] for one in traces.samples()] == ["\\boxed{2}"]


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
    assert len(load_traces(ImportedTraces(path=path, on_bad_row="skip")).index) == 1
