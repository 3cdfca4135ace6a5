"""The tables of a run: stages, rows remaining, scores, comparisons.

Built once, from the rows of ``distill/runs/summary.py``; the terminal (``distill run``, ``distill show``) and the
report (HTML, Markdown) only draw them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.report.markdown import Table
from distill.runs.summary import MODEL_NAMES

__all__ = ["comparison_table", "model_name", "number", "score_table", "stage_table", "waterfall_table"]

Rows = Sequence[Mapping[str, Any]]


def stage_table(stages: Rows) -> Table:
    """Wall seconds, rows and tokens of each stage, and the seconds of all."""
    rows = [
        (row["stage"], f"{row['seconds']:,.1f}", *(number(row[name]) for name in ("rows_in", "rows_out", "tokens")))
        for row in stages
    ]
    rows.append(("all", f"{sum(row['seconds'] for row in stages):,.1f}", "", "", ""))
    return Table("Stages", ("Stage", "Seconds", "Rows in", "Rows out", "Tokens"), tuple(rows), right=4)


def waterfall_table(steps: Rows) -> Table:
    """Rows remaining after each step of curation; the mean difficulty where it was measured."""
    difficulty = any(step.get("mean_difficulty") is not None for step in steps)
    rows = tuple(
        (
            str(step["step"]),
            *(number(step[name]) for name in ("rows", "problems", "tokens")),
            *([number(step.get("mean_difficulty"), 3)] if difficulty else []),
        )
        for step in steps
    )
    header = ("Step", "Rows", "Problems", "Tokens", *(["Mean difficulty"] if difficulty else []))
    return Table("Rows remaining after each step", header, rows, right=len(header) - 1)


def score_table(scores: Rows) -> Table:
    """Each model's score with its interval, stop rate, share of truncated responses and mean completion tokens."""
    rows = tuple(
        (
            model_name(row["model"]),
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['n']:,}",
            f"{row['stop_rate']:.3f}",
            f"{row['truncated']:.3f}",
            number(row["mean_tokens"], 1),
        )
        for row in scores
    )
    header = ("Model", "pass@1", "95 % interval", "Problems", "Stop rate", "Truncated", "Mean tokens")
    return Table("Scores on held-out problems", header, rows, right=6)


def comparison_table(comparisons: Rows) -> Table:
    """Paired differences on the same problems."""
    rows = tuple(
        (
            f"{model_name(row['b'])} minus {model_name(row['a'])}",
            f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{row['p']:.3g}",
            "may be chance" if row["low"] <= 0 <= row["high"] else "higher" if row["low"] > 0 else "lower",
        )
        for row in comparisons
    )
    header = ("Difference", "Value", "95 % interval", "p (McNemar)", "Reading")
    return Table("Paired comparisons", header, rows, right=4)


def model_name(key: str) -> str:
    """A model's name for readers; a teacher of a mixture keeps its own."""
    return MODEL_NAMES.get(key, key)


def number(value: float | None, digits: int = 0) -> str:
    """A count or mean with thousands separators; empty where it is unknown."""
    return "" if value is None else f"{value:,.{digits}f}"
