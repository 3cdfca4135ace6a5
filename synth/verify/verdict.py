"""What every verifier gives back for one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MAX_EXTRACTED", "Verdict", "VerdictName", "judged", "shortened"]

VerdictName = Literal["correct", "wrong", "unparseable", "timeout", "error"]

MAX_EXTRACTED = 10_000  # characters of `extracted` that a row carries; a megabyte in a box helps nobody


@dataclass(frozen=True)
class Verdict:
    """What a verifier found out about one row.

    `verdict` is None for rows that have nothing to verify (kind `open`). `unparseable`: the response gives no answer
    that can be read. `timeout` and `error`: could not tell, and `reason` says why. `score` is in [0, 1] and None only
    where `verdict` is. `extracted` is the answer's text, at most 10,000 characters. `seconds` is wall time of the
    row alone: neither the start of a worker nor waiting for one counts. Rows with the same question and the same
    answer may share one verdict, and with it the seconds that it cost.
    """

    verdict: VerdictName | None
    score: float | None = 0.0
    extracted: str | None = None
    reason: str | None = None
    seconds: float = 0.0


def judged(verdict: str | None, finish_reason: str) -> bool:
    """Whether there is a verdict for or against a sample: the one definition, for sampling, labels and statistics.

    Failed requests, and verdicts `timeout` and `error`, are no wrong answers; kind `open` has no verdict.
    """
    return verdict in ("correct", "wrong", "unparseable") and finish_reason != "error"


def shortened(text: str) -> str:
    """At most what `extracted` may hold."""
    return text if len(text) <= MAX_EXTRACTED else text[:MAX_EXTRACTED]
