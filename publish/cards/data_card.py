"""The card of a data set of traces: README.md from ``DatasetFacts`` alone, by the rules of ``publish/card``."""

from __future__ import annotations

from publish.cards.markdown import (
    UNKNOWN,
    allowed_text,
    fence,
    front_matter,
    licence_and_languages,
    md,
    model_link,
    number,
    settings,
    table,
    waterfall_table,
)
from publish.facts import DatasetFacts
from publish.training_data import BESIDE, COLUMNS

__all__ = ["data_card"]

_SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
_SHOWN = 20  # parts of one table


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
        _licence(facts),
    ]
    return _front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: DatasetFacts) -> str:
    meta = licence_and_languages(facts.licence, facts.languages)
    meta["pretty_name"] = facts.name
    meta["task_categories"] = ["text-generation"]
    meta["size_categories"] = [next((name for most, name in _SIZES.items() if facts.rows < most), "n>10M")]
    datasets = [source.dataset for source in facts.prompt_sources if source.dataset]
    if datasets:
        meta["source_datasets"] = list(dict.fromkeys(datasets))
    meta["tags"] = ["distillation", "reasoning", "synthetic"]
    files = [{"split": "train", "path": "train-*.parquet"}]
    meta["configs"] = [{"config_name": "default", "data_files": files}]
    return front_matter(meta)


def _summary(facts: DatasetFacts) -> str:
    version = f" (version {md(facts.version)})" if facts.version else ""
    tokens = "" if facts.tokens is None else f", {facts.tokens:,} tokens"
    teachers = ", ".join(model_link(teacher.id) for teacher in facts.teachers) or "an unknown model"
    text = (
        f"# {md(facts.name)}\n\n{md(facts.name)}{version} holds {facts.rows:,} reasoning traces of {teachers} on "
        f"{facts.problems:,} problems{tokens}: what the model beside it was trained on."
    )
    load = 'data = load_dataset("path/to/this/folder", split="train")'
    code = f'from datasets import load_dataset\n\n{load}\ndata[0]["messages"]'
    return f"{text}\n\n{fence(code, 'python')}"


def _composition(facts: DatasetFacts) -> str:
    parts = []
    for name, groups in facts.groups.items():
        rows = [(md(group.name or UNKNOWN), number(group.rows), number(group.tokens)) for group in groups[:_SHOWN]]
        if len(groups) > _SHOWN:
            rest = groups[_SHOWN:]
            rows.append((f"{len(rest):,} more", number(sum(group.rows for group in rest)), ""))
        if rows:
            parts.append(table((md(name.capitalize()), "Rows", "Tokens"), rows, right=2))
    if facts.lengths:
        listed = ", ".join(f"{md(name)} {value:,.0f}" for name, value in facts.lengths.items())
        parts.append(f"Tokens a trace: {listed}.")
    return "## Composition\n\n" + "\n\n".join(parts) if parts else ""


def _fields(facts: DatasetFacts) -> str:
    told = COLUMNS | {name: meaning for name, meaning in BESIDE.items() if name in facts.columns_beside}
    rows = [(f"`{name}`", md(meaning)) for name, meaning in told.items()]
    return "## Columns\n\n" + table(("Column", "Meaning"), rows)


def _making(facts: DatasetFacts) -> str:
    parts = []
    if facts.sampling and facts.sampling.settings:
        parts.append(f"The teacher was sampled with:\n\n{settings(facts.sampling.settings)}")
    if facts.verification:
        parts.append(f"Verification: {md(facts.verification)}")
    if facts.waterfall:
        parts.append("What each step left:\n\n" + waterfall_table(facts.waterfall))
    if facts.near_duplicates:
        parts.append(f"Near duplicates: {md(facts.near_duplicates)}")
    if facts.code_revision:
        parts.append(f"Code revision: {md(facts.code_revision)}.")
    return "## How it was made\n\n" + "\n\n".join(parts) if parts else ""


def _decontamination(facts: DatasetFacts) -> str:
    found = facts.decontamination
    if found is None or not found.sets:
        return "## Decontamination\n\nPrompts were compared with no test set."
    sets = ", ".join(f"{md(name)} ({count:,} items)" for name, count in found.sets.items())
    outcome = "left out" if found.left_out else "still in the data"
    text = f"{found.prompts:,} prompts were compared with {sets}; {found.found:,} overlapped and are {outcome}."
    rows = [(md(kind), UNKNOWN if value is None else f"{value:.3f}") for kind, value in found.recall.items()]
    if rows:
        text += "\n\nHow many test items were found again when planted among the prompts:\n\n"
        text += table(("Planted", "Found"), rows, right=1)
    return f"## Decontamination\n\n{text}"


def _lineage(facts: DatasetFacts) -> str:
    rows = []
    for teacher in facts.teachers:
        engine = f"on {md(teacher.engine)}" if teacher.engine else ""
        revision, licence = md(teacher.revision or UNKNOWN), md(teacher.licence or UNKNOWN)
        rows.append(("teacher", model_link(teacher.id), revision, licence, engine))
    for source in facts.prompt_sources:
        link = (
            f"[{md(source.name)}](https://huggingface.co/datasets/{source.dataset})"
            if source.dataset
            else md(source.name)
        )
        rows.append(("prompts", link or md(source.name), "", md(source.licence or UNKNOWN), ""))
    return "## Lineage\n\n" + table(("Role", "Source", "Revision", "Licence", "Note"), rows) if rows else ""


def _limitations(facts: DatasetFacts) -> str:
    known = [
        *facts.limitations,
        "Answers are a model's: verified ones may be right for wrong reasons, others may be wrong.",
    ]
    return "## Limitations\n\n" + "\n".join(f"- {md(line)}" for line in known)


def _licence(facts: DatasetFacts) -> str:
    own = md(facts.licence.license_name or facts.licence.id)
    parts = [f"Licence of the data set: {own}. Prompts keep the licence of their source, which every row names."]
    if facts.obligations:
        parts.append("Whoever passes it on has to:\n\n" + "\n".join(f"- {md(line)}" for line in facts.obligations))
    if facts.allowed:
        parts.append(allowed_text(facts.allowed))
    if facts.notice:
        parts.append("Notices:\n\n" + fence("\n".join(facts.notice)))
    return "## Licence and notices\n\n" + "\n\n".join(parts)
