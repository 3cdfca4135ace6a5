"""Recorded items scored again with a release's own weights and template: does the number on the card come out?

The same code as the evaluation's asks and verifies. The items are spread evenly over the recorded ones. Two questions
are answered: do the recorded verdicts give the score of evaluation.json, and may the difference between recorded and
new verdicts be chance (paired test and interval of ``distill.evaluate.statistics``)?
Greedy answers of one engine on one kind of machine should be equal word by word; other machines and versions round
differently, and so may answer differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.evaluate.metrics import summarise
from distill.release.answers import (
    EngineName,
    ReleaseHost,
    answer_problems,
    engine_of,
    recorded_limits,
    recorded_score,
    recorded_settings,
    require_engine,
)
from distill.runs.facts import Score
from distill.runs.stage import Reporter
from licensing.errors import Refused
from publish.evaluation import EvaluatedItem, read_items
from publish.facts import chance_text

SIGNIFICANCE = 0.05
"""Below this p the difference between recorded and new verdicts is no chance."""


@dataclass(frozen=True)
class RescoreResult:
    """Scores are pass@1 on the same ``n`` items; ``low`` and ``high`` bound ``difference`` (again minus recorded);
    ``minimum_detectable_effect`` is the smallest one that so many items find in 80 % of cases."""

    n: int
    recorded: float
    again: float
    difference: float
    low: float
    high: float
    p: float
    minimum_detectable_effect: float | None
    same_verdicts: int
    same_texts: int
    recorded_engine: str
    engine: str
    card: float
    card_low: float
    card_high: float
    card_n: int

    @property
    def agrees(self) -> bool:
        return self.p >= SIGNIFICANCE

    def text(self) -> str:
        effect = self.minimum_detectable_effect
        noticed = f", {chance_text(effect, None, self.n)}" if self.agrees and effect is not None else ""
        return (
            f"{self.again:.3f} on {self.n} items, recorded {self.recorded:.3f}: difference {self.difference:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], p = {self.p:.3g}{noticed}; {self.same_verdicts} verdicts and "
            f"{self.same_texts} answers equal; {self.engine}, recorded with {self.recorded_engine}; card: "
            f"{self.card:.3f} [{self.card_low:.3f}, {self.card_high:.3f}] on {self.card_n}"
        )


def rescore(
    folder: Path, number: int, engine: EngineName | None, host: ReleaseHost, report: Reporter
) -> RescoreResult | None:
    """Score ``number`` recorded items again; None where the release ships no items.

    ``engine``: None for the recorded one where it is installed. Raises Refused where the recorded verdicts do not give
    the score of evaluation.json, or the folder does not load; MissingDependency without the engine.
    """
    items, card = read_items(folder), recorded_score(folder)
    if not items or card is None:
        return None
    _check_score(items, card)
    engine = engine or engine_of(card.engine)
    require_engine(engine)
    problems = {str(item.problem["id"]): item.problem for item in items}
    number = min(number, len(problems))
    chosen_ids = [list(problems)[at * len(problems) // number] for at in range(number)]
    chosen = [item for one in chosen_ids for item in items if item.problem["id"] == one]
    settings = recorded_settings(folder, engine)
    questions = [problems[one] for one in chosen_ids]
    rows = answer_problems(folder, questions, settings, recorded_limits(folder), host, report)
    recorded = [_recorded(item, card.engine) for item in chosen]
    result = summarise({"recorded": recorded, "again": rows})
    before, after = result.scores
    (comparison,) = result.comparisons
    return RescoreResult(
        n=after.n,
        recorded=before.value,
        again=after.value,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p=comparison.p,
        minimum_detectable_effect=comparison.minimum_detectable_effect,
        same_verdicts=sum(row["verdict"] == item.verdict for row, item in zip(rows, chosen, strict=True)),
        same_texts=sum(row["response"] == item.response for row, item in zip(rows, chosen, strict=True)),
        recorded_engine=card.engine,
        engine=after.engine,
        card=card.value,
        card_low=card.low,
        card_high=card.high,
        card_n=card.n,
    )


def _check_score(items: list[EvaluatedItem], card: Score) -> None:
    verdicts = [item.verdict for item in items if item.verdict is not None]
    value = sum(verdict == "correct" for verdict in verdicts) / max(1, len(verdicts))
    if len(verdicts) != card.n * card.num_samples or abs(value - card.value) > 1e-6:
        raise Refused(
            f"the recorded verdicts give {value:.6f} on {len(verdicts)} answers, but evaluation.json has "
            f"{card.value:.6f} on {card.n} problems"
        )


def _recorded(item: EvaluatedItem, engine: str) -> dict[str, Any]:
    return {
        "prompt_id": item.problem["id"],
        "sample_index": item.sample_index,
        "verdict": item.verdict,
        "finish_reason": item.finish_reason,
        "completion_tokens": item.completion_tokens,
        "engine": engine,
    }
