"""Tables of suites: scores, what got worse, results of another harness. The terminal and the report draw them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill.report.markdown import Table
from distill.report.tables import answer_tables, model_name, number, paired_cells

Rows = Sequence[Mapping[str, Any]]


def suite_table(scores: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    """(suite, score) -> one line each."""
    rows = tuple(
        (
            suite,
            model_name(row["model"]),
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['n']:,}",
            f"{row['stop_rate']:.3f}",
            f"{row['truncated']:.3f}",
            number(row["mean_tokens"], 1),
        )
        for suite, row in scores
    )
    header = ("Suite", "Model", "Score", "95 % interval", "Problems", "Stop rate", "Truncated", "Mean tokens")
    return Table("Suites", header, rows, right=6)


def side_effect_table(effects: Rows) -> Table:
    """Before and after on each suite (one at least), the paired difference, what would have been noticed, how many
    problems would tell, and, where a training set was looked at, how many of its prompts hold a problem of a suite."""
    rows, trained = [], any(row.get("trained_on") is not None for row in effects)
    for row in effects:
        rows.append(
            (
                row["suite"],
                f"{row['n']:,}",
                f"{row['before']['value']:.3f}",
                f"{row['after']['value']:.3f}",
                *({"lower": "worse", "higher": "better"}.get(cell, cell) for cell in paired_cells(row)),
                *([number(row.get("trained_on"))] if trained else []),
            )
        )
    header = ["Suite", "Problems", "Before", "After", "Difference", "95 % interval", "p, Holm", "Reading"]
    header += ["Detectable from", "Problems needed", *(["Trained on"] if trained else [])]
    names = f"{model_name(effects[0]['b'])} (after) against {model_name(effects[0]['a'])} (before)"
    return Table(f"What got better or worse: {names}", tuple(header), tuple(rows), right=len(header) - 1)


def suite_tables(scores: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Table]:
    """(suite, score): the scores, the other metrics, and how the models answered."""
    named = [{**score, "model": f"{suite}: {model_name(score['model'])}"} for suite, score in scores]
    return [suite_table(scores), *answer_tables(named)]


def before_and_after(effects: Rows) -> list[tuple[str, Mapping[str, Any]]]:
    """The scores of suites before and after training, as ``suite_tables`` takes them."""
    return [(row["suite"], row[when]) for row in effects for when in ("before", "after")]


def task_table(tasks: Rows) -> Table:
    """Metrics of lm-eval with what answered and the standard error; empty where one is no finite number."""
    rows = tuple(
        (
            row["task"],
            row["metric"],
            row["engine"],
            row["dtype"] or "unknown",
            number(row["value"], 4),
            number(row["stderr"], 4),
            number(row["n"]),
        )
        for row in tasks
    )
    header = ("Task", "Metric", "Engine", "Weights", "Value", "Standard error", "Problems")
    return Table("lm-eval", header, rows, right=3)
