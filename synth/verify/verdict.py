"""The result of every verifier for one row, and which results count."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

VerdictName = Literal["correct", "wrong", "unparseable", "timeout", "error"]

JUDGED = ("correct", "wrong", "unparseable")
MAX_EXTRACTED = 10_000  # characters of `extracted` that a row carries
_DIGEST = "sha256:"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one row.

    `verdict` is None for rows that have nothing to verify (kind `open`). `unparseable`: the response gives no answer
    that can be read. `timeout` and `error`: there is no judgement, and `reason` says why. `score` is in [0, 1] and None
    only where `verdict` is. `extracted` is the answer's text, at most 10,000 characters. `seconds` is wall time of the
    row alone: neither the start of a worker nor waiting for one counts. Rows with the same question and the same
    answer may share one verdict, and with it the seconds that it cost. `isolation`, of programs alone: whether the
    tests ran `apart` from the program or `in_process` with it.
    """

    verdict: VerdictName | None
    score: float | None = 0.0
    extracted: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    isolation: str | None = None


def judged(verdict: Any, finish_reason: Any) -> bool:
    """Whether a row's verdict says that its answer is right or wrong: what pass rates and statistics count.

    A failed request (finish_reason "error"), an error of the verifier, a time-out of the verifier and a row without a
    verdict (kind `open`) are not judged: none of them is a wrong answer.
    """
    return verdict in JUDGED and finish_reason != "error"


def stored_extracted(kind: str, extracted: str | None) -> str | None:
    """What a run keeps of `extracted`: of a program, which stands in the sample's text, ``sha256:`` and its digest."""
    if kind != "code" or extracted is None or extracted.startswith(_DIGEST):
        return extracted
    return _DIGEST + hashlib.sha256(extracted.encode("utf-8", "surrogatepass")).hexdigest()


def shortened(text: str) -> str:
    """At most what `extracted` may hold."""
    return text if len(text) <= MAX_EXTRACTED else text[:MAX_EXTRACTED]
