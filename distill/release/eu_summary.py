"""A draft of the public summary of training content that Article 53(1)(d) of the AI Act asks of some providers.

It follows the headings of the Commission's template (C(2025) 8311 final: general information, list of data sources,
data processing) as far as the lineage and the facts of a run go; what they do not hold is marked for the provider.
"""

from __future__ import annotations

from licensing.lineage import Input, Lineage
from publish.cards.markdown import Markdown, bullets, link, listed, md
from publish.facts import ReleaseFacts

__all__ = ["eu_summary"]

_PROVIDER = "(for the provider to fill in)"


def eu_summary(facts: ReleaseFacts, lineage: Lineage) -> str:
    """Markdown; equal facts give equal text. No legal proof, and it says so."""
    data = [one for one in lineage.inputs if one.role in ("data", "seed")]
    makers = [one for one in lineage.inputs if one.role in ("generator", "reformatter", "logits")]
    rows = facts.training.rows if facts.training else None
    tokens = facts.training.tokens if facts.training else None
    return f"""# Summary of training content: {md(facts.name)}

A draft made from the lineage of this release. It is no legal proof and no statement that the duty applies: see
"Training" in README.md for the training compute and the line of the AI Act. It covers the training that this release
adds, not that of its base, {link(facts.base.id)}, whose provider publishes its own.

## 1. General information

{
        bullets(
            [
                f"Provider: {_PROVIDER}",
                f"Model: {facts.name}, version {facts.version or 'unknown'}",
                Markdown(f"Model dependencies: {link(facts.base.id)}, revision {md(facts.base.revision)}"),
                f"Date of placing on the market: {_PROVIDER}",
                "Modality of the training data: text",
                f"Size: {_count(rows)} rows, {_count(tokens)} tokens",
                f"Languages: {', '.join(facts.languages) or 'not measured'}",
            ]
        )
    }

## 2. List of data sources

### 2.1 Publicly available data sets, and data from other sources: prompts

{bullets(_source(one) for one in data) or "None is recorded."}

### 2.2 Data crawled and scraped from the web

None by this training.

### 2.3 User data

None is recorded.

### 2.4 Synthetic data

{_share(facts)} recorded as written by a model:

{bullets(_source(one) for one in makers) or "None is recorded."}

## 3. Data processing

- Measures to respect reservations of rights (Article 4(3) of Directive (EU) 2019/790): {_PROVIDER}
- Removal of illegal content: {_PROVIDER}
- Filters of this training: {listed(step.step for step in facts.waterfall) or "none is recorded"}
"""


def _source(one: Input) -> Markdown:
    license = " or ".join(one.licence) if isinstance(one.licence, tuple | list) else one.licence
    revision = f", revision {md(one.revision)}" if one.revision else ""
    return Markdown(f"{link(one.id)}: license {md(license)}{revision}")


def _share(facts: ReleaseFacts) -> str:
    return f"{'Every' if facts.teachers else 'No'} answer in the training rows is"


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
