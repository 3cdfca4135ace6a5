"""Text that may be hostile, made safe for a card: Markdown, tables, fences, YAML front matter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from publish.facts import LicenceFacts, WaterfallStep

__all__ = [
    "UNKNOWN",
    "allowed_text",
    "fence",
    "front_matter",
    "interval",
    "licence_and_languages",
    "md",
    "model_link",
    "number",
    "printable",
    "quoted",
    "settings",
    "table",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
UNKNOWN = "unknown"


def md(value: object) -> str:
    """Text as one line that Markdown, tables and HTML take as text: no markup, no link, no line break."""
    text = " ".join(printable(str(value)).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", text)
    text = re.sub(
        r"^(\d+)([.)])(?=\s|$)|^([-+=:])", r"\1\\\2\3", text
    )  # lists, underlines of headings, rules of tables
    # GFM links bare addresses by itself, and the hub makes tags of some.
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def quoted(text: str) -> str:
    """A JSON string on one line, which every YAML reader takes as a string: `no` stays Norwegian, not false."""
    return json.dumps(printable(text), ensure_ascii=False)


def printable(text: str) -> str:
    """Without control characters, line ends and direction overrides; joiners stay, scripts need them."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)


def model_link(name: str) -> str:
    if _HUB_ID.fullmatch(name):
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
    """What each step of curation left; the difficulty only where it is known."""
    steps = list(steps)
    known = any(step.mean_difficulty is not None for step in steps)
    rows: list[tuple[str, ...]] = []
    for step in steps:
        hard = "" if step.mean_difficulty is None else f"{step.mean_difficulty:.3f}"
        counts = (md(step.step), number(step.rows), number(step.problems), number(step.tokens))
        rows.append((*counts, hard) if known else counts)
    header = ("Step", "Traces", "Problems", "Tokens", *(("Mean difficulty",) if known else ()))
    return table(header, rows, right=len(header) - 1)


def front_matter(meta: Mapping[str, Any]) -> str:
    """YAML between its rules. Values are texts, or lists of texts or of one level of mappings; all are quoted."""
    lines: list[str] = []
    for key, value in meta.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(_listed(item) for item in value)]
        else:
            lines.append(f"{key}: {quoted(value)}")
    return "\n".join(("---", *lines, "---")) + "\n"


def allowed_text(lines: Iterable[str]) -> str:
    """What the licence audit found and the releaser answers for, a line each."""
    return "The licence audit found this, and the releaser answers for it:\n\n" + "\n".join(
        f"- {md(line)}" for line in lines
    )


def licence_and_languages(licence: LicenceFacts, languages: Sequence[str]) -> dict[str, Any]:
    """What every card's front matter begins with."""
    named = {"license_name": licence.license_name, "license_link": licence.license_link}
    meta: dict[str, Any] = {"license": licence.license, **{key: value for key, value in named.items() if value}}
    return {**meta, "language": list(languages)} if languages else meta


def _listed(item: Any) -> str:
    if isinstance(item, Mapping):
        return "- {" + ", ".join(f"{key}: {_flow(value)}" for key, value in item.items()) + "}"
    return f"- {quoted(item)}"


def _flow(value: Any) -> str:
    return "[" + ", ".join(_listed(item)[2:] for item in value) + "]" if isinstance(value, list) else quoted(value)
