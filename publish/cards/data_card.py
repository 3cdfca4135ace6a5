"""The card of a data set of traces: README.md from ``DatasetFacts`` alone, by the rules of the model card."""

from __future__ import annotations

from publish.cards.front_matter import data_front_matter
from publish.cards.markdown import (
    HUB_ID,
    Markdown,
    duty_lines,
    lineage_table,
    link,
    render_card,
    table,
    thousands,
    waterfall,
)
from publish.cards.plots import has_length_plot
from publish.facts import DatasetFacts
from publish.training_data import COLUMNS, OPTIONAL_COLUMNS


def data_card(facts: DatasetFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break. Same facts, same text."""
    optional = {name: meaning for name, meaning in OPTIONAL_COLUMNS.items() if name in facts.optional_columns}
    overlap = facts.decontamination
    place = facts.name if HUB_ID.fullmatch(facts.name) else "path/to/this/folder"
    text = render_card(
        "data_card.md.jinja",
        facts,
        kind="data set",
        teachers=[*(link(teacher.id) for teacher in facts.teachers), *_others(facts)],
        code=f'from datasets import load_dataset\n\ndata = load_dataset("{place}", split="train")\ndata[0]["messages"]',
        plot=has_length_plot(facts),
        groups=[
            table(
                (name.capitalize(), "Rows", "Tokens"),
                [(group.name, thousands(group.rows), thousands(group.tokens)) for group in groups],
                right=2,
            )
            for name, groups in facts.groups.items()
            if groups
        ],
        columns=table(
            ("Column", "Meaning"), [(Markdown(f"`{name}`"), text) for name, text in (COLUMNS | optional).items()]
        ),
        waterfall=waterfall(facts.waterfall),
        recall=table(
            ("Planted", "Recall"),
            [(kind, None if value is None else f"{value:.3f}") for kind, value in overlap.recall.items()],
            right=1,
        )
        if overlap and overlap.recall
        else None,
        lineage=lineage_table(
            [],
            facts,
            [f"on {teacher.engine}" if teacher.engine else "" for teacher in facts.teachers],
            [""] * len(facts.prompt_sources),
        ),
        duties=duty_lines(facts.duties),
        notice="\n".join(facts.notice),
    )
    return f"{data_front_matter(facts)}\n{text}"


def _others(facts: DatasetFacts) -> list[str]:
    """Who else wrote the answers."""
    unknown = [] if facts.teachers else ["an unknown model"]
    wrote = facts.first_student is not None and facts.first_student.rows
    return [*unknown, *(["a student that was trained on them"] if wrote else [])]
