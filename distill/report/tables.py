"""The tables of a run: stages, rows remaining, scores, comparisons.

Built once, from the rows of ``distill/runs/summary.py``; the terminal (``distill run``, ``distill show``) and the
report (HTML, Markdown) only draw them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.report.markdown import Table
from distill.runs.summary import MODEL_NAMES
from publish.facts import MAY_BE_CHANCE, p_text, reading_of, tells

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


def score_table(scores: Rows, caption: str = "Scores on held-out problems") -> Table:
    """Each model's score with its interval, stop rate, share of truncated responses and mean completion tokens."""
    families = any(row.get("clusters") for row in scores)
    rows = tuple(
        (
            model_name(row["model"]),
            f"{row['value']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['n']:,}",
            *([number(row.get("clusters"))] if families else []),
            f"{row.get('num_samples', 1):,}",
            f"{row['stop_rate']:.3f}",
            f"{row['truncated']:.3f}",
            number(row["mean_tokens"], 1),
        )
        for row in scores
    )
    counts = ("Problems", *(["Families"] if families else []), "Samples")
    header = ("Model", "pass@1", "95 % interval", *counts, "Stop rate", "Truncated", "Mean tokens")
    return Table(caption, header, rows, right=len(header) - 1)


def comparison_table(comparisons: Rows, caption: str = "Paired comparisons") -> Table:
    """Paired differences on the same problems; beside each one that may be chance what would have been noticed."""
    rows = []
    for row in comparisons:
        name = f"{model_name(row['b'])} minus {model_name(row['a'])}"
        difference, interval, *others = paired_cells(row)
        rows.append((name, difference, interval, p_text(row["p"]), *others))
    tests = ", ".join(dict.fromkeys(row["test"] for row in comparisons if row.get("test")))
    header = (
        "Difference", "Value", "95 % interval", "p", "p, Holm", "Reading", "Detectable from", "Problems needed"
    )  # fmt: skip
    return Table(f"{caption}{f' ({tests})' if tests else ''}", header, tuple(rows), right=7)


def paired_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A paired difference, its interval, its p by Holm and what they say; where it may be chance, from where on one is
    detected, and how many problems would tell."""
    reading = reading_of(row["low"], row["high"], row.get("p_adjusted"))
    chance = reading == MAY_BE_CHANCE
    return (
        f"{row['difference']:+.3f}",
        f"{row['low']:+.3f} to {row['high']:+.3f}",
        p_text(row.get("p_adjusted")),
        reading,
        number(row.get("minimum_detectable_effect") if chance else None, 3),
        problems_needed(row) if chance else "",
    )


def answer_tables(scores: Rows) -> list[Table]:
    """The other metrics, where there are several samples or cut answers; what each model answered with, and how long
    its thinking and its answers are."""
    metrics = tuple(
        (model_name(row["model"]), name, f"{one['value']:.3f}", f"{one['low']:.3f} to {one['high']:.3f}")
        for row in scores
        for name, one in (row.get("other_metrics") or {}).items()
    )
    timed = any(row.get("seconds") is not None for row in scores)
    answers = tuple(
        (
            model_name(row["model"]),
            str(row["engine"]),
            row.get("dtype") or "unknown",
            _sampling(row.get("sampling") or {}),
            number(row.get("mean_thinking_chars"), 0),
            number(row.get("mean_answer_chars"), 0),
            *([number(row.get("seconds"), 1)] if timed else []),
        )
        for row in scores
    )
    blocks = (
        [Table("Other metrics", ("Model", "Metric", "Value", "95 % interval"), metrics, right=2)] if metrics else []
    )
    if answers:
        header = ("Model", "Engine", "Weights", "Sampling", "Thinking", "Answer", *(["Seconds"] if timed else []))
        caption = "How the models answered (mean lengths in characters)"
        blocks.append(Table(caption, header, answers, right=len(header) - 4))
    return blocks


def _sampling(values: Mapping[str, float]) -> str:
    if values.get("temperature") == 0:
        values = {name: value for name, value in values.items() if name not in ("temperature", "top_p")}
        return ", ".join(["greedy", *(f"{name} {value:g}" for name, value in values.items())])
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def problems_needed(row: Mapping[str, Any]) -> str:
    """How many problems would tell a difference from chance."""
    needed, n = row.get("items_to_detect"), row.get("n")
    return number(needed) if needed is None or n is None or tells(needed, n) else f"> {n:,}"


def model_name(key: str) -> str:
    """A model's name for readers; a teacher of a mixture keeps its own."""
    return MODEL_NAMES.get(key, key)


def number(value: float | None, digits: int = 0) -> str:
    """A count or mean with thousands separators; empty where it is unknown."""
    return "" if value is None else f"{value:,.{digits}f}"


def probe_tables(probes: Mapping[str, Any]) -> list[Table]:
    """What each model says of its identity (facts ``PersonaProbes``): answers, and think blocks where there are any;
    the student's share of right answers beside the others'."""
    tables = [_probe_table(probes["rates"], "answer", "Who it says it is, in its answers")]
    if any(row["thinking"] for row in probes["rates"]):
        tables.append(_probe_table(probes["rates"], "thinking", "Who it says it is, in what it thinks"))
    if probes["changes"]:
        tables.append(comparison_table(probes["changes"], "Right about who it is, paired"))
    return tables


def _probe_table(rates: Rows, part: str, caption: str) -> Table:
    rows = tuple(
        (
            model_name(row["model"]),
            ", ".join(filter(None, (row.get("engine"), row.get("dtype")))),
            f"{row['n']:,}",
            f"{row[part]['right']['value']:.3f}",
            f"{row[part]['right']['low']:.3f} to {row[part]['right']['high']:.3f}",
            *(f"{row[part][name]['value']:.3f}" for name in ("named", "leaks", "denies_ai", "refuses")),
            ", ".join(f"{maker} {count}" for maker, count in list(row["leaks_by_maker"].items())[:3]),
        )
        for row in rates
        if row[part]
    )
    header = (
        "Model", "Engine", "Probes", "Right", "95 % interval", "Names itself", "Leaks", "Denies AI", "Refuses", "Makers"
    )  # fmt: skip
    return Table(caption, header, rows, right=8)
