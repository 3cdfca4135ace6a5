"""Waterfall, draws, training rows and the control arm."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import pytest
from trace_builder import curated, trace, write_tables

from licensing.errors import InputError
from synth.curate.config import CurateConfig
from synth.duckdb_helpers import database
from synth.reasoning import BROKEN, split_reasoning
from synth.sampling.store import SAMPLE_LOG


def mixed() -> list[dict[str, Any]]:
    """p0: 6 correct; p1: 3 correct of which 2 are one text, 1 wrong; p2: 1 cut off, 1 failed; p3: an open row."""
    return [
        *[trace("p0", n) for n in range(6)],
        trace("p1", 0, text="the  same\ntext é"),
        trace("p1", 1, text="the same text e\u0301 "),
        trace("p1", 2),
        trace("p1", 3, "wrong"),
        trace("p2", 0, "unparseable", finish_reason="length", completion_tokens=100),
        trace("p2", 1, "unparseable", finish_reason="error", text="", completion_tokens=0),
        trace("p3", 0, None, kind="open", answer=None, score=None),
    ]


def test_the_waterfall_counts_rows_problems_and_tokens_after_each_step(tmp_path: Path) -> None:
    rows = [*mixed(), *(trace("p4", n, "wrong", text=f"{n}") for n in range(5))]
    result = curated(rows, CurateConfig(max_traces_per_problem=2, max_traces=4), tmp_path / "out")
    # difficulty: p0 was always solved, p1 three times of four, p2 not in the one try that could be judged, p4 never
    last = result.waterfall[-1]
    assert [tuple(step.values()) for step in result.waterfall] == [
        ("sampled", 18, 5, 260, pytest.approx((4 * 0.25 + 2 + 5) / 17, abs=1e-6)),
        ("answered", 17, 5, 260, pytest.approx((4 * 0.25 + 1 + 5) / 16, abs=1e-6)),
        ("finished", 16, 4, 160, pytest.approx((4 * 0.25 + 5) / 15, abs=1e-6)),
        ("correct", 10, 3, 100, pytest.approx(0.75 / 9, abs=1e-6)),
        ("contaminated", 10, 3, 100, pytest.approx(0.75 / 9, abs=1e-6)),
        ("unique", 9, 3, 90, pytest.approx(0.5 / 8)),
        ("per_problem", 5, 3, 50, pytest.approx(0.5 / 4)),
        ("total", 4, last["problems"], 40, last["mean_difficulty"]),
    ]
    assert result.json("waterfall.json") == result.waterfall
    assert len(result.rows()) == 4


def test_every_trace_has_its_drop_reason_in_its_place(tmp_path: Path) -> None:
    rows = mixed()
    result = curated(rows, CurateConfig(max_traces_per_problem=2), tmp_path / "out")
    reasons = result.drop_reasons()
    assert list(reasons) == [row["request_id"] for row in rows]
    assert reasons["p1-3"] == "correct: wrong"
    assert reasons["p2-0"] == "finished: length"
    assert reasons["p2-1"] == "answered: the request failed"
    assert reasons["p1-1"] == "unique: same text as p1-0"
    assert reasons["p3-0"] is None
    # the reasons and the waterfall agree
    for earlier, later in itertools.pairwise(result.waterfall):
        dropped = sum(1 for reason in reasons.values() if reason and reason.startswith(later["step"] + ":"))
        assert earlier["rows"] - later["rows"] == dropped
    assert {name for name, reason in reasons.items() if reason is None} == set(result.ids())


def test_a_training_row_is_the_prompt_and_the_whole_text(tmp_path: Path) -> None:
    assert curated([trace("p", 0)], CurateConfig(), tmp_path / "out").rows() == [
        {
            "id": "p-0",
            "prompt_id": "p",
            "messages": [
                {"role": "user", "content": "question p"},
                {"role": "assistant", "content": "<think>p 0</think>\\boxed{5}"},
            ],
            "answer": "5",
            "kind": "math",
            "source": "test",
            "license": "mit",
            "model": "teacher",
            "verdict": "correct",
            "engine": "fake 1",
            "sample_index": 0,
            "prompt_tokens": 7,
            "completion_tokens": 10,
            "pass_rate": 1.0,
            "language": None,
        }
    ]


@pytest.mark.parametrize(
    ("text", "tags", "expected"),
    [
        ("<think>a</think>b", ("<think>", "</think>"), "<think>a</think>b"),
        ("<think>a</think>b", ("<think>\n", "\n</think>\n"), "<think>a</think>b"),
        ("a</think>b", ("<think>", "</think>"), "<think>a</think>b"),  # the template opened the block
        ("[THINK]a[/THINK]b", ("[THINK]", "[/THINK]"), "<think>a</think>b"),
        ("[THINK]a", ("[THINK]", "[/THINK]"), "<think>a"),
        ("no block", ("[THINK]", "[/THINK]"), "no block"),
        ("no block", ("<think>", "</think>"), "no block"),
    ],
)
def test_the_students_think_block_has_think_tags_whatever_the_teachers_are(
    tmp_path: Path, text: str, tags: tuple[str, str], expected: str
) -> None:
    rows = [trace("p", 0, text=text, think_open=tags[0], think_close=tags[1])]
    (row,) = curated(rows, CurateConfig(), tmp_path / "out").rows()
    assert row["messages"][-1]["content"] == expected


@pytest.mark.parametrize("tags", [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("", "[/THINK]")])
def test_training_splits_every_trace_where_the_verifier_did_or_refuses_it(
    tmp_path: Path, tags: tuple[str, str]
) -> None:
    parts = ["<think>", "</think>", "[THINK]", "[/THINK]"]
    texts = [
        "".join(f"{tag}{at}" for at, tag in enumerate(some))
        for n in range(4)
        for some in itertools.product(parts, repeat=n)
    ]
    texts += [f"a{text}" for text in texts]
    rows = [trace("p", at, text=text, think_open=tags[0], think_close=tags[1]) for at, text in enumerate(texts)]
    result = curated(rows, CurateConfig(), tmp_path / "out")
    refused = 0
    for row, text in zip(result.rows(), texts, strict=True):
        verified, trained = split_reasoning(text, *tags), split_reasoning(row["messages"][-1]["content"])
        if trained.state in BROKEN:
            refused += 1
        else:
            assert (trained.thinking, trained.answer) == (verified.thinking, verified.answer), text
    assert 0 < refused < len(texts)


def test_verdicts_beside_the_rules_stand_in_a_row_where_the_recipe_asked_for_them(tmp_path: Path) -> None:
    beside = {"format_verdict": "ok", "majority_answer": "5", "majority_votes": 3, "majority_samples": 4}
    rows = curated([trace("p", 0, **beside), trace("q", 0)], CurateConfig(), tmp_path / "out").rows()
    assert rows[0]["majority"] == {"answer": "5", "votes": 3, "samples": 4, "share": 0.75}
    assert [row["format_verdict"] for row in rows] == ["ok", None]
    assert "majority" not in rows[1]
    assert "judge_verdict" not in rows[0]


def test_the_same_text_under_another_problem_is_no_duplicate(tmp_path: Path) -> None:
    result = curated([trace("a", 0, text="5"), trace("b", 0, text="5")], CurateConfig(), tmp_path / "out")
    assert result.waterfall[-1]["rows"] == 2


@pytest.mark.slow
def test_equal_seeds_select_alike_in_any_order_and_other_seeds_select_otherwise(tmp_path: Path) -> None:
    rows = [trace(f"p{p}", n, "correct" if n % 2 else "wrong") for p in range(20) for n in range(10)]
    shuffled = random.Random(1).sample(rows, len(rows))

    def arms(name: str, traces: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        config = CurateConfig(max_traces_per_problem=2, max_traces=25, control_arm=True, seed=seed)
        result = curated(traces, config, tmp_path / name)
        return result.rows(), result.rows("control")

    one = arms("one", rows, 0)
    assert arms("two", shuffled, 0) == one
    train, control = arms("three", rows, 1)
    assert train != one[0]
    assert control != one[1]


@pytest.mark.slow
def test_the_digest_of_a_selection_is_of_its_texts_and_not_of_those_it_dropped(tmp_path: Path) -> None:
    rows = [trace("p", 0), trace("p", 1, "wrong")]
    digest = curated(rows, CurateConfig(), tmp_path / "one").texts_digest
    assert curated([rows[0], {**rows[1], "text": "other"}], CurateConfig(), tmp_path / "two").texts_digest == digest
    assert curated([{**rows[0], "text": "other"}, rows[1]], CurateConfig(), tmp_path / "three").texts_digest != digest
    assert curated(rows, CurateConfig(control_arm=True), tmp_path / "four").texts_digest != digest


@pytest.mark.slow
def test_at_most_k_a_problem_and_every_trace_has_its_chance(tmp_path: Path) -> None:
    rows = [trace(f"p{p}", n) for p in range(40) for n in range(5)]
    ids = curated(rows, CurateConfig(max_traces_per_problem=2), tmp_path / "out").ids()
    assert [sum(name.startswith(f"p{p}-") for name in ids) for p in range(40)] == [2] * 40
    assert {name.rpartition("-")[2] for name in ids} == {"0", "1", "2", "3", "4"}


@pytest.mark.slow
def test_the_total_does_not_favour_problems_with_many_samples(tmp_path: Path) -> None:
    # one trace kept of each: 100 problems with 50 samples, 100 with one; then half of the 200
    rows = [trace(f"many{p}", n) for p in range(100) for n in range(50)] + [trace(f"one{p}", 0) for p in range(100)]
    ids = curated(rows, CurateConfig(max_traces_per_problem=1, max_traces=100), tmp_path / "out").ids()
    assert 35 <= sum(name.startswith("many") for name in ids) <= 65


# --- the control arm ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_control_arm_is_as_many_finished_traces_whatever_their_verdict(tmp_path: Path) -> None:
    rows = [
        trace(f"p{p}", n, "correct" if n == 0 else "wrong", finish_reason="length" if n == 1 else "stop")
        for p in range(60)
        for n in range(6)
    ]
    rows += [trace(f"p{p}", 6, "unparseable", finish_reason="error", text="") for p in range(60)]
    result = curated(rows, CurateConfig(max_traces_per_problem=2, control_arm=True), tmp_path / "out")
    control = result.rows("control")
    assert len(control) == len(result.rows()) == 60
    assert max(sum(1 for row in control if row["prompt_id"] == f"p{p}") for p in range(60)) <= 2
    assert {row["verdict"] for row in control} == {"correct", "wrong"}
    assert sum(row["verdict"] == "correct" for row in control) / 60 < 0.4  # one in five of what was drawn from
    indices = {int(row["id"].rpartition("-")[2]) for row in control}
    assert not indices & {1, 6}  # neither cut off nor failed


@pytest.mark.slow
def test_the_control_arm_has_the_lengths_of_the_training_rows(tmp_path: Path) -> None:
    # wrong answers are eight times as long as right ones, and a few of them are as short
    rows = []
    for p in range(200):
        rows += [trace(f"p{p}", n, completion_tokens=100 + n) for n in range(2)]
        rows += [trace(f"p{p}", n, "wrong", completion_tokens=800 + n) for n in range(2, 8)]
        rows += [trace(f"p{p}", n, "wrong", completion_tokens=100 + n) for n in range(8, 10)]
    result = curated(rows, CurateConfig(control_arm=True), tmp_path / "out")
    assert result.control is not None
    control = result.rows("control")
    assert max(row["completion_tokens"] for row in control) < 200
    assert 0.35 < sum(row["verdict"] == "correct" for row in control) / len(control) < 0.65
    assert result.control["rows"] == result.control["training_rows"] == 400
    assert result.control["other_lengths"] == 0
    assert result.json("statistics.json")["control"] == result.control


@pytest.mark.slow
def test_the_control_arm_has_the_difficulties_of_the_training_rows(tmp_path: Path) -> None:
    # five of six samples of easy problems are right, one of six of hard ones, none of the others
    right = {"easy": 5, "hard": 1, "unsolved": 0, "rare": 1}
    rows = [
        trace(f"{name}{p}", n, "correct" if n < right[name] else "wrong")
        for name, problems, samples in (("easy", 60, 6), ("hard", 60, 6), ("unsolved", 60, 6), ("rare", 6, 32))
        for p in range(problems)
        for n in range(samples)
    ]
    result = curated(rows, CurateConfig(control_arm=True), tmp_path / "out")
    assert result.control is not None
    control = [(row["prompt_id"].rstrip("0123456789"), row["verdict"]) for row in result.rows("control")]
    assert [sum(name == one for one, _ in control) for name in right] == [300, 60, 0, 6]
    assert 0.7 < sum(verdict == "correct" for name, verdict in control if name == "easy") / 300 < 0.95
    assert 0.05 < sum(verdict == "correct" for name, verdict in control if name == "hard") / 60 < 0.35
    assert result.control["other_difficulties"] == 0
    assert result.control["mean_difficulty"] == result.control["training_mean_difficulty"]
    assert "pass rate" in result.control["matched_by"]


@pytest.mark.slow
def test_with_one_sample_a_problem_the_control_arm_has_the_difficulties_that_problems_state(tmp_path: Path) -> None:
    entries = {terms: {"metadata": {"num_terms": terms, "difficulty": {"num_terms": [2, 4]}}} for terms in (2, 4)}
    rows = [
        trace(f"{terms}/{p}", 0, "correct" if p % 5 < 5 - terms else "wrong", kind="reasoning_gym", task="chain_sum",
              entry=entries[terms])
        for terms in (2, 4) for p in range(100)
    ]  # fmt: skip
    result = curated(rows, CurateConfig(control_arm=True), tmp_path / "out")
    assert result.control is not None
    control = [row["prompt_id"].partition("/")[0] for row in result.rows("control")]
    assert (control.count("2"), control.count("4")) == (60, 20)
    assert {row["verdict"] for row in result.rows("control")} == {"correct", "wrong"}
    assert (result.control["other_difficulties"], result.control["mean_difficulty"]) == (0, None)


@pytest.mark.slow
def test_where_a_difficulty_is_scarce_others_of_the_same_length_fill_the_control_arm_and_the_report_counts_them(
    tmp_path: Path,
) -> None:
    # of each hard problem the one trace that may be drawn is as often long
    rows = [trace(f"easy{p}", 0, extra={"level": "easy"}) for p in range(60)]
    rows += [trace(f"hard{p}", n, extra={"level": "hard"}, completion_tokens=(10, 900)[n],
                   verdict=("correct", "wrong")[n]) for p in range(30) for n in range(2)]  # fmt: skip
    rows += [trace(f"easy{p}", 0, "wrong", extra={"level": "easy"}) for p in range(60, 90)]
    result = curated(rows, CurateConfig(control_arm=True, max_traces_per_problem=1), tmp_path / "out")
    assert result.control is not None
    control = result.rows("control")
    hard = sum(row["prompt_id"].startswith("hard") for row in control)
    assert 0 < hard < 30
    assert result.control["other_difficulties"] == 30 - hard
    assert (result.control["rows"], result.control["other_lengths"]) == (90, 0)
    assert {row["completion_tokens"] for row in control} == {10}


@pytest.mark.slow
def test_where_a_length_is_scarce_other_lengths_fill_the_control_arm_and_the_report_counts_them(tmp_path: Path) -> None:
    # at most one trace a problem is drawn: about half of the problems give their long one
    rows = [row for p in range(40) for row in (
        trace(f"p{p}", 0, completion_tokens=100), trace(f"p{p}", 1, "wrong", completion_tokens=5000))]  # fmt: skip
    result = curated(rows, CurateConfig(control_arm=True, max_traces_per_problem=1), tmp_path / "out")
    assert result.control is not None
    lengths = [row["completion_tokens"] for row in result.rows("control")]
    assert len(lengths) == 40
    assert result.control["other_lengths"] == lengths.count(5000) > 0


@pytest.mark.slow
def test_the_control_arm_is_never_smaller_even_when_every_trace_is_kept(tmp_path: Path) -> None:
    rows = [trace("p0", 0), trace("p0", 1), trace("p1", 0, completion_tokens=None)]
    result = curated(rows, CurateConfig(control_arm=True), tmp_path / "out")
    assert result.rows("control") == result.rows()


@pytest.mark.slow
def test_with_the_filters_off_the_control_arm_takes_the_finished_traces_that_there_are_and_says_so(
    tmp_path: Path,
) -> None:
    rows = [trace("p", 0), trace("p", 1, "wrong", finish_reason="length"), trace("p", 2, finish_reason="length")]
    config = CurateConfig.model_validate({"filters": {"finished": False, "correct": False}, "control_arm": True})
    result = curated(rows, config, tmp_path / "out")
    assert len(result.rows()) == 3
    assert result.ids("control") == ["p-0"]
    assert result.control is not None
    assert (result.control["rows"], result.control["training_rows"]) == (1, 3)


# --- odd input ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_kept_is_an_answer_and_not_an_exception(tmp_path: Path) -> None:
    result = curated([trace("p", 0, "wrong")], CurateConfig(control_arm=True), tmp_path / "out")
    assert [step["rows"] for step in result.waterfall] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert result.rows() == result.rows("control") == []
    assert result.drop_reasons() == {"p-0": "correct: wrong"}
    empty = curated([], CurateConfig(control_arm=True, ablation="correct"), tmp_path / "empty")
    assert [step["rows"] for step in empty.waterfall] == [0] * 8
    assert empty.rows() == []


@pytest.mark.slow
def test_the_input_stays_as_it_was_and_no_text_is_copied(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables", [{**row, "text": f"{row['text']} marker-in-text"} for row in mixed()])
    before = {path: path.read_bytes() for path in tables.folder.rglob("*") if path.is_file()}
    curated(tables, CurateConfig(seed=3, control_arm=True, ablation="correct"), tmp_path / "out")
    assert {path: path.read_bytes() for path in tables.folder.rglob("*") if path.is_file()} == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "selection.parquet", "arms.parquet", "waterfall.json", "statistics.json", "ablation.json",
        "near_duplicates.json", "decontamination.json",
    }  # fmt: skip
    for folder in (tmp_path / "out", tmp_path / "out.labels"):
        for path in folder.iterdir():
            assert b"marker-in-text" not in path.read_bytes(), path


def test_half_a_surrogate_pair_and_other_scripts_survive(tmp_path: Path) -> None:
    rows = [trace("p", 0, text="答え \ud83d"), trace("p", 1, text="答え", reason=None)]
    result = curated(rows, CurateConfig(), tmp_path / "out")
    assert [row["messages"][-1]["content"] for row in result.rows()] == ["答え \ud83d", "答え"]


def test_unknown_token_counts_are_unknown_and_not_zero(tmp_path: Path) -> None:
    rows = [trace("p", 0), trace("p", 1, "wrong", completion_tokens=None)]
    result = curated(rows, CurateConfig(), tmp_path / "out")
    assert [step["tokens"] for step in result.waterfall] == [None, None, None, 10, 10, 10, 10, 10]


def test_a_text_that_the_store_does_not_hold_is_named(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables", [trace("p", 0), trace("p", 1)])
    log = tables.store / SAMPLE_LOG
    log.write_bytes(re.sub(rb'"request_id": "p-1"', b'"request_id": "p-9"', log.read_bytes()))
    with pytest.raises(InputError, match="p-1") as raised:
        curated(tables, CurateConfig(), tmp_path / "out")
    assert raised.value.where == str(tables.store)


def test_long_queries_print_no_progress_on_stdout(tmp_path: Path) -> None:
    """DuckDB's bar comes after two seconds of a query, into the JSON of a command."""
    with database(tmp_path) as db:
        assert db.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
