"""A run at a glance, as `distill run` ends with it and `distill show` prints it: ``distill.runs.summary`` with what is
decided from it (the release gate) and what a score must be read beside (contamination)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.release.gate import gate_of_run
from distill.runs.artefact import of_last_round
from distill.runs.store import current_artefacts
from distill.runs.summary import summary
from licensing.files import read_json


def overview(run: Path) -> dict[str, Any]:
    """The fields of ``summary``, ``gate`` (``distill.release.gate.Gate.as_json``) and ``contamination``, both None
    before their stages have finished."""
    gate, curate = gate_of_run(run), of_last_round(current_artefacts(run)).get("curate")
    overlap = read_json(curate.path / "decontamination.json") if curate else {}
    dropped = bool(curate and curate.manifest["fields"]["curate"]["filters"]["contaminated"])
    return summary(run) | {"gate": gate.as_json() if gate else None, "contamination": contamination(overlap, dropped)}


def contamination(overlap: Mapping[str, Any], dropped: bool) -> dict[str, Any] | None:
    """Overlap of the training prompts with the held-out problems and other test sets, and the recall on planted copies.

    ``overlap``: decontamination.json; None where the held-out problems were not compared. ``dropped``: prompts that
    overlap were left out of training.
    """
    if "evaluate" not in overlap.get("sets", {}):
        return None
    names = ("prompts", "contaminated", "sets", "recall", "false_positive_rate")
    return {**{name: overlap[name] for name in names}, "dropped": dropped}


def contamination_text(contamination: Mapping[str, Any] | None) -> str:
    """One line for people."""
    if contamination is None:
        return "Contamination: training prompts were not compared with these problems."
    sets = sum(contamination["sets"].values())
    fate = "left out of training" if contamination["dropped"] else "trained on"
    recall = ", ".join(f"{kind} {share:.2f}" for kind, share in contamination["recall"].items() if share is not None)
    false = contamination["false_positive_rate"]
    names, overlaps, prompts = ", ".join(contamination["sets"]), contamination["contaminated"], contamination["prompts"]
    return (
        f"Contamination: {overlaps:,} of {prompts:,} training prompts overlap with the {sets:,} problems of {names} "
        f"and were {fate}. The search finds these shares of planted copies: {recall or 'none planted'}"
        + ("." if false is None else f"; false positives: {false:.3f}.")
    )
