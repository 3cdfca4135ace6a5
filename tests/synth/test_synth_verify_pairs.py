"""Labelled answers: right ones in every form that we know of, wrong ones that are one small change away."""

from __future__ import annotations

import pytest
from verdict_pairs import all_pairs

from synth.verify import math

PAIRS = all_pairs()
RULES = sorted({rule for rule, *_ in PAIRS})


@pytest.mark.parametrize("rule", RULES)
def test_right_answers_are_right_and_wrong_ones_are_not(rule: str) -> None:
    missed = [
        (gold, response, is_right)
        for name, gold, response, is_right in PAIRS
        if name == rule and (math.verify(gold, response).verdict == "correct") != is_right
    ]
    assert missed == []
