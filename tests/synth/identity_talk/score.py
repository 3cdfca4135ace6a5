"""The labelled set of identity talk, and how well it is found.

python tests/synth/identity_talk/score.py prints precision, recall and all mistakes. A row counts once for each maker
that it claims (or "cutoff").
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from synth.persona.find import find_identity


class Labelled(NamedTuple):
    language: str
    makers: frozenset[str]
    text: str


@dataclass(frozen=True)
class Score:
    right: int
    wrong: int
    missed: int
    mistakes: tuple[str, ...]

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed)


def labelled(part: str) -> list[Labelled]:
    """The rows of tuned.txt or held_out.txt."""
    lines = (Path(__file__).parent / f"{part}.txt").read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines:
        if not line.startswith("#"):
            head, text = line.split(" :: ", 1)
            language, makers = head.split(" ", 1)
            claims = frozenset() if makers == "-" else frozenset(makers.split(","))
            rows.append(Labelled(language, claims, text.replace("\\n", "\n")))
    return rows


def score(part: str, languages: Iterable[str] | None = None) -> Score:
    right = wrong = missed = 0
    mistakes = []
    for row in labelled(part):
        if languages is None or row.language in languages:
            makers = {claim.maker or "cutoff" for claim in find_identity(row.text)}
            right += len(makers & row.makers)
            wrong += len(makers - row.makers)
            missed += len(row.makers - makers)
            if makers != row.makers:
                mistakes.append(f"{row.language}: {sorted(makers)}, not {sorted(row.makers)}: {row.text}")
    return Score(right, wrong, missed, tuple(mistakes))


if __name__ == "__main__":
    for name in ("tuned", "held_out"):
        total = score(name)
        sys.stdout.write(f"{name}: precision {total.precision:.3f}, recall {total.recall:.3f}\n")
        for language in dict.fromkeys(row.language for row in labelled(name)):
            one = score(name, [language])
            sys.stdout.write(f"  {language}: precision {one.precision:.3f}, recall {one.recall:.3f}\n")
        sys.stdout.writelines(f"  {mistake}\n" for mistake in total.mistakes)
