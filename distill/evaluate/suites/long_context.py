"""Problems with a long text in which one of four codes has to be found; made anew each time, always the same.

The text is a log of deliveries: short sentences, no two alike in all of their parts. The four codes stand at depths of
about 10, 35, 60 and 85 percent, and which one is asked for goes round, so that neither the first nor the last number is
the answer. Source of the task: retrieval of one of several needles (RULER, arXiv 2404.06654, section 3); texts and
sizes are our own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from synth.problems.problem import Prompt

LENGTHS = (250, 500, 1000, 2000)
"""Words; a tokenizer of English needs about 1.4 tokens a word here."""
PER_LENGTH = 12

_PEOPLE = ("Amara", "Bruno", "Celia", "Dario", "Edith", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Keiko", "Lars")
_GOODS = (
    "flour", "lamp oil", "copper wire", "apples", "paper",
    "wool", "roof tiles", "seed corn", "soap", "glass jars",
)  # fmt: skip
_PLACES = (
    "bakery", "school", "mill", "ferry dock", "town hall",
    "clinic", "post office", "tannery", "theater", "smithy",
)  # fmt: skip
_DOORS = (
    "north gate", "wine cellar", "boat shed", "clock tower",
    "ice house", "reading room", "south barn", "dye works",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_DEPTHS = (0.10, 0.35, 0.60, 0.85)


def long_context_problems(lengths: Sequence[int] = LENGTHS) -> list[Prompt]:
    """``PER_LENGTH`` problems of each length, in words; kind `math`: the answer is a number of four digits."""
    return [_problem(words, number) for words in lengths for number in range(PER_LENGTH)]


def _problem(words: int, number: int) -> Prompt:
    draw = random.Random(f"{words}/{number}")
    doors = draw.sample(_DOORS, len(_DEPTHS))
    codes = [str(code) for code in draw.sample(range(1000, 10000), len(_DEPTHS))]
    sentences: list[str] = []
    length = 0
    while length < words:
        sentence = (
            f"On {draw.choice(_DAYS)} {draw.choice(_PEOPLE)} brought {draw.choice(_GOODS)} to the "
            f"{draw.choice(_PLACES)} and took {draw.choice(_GOODS)} back to {draw.choice(_PEOPLE)}."
        )
        sentences.append(sentence)
        length += len(sentence.split())
    filler = len(sentences)
    for inserted, (depth, door, code) in enumerate(zip(_DEPTHS, doors, codes, strict=True)):
        sentences.insert(int(depth * filler) + inserted, f"The code of the {door} is {code}.")
    target = number % len(_DEPTHS)
    text = (
        f"Read this log.\n\n{' '.join(sentences)}\n\nWhat is the code of the {doors[target]}? Answer with the number."
    )
    return Prompt.model_validate(
        {
            "id": f"long-context-{words}-{number + 1}",
            "prompt": text,
            "answer": codes[target],
            "kind": "math",
            "source": "distill-release",
            "license": "apache-2.0",
            "family": f"{words} words",
        }
    )
