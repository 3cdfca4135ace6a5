"""The card of a release in another format: README.md from ``FormatFacts`` alone, by format_card.md.jinja."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from publish.cards.front_matter import format_front_matter
from publish.cards.markdown import Markdown, duty_lines, render_card, table
from publish.cards.model_card import difference_table, score_table
from publish.facts import FormatFacts


def format_card(facts: FormatFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break."""
    first = shlex.quote(facts.files[0].file)
    name = shlex.quote(facts.name.rpartition("/")[2].casefold())
    text = render_card(
        "format_card.md.jinja",
        facts.release,
        kind="model",
        duties=duty_lines(facts.release.duties),
        repository=facts.name,
        evaluation=facts.evaluation,
        converter=facts.converter,
        quantizer=facts.quantizer,
        compression=facts.compression,
        calibration_rows=facts.calibration_rows,
        files=table(
            ("File", "Type", "Types inside", "Size"),
            [(one.file, one.type, _shares(one.weights), _size(one.bytes)) for one in facts.files],
            right=1,
        ),
        lossless=any(one.type == "BF16" for one in facts.files),
        scores=score_table(facts.evaluation),
        differences=difference_table(facts.evaluation),
        vllm_code=f"vllm serve {shlex.quote(facts.name)}",
        llama_cpp_code=f"llama-cli -m {first}\nllama-server -m {first}",
        ollama_code=f"ollama create {name} -f Modelfile\nollama run {name}",
        verify_code="sha256sum -c SHA256SUMS",
    )
    return f"{format_front_matter(facts)}\n{text}"


def _size(size: int) -> Markdown:
    return Markdown(f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB")


def _shares(weights: Mapping[str, int]) -> Markdown:
    """Shares of the weights in percent; norms and the like come to less than one."""
    shares = {name: count / sum(weights.values()) for name, count in weights.items()}
    return Markdown(", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005))
