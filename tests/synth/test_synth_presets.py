"""Presets: rows in each public set's schema become problems; a right response is correct, a wrong one is not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preset_rows import CASES, OTHER_FORMS, Case

from licensing.errors import InputError
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts
from synth.problems.loaders import RawRow, mapped_rows
from synth.problems.preset import presets
from synth.problems.problem import BadRow, PromptSet, load_prompts, problem_of_row
from synth.sampling.imported_traces import load_traces
from synth.teachers.config import OfflineTeacher
from synth.verify.config import VerifyConfig
from synth.verify.verifier import check_golds, verify_rows

by_preset = pytest.mark.parametrize("name", sorted(CASES))


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(name: str, folder: Path, case: Case | None = None) -> PromptSet:
    rows = (case or CASES[name]).rows
    return load_prompts(JsonlPrompts(preset=name, path=written(folder, rows), license="mit"))


def test_every_preset_has_a_case() -> None:
    assert set(CASES) == set(presets())


@by_preset
def test_rows_in_the_sets_schema_become_problems(name: str, tmp_path: Path) -> None:
    case, preset = CASES[name], presets()[name]
    found = read(name, tmp_path)
    assert (len(found.prompts), found.left_out, found.bad) == (case.taken, case.left_out, ())
    assert {prompt.kind for prompt in found.prompts} <= set(preset.kinds)
    assert {prompt.source for prompt in found.prompts} == {preset.dataset}
    assert "secret" not in json.dumps([prompt.row() for prompt in found.prompts])


@pytest.mark.slow
def test_every_gold_answer_verifies(tmp_path: Path) -> None:
    prompts = [prompt for name in sorted(CASES) for prompt in read(name, tmp_path).prompts]
    assert check_golds(prompts, VerifyConfig(workers=2)) == []


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Every case's responses, verified in one pass."""

    cases = {name: (name, case) for name, case in CASES.items()} | OTHER_FORMS

    def rows() -> Iterator[dict[str, Any]]:
        for key, (name, case) in cases.items():
            prompt = read(name, tmp_path_factory.mktemp("rows"), case).prompts[0]
            for which, response in (("right", case.right), ("wrong", case.wrong)):
                yield {**prompt.row(), "response": response or "Hello.", "case": (key, which)}

    return {row["case"]: row for row in verify_rows(rows(), VerifyConfig(workers=2))}


@pytest.mark.parametrize("key", OTHER_FORMS)
def test_function_calls_and_checkers_are_graded_too(key: str, verdicts: dict[tuple[str, str], dict[str, Any]]) -> None:
    right, wrong = verdicts[key, "right"], verdicts[key, "wrong"]
    assert (right["verdict"], wrong["verdict"]) == ("correct", "wrong"), (right["reason"], wrong["reason"])


@by_preset
def test_a_right_response_is_correct_and_a_wrong_one_is_not(
    name: str, verdicts: dict[tuple[str, str], dict[str, Any]]
) -> None:
    right, wrong = verdicts[name, "right"], verdicts[name, "wrong"]
    if "not graded" in presets()[name].graded:
        assert (right["verdict"], wrong["verdict"]) == (None, None)
    else:
        assert (right["verdict"], wrong["verdict"]) == ("correct", "wrong"), (right["reason"], wrong["reason"])


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.texts is not None))
def test_traces_in_the_sets_form_come_in_with_thinking_and_answer_apart(name: str, tmp_path: Path) -> None:
    case: Case = CASES[name]
    config = ImportedTraces(preset=name, path=written(tmp_path, case.rows), license="mit")
    traces = load_traces(config, OfflineTeacher(model="some/model", license="mit"))
    samples = [*traces.samples()]
    assert [sample["text"] for sample in samples] == case.texts
    assert {prompt.source for prompt in traces.prompts} == {presets()[name].dataset}, "whatever the copy is called"
    assert traces.left_out == case.trace_left_out
    named = presets()[name].teacher or case.teacher
    assert {sample["teacher"] for sample in samples} == {named}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("{'a': 1}"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "role", "content", "from", "value", "type", "thinking"]), inner)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_row_of_any_set_is_a_row_with_a_reason(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CASES)))
    row = dict(data.draw(st.sampled_from(CASES[name].rows)))
    for column in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[column] = data.draw(JSON)
    kind = ImportedTraces if presets()[name].traces else JsonlPrompts
    config = kind(preset=name, path="unread.jsonl", license="mit", on_bad_row="skip")
    (raw,) = mapped_rows(iter([RawRow("here", row)]), config)
    assert raw.condition or raw.reason or raw.row is not None
    bad: list[BadRow] = []
    if raw.row is not None and problem_of_row(raw, {"kind": "open", "source": "s"}, bad, True) is None:
        assert bad[0].reason


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_traces_of_any_set_are_rows_with_a_reason(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(name for name in CASES if presets()[name].traces)))
    row = dict(data.draw(st.sampled_from(CASES[name].rows)))
    for column in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[column] = data.draw(JSON)
    path = written(tmp_path_factory.mktemp("rows"), [row])
    config = ImportedTraces(preset=name, path=path, license="mit", on_bad_row="skip")
    with contextlib.suppress(InputError):
        traces = load_traces(config, OfflineTeacher(model="some/model"))
        assert len([*traces.samples()]) == len(traces.index)


def test_each_part_of_a_mixture_has_its_own_license(tmp_path: Path) -> None:
    (turn,) = CASES["tulu-3-sft-mixture"].rows
    parts = ("oasst1_converted", "no_robots_converted", "flan_v2_converted", "a_new_part")
    rows = [{**turn, "id": part, "messages": [{"role": "user", "content": part}], "source": f"ai2-adapt-dev/{part}"}
            for part in parts]  # fmt: skip
    path = written(tmp_path, rows)
    found = load_prompts(JsonlPrompts(preset="tulu-3-sft-mixture", path=path)).prompts
    assert [prompt.license for prompt in found] == ["apache-2.0", "cc-by-nc-4.0", None, None], "not stated: none"
    stated = load_prompts(JsonlPrompts(preset="tulu-3-sft-mixture", path=path, license="mit")).prompts
    assert [prompt.license for prompt in stated] == ["apache-2.0", "cc-by-nc-4.0", "mit", "mit"]


def test_a_rows_own_license_goes_before_the_cards(tmp_path: Path) -> None:
    (row, _) = CASES["llama-nemotron-science"].rows
    silent = {**row, "license": None, "input": [{"role": "user", "content": "What is 2 + 4?"}]}
    config = ImportedTraces(preset="llama-nemotron-science", path=written(tmp_path, [row, silent]))
    traces = load_traces(config, OfflineTeacher(model="some/model", license="mit"))
    assert [prompt.license for prompt in traces.prompts] == ["apache-2.0", "cc-by-4.0"]


def test_a_set_of_traces_has_rows_for_it() -> None:
    assert {name for name, case in CASES.items() if case.texts is not None} == {
        name for name, preset in presets().items() if preset.traces
    }


def test_what_a_set_says_of_a_trace_is_kept_beside_our_verdict(tmp_path: Path) -> None:
    path = written(tmp_path, CASES["openr1-math-220k"].rows)
    traces = load_traces(ImportedTraces(preset="openr1-math-220k", path=path), OfflineTeacher(model="m", license="mit"))
    assert next(traces.samples())["claims"] == {"complete": True, "correct_math_verify": True, "correct_llama": None}


@pytest.mark.slow
def test_a_local_folder_in_parquet_is_read_by_the_same_preset(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = CASES["deepmath-103k"].rows
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    (prompt,) = load_prompts(HubPrompts(preset="deepmath-103k", dataset=str(tmp_path))).prompts
    assert (prompt.question, prompt.answer, prompt.source) == ("What is 2 + 3?", "5", "zwhe99/DeepMath-103K")
    assert prompt.extra == {"difficulty": 4.5, "topic": "Mathematics -> Algebra"}, "traces are not even read"
    traces = load_traces(ImportedTraces(preset="deepmath-103k", dataset=str(tmp_path)))
    assert [sample["text"] for sample in traces.samples()] == CASES["deepmath-103k"].texts


@by_preset
def test_a_preset_says_where_each_statement_was_read(name: str) -> None:
    preset = presets()[name]
    for source in (*preset.schema_source, *(fault.reference for fault in preset.faults), preset.license_source):
        assert "https://" in source or (preset.license is None and "state" in source), source
