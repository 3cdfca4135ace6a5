"""Rows of any form become problems: paths, conditions, options, files; one that is not as declared has a reason."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preset_rows import pickled

from licensing.errors import InputError
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts
from synth.problems.pickled_text import pickled_text
from synth.problems.problem import Prompt, PromptSet, load_prompts, reason_counts
from synth.section import key_dump
from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows

SCALE: dict[str, Any] = {"question": "1 + 1?", "final": "2"}
COLUMNS: dict[str, Any] = {"prompt": "question", "answer": "final"}


def read(folder: Path, rows: list[Any], **fields: Any) -> PromptSet:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(JsonlPrompts(path=str(path), **({"row_kind": "math", "on_bad_row": "skip"} | fields)))


def one(folder: Path, row: dict[str, Any], **columns: Any) -> dict[str, Any]:
    """The problem row of one row, or the reason why it is none under `bad`."""
    try:
        (prompt,) = read(folder, [SCALE | row], columns=COLUMNS | columns).prompts
    except InputError as error:
        return {"bad": error.what}
    return prompt.row()


@pytest.mark.parametrize(
    ("row", "spec", "answer"),
    [
        ({"reward": {"gold": "7"}}, "reward.gold", "7"),
        ({"turns": [{"value": "1"}, {"value": "7"}]}, "turns.-1.value", "7"),
        ({"info": '{"gold": ["7", "8"]}'}, "info.gold.0", "7"),
        ({"info": "{'gold': '7'}"}, "info.gold", "7"),
        ({"a.b": "7"}, "a.b", "7"),
        ({"answer": "Add.\n#### 7 "}, {"path": "answer", "pattern": r"####\s*(\S+)"}, "7"),
        ({"letter": None, "number": 7}, {"path": ["letter", "number"]}, 7),
        ({"yes": "True"}, {"path": "yes", "values": {"True": "7"}}, "7"),
        ({"yes": "maybe"}, {"path": "yes", "values": {"True": "8", "*": "7"}}, "7"),
        ({"text": "wrap 7 wrap"}, {"path": "text", "replace": {"^wrap ": "", " wrap$": ""}}, "7"),
        ({}, {"value": "7"}, "7"),
        ({"a": 1, "b": ["x", "y"]}, {"template": "{a}: {b}{absent}"}, "1: x\ny"),
    ],
)
def test_a_value_stands_where_the_recipe_says(tmp_path: Path, row: dict[str, Any], spec: Any, answer: Any) -> None:
    assert one(tmp_path, row, answer=spec)["answer"] == answer


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        ({"info": "{broken"}, {"answer": "info.gold"}, "`info.gold` is neither JSON nor a Python literal"),
        ({"info": "plain"}, {"answer": "info.gold"}, "`info.gold` is not JSON"),
        ({"info": "{'a': print('x')}"}, {"answer": "info.a"}, "neither JSON nor a Python literal"),
        ({"final": "no mark"}, {"answer": {"path": "final", "pattern": "####(.*)"}}, "`final` does not match"),
        ({"type": "essay"}, {"kind": {"path": "type", "values": {"mcq": "choice"}}}, "'essay', which the"),
        ({"a": {"input": ["1"], "output": []}}, {"tests": {"all": ["a"]}}, "differ in length"),
        ({"question": "Which?"}, {"choices": {"path": "question", "parse": "options"}}, "no lettered options"),
        ({"tests": "AAAA"}, {"tests": {"path": "tests", "parse": "pickled_text"}}, "no base64 of zlib"),
        ({"final": None}, {}, "needs an `answer`"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_as_declared_is_bad_with_a_reason(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], reason: str
) -> None:
    assert reason in one(tmp_path, row, **columns)["bad"]


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [SCALE, *({"question": f"{n}?", "final": f"word{n}"} for n in range(3)), {"question": "x"}]
    columns = {"prompt": "question", "answer": {"path": "final", "values": {"2": "2"}}}
    assert reason_counts(read(tmp_path, rows, columns=columns).bad) == {
        "`final` is …, which the recipe does not translate": 3,
        "kind math needs an `answer`": 1,
    }


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ({"none_of": ["a"]}, ["b", "0.3", "7", "None", "True"]),
        ({"min": 0.3, "max": 5}, ["0.3", "True"]),
        ({"pattern": "^[ab]$"}, ["a", "b"]),
        ({"present": True}, ["a", "b", "0.3", "7", "True"]),
        ({"present": False}, ["None"]),
        (True, ["True"]),
        (None, ["a", "b", "0.3", "7", "None", "True"]),
    ],
)
def test_conditions_take_rows_and_count_the_others(tmp_path: Path, condition: Any, taken: list[str]) -> None:
    values = ["a", "b", "0.3", 7, None, True]
    rows = [{"prompt": str(value), "answer": "1", "meta": json.dumps({"tag": value})} for value in values]
    found = read(tmp_path, rows, where={"meta.tag": condition})
    assert [prompt.question for prompt in found.prompts] == taken
    assert found.left_out == ({"meta.tag": len(values) - len(taken)} if len(taken) < len(values) else {})


def test_a_file_of_which_no_row_is_taken_says_which_condition_it_was(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no row meets the conditions \(rows left out by lang: 2\)"):
        read(tmp_path, [{**SCALE, "lang": "en"}, {**SCALE, "lang": "fr"}], where={"lang": "de"})


# --- options ---------------------------------------------------------------------------------------------------------

METALS = {"question": "Which is a metal?", "right": "Iron", "wrong1": "Neon", "wrong2": "Argon"}
SHUFFLED = {
    "prompt": {"template": "{question}\n{choices}"},
    "choices": {"all": ["right", "wrong1", "wrong2"], "shuffle": 3},
    "answer": "right",
}


def options(folder: Path, row: dict[str, Any]) -> Prompt:
    (prompt,) = read(folder, [row], columns=SHUFFLED, row_kind="choice").prompts
    return prompt


def test_options_of_several_columns_are_shown_in_an_order_that_their_columns_do_not_tell(tmp_path: Path) -> None:
    prompt = options(tmp_path, METALS)
    swapped = options(tmp_path, {**METALS, "wrong1": "Argon", "wrong2": "Neon"})
    choices = prompt.row()["choices"]
    assert sorted(choices) == ["Argon", "Iron", "Neon"]
    assert (
        prompt.question
        == swapped.question
        == "Which is a metal?\n" + "\n".join(f"{letter}. {text}" for letter, text in zip("ABC", choices, strict=True))
    )
    firsts = {options(tmp_path, {**METALS, "question": str(n), "wrong1": f"Gas {n}"}).row()["choices"][0]
              for n in range(20)}  # fmt: skip
    assert "Iron" in firsts
    assert len(firsts) > 3, "the right answer is not always in one place"


def test_options_inside_a_question_are_read(tmp_path: Path) -> None:
    row = {"question": "A. Smith asks: which is even?\n(A) one (B) two\n(C) three", "final": "B"}
    columns = {"prompt": "question", "answer": "final", "choices": {"path": "question", "parse": "options"}}
    (prompt,) = read(tmp_path, [row], columns=columns, row_kind="choice").prompts
    assert prompt.row()["choices"] == {"A": "one", "B": "two", "C": "three"}
    (verdict,) = verify_rows([{**prompt.row(), "response": r"\boxed{two}"}], VerifyConfig(workers=1))
    assert verdict["verdict"] == "correct"


# --- chats -----------------------------------------------------------------------------------------------------------


def test_a_chat_is_cut_before_its_answer_whatever_its_roles_are_called(tmp_path: Path) -> None:
    turns = [("system", "Be kind."), ("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "See you")]
    chat = [{"from": role, "value": text, "weight": None} for role, text in turns]
    columns = {"messages": {"path": "conversations", "question_only": True}}
    (prompt,) = read(tmp_path, [{"conversations": chat}], columns=columns, row_kind="open", keep=[]).prompts
    assert [(turn["role"], turn["content"]) for turn in prompt.messages] == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"),
    ]  # fmt: skip
    assert prompt.extra == {}


# --- files and data sets ---------------------------------------------------------------------------------------------


def questions(found: PromptSet) -> list[str]:
    return [prompt.question for prompt in found.prompts]


@pytest.mark.parametrize("form", ["lines", "array", "gzip", "parquet"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path: Path, form: str) -> None:
    rows = [{"question": f"{n}?", "final": str(n), "heavy": "x" * 99} for n in range(5)]
    path = tmp_path / "rows.data"
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes({"lines": lines, "array": json.dumps(rows).encode(), "gzip": gzip.compress(lines)}[form])
    found = load_prompts(JsonlPrompts(path=str(path), columns=COLUMNS, row_kind="math", keep=()))
    assert questions(found) == [f"{n}?" for n in range(5)]
    assert found.prompts[0].extra == {}
    assert [prompt.source for prompt in found.prompts] == ["rows.data"] * 5


def test_damaged_parquet_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="damaged Parquet"):
        load_prompts(JsonlPrompts(path=str(path)))


def test_rows_that_are_arrays_are_read_by_position(tmp_path: Path) -> None:
    rows = [[{"value": f"{n} + 1?"}, {"truth": {"value": str(n + 1)}}] for n in range(2)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    columns = {"prompt": "0.value", "answer": "1.truth.value"}
    config = JsonlPrompts(path=str(tmp_path / "pairs.json"), columns=columns, row_kind="math", keep=())
    assert [(prompt.question, prompt.answer) for prompt in load_prompts(config).prompts] == [
        ("0 + 1?", "1"),
        ("1 + 1?", "2"),
    ]


@pytest.mark.slow
def test_named_files_of_a_folder_are_read_whatever_its_splits_are(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for number in range(3):
        row = {"question": f"{number}?", "final": "1", "other": number}
        (tmp_path / f"test{number}.jsonl").write_text(json.dumps(row) + "\n")
    files = ("test2.jsonl", "test0.jsonl")
    found = load_prompts(HubPrompts(dataset=str(tmp_path), files=files, columns=COLUMNS, keep=("other",)))
    assert [prompt.extra["other"] for prompt in found.prompts] == [2, 0]


def test_streaming_changes_no_result_and_so_no_key() -> None:
    stored, streamed = (HubPrompts(dataset="a/b", streaming=streaming) for streaming in (False, True))
    assert key_dump(stored) == key_dump(streamed)


# --- random choice ---------------------------------------------------------------------------------------------------


def test_a_random_choice_depends_on_seed_and_content_alone(tmp_path: Path) -> None:
    rows = [{**SCALE, "question": f"{n}?"} for n in range(200)]

    def chosen(rows: list[dict[str, Any]], seed: int = 1) -> list[str]:
        return questions(read(tmp_path, rows, columns=COLUMNS, limit=20, seed=seed))

    first = chosen(rows)
    assert first == sorted(first, key=lambda text: int(text[:-1])), "in the order of the file"
    assert len(set(first)) == 20
    assert set(first) != set(chosen(rows, seed=2)) != {f"{n}?" for n in range(20)}
    mixed = [*rows, *rows[:50]]
    random.Random(0).shuffle(mixed)
    assert set(chosen(mixed)) == set(first), "neither order nor copies matter"
    assert set(chosen([*rows, *({**SCALE, "question": f"new {n}"} for n in range(3))])) - set(first) <= {
        "new 0", "new 1", "new 2",
    }, "new rows move no other row"  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"seed": 1}, "set limit"),
        ({"columns": {"answer": {"path": "a", "pattern": "a+"}}}, "has no group"),
        ({"where": {"a": {"pattern": "("}}}, "no regular expression"),
        ({"columns": {"answer": {"path": "a", "patern": "(a)"}}}, "patern"),
    ],
)
def test_a_mapping_that_means_nothing_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        JsonlPrompts(path="x", **fields)


def test_traces_come_from_a_file_or_from_a_data_set() -> None:
    for fields in ({}, {"path": "a.jsonl", "dataset": "a/b"}):
        with pytest.raises(ValueError, match="set path, or dataset or preset"):
            ImportedTraces(**fields)


# --- a pickle is read and never run ----------------------------------------------------------------------------------


def packed(pickle: bytes) -> str:
    return base64.b64encode(zlib.compress(pickle)).decode()


def test_one_pickled_string_is_read() -> None:
    assert pickled_text(pickled('[{"input": "é"}]')) == '[{"input": "é"}]'


@pytest.mark.parametrize(
    "pickle",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # a call
        b"\x80\x04X\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86.",  # two strings
        b"\x80\x04K\x01.",  # a number
        b"\x80\x04X\x05\x00\x00\x00ab",  # cut off
        b"",
    ],
)
def test_anything_else_in_a_pickle_is_refused(pickle: bytes) -> None:
    with pytest.raises(ValueError, match=r"one string|pickle|expected"):
        pickled_text(packed(pickle))


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader_of_pickles(pickle: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(pickled_text(packed(pickle)), str)


def test_a_packed_text_that_is_cut_off_is_refused() -> None:
    whole = base64.b64decode(pickled("[1]"))
    with pytest.raises(ValueError, match="cut off"):
        pickled_text(base64.b64encode(whole[:-6]).decode())
