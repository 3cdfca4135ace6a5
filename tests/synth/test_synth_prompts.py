from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.errors import InputError, MissingDependency
from synth.benchmarks import prompt_items
from synth.problems.config import HubPrompts, JsonlPrompts, ReasoningGymPrompts
from synth.problems.problem import Prompt, load_prompts


def problem(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "prompt": f"What is {number} + 1?", "answer": str(number + 1), "kind": "math", **more}


def write(path: Path, *rows: dict[str, Any] | bytes | str) -> str:
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def test_a_jsonl_row_becomes_a_prompt_and_keeps_its_unknown_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", problem(1, level=3, question="shadows no property"), problem(2, source="mine"))
    first, second = load_prompts(JsonlPrompts(path=path, license="mit")).prompts
    assert first.question == "What is 1 + 1?"
    assert first.row() == {
        "id": "p1",
        "messages": [{"role": "user", "content": "What is 1 + 1?"}],
        "answer": "2",
        "kind": "math",
        "source": "set.jsonl",
        "license": "mit",
        "level": 3,
        "question": "shadows no property",
    }
    assert Prompt.model_validate(first.row()) == first
    assert second.source == "mine"


def test_broken_lines_are_named_by_number_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", problem(1), "", "{broken", problem(2), b'{"prompt": "\xff"}', "[1]")
    with pytest.raises(InputError) as caught:
        load_prompts(JsonlPrompts(path=path))
    assert caught.value.where == f"{path}:3"
    assert "2 more bad rows" in caught.value.what
    assert "--set prompts.on_bad_row=skip" in (caught.value.hint or "")
    with pytest.raises(InputError) as caught:
        prompt_items(JsonlPrompts(path=path))
    assert "--set evaluate.prompts.on_bad_row=skip" in (caught.value.hint or ""), "where the recipe has held-out ones"


def test_skipped_rows_keep_their_place_reason_and_text(tmp_path: Path) -> None:
    rows = [problem(1), "{broken", b'{"prompt": "\xff"}', "[1]", '{"a": NaN}', problem(2), problem(3, kind="maths")]
    path = write(tmp_path / "set.jsonl", *rows)
    found = load_prompts(JsonlPrompts(path=path, on_bad_row="skip"))
    assert [p.id for p in found.prompts] == ["p1", "p2"]
    assert [bad.where.rpartition(":")[2] for bad in found.bad] == ["2", "3", "4", "5", "7"]
    reasons = [bad.reason for bad in found.bad]
    for reason, part in zip(reasons, ["not JSON", "not UTF-8 at byte 12", "object", "NaN", "kind"], strict=True):
        assert part in reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "exactly one"),
        ({"prompt": None}, "exactly one"),
        ({"prompt": "  "}, "empty"),
        ({"answer": None}, "needs an `answer`"),
        ({"answer": ""}, "needs an `answer`"),
        ({"kind": "code", "answer": None}, "tests"),
        ({"kind": "reasoning_gym"}, "`task` and `entry`"),
        ({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "end with the assis"),
        ({"prompt": [{"role": "robot", "content": "a"}]}, "role"),
        ({"prompt": []}, "not empty"),
        ({"prompt": "\ud800 half a pair"}, "UTF-8"),
    ],
)
def test_a_row_that_could_not_be_asked_or_verified_is_bad(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "set.jsonl", {**problem(1), **row}, problem(2))
    (bad,) = load_prompts(JsonlPrompts(path=path, on_bad_row="skip")).bad
    assert reason in bad.reason


def test_rows_that_need_no_answer_are_good(tmp_path: Path) -> None:
    path = write(
        tmp_path / "set.jsonl",
        {"prompt": "Write a poem.", "kind": "open"},
        {"prompt": "Write f.", "kind": "code", "tests": "assert f() == 1", "entry_point": "f"},
        {"prompt": "2 + 2?", "kind": "math", "gold": "4"},
    )
    found = load_prompts(JsonlPrompts(path=path)).prompts
    assert [p.answer for p in found] == [None, None, "4"]
    assert len({p.id for p in found}) == 3, "rows without an id are named by their content"


def test_copies_are_dropped_and_counted_and_an_id_names_one_problem(tmp_path: Path) -> None:
    spaced = {**problem(9), "prompt": "  What is\r\n1 + 1? "}
    path = write(tmp_path / "set.jsonl", problem(1), problem(1), spaced, {**problem(1), "prompt": "Another question"})
    found = load_prompts(JsonlPrompts(path=path, on_bad_row="skip"))
    assert ([p.id for p in found.prompts], found.duplicates) == (["p1"], 2)
    assert "'p1' names another problem" in found.bad[0].reason


def test_the_limit_counts_good_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", problem(1), problem(1), "{", problem(2), problem(3), "{")
    found = load_prompts(JsonlPrompts(path=path, on_bad_row="skip", limit=2))
    assert [p.id for p in found.prompts] == ["p1", "p2"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(problem(1)).encode() + b"\r\n")
    assert load_prompts(JsonlPrompts(path=str(path))).prompts[0].id == "p1"


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_an_error_of_the_user(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no row"):
        load_prompts(JsonlPrompts(path=str(path)))


def test_nothing_but_skipped_rows_is_an_error_too(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", "{", "{")
    with pytest.raises(InputError, match="none of 2 rows") as caught:
        load_prompts(JsonlPrompts(path=path, on_bad_row="skip"))
    assert caught.value.where == f"{path}:1"


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named_with_a_hint(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_prompts(JsonlPrompts(path=str(tmp_path / name)))
    assert caught.value.where == str(tmp_path / name)
    assert "prompts.path" in (caught.value.hint or "")


@given(st.text(min_size=1).filter(str.strip), st.sampled_from([" ", "\n", "\t\t", " \r\n "]))
def test_the_content_hash_ignores_white_space_and_nothing_else(text: str, blank: str) -> None:
    def hashed(content: str) -> str:
        message = {"role": "user", "content": content}
        return Prompt(id="a", messages=(message,), kind="open", source="s").content_hash

    assert hashed(f"a {text}") == hashed(f"a{blank}{text}{blank}")
    assert hashed(f"a {text}") != hashed(f"a {text} b")


def test_composed_and_decomposed_letters_are_the_same_problem() -> None:
    forms = [Prompt(id="a", prompt=text, kind="open", source="s").content_hash for text in ("caf\u00e9", "cafe\u0301")]
    assert forms[0] == forms[1]


@pytest.mark.slow
def test_a_folder_of_parquet_is_a_data_set(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    for part in range(2):
        numbers = range(part * 3, part * 3 + 3)
        table = pa.table(
            {
                "problem": [f"{n} + 1?" for n in numbers],
                "solution": [str(n + 1) for n in numbers],
                "messages": [[{"role": "user", "content": "a whole chat"}]] * 3,
                "level": list(numbers),
            }
        )
        pq.write_table(table, tmp_path / f"train-{part:05d}-of-00002.parquet")
    config = HubPrompts(dataset=str(tmp_path), columns={"prompt": "problem", "answer": "solution"}, limit=5)
    found = load_prompts(config)
    assert [p.question for p in found.prompts] == [f"{n} + 1?" for n in range(5)]
    assert found.prompts[3].answer == "4"
    assert found.prompts[3].row()["level"] == 3
    assert found.prompts[0].source == str(tmp_path)
    with pytest.raises(InputError, match=r"no column nope; there are level, messages, problem, solution"):
        load_prompts(HubPrompts(dataset=str(tmp_path), columns={"prompt": "nope"}))
    with pytest.raises(InputError, match="did not open"):
        load_prompts(HubPrompts(dataset=str(tmp_path), split="validation"))


def test_a_gated_data_set_is_answered_with_how_to_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def refused(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(InputError, match="gated dataset") as caught:
        load_prompts(HubPrompts(dataset="a/b"))
    assert "accept its terms" in (caught.value.hint or "")


def test_a_missing_library_is_answered_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="pip install"):
        load_prompts(HubPrompts(dataset="owner/name"))


def test_reasoning_gym_items_are_the_same_every_time_and_carry_their_entry() -> None:
    settings = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 1}
    config = ReasoningGymPrompts(task="chain_sum", config=settings, size=40, seed=7)
    found = load_prompts(config)
    assert found == load_prompts(config)
    assert len(found.prompts) + found.duplicates == 40
    row = found.prompts[0].row()
    assert row["entry"]["question"] == found.prompts[0].question
    assert (row["task"], row["kind"], row["license"]) == ("chain_sum", "reasoning_gym", "apache-2.0")
    other = load_prompts(config.model_copy(update={"seed": 8}))
    assert {p.id for p in other.prompts}.isdisjoint(p.id for p in found.prompts)


@pytest.mark.parametrize(
    ("task", "config"), [("no_such_task", {}), ("chain_sum", {"foo": 1}), ("chain_sum", {"seed": 1})]
)
def test_a_task_that_reasoning_gym_refuses_is_the_users_error(task: str, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="reasoning-gym refuses"):
        load_prompts(ReasoningGymPrompts(task=task, config=config, size=2))


# --- the user's own columns --------------------------------------------------------------------------------------

MEASURED = ("pass_rate", "labels", "score", "majority", "verdict", "kept", "drop_reason", "request_id", "finish_reason")


def test_a_users_column_is_apart_whatever_its_name(tmp_path: Path) -> None:
    own = {name: f"mine {name}" for name in (*MEASURED, "extra", "level")}
    path = write(tmp_path / "p.jsonl", {**problem(1), **own, "choices": ["1", "2"]})
    (prompt,) = load_prompts(JsonlPrompts(path=path)).prompts
    assert prompt.extra == own
    columns = prompt.trace_columns()
    assert columns["extra"] == own
    assert columns["choices"] == ["1", "2"]
    assert not set(columns) & set(MEASURED)
    assert {name: prompt.row()[name] for name in own} == own, "outside of a run they keep their names"


def test_a_problem_without_columns_of_its_own_has_no_extra(tmp_path: Path) -> None:
    (prompt,) = load_prompts(JsonlPrompts(path=write(tmp_path / "p.jsonl", problem(1)))).prompts
    assert prompt.extra == {}
    assert "extra" not in prompt.trace_columns()
