"""Loss guard: steps whose loss or gradient norm is not finite, and spikes; a pure function of the steps before.

A step that is not finite would destroy the weights. A spike is a loss or a gradient norm above
``median + 8 * 1.4826 * MAD`` of the last 64 steps (1.4826 makes the median absolute deviation an estimate of the
standard deviation of normal values), but at least twice the median, so that a loss that hardly moves raises no alarm.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

NOT_FINITE = "not finite"
_WINDOW, _FIRST_JUDGED = 64, 16
_DEVIATIONS = 8 * 1.4826
_JUDGED = ("loss", "grad_norm")


class LossGuard:
    """Looks at each step, in order; a resume feeds it the steps of the log again."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=_WINDOW) for name in _JUDGED}

    def look(self, step: Mapping[str, Any]) -> str | None:
        """What is wrong with a step of this loss and grad_norm: None, ``NOT_FINITE``, or "spike: ..."."""
        if not all(math.isfinite(step[name]) for name in _JUDGED):
            return NOT_FINITE
        verdict = None
        for name, recent in self._recent.items():
            if len(recent) >= _FIRST_JUDGED:
                median = statistics.median(recent)
                deviation = statistics.median(abs(value - median) for value in recent)
                if step[name] > max(median + _DEVIATIONS * deviation, 2 * median):
                    verdict = verdict or f"spike: {name} {step[name]:.3g}, median {median:.3g}"
            recent.append(step[name])
        return verdict
