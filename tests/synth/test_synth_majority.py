"""Votes where no gold exists."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError
from synth.problems.config import JsonlPrompts
from synth.problems.problem import load_prompts
from synth.verify.config import MajorityConfig, VerifyConfig
from synth.verify.majority import Vote, elect, problem_of, verify_by_vote


def config(**majority: Any) -> VerifyConfig:
    return VerifyConfig(workers=1, majority=MajorityConfig(**majority))


def vote(*answers: str, kind: str = "math", choices: Any = None, **majority: Any) -> Vote:
    more = {"prompt_id": "p", "kind": kind, "choices": choices, "finish_reason": "stop"}
    rows = [{**more, "response": text} for text in answers]
    return elect(rows, config(**majority))["p"]


def box(*answers: str) -> list[str]:
    return [f"<think>hm</think>\\boxed{{{answer}}}" for answer in answers]


def test_equal_answers_in_several_writings_are_one_class() -> None:
    found = vote(*box("\\frac{1}{2}", "0.5", "1/2", "\\frac{1}{2}", "3", "7"))
    assert found == Vote("\\frac{1}{2}", 4, 6)
    assert found.row() == {"answer": "\\frac{1}{2}", "votes": 4, "samples": 6, "share": 0.666667}


@pytest.mark.slow
def test_whatever_the_order_of_the_samples_the_same_is_elected() -> None:
    answers = box("1/2", "0.5", "3", "3", "\\frac12", "9")
    found = {vote(*order, min_share=0.3) for order in itertools.islice(itertools.permutations(answers), 0, 720, 250)}
    assert len(found) == 1
    assert next(iter(found)).votes == 3


@pytest.mark.parametrize(
    ("answers", "majority", "said"),
    [
        (box("1", "1"), {}, "no answer has 3 votes, the first has 2"),
        (box("1", "1", "1", "2", "3", "4", "5"), {}, "no answer has a share of 0.5: 3 of 7"),
        (box("1", "1", "1", "2", "2", "2"), {}, "2 answers have 3 votes each"),
        (["I do not know at all what it is", ""], {}, "no sample gives an answer that can be read"),
    ],
)
def test_without_votes_or_share_or_in_a_tie_nothing_is_elected(
    answers: list[str], majority: dict[str, Any], said: str
) -> None:
    found = vote(*answers, **majority)
    assert (found.answer, found.reason) == (None, said)
    (row,) = verify_by_vote([{"prompt_id": "p", "kind": "math", "response": answers[0]}], {"p": found}, config())
    assert (row["verdict"], row["reason"]) == ("error", f"no gold answer, and {said}")


def test_samples_without_an_answer_count_against_and_cut_ones_not_at_all() -> None:
    math = {"prompt_id": "p", "kind": "math"}
    rows = [{**math, "response": text} for text in [*box("1", "1", "1"), "<think>", "<think>", "", "hm " * 99]]
    assert elect(rows, config())["p"].answer is None  # 3 of 7
    cut = [{**math, "response": "\\boxed{2}", "finish_reason": "length"}] * 9
    assert elect([*rows[:4], *cut], config())["p"] == Vote("1", 3, 4)


def test_choices_vote_by_letter_and_other_kinds_do_not_vote() -> None:
    options = ["red", "green", "blue"]
    found = vote("The answer is (B).", "\\boxed{B}", "\\boxed{green}", "\\boxed{A}", kind="choice", choices=options)
    assert (found.answer, found.votes) == ("B", 3)
    assert vote("\\boxed{C}", "\\boxed{C}", "The answer is C.", kind="choice").answer == "C"
    numbered = {"label": ["1", "2", "3"], "text": ["red", "green", "blue"]}  # as some of ARC's are
    assert vote("\\boxed{2}", "The answer is (2).", "\\boxed{green}", kind="choice", choices=numbered).answer == "2"
    assert elect([{"prompt_id": "p", "kind": "open", "response": "Hi."}], config()) == {}


@pytest.mark.slow
def test_rows_of_a_problem_need_not_stand_together_and_hostile_ones_end() -> None:
    rng = random.Random(1)
    rows: list[dict[str, Any]] = [
        {"prompt_id": f"p{n % 50}", "kind": "math", "response": f"\\boxed{{{n % 50}}}"} for n in range(200)
    ]
    rows += [{**rows[0], "response": "\\boxed{9^{9^{9^{9}}}}"}, {**rows[1], "response": None}]
    rng.shuffle(rows)
    found = elect(rows, config())
    assert {name: vote.answer for name, vote in found.items()} == {f"p{n}": str(n) for n in range(50)}


def test_problems_may_lack_an_answer_only_where_a_vote_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "2 + 2?", "kind": "math", "license": "mit"}\n')
    with pytest.raises(InputError, match="needs an `answer`"):
        load_prompts(JsonlPrompts(path=str(path)))
    (prompt,) = load_prompts(JsonlPrompts(path=str(path)), allow_missing_gold=True).prompts
    assert prompt.lacks_gold
    path.write_text('{"prompt": "Write f.", "kind": "code", "license": "mit"}\n')
    with pytest.raises(InputError, match="kind code needs"):
        load_prompts(JsonlPrompts(path=str(path)), allow_missing_gold=True)


def test_rows_of_a_file_belong_to_a_problem_by_what_they_ask() -> None:
    one, other = {"prompt": "2 + 2?", "id": "1"}, {"prompt": "2 + 2?", "id": "2"}
    assert problem_of(one) == problem_of(other) != problem_of({"prompt": "2 + 3?"})
    assert problem_of({"id": "1"}) == problem_of({"id": "1", "response": "x"}) != problem_of({"id": 1})
    assert problem_of({"prompt_id": "p", "prompt": "2 + 2?"}) == "p"


def test_a_row_keeps_the_answer_that_it_brought_or_did_not_bring() -> None:
    row = {"prompt_id": "p", "kind": "math", "response": "\\boxed{1}", "verdict": "wrong"}  # of an earlier time, too
    rows = [row, {**row, "answer": None}, {**row, "answer": ""}, {**row, "gold": None}, {**row, "answer": "1"}]
    found = list(
        verify_by_vote([*rows, {**rows[4], "majority": "of an earlier time"}], {"p": Vote("1", 3, 4)}, config())
    )
    assert {one["verdict"] for one in found} == {"correct"}
    assert [one.get("answer", "none") for one in found] == ["none", None, "", "none", "1", "1"]
    assert ["majority" in one for one in found] == [True] * 4 + [False] * 2
