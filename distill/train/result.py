"""What a training did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.train.metrics import is_json
from licensing.files import write_json

History = tuple[dict[str, Any], ...]
"""One entry an optimiser step: step, loss, learning_rate, grad_norm, and what the kind of training logs besides."""


@dataclass(frozen=True)
class TrainResult:
    """What a training did. ``facts``: those of its stage that it knows (``distill.runs.facts``), the same after a crash
    as without one. ``resumed_from`` is the step of the checkpoint that the call continued from, 0 where it began anew;
    it is in no file and not among the facts."""

    facts: dict[str, Any]
    history: History
    resumed_from: int

    @classmethod
    def written(cls, facts: dict[str, Any], history: History, resume: Path | None, out: Path | None) -> TrainResult:
        """With train_log.json in ``out``, the folder of the trained weights (None: on a rank that writes no file).
        ``resume``: the checkpoint that the call continued from."""
        if out is not None:
            write_json(out / "train_log.json", facts | {"log": list(history)})
        return cls(facts, history, int(resume.name.rpartition("-")[2]) if resume else 0)


def logged_steps(trainer: Any, names: Mapping[str, str]) -> History:
    """What the trainer logged of each optimiser step, under our names; ``names``: its own -> ours. Numbers that are not
    finite are left out."""
    return tuple(
        {ours: entry[name] for name, ours in names.items() if name in entry and is_json(entry[name])}
        for entry in trainer.state.log_history
        if "learning_rate" in entry
    )


def end_losses(history: History) -> dict[str, float | None]:
    """``first_loss`` and ``last_loss``, of the first and the last step that has one."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return {"first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None}
