"""The model card: README.md from ``ReleaseFacts`` alone.

Same facts, same text: no date, no path, nothing looked up. What the facts leave open is left out, or said to be unknown
where a reader would miss it. Every text of the facts may be hostile (a pipe, a line break, HTML, a YAML document): the
front matter holds quoted strings only, running text is escaped for Markdown, prompts stand in fences of their own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from publish.cards.markdown import (
    UNKNOWN,
    allowed_text,
    fence,
    front_matter,
    interval,
    licence_and_languages,
    md,
    model_link,
    settings,
    table,
    waterfall_table,
)
from publish.facts import EvaluationFacts, PersonaFacts, ReleaseFacts, TrainingFacts

__all__ = ["model_card"]


def model_card(facts: ReleaseFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break.

    Not covered: that the hub accepts the tags (licence ids and languages are passed on as given), and `model-index`.
    """
    sections = [
        _summary(facts),
        _lineage(facts),
        _making(facts),
        _evaluation(facts.evaluation),
        _persona(facts),
        _quick_start(facts),
        _generation(facts),
        _training(facts.training),
        _limitations(facts),
        _licence(facts),
        _openness(facts),
        _verify(),
        _recipe(facts),
    ]
    return _front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n"


# --- sections ----------------------------------------------------------------------------------------------------


def _front_matter(facts: ReleaseFacts) -> str:
    datasets = [source.dataset for source in facts.prompt_sources if source.dataset]
    meta = licence_and_languages(facts.licence, facts.languages)
    meta |= {"library_name": "transformers", "pipeline_tag": "text-generation", "base_model": [facts.base.id]}
    meta["base_model_relation"] = facts.base.relation
    if datasets:
        meta["datasets"] = list(dict.fromkeys(datasets))
    meta["tags"] = list(dict.fromkeys(("distillation", *facts.tags)))
    return front_matter(meta)


def _summary(facts: ReleaseFacts) -> str:
    version = f" (version {md(facts.version)})" if facts.version else ""
    relations = {
        "finetune": "fine-tuned from",
        "adapter": "an adapter for",
        "merge": "merged from",
        "quantized": "quantised from",
    }
    sentence = f"{md(facts.name)}{version} is {relations[facts.base.relation]} {model_link(facts.base.id)}"
    if facts.teachers:
        sentence += f", distilled from traces of {_list(model_link(teacher.id) for teacher in facts.teachers)}"
    sentence += f". It is released under {md(facts.licence.license_name or facts.licence.id)}."
    if facts.languages:
        sentence += f" Languages: {', '.join(map(md, facts.languages))}."
    return f"# {md(facts.name)}\n\n{sentence}"


def _list(items: Iterable[str]) -> str:
    parts = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lineage(facts: ReleaseFacts) -> str:
    rows = [("base", model_link(facts.base.id), md(facts.base.revision or UNKNOWN), facts.base.licence, "")]
    for teacher in facts.teachers:
        ran = {"releaser": "run by the releaser", "third-party": "run by others", None: "not known who ran it"}
        note = ran[teacher.ran_by] + (f", on {md(teacher.engine)}" if teacher.engine else "")
        rows.append(("teacher", model_link(teacher.id), md(teacher.revision or UNKNOWN), teacher.licence, note))
    for source in facts.prompt_sources:
        name = f"[{md(source.name)}](https://huggingface.co/datasets/{source.dataset})" if source.dataset else ""
        count = "" if source.problems is None else f"{source.problems:,} problems"
        rows.append(("prompts", name or md(source.name), "", source.licence, count))
    cells = [(role, name, revision, md(licence or UNKNOWN), note) for role, name, revision, licence, note in rows]
    return "## Lineage\n\n" + table(("Role", "Source", "Revision", "Licence", "Note"), cells)


def _making(facts: ReleaseFacts) -> str:
    parts = []
    sampling = facts.sampling
    if sampling:
        counts = [
            f"{sampling.samples:,} samples" if sampling.samples is not None else "",
            f"{sampling.tokens:,} tokens" if sampling.tokens is not None else "",
            f"{sampling.seconds:,.0f} s" if sampling.seconds is not None else "",
        ]
        known = ", ".join(count for count in counts if count)
        how = f" with:\n\n{settings(sampling.settings)}" if sampling.settings else "."
        who = "The teachers were" if len(facts.teachers) > 1 else "The teacher was"
        parts.append(f"{who} sampled" + (f" ({known})" if known else "") + how)
    if facts.verification:
        parts.append(f"Verification: {md(facts.verification)}")
    if facts.waterfall:
        parts.append("What each step left:\n\n" + waterfall_table(facts.waterfall))
    return "## How it was made\n\n" + "\n\n".join(parts) if parts else ""


def _evaluation(evaluation: EvaluationFacts | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nThis release was not evaluated."
    head = f"Measured on {md(evaluation.measured_on)} (n = {evaluation.n:,}); decoding: {md(evaluation.decoding)}."
    rows = [
        (md(s.model), md(s.metric), f"{s.value:.3f}", interval(s.low, s.high), f"{s.n:,}") for s in evaluation.scores
    ]
    parts = [head, table(("Model", "Metric", "Value", "Interval", "n"), rows, right=3)]
    if evaluation.comparisons:
        pairs = [
            (
                f"{md(c.b)} minus {md(c.a)}",
                f"{c.difference:+.3f}",
                interval(c.low, c.high, "+"),
                _reading(c.low, c.high),
            )
            for c in evaluation.comparisons
        ]
        parts.append(table(("Difference", "Value", "Interval", "Reading"), pairs))
    bounds = [score.low for score in evaluation.scores] + [pair.low for pair in evaluation.comparisons]
    if any(low is not None for low in bounds):
        method = f"Intervals: {md(evaluation.interval)}." if evaluation.interval else "Interval method: unknown."
        parts.append(
            f"{method} They say how far a value would move with other problems of the same kind; they say nothing of "
            "other kinds of problem. A difference whose interval holds 0 may be chance."
        )
    if evaluation.stop_rate is not None:
        parts.append(f"Generations of this release that ended by themselves: {100 * evaluation.stop_rate:.1f} %.")
    return "## Evaluation\n\n" + "\n\n".join(parts)


def _reading(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "no interval"
    return "may be chance" if low <= 0 <= high else ("higher" if low > 0 else "lower")


def _persona(facts: ReleaseFacts) -> str:
    digest = f"The chat template is `chat_template.jinja`, sha256 `{facts.template_digest}`."
    if facts.persona is None:
        return f"## Chat template\n\n{digest}"
    return "## Persona and chat template\n\n" + _persona_text(facts.persona) + "\n\n" + digest


def _persona_text(persona: PersonaFacts) -> str:
    maker = f", made by {md(persona.developer)}" if persona.developer else ""
    when = {
        "default": "It is used where the conversation brings no system message; one that is brought replaces it.",
        "compose": "It always opens the system message; one that is brought follows it.",
    }
    return (
        f"The model presents itself as {md(persona.name)}{maker}. The template holds this system prompt:\n\n"
        f"{fence(persona.system_prompt)}\n\n{when[persona.mode]}"
    )


def _quick_start(facts: ReleaseFacts) -> str:
    code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

name = {json.dumps(facts.name)}  # or the path of this folder
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="bfloat16")
messages = [{{"role": "user", "content": "What is 2 + 3?"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
    name = facts.name if facts.name.isprintable() else "path/to/this/folder"
    serve = f"vllm serve {shlex.quote(name)}"
    return f"## Quick start\n\n{fence(code, 'python')}\n\n{fence(serve, 'bash')}"


def _generation(facts: ReleaseFacts) -> str:
    if not facts.generation:
        return ""
    return f"## Sampling\n\n`generation_config.json` sets, and vLLM applies:\n\n{settings(facts.generation)}"


def _training(training: TrainingFacts | None) -> str:
    if training is None:
        return ""
    counts = {
        "rows": None if training.rows is None else f"{training.rows:,}",
        "tokens": None if training.tokens is None else f"{training.tokens:,}",
        "optimiser steps": None if training.steps is None else f"{training.steps:,}",
        "wall time": None if training.seconds is None else f"{training.seconds:,.0f} s",
        "hardware": training.hardware,
    }
    lines = {name: value for name, value in counts.items() if value is not None} | training.hyperparameters
    text = f"## Training\n\nMethod: {md(training.method)}."
    return f"{text}\n\n{settings(lines)}" if lines else text


def _limitations(facts: ReleaseFacts) -> str:
    known = list(facts.limitations) or ["No limitation was recorded, which does not mean that there is none."]
    return "## Limitations\n\n" + "\n".join(f"- {md(line)}" for line in known)


def _licence(facts: ReleaseFacts) -> str:
    parts = [f"Licence of this release: {md(facts.licence.license_name or facts.licence.id)}; its text is `LICENSE`."]
    if facts.obligations:
        listed = "\n".join(f"- {md(line)}" for line in facts.obligations)
        parts.append(f"Whoever passes it on has to:\n\n{listed}")
    if facts.allowed:
        parts.append(allowed_text(facts.allowed))
    if facts.notice:
        parts.append("Notices (the file `NOTICE`):\n\n" + fence("\n".join(facts.notice)))
    return "## Licence and notices\n\n" + "\n\n".join(parts)


def _openness(facts: ReleaseFacts) -> str:
    """What is public under which terms; a part that was not recorded is not called open."""
    return "## Openness\n\n" + "\n".join(f"- {md(line)}" for line in facts.openness) if facts.openness else ""


def _verify() -> str:
    return "## Verifying the files\n\n" + fence("sha256sum -c SHA256SUMS", "bash")


def _recipe(facts: ReleaseFacts) -> str:
    code = UNKNOWN if facts.code_revision is None else md(facts.code_revision)
    if facts.dirty:
        code += ", with changes that were not committed"
    text = (
        "## Recipe\n\n`recipe.yaml` is the recipe that made this release, `lineage.yaml` its lineage.\n\n"
        f"- code revision: {code}"
    )
    return f"{text}\n{settings(dict(sorted(facts.versions.items())))}" if facts.versions else text
