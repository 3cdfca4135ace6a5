"""Labelled answers: right ones in every form that we know of, wrong ones that are one small change away."""

from __future__ import annotations

import pytest
from verdict_pairs import all_pairs

from synth.verify.config import VerifyConfig
from synth.verify.verifier import verify_rows

PAIRS = all_pairs()
RULES = sorted({rule for rule, *_ in PAIRS})


@pytest.fixture(scope="module")
def verdicts() -> list[str | None]:
    rows = ({"kind": "math", "answer": gold, "response": response} for _, gold, response, _ in PAIRS)
    return [row["verdict"] for row in verify_rows(rows, VerifyConfig(workers=1, timeout_s=30))]


@pytest.mark.parametrize("rule", RULES)
def test_a_right_answer_is_right_in_every_form(verdicts: list[str | None], rule: str) -> None:
    missed = [
        (gold, response, verdict)
        for (name, gold, response, right), verdict in zip(PAIRS, verdicts, strict=True)
        if name == rule and right and verdict != "correct"
    ]
    assert missed == []


@pytest.mark.parametrize("rule", RULES)
def test_no_wrong_answer_is_taken_for_right(verdicts: list[str | None], rule: str) -> None:
    taken = [
        (gold, response)
        for (name, gold, response, right), verdict in zip(PAIRS, verdicts, strict=True)
        if name == rule and not right and verdict == "correct"
    ]
    assert taken == []
