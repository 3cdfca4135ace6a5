"""Loops: the same run of tokens, line or paragraph over and over."""

from __future__ import annotations

import re
from collections import Counter

from synth.hashing import ngram_hash

RUN = 20  # tokens
RUNS = 20  # a run of 20 tokens more than 20 times: DeepDistill's bound
SHARE = 0.7  # of the tokens inside runs that stood there before, in a text of so many tokens or more:
LONG = 160
LINES = 10  # times the same line; its length in characters:
LINE = 20
PARAGRAPHS = 4
PARAGRAPH = 80
"""All but `RUN` and `RUNS` are judgements of ours, meant to let a table, a list of cases and a checked sum pass."""

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]{1,24}|[^\w\s]")


def repetition(text: str) -> str | None:
    """Why a text is a loop, or None. Numbers count: counting up is no loop. Linear in the length of the text."""
    return _paragraphs(text) or _runs(text)


def _paragraphs(text: str) -> str | None:
    for name, size, times, separator in (("line", LINE, LINES, "\n"), ("paragraph", PARAGRAPH, PARAGRAPHS, "\n\n")):
        if text.count(separator) < times - 1:
            continue
        counts = Counter(part for raw in text.split(separator) if len(part := raw.strip()) >= size)
        if counts:
            part, count = counts.most_common(1)[0]
            if count >= times:
                return f"the {name} {part[:60]!r} stands there {count} times"
    return None


def _runs(text: str) -> str | None:
    import numpy as np

    words = _TOKEN.findall(text)
    if len(words) < 4 * RUN:
        return None
    ids: dict[str, int] = {}
    numbers = np.fromiter((ids.setdefault(w, len(ids) + 1) for w in words), dtype=np.uint64, count=len(words))
    key = ngram_hash(numbers, RUN)
    _, first, inverse, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    if counts.max() < 2:
        return None
    again = np.zeros(len(words) + 1, dtype=np.int64)  # tokens in a run that stood there before, by differences
    seen_before = np.arange(len(key)) != first[inverse]
    starts = np.flatnonzero(seen_before)
    np.add.at(again, starts, 1)
    np.add.at(again, np.minimum(starts + RUN, len(words)), -1)
    share = float((np.cumsum(again[:-1]) > 0).mean())
    top = int(counts.argmax())
    times = _apart(np.flatnonzero(inverse == top).tolist())
    run = " ".join(words[int(first[top]) : int(first[top]) + RUN])
    if times > RUNS:
        return f"a run of {RUN} tokens stands there {times} times: {run[:60]!r}"
    if share >= SHARE and len(words) >= LONG:
        return f"{share:.0%} of it are runs of {RUN} tokens that stood there before, such as {run[:60]!r}"
    return None


def _apart(places: list[int]) -> int:
    """How many of the places do not overlap."""
    count, free = 0, 0
    for place in places:
        if place >= free:
            count, free = count + 1, place + RUN
    return count
