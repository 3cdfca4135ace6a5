"""Untrusted text made safe for Markdown; the jinja environment of the cards, which escapes every value."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publish.facts import Duty, OriginFacts, WaterfallStep

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_MOST_ROWS = 20  # of one table
_BLANK_LINES = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$|\n{3,}", re.DOTALL | re.MULTILINE)
"""More blank lines than one, or a code block, whose blank lines stay."""


class Markdown(str):
    """Text that is Markdown already: a template writes it as it is, and escapes any other value."""

    __slots__ = ()


def render_card(template: str, facts: Any, **more: Any) -> str:
    """The text of ``facts`` by a template of this folder; ends with one line break.

    Every value that the template writes is escaped (``md``) unless it is ``Markdown``; None is the word "unknown".
    """
    text = _environment().get_template(template).render(facts=facts, **more)
    text = _BLANK_LINES.sub(lambda match: match[0] if match[1] else "\n\n", text)
    return text.strip() + "\n"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markdown) else md(value),
        autoescape=False,  # the finalizer escapes, for Markdown and HTML both
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in (bullets, fence, listed, settings, thousands)}
    environment.globals |= {"link": link}
    return environment


def md(value: object) -> str:
    """``value`` as one line of plain text in Markdown, tables and HTML: no markup, no link, no line break."""
    if value is None:
        return "unknown"
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


def link(name: str, kind: str = "") -> Markdown:
    """A link to the hub where ``name`` is an id there. ``kind``: "datasets/" for a data set."""
    if HUB_ID.fullmatch(name):
        return Markdown(f"[{md(name)}](https://huggingface.co/{kind}{name})")
    return Markdown(md(name))


def fence(text: str, language: str = "text") -> Markdown:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markdown(f"{ticks}{language}\n{text}\n{ticks}")


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: int = 0) -> Markdown:
    """A table of escaped cells; the last ``right`` columns hold numbers. Long ones end with the number of rows left."""
    rows = list(rows)
    marks = ["---"] * (len(header) - right) + ["---:"] * right
    lines = [list(header), marks, *([_cell(cell) for cell in row] for row in rows[:_MOST_ROWS])]
    if len(rows) > _MOST_ROWS:
        lines.append([f"{len(rows) - _MOST_ROWS:,} more", *[""] * (len(header) - 1)])
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(cell: object) -> str:
    return cell if isinstance(cell, Markdown) else md(cell)


def settings(values: Mapping[str, Any]) -> Markdown:
    """A list of ``name: value``, each escaped; sections and lists as JSON."""
    return Markdown("\n".join(f"- {md(name)}: {md(_value(value))}" for name, value in values.items()))


def bullets(items: Iterable[object]) -> Markdown:
    """A list, each item escaped."""
    return Markdown("\n".join(f"- {_cell(item)}" for item in items))


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed(items: Iterable[str]) -> Markdown:
    """``a, b and c``, each escaped."""
    parts = [_cell(item) for item in items]
    return Markdown(" and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:]))))


def thousands(value: int | None) -> Markdown | None:
    return None if value is None else Markdown(f"{value:,}")


def decimal(value: float, sign: str = "") -> Markdown:
    return Markdown(f"{value:{sign}.3f}")


def interval(low: float | None, high: float | None, sign: str = "") -> Markdown:
    return Markdown("" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}")


def waterfall(steps: Iterable[WaterfallStep]) -> Markdown:
    """Rows, problems and tokens after each step of curation; the mean difficulty where it was measured."""
    steps = list(steps)
    with_difficulty = any(step.mean_difficulty is not None for step in steps)
    header = ("Step", "Traces", "Problems", "Tokens", *(("Mean difficulty",) if with_difficulty else ()))
    rows = []
    for step in steps:
        difficulty = "" if step.mean_difficulty is None else decimal(step.mean_difficulty)
        counts = (step.step, thousands(step.rows), thousands(step.problems), thousands(step.tokens))
        rows.append((*counts, difficulty) if with_difficulty else counts)
    return table(header, rows, right=len(header) - 1)


def lineage_table(
    first: Iterable[tuple[object, ...]], facts: OriginFacts, of_teachers: Iterable[str], of_sources: Iterable[str]
) -> Markdown:
    """Where a release is from: the rows ``first``, teachers and sources of prompts, each with its note, and the student
    of a first round."""
    rows = [*first]
    for teacher, note in zip(facts.teachers, of_teachers, strict=True):
        rows.append(("teacher", link(teacher.id), teacher.revision, teacher.license, note))
    if (student := facts.first_student) is not None:
        rows.append(("student", student.id, student.revision, student.license, f"trained from {student.base}"))
    for source, note in zip(facts.prompt_sources, of_sources, strict=True):
        name = link(source.dataset, "datasets/") if source.dataset else source.name
        rows.append(("prompts", name, "", source.license, note))
    return table(("Role", "Source", "Revision", "License", "Note"), rows)


def duty_lines(duties: Iterable[Duty]) -> list[str]:
    """What every license asks of those who redistribute, one duty a line, with its source and the audit's code."""
    return [f"{duty.what} ({f'{duty.source}, ' if duty.source else ''}{duty.code})" for duty in duties]
