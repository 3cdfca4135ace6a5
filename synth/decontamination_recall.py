"""Recall of decontamination in a run: test items are planted in its own prompts, and the finder has to find them.

    verbatim        the item as it is
    surface edits   lower case, other punctuation and white space, a word in twelve changed
    embedded        in the middle of one of the run's own prompts
    other digits    every number another one with as many digits

A fixed seed draws the plants. The false-positive rate is measured on test items: half of them are searched for among
the other half, where none occurs. Items that are versions of each other match all the same, so it is an upper bound; so
is the share of the run's own prompts that is flagged, because some of those matches are real.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TypedDict

from synth.decontaminate import Finder

KINDS = ("verbatim", "surface edits", "embedded", "other digits")
MOST = 200
_FILLER = ("really", "some", "then", "certain", "also", "given", "this", "quite")


class RecallReport(TypedDict):
    """``recall`` by kind; ``plants`` of each kind; ``false_positive_rate`` of test items among the others."""

    plants: int
    recall: dict[str, float | None]
    false_positive_rate: float | None


def plant(text: str, kind: str, hosts: Sequence[str], rng: random.Random) -> str:
    """One known positive. "other digits" leaves a text without digits as it is: a verbatim plant."""
    if kind == "surface edits":
        words = re.sub(r"[,;:!?\"'\u201c\u201d\u2018\u2019()]", " ", text.lower()).split()
        return "  ".join(rng.choice(_FILLER) if word.isalpha() and rng.random() < 1 / 12 else word for word in words)
    if kind == "embedded":
        host = rng.choice(hosts).split() if hosts else []
        cut = len(host) // 2
        return f"{' '.join(host[:cut])}\n{text}\n{' '.join(host[cut:])}"
    if kind == "other digits":
        return re.sub(r"\d+", lambda number: _other(number[0], rng), text)
    return text


def measure_recall(finder: Finder, hosts: Sequence[str]) -> RecallReport:
    """Plant at most ``MOST`` items of each kind in ``hosts`` (prompts of the run) and count those that are found."""
    rng = random.Random(0)
    items = finder.items if len(finder.items) <= MOST else rng.sample(finder.items, MOST)
    recall: dict[str, float | None] = {}
    for kind in KINDS:
        matches = sum(finder.find(plant(item.text, kind, hosts, rng))[0] is not None for item in items)
        recall[kind] = round(matches / len(items), 4) if items else None
    return RecallReport(plants=len(items), recall=recall, false_positive_rate=_false_positives(finder, rng))


def _false_positives(finder: Finder, rng: random.Random) -> float | None:
    """The share of one half of the items (drawn) that matches an item of the other half."""
    items = list(finder.items)
    rng.shuffle(items)
    half = len(items) // 2
    if not half:
        return None
    others = Finder(items[half:])
    strangers = items[:half][:MOST]
    return round(sum(others.find(item.text)[0] is not None for item in strangers) / len(strangers), 4)


def _other(digits: str, rng: random.Random) -> str:
    while True:
        new = "".join(str(rng.randint(place == 0 and len(digits) > 1, 9)) for place in range(len(digits)))
        if new != digits:
            return new
