"""What a training did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from distill.train.rows import LeftOut

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """What a training did. ``tokens`` and ``trained_tokens`` count one pass over the rows, without padding.

    ``samples``: rows that all steps saw, a row of three epochs three times. ``layout``: of the micro batches, and
    ``layouts_refused`` those that gave other losses (``distill.train.layout_check``). ``history`` holds one entry an
    optimiser step: step, loss, learning_rate, grad_norm; at a step that the loss guard names, ``problem`` and the ids
    of its ``rows``, and no loss where that is not finite. ``resumed_from`` is the step of the checkpoint that the call
    continued from, 0 where it began anew; it is in no file and not among the facts.
    """

    rows: int
    samples: int
    steps: int
    tokens: int
    trained_tokens: int
    dtype: str
    layout: str
    layouts_refused: tuple[str, ...]
    method: str
    trained_parameters: int
    left_out: tuple[LeftOut, ...]
    history: tuple[dict[str, Any], ...]
    resumed_from: int

    def facts(self) -> dict[str, Any]:
        """For the manifest: the same after a crash as without one."""
        losses = [entry["loss"] for entry in self.history if "loss" in entry]
        return {
            "rows_in": self.rows + len(self.left_out),
            "rows_out": self.rows,
            "samples": self.samples,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "steps": self.steps,
            "method": self.method,
            "dtype": self.dtype,
            "layout": self.layout,
            "layouts_refused": list(self.layouts_refused),
            "trained_parameters": self.trained_parameters,
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "problem_steps": [
                {key: entry[key] for key in ("step", "problem", "rows")} for entry in self.history if "problem" in entry
            ],
            "left_out": dict(sorted(Counter(row.reason for row in self.left_out).items())),
            "left_out_sources": dict(sorted(Counter(row.source for row in self.left_out if row.source).items())),
        }
