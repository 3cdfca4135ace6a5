"""The card of a data set of traces: README.md from ``DatasetFacts`` alone, by the rules of the model card."""

from __future__ import annotations

from publish.cards.front_matter import data_front_matter
from publish.cards.markdown import (
    UNKNOWN,
    allowed_text,
    fence,
    md,
    model_link,
    number,
    settings,
    table,
    waterfall_table,
)
from publish.facts import DatasetFacts
from publish.training_data import COLUMNS, OPTIONAL_COLUMNS

__all__ = ["data_card"]

_MOST_GROUPS = 20  # rows of one table


def data_card(facts: DatasetFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break. Same facts, same text."""
    sections = [
        _summary(facts),
        _composition(facts),
        _fields(facts),
        _making(facts),
        _decontamination(facts),
        _lineage(facts),
        _limitations(facts),
        _license(facts),
    ]
    return data_front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n"


def _summary(facts: DatasetFacts) -> str:
    version = f" (version {md(facts.version)})" if facts.version else ""
    tokens = "" if facts.tokens is None else f", {facts.tokens:,} tokens"
    teachers = ", ".join(model_link(teacher.id) for teacher in facts.teachers) or "an unknown model"
    text = (
        f"# {md(facts.name)}\n\n{md(facts.name)}{version} holds {facts.rows:,} reasoning traces of {teachers} on "
        f"{facts.problems:,} problems{tokens}: the training data of the model beside it."
    )
    load = 'data = load_dataset("path/to/this/folder", split="train")'
    code = f'from datasets import load_dataset\n\n{load}\ndata[0]["messages"]'
    return f"{text}\n\n{fence(code, 'python')}"


def _composition(facts: DatasetFacts) -> str:
    parts = []
    for name, groups in facts.groups.items():
        rows = [
            (md(group.name or UNKNOWN), number(group.rows), number(group.tokens)) for group in groups[:_MOST_GROUPS]
        ]
        if len(groups) > _MOST_GROUPS:
            rest = groups[_MOST_GROUPS:]
            rows.append((f"{len(rest):,} more", number(sum(group.rows for group in rest)), ""))
        if rows:
            parts.append(table((md(name.capitalize()), "Rows", "Tokens"), rows, right=2))
    if facts.lengths:
        listed = ", ".join(f"{md(name)} {value:,.0f}" for name, value in facts.lengths.items())
        parts.append(f"Tokens a trace: {listed}.")
    return "## Composition\n\n" + "\n\n".join(parts) if parts else ""


def _fields(facts: DatasetFacts) -> str:
    optional = {name: meaning for name, meaning in OPTIONAL_COLUMNS.items() if name in facts.optional_columns}
    rows = [(f"`{name}`", md(meaning)) for name, meaning in (COLUMNS | optional).items()]
    return "## Columns\n\n" + table(("Column", "Meaning"), rows)


def _making(facts: DatasetFacts) -> str:
    parts = []
    if facts.sampling and facts.sampling.settings:
        parts.append(f"The teacher was sampled with:\n\n{settings(facts.sampling.settings)}")
    if facts.verification:
        parts.append(f"Verification: {md(facts.verification)}")
    if facts.waterfall:
        parts.append("Rows after each step:\n\n" + waterfall_table(facts.waterfall))
    if facts.near_duplicates:
        parts.append(f"Near duplicates: {md(facts.near_duplicates)}")
    if facts.code_revision:
        parts.append(f"Code revision: {md(facts.code_revision)}.")
    return "## How it was made\n\n" + "\n\n".join(parts) if parts else ""


def _decontamination(facts: DatasetFacts) -> str:
    overlap = facts.decontamination
    if overlap is None or not overlap.sets:
        return "## Decontamination\n\nPrompts were compared with no test set."
    sets = ", ".join(f"{md(name)} ({count:,} items)" for name, count in overlap.sets.items())
    outcome = "left out" if overlap.dropped else "still in the data"
    text = (
        f"{overlap.prompts:,} prompts were compared with {sets}; {overlap.overlapping:,} overlapped and are {outcome}."
    )
    rows = [(md(kind), UNKNOWN if value is None else f"{value:.3f}") for kind, value in overlap.recall.items()]
    if rows:
        text += "\n\nRecall, measured on test items planted among the prompts:\n\n"
        text += table(("Planted", "Recall"), rows, right=1)
    return f"## Decontamination\n\n{text}"


def _lineage(facts: DatasetFacts) -> str:
    rows = []
    for teacher in facts.teachers:
        engine = f"on {md(teacher.engine)}" if teacher.engine else ""
        revision, license = md(teacher.revision or UNKNOWN), md(teacher.license or UNKNOWN)
        rows.append(("teacher", model_link(teacher.id), revision, license, engine))
    for source in facts.prompt_sources:
        link = (
            f"[{md(source.name)}](https://huggingface.co/datasets/{source.dataset})"
            if source.dataset
            else md(source.name)
        )
        rows.append(("prompts", link or md(source.name), "", md(source.license or UNKNOWN), ""))
    return "## Lineage\n\n" + table(("Role", "Source", "Revision", "License", "Note"), rows) if rows else ""


def _limitations(facts: DatasetFacts) -> str:
    lines = [
        *facts.limitations,
        "Answers are written by a model: a verified one may be right for the wrong reasons, any other may be wrong.",
    ]
    return "## Limitations\n\n" + "\n".join(f"- {md(line)}" for line in lines)


def _license(facts: DatasetFacts) -> str:
    own = md(facts.license.license_name or facts.license.id)
    parts = [f"License of the data set: {own}. Prompts keep the license of their source, which every row names."]
    if facts.obligations:
        parts.append("Whoever redistributes it has to:\n\n" + "\n".join(f"- {md(line)}" for line in facts.obligations))
    if facts.allowed:
        parts.append(allowed_text(facts.allowed))
    if facts.notice:
        parts.append("Notices:\n\n" + fence("\n".join(facts.notice)))
    return "## License and notices\n\n" + "\n\n".join(parts)
