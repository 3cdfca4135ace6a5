"""Texts of a model are read in linear time, so that a loop of a teacher holds up nobody."""

from __future__ import annotations

import pytest
from hostile_texts import TOKENS, readers

from synth.labels.limits import RowTimeout, cpu_limit

LENGTH, LIMIT_S = 12_000, 0.3  # of CPU time: a linear pattern takes milliseconds, the quadratic ones took 0.7 s
READERS = readers()


@pytest.mark.parametrize("name", READERS)
def test_no_repeated_token_takes_more_than_linear_time(name: str) -> None:
    slow = []
    for token in TOKENS:
        for end in ("", "x"):
            try:
                with cpu_limit(LIMIT_S):
                    READERS[name](token * (LENGTH // len(token)) + end)
            except RowTimeout:
                slow.append(token + end)
    assert slow == []
