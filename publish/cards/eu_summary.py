"""A draft of the public summary of training content that Article 53(1)(d) of the AI Act asks of some providers.

It goes as far as the lineage and the facts of a run; what they do not hold is marked for the provider.
"""

from __future__ import annotations

from licensing.lineage import Input, Lineage
from publish.cards.markdown import Markdown, link, md, render_card
from publish.facts import ReleaseFacts


def eu_summary(facts: ReleaseFacts, lineage: Lineage) -> str:
    """Markdown. It says of itself that it is a draft and no legal proof."""
    prompts = [_source(one) for one in lineage.inputs if one.role in ("data", "seed")]
    models = [_source(one) for one in lineage.inputs if one.role in ("generator", "reformatter", "logits")]
    generators = list(dict.fromkeys(models))  # a teacher of traces may be one of logits, too
    return render_card("eu_summary.md.jinja", facts, prompts=prompts, generators=generators)


def _source(one: Input) -> Markdown:
    license = " or ".join(one.licenses) or "unknown"
    revision = f", revision {md(one.revision)}" if one.revision else ""
    return Markdown(f"{link(one.id)}: license {md(license)}{revision}")
