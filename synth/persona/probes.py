"""Probes: questions about identity that no training row asks, in eight styles (`data/probes.yaml`).

Held out by construction: the wordings stand in another file than those of the training rows, and ``resembling``
compares what is trained on with what is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.persona.claims import load
from synth.persona.config import PersonaConfig
from synth.persona.rows import right_answer
from synth.problems.problem import text_of

SIMILARITY = 80.0
"""Of a question and a probe, in percent (1 - normalised Indel distance): from here on one is a wording of the other."""


@dataclass(frozen=True)
class Probe:
    """``family`` is the idea that the probe asks in one wording or language: the cluster of its statistics."""

    id: str
    family: str
    style: str
    language: str
    messages: tuple[dict[str, str], ...]


def probes(persona: PersonaConfig, languages: Sequence[str] | None = None) -> list[Probe]:
    """Every probe in these languages (all of probes.yaml without any), family by family, without a system message."""
    result = []
    for family, wordings in load("probes.yaml").items():
        for key, turns in wordings.items():
            language = key.partition("/")[0]
            if languages is None or language in languages:
                texts = [turns] if isinstance(turns, str) else turns
                messages = tuple(
                    {
                        "role": "assistant" if number % 2 else "user",
                        "content": text.replace("{answer}", right_answer(persona, language)),
                    }
                    for number, text in enumerate(texts)
                )
                result.append(Probe(f"{family}/{key}", family, family.partition("/")[0], language, messages))
    return result


def select_probes(persona: PersonaConfig, count: int, *, languages: Sequence[str] | None = None) -> list[Probe]:
    """``count`` probes, or all where there are fewer: every family once before any comes twice."""
    draw = random.Random("probes/0")
    by_family: dict[str, list[Probe]] = {}
    for probe in probes(persona, languages):
        by_family.setdefault(probe.family, []).append(probe)
    for family in by_family.values():
        draw.shuffle(family)
    order = list(by_family)
    draw.shuffle(order)
    longest = max(map(len, by_family.values()), default=0)
    return [by_family[family][turn] for turn in range(longest) for family in order if turn < len(by_family[family])][
        :count
    ]


def resembling(rows: Iterable[Mapping[str, Any]], held_out: Sequence[Probe]) -> list[tuple[str, str, float]]:
    """(row id, probe id, similarity in percent) of the user turns of training rows that are a wording of a probe."""
    from rapidfuzz import fuzz, process

    questions = {probe.id: probe.messages[-1]["content"].casefold() for probe in held_out}
    pairs = []
    for row in rows:
        for message in row["messages"]:
            if message["role"] == "user":
                near = process.extractOne(
                    text_of(message["content"]).casefold(), questions, scorer=fuzz.ratio, score_cutoff=SIMILARITY
                )
                if near is not None:
                    pairs.append((row["id"], near[2], round(near[1], 1)))
    return pairs
