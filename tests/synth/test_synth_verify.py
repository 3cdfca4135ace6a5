"""Final answers, math and reasoning-gym verdicts, and the rows that come out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from synth.problems.problem import Prompt
from synth.verify import math as math_verifier
from synth.verify import reasoning_gym
from synth.verify.config import VerifyConfig
from synth.verify.extract import final_answer, gold_text
from synth.verify.verifier import check_golds, verify_rows

CONFIG = VerifyConfig(workers=1, timeout_s=20)


def chain_sum(own: Any = "9", task: str = "chain_sum") -> dict[str, Any]:
    return {"kind": "reasoning_gym", "task": task, "entry": {"question": "4 + 5 =", "answer": own, "metadata": {}}}


# --- the final answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("\\boxed{5}", "5"),
        ("first \\boxed{3}, no: \\boxed{5}", "5"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}} and then more text }", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{ 1 \\right.}", "\\left\\{ 1 \\right."),
        ("\\boxed { 7 }", "7"),
        ("\\fbox{7}", "7"),
        ("\\boxed{\\boxed{4}}", "4"),
        ("<think>\\boxed{3}</think>The answer: \\boxed{5}", "5"),
        ("<think>\\boxed{3}</think>It is 5.", "It is 5."),
        ("thought without an opening tag \\boxed{3}</think> 5", "5"),
        ("<think>a</think> 1 <think>b</think> 2", "2"),
        ("plain", "plain"),
    ],
)
def test_the_last_box_after_the_think_block_is_the_answer_else_the_text(response: str, text: str) -> None:
    assert final_answer(response).text == text


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("<think>so it is \\boxed{5}", "not closed"),
        ("<think>a</think> \\boxed{5} <think> wait", "not closed"),
        ("<think>\\boxed{5}</think>\n", "nothing after"),
        ("\\boxed{3} no, \\boxed{5", "not closed"),
        ("\\boxed{ }", "is empty"),
    ],
)
def test_no_answer_has_a_reason(response: str, reason: str) -> None:
    answer = final_answer(response)
    assert answer.text is None
    assert reason in str(answer.reason)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        (5, "5"),
        (2.0, "2"),
        (0.25, "0.25"),
        ("We get 2 + 3 = 5.\n#### 5", "5"),
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
    ],
)
def test_a_gold_answer_is_found_in_a_number_or_a_worked_solution(gold: Any, text: str) -> None:
    assert gold_text(gold) == text


# --- math --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("\\frac12", "<think>hm, \\boxed{2}</think>\\boxed{0.5}"),
        ("\\frac12", "so it is $\\frac{2}{4}$"),
        ("42", "The answer is 42."),
        (42, "\\boxed{42}"),
        ("x^2+2x+1", "\\boxed{(x+1)^2}"),
        ("\\{1,2\\}", "\\boxed{\\{2,1\\}}"),
        ("5", "first \\boxed{3}, but no: \\boxed{5}"),
    ],
)
def test_equal_mathematics_is_correct(gold: Any, response: str) -> None:
    verdict = math_verifier.verify(gold, response)
    assert (verdict.verdict, verdict.score) == ("correct", 1.0)


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("5", "\\boxed{3}"),
        ("3", "first \\boxed{3}, but no: \\boxed{5}"),
        ("\\frac12", "\\boxed{2}"),
        ("5", "<think>\\boxed{5}</think>The answer is 6."),
    ],
)
def test_unequal_mathematics_is_wrong(gold: str, response: str) -> None:
    verdict = math_verifier.verify(gold, response)
    assert (verdict.verdict, verdict.score) == ("wrong", 0.0)


@pytest.mark.parametrize("response", ["", "no idea", "<think>it must be \\boxed{5}", "\\boxed{}", "\\boxed{\\frac}"])
def test_a_response_without_an_answer_is_unparseable_whatever_its_thoughts_hold(response: str) -> None:
    assert math_verifier.verify("5", response).verdict == "unparseable"


@pytest.mark.parametrize("gold", ["", "1}{2", "\\boxed{5", None, True, math.inf, ["5"], {"a": 1}])
def test_a_gold_that_is_no_text_is_an_error_even_when_the_response_repeats_it(gold: Any) -> None:
    verdict = math_verifier.verify(gold, f"\\boxed{{{gold}}}")
    assert verdict.verdict == "error"
    assert "gold" in str(verdict.reason)


@pytest.mark.parametrize("gold", ["(", "\\frac", "\\sqrt"])
def test_an_unreadable_gold_is_an_error_unless_the_response_repeats_it(gold: str) -> None:
    assert math_verifier.verify(gold, "\\boxed{5}").verdict == "error"
    assert math_verifier.check_gold(gold).verdict == "error"
    assert math_verifier.verify(gold, f"\\boxed{{{gold}}}").verdict == "correct"


def test_extracted_is_the_answer_and_never_megabytes() -> None:
    assert math_verifier.verify("5", "x \\boxed{ 5 } y").extracted == "5"
    assert math_verifier.verify("5", "The answer is 5, I think").extracted == "5"
    assert len(str(math_verifier.verify("5", "\\boxed{" + "\\frac " * 5_000 + "}").extracted)) == 10_000


# --- reasoning-gym -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tasks_own_scorer_decides_and_partial_credit_is_not_correct() -> None:
    row = chain_sum()
    right = reasoning_gym.verify(row["task"], row["entry"], "<think>4+5</think> so \\boxed{9.0}")
    assert (right.verdict, right.score, right.extracted) == ("correct", 1.0, "9.0")
    bare = reasoning_gym.verify(row["task"], row["entry"], "<think>4+5</think>\n9\n")
    assert bare.verdict == "correct"
    assert reasoning_gym.verify(row["task"], row["entry"], "The answer is **9**.").verdict == "correct"
    for wrapped in ("$9$", "\\text{9}", "**9**", "\\(9\\)"):
        assert reasoning_gym.verify(row["task"], row["entry"], f"\\boxed{{{wrapped}}}").verdict == "correct"
    partial = reasoning_gym.verify(row["task"], row["entry"], "it is 9")
    assert partial.verdict == "wrong"
    assert 0 < float(partial.score or 0) < 1
    assert reasoning_gym.verify(row["task"], row["entry"], "\\boxed{8}").score == 0.0
    factors = {"answer": "2 \u00d7 3", "metadata": {"number": 6, "factors": [2, 3]}}
    unread = reasoning_gym.verify("prime_factorization", factors, "I do not know.")
    assert (unread.verdict, unread.reason) == ("unparseable", "the scorer of prime_factorization failed: ValueError")
    assert reasoning_gym.verify(row["task"], row["entry"], "<think>\\boxed{9}").verdict == "unparseable"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "entry", "own", "accepted_by_the_scorer"),
    [
        ("game_of_life_halting", {}, "True", ["False", "I do not know."]),
        ("gsm_symbolic", {"difficulty": 1.0}, "279", ["-279", "279 or 5", "not 279", "279 279"]),
        (
            "coin_flip",
            {"rational": {"numerator": 7, "denominator": 64}},
            "0.109375",
            ["0", "0.1", "-0.109375", "0.109376"],
        ),
        ("complex_arithmetic", {"result": [-5.0, 20.0]}, "-5.0 + 20.0i", ["NaN"]),
        ("number_format", {"solution": 485035138.128}, "485035138.128", ["485035138.129"]),
        ("letter_jumble", {"original_words": ["every", "day"]}, "every day", ["every day two"]),
        ("puzzle24", {"numbers": [10, 3, 4, 7]}, "10 + 3 + 4 + 7", ["2 + 9 + 6 + 7"]),
    ],
)
def test_a_scorer_that_accepts_too_much_is_not_enough(
    task: str, entry: dict[str, Any], own: str, accepted_by_the_scorer: list[str]
) -> None:
    row = {"question": "?", "answer": own, "metadata": entry}
    assert reasoning_gym.verify(task, row, f"<answer>{own}</answer>").verdict == "correct"
    assert reasoning_gym.verify(task, row, f"It is:\n```\n{own}\n```").verdict == "correct"
    verdicts = {reasoning_gym.verify(task, row, f"<answer>{text}</answer>").verdict for text in accepted_by_the_scorer}
    assert verdicts == {"wrong"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        chain_sum(task="no_such_task"),
        chain_sum(own=None),
        chain_sum(own=["9"]),
        {"task": "n_queens", "entry": {"answer": "not a board", "metadata": {"valid_answers": []}}},
        {"task": None, "entry": {"answer": "9"}},
        {"task": "chain_sum", "entry": None},
        {"task": "chain_sum", "entry": {}},
        {"task": "composite", "entry": {"answer": "9"}},
    ],
)
def test_an_entry_that_cannot_be_right_is_an_error(row: dict[str, Any]) -> None:
    verdict = reasoning_gym.verify(row["task"], row["entry"], "\\boxed{9}")
    assert verdict.verdict == "error"
    assert verdict.reason


def test_an_entry_survives_json_which_knows_no_tuples() -> None:
    import reasoning_gym as gym

    entry = json.loads(json.dumps(gym.create_dataset("rearc", size=1, seed=1)[0]))
    verdict = reasoning_gym.verify("rearc", entry, f"<think></think>{entry['answer']}")
    assert verdict.verdict == "correct"


# Every string below ran, or could have run, when it was given to the scorer of this task itself.
@pytest.mark.parametrize("task", ["string_insertion", "simple_integration", "polynomial_multiplication", "countdown"])
@pytest.mark.parametrize(
    "attack",
    [
        "open('PATH', 'w')",
        "(open)('PATH', 'w')",
        "[open][0]('PATH', 'w')",
        "().__class__.__mro__",
        "sin(\"open('PATH', 'w')\")",
        "exec(chr(111)+chr(112))",
        "f\"{open('PATH', 'w')}\"",
        "open\\\n('PATH', 'w')",
    ],
)
def test_no_answer_is_run_by_a_scorer_that_evaluates(tmp_path: Path, task: str, attack: str) -> None:
    import reasoning_gym as gym

    entry = json.loads(json.dumps(gym.create_dataset(task, size=1, seed=1)[0]))
    target = tmp_path / "touched"
    verdict = reasoning_gym.verify(task, entry, f"<think></think>{attack.replace('PATH', str(target))}")
    assert verdict.verdict == "wrong"
    assert "evaluator" in str(verdict.reason)
    assert not target.exists()


def test_scorers_that_evaluate_still_take_plain_mathematics() -> None:
    import reasoning_gym as gym

    for task in ("simple_integration", "polynomial_multiplication", "countdown", "bitwise_arithmetic", "n_queens"):
        entry = json.loads(json.dumps(gym.create_dataset(task, size=1, seed=1)[0]))
        assert reasoning_gym.verify(task, entry, f"<think></think>{entry['answer']}").verdict == "correct", task


# --- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_comes_out_once_in_order_with_its_keys_whatever_it_is() -> None:
    rows: list[Any] = [
        {"id": "a", "kind": "math", "answer": "5", "response": "\\boxed{5}", "extra": {"kept": [1]}},
        {"id": "b", "kind": "math", "gold": "5", "response": "\\boxed{6}", "verdict": "correct"},
        {"id": "c", "kind": "open", "response": "hello"},
        {"id": "d", "kind": "prose", "answer": "x", "response": "x"},
        {"id": "e", "kind": "puzzle", "answer": "A", "response": "A"},
        {"id": "f", "response": "5"},
        {"id": "g", "kind": "math", "response": "5"},
        {"id": "h", "kind": "math", "answer": "5"},
        {"id": "i", "kind": "math", "answer": "5", "response": ["5"]},
        {"id": "j", "kind": ["math"], "answer": "5", "response": "5"},
        {"id": "k", "kind": "math", "answer": {"a": 1}, "response": "5"},
        {"id": "l", "kind": "math", "answer": {1, 2}, "response": "5"},
        {"id": "m", "kind": "reasoning_gym", "response": "5"},
        "no object",
        {"id": "n", **chain_sum(), "response": "\\boxed{9}"},
        {"id": "o", "kind": "math", "answer": 0, "response": "\\boxed{0}"},
    ]
    out = list(verify_rows(rows, CONFIG))
    assert [row.get("id") for row in out] == [row.get("id") if isinstance(row, dict) else None for row in rows]
    expected = ["correct", "wrong", None, *["error"] * 11, "correct", "correct"]
    assert [row["verdict"] for row in out] == expected
    assert all(row["reason"] for row in out if row["verdict"] == "error")
    assert out[0]["extra"] == {"kept": [1]}
    assert out[13]["raw"] == "no object"
    assert out[2]["score"] is None
    assert all({"score", "extracted", "reason", "seconds"} <= row.keys() for row in out)
    assert "no verifier for kind 'prose'" in out[3]["reason"]


@pytest.mark.slow
def test_check_golds_names_the_problems_that_could_never_be_right() -> None:
    def prompt(name: str, **row: Any) -> Prompt:
        return Prompt.model_validate({"id": name, "prompt": f"q {name}", "source": "test", "license": "mit", **row})

    prompts = [
        prompt("good", kind="math", answer="\\frac{1}{2}"),
        prompt("number", kind="math", answer=7),
        prompt("broken", kind="math", answer="\\frac{1}{"),
        prompt("gym", **chain_sum(), answer="9"),
        prompt("bad gym", **chain_sum(task="no_such_task"), answer="9"),
        prompt("chat", kind="open"),
        prompt("letter", kind="choice", answer="E", choices=["x", "y"]),
    ]
    found = check_golds(prompts, CONFIG)
    assert [name for name, _ in found] == ["broken", "bad gym", "letter"]
    assert all(reason for _, reason in found)
