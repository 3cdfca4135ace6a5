"""Untrusted text made safe for Markdown: lines, tables, code blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from publish.facts import WaterfallStep

__all__ = [
    "HUB_ID",
    "UNKNOWN",
    "allowed_text",
    "fence",
    "interval",
    "md",
    "model_link",
    "number",
    "printable",
    "settings",
    "table",
    "waterfall_table",
]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
UNKNOWN = "unknown"


def md(value: object) -> str:
    """``value`` as one line of plain text in Markdown, tables and HTML: no markup, no link, no line break."""
    text = " ".join(printable(str(value)).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", text)
    text = re.sub(
        r"^(\d+)([.)])(?=\s|$)|^([-+=:])", r"\1\\\2\3", text
    )  # lists, underlines of headings, rules of tables
    # GFM links bare addresses by itself, and the hub makes tags of some.
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def printable(text: str) -> str:
    """``text`` without control characters, line breaks and direction overrides; joiners stay, as scripts need them."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)


def model_link(name: str) -> str:
    if HUB_ID.fullmatch(name):
        return f"[{md(name)}](https://huggingface.co/{name})"
    return md(name)


def fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: int = 0) -> str:
    """A table of escaped cells; the last ``right`` columns hold numbers."""
    marks = ["---"] * (len(header) - right) + ["---:"] * right
    lines = [header, marks, *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def settings(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {md(name)}: {md(_value(value))}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


def waterfall_table(steps: Iterable[WaterfallStep]) -> str:
    """Rows, problems and tokens after each step of curation; the mean difficulty where it was measured."""
    steps = list(steps)
    with_difficulty = any(step.mean_difficulty is not None for step in steps)
    rows: list[tuple[str, ...]] = []
    for step in steps:
        difficulty = "" if step.mean_difficulty is None else f"{step.mean_difficulty:.3f}"
        counts = (md(step.step), number(step.rows), number(step.problems), number(step.tokens))
        rows.append((*counts, difficulty) if with_difficulty else counts)
    header = ("Step", "Traces", "Problems", "Tokens", *(("Mean difficulty",) if with_difficulty else ()))
    return table(header, rows, right=len(header) - 1)


def allowed_text(lines: Iterable[str]) -> str:
    """Findings of the license audit that the releaser waives, one a line."""
    return "Findings of the license audit that the releaser waives, with the reason:\n\n" + "\n".join(
        f"- {md(line)}" for line in lines
    )
