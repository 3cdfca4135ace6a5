"""Texts of a model are read in linear time, so that a loop of a teacher holds up nobody."""

from __future__ import annotations

import pytest
from hostile_texts import TOKENS, readers

from synth.labels.limits import RowTimeout, cpu_limit

LENGTH, LIMIT_S = 20_000, 1.0  # of CPU time: linear patterns take at most 0.15 s, quadratic ones took 2 s
READERS = readers()


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", READERS)
def test_no_repeated_token_takes_more_than_linear_time(name: str) -> None:
    texts = {token + end: token * (LENGTH // len(token)) + end for token in TOKENS for end in ("", "x")}
    for _ in range(3):  # what takes too long each time is the pattern, and not a machine that was busy for a moment
        texts = {token: text for token, text in texts.items() if not read_in_time(name, text)}
    assert list(texts) == []


def read_in_time(name: str, text: str) -> bool:
    try:
        with cpu_limit(LIMIT_S):
            READERS[name](text)
    except RowTimeout:
        return False
    return True
