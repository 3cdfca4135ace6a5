"""The model card: README.md from ``ReleaseFacts`` alone.

Same facts, same text: no date, no path, no look-up. A missing fact is left out, or called unknown where a reader would
miss it. Every text of the facts is untrusted (a pipe, a line break, HTML, a YAML document): running text is escaped for
Markdown, and prompts stand in code blocks of their own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from publish.cards.front_matter import model_front_matter
from publish.cards.markdown import (
    UNKNOWN,
    allowed_text,
    fence,
    interval,
    md,
    model_link,
    settings,
    table,
    waterfall_table,
)
from publish.facts import EvaluationFacts, PersonaFacts, ReleaseFacts, TeacherFacts, TrainingFacts

__all__ = ["model_card"]


def model_card(facts: ReleaseFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break."""
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
        _license(facts),
        _openness(facts),
        _verify(),
        _recipe(facts),
    ]
    return model_front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n"


# --- sections ----------------------------------------------------------------------------------------------------


def _summary(facts: ReleaseFacts) -> str:
    version = f" (version {md(facts.version)})" if facts.version else ""
    sentence = f"{md(facts.name)}{version} is fine-tuned from {model_link(facts.base.id)}"
    if facts.teachers:
        sentence += f", distilled from traces of {_list(_teacher(teacher) for teacher in facts.teachers)}"
    sentence += f". It is released under {md(facts.license.license_name or facts.license.id)}."
    if facts.languages:
        sentence += f" Languages: {', '.join(map(md, facts.languages))}."
    return f"# {md(facts.name)}\n\n{sentence}"


def _teacher(teacher: TeacherFacts) -> str:
    prompt = _teacher_prompt(teacher)
    name = "that same model" if teacher.is_base else model_link(teacher.id)
    return f"{name} {prompt}" if prompt and teacher.is_base else name


def _teacher_prompt(teacher: TeacherFacts) -> str:
    """What the teacher's prompt holds and the student's does not."""
    number = teacher.worked_examples
    examples = [f"{number} worked example{'s' if number > 1 else ''}"] if number else []
    parts = [*examples, *(["a system prompt"] if teacher.system_prompt else [])]
    return f"with {' and '.join(parts)} in its prompt" if parts else ""


def _list(items: Iterable[str]) -> str:
    parts = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lineage(facts: ReleaseFacts) -> str:
    rows = [("base", model_link(facts.base.id), md(facts.base.revision or UNKNOWN), facts.base.license, "")]
    for teacher in facts.teachers:
        operator = {"releaser": "run by the releaser", "third-party": "run by others", None: "operator unknown"}
        same = "the base itself" if teacher.is_base else ""
        engine = f"on {md(teacher.engine)}" if teacher.engine else ""
        note = ", ".join(filter(None, (same, _teacher_prompt(teacher), operator[teacher.ran_by], engine)))
        rows.append(("teacher", model_link(teacher.id), md(teacher.revision or UNKNOWN), teacher.license, note))
    for source in facts.prompt_sources:
        name = f"[{md(source.name)}](https://huggingface.co/datasets/{source.dataset})" if source.dataset else ""
        count = "" if source.problems is None else f"{source.problems:,} problems"
        rows.append(("prompts", name or md(source.name), "", source.license, count))
    cells = [(role, name, revision, md(license or UNKNOWN), note) for role, name, revision, license, note in rows]
    return "## Lineage\n\n" + table(("Role", "Source", "Revision", "License", "Note"), cells)


def _making(facts: ReleaseFacts) -> str:
    parts = []
    sampling = facts.sampling
    if sampling:
        counts = [
            f"{sampling.samples:,} samples" if sampling.samples is not None else "",
            f"{sampling.tokens:,} tokens" if sampling.tokens is not None else "",
        ]
        amounts = ", ".join(filter(None, counts))
        how = f" with:\n\n{settings(sampling.settings)}" if sampling.settings else "."
        who = "The teachers were" if len(facts.teachers) > 1 else "The teacher was"
        parts.append(f"{who} sampled" + (f" ({amounts})" if amounts else "") + how)
    if facts.verification:
        parts.append(f"Verification: {md(facts.verification)}")
    if facts.waterfall:
        parts.append("Traces after each step:\n\n" + waterfall_table(facts.waterfall))
    return "## How it was made\n\n" + "\n\n".join(parts) if parts else ""


def _evaluation(evaluation: EvaluationFacts | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nThis release was not evaluated."
    dataset = evaluation.dataset
    name = f"[{md(dataset)}](https://huggingface.co/datasets/{dataset})" if dataset else md(evaluation.benchmark)
    head = f"Measured on {name} (n = {evaluation.n:,}); decoding: {md(evaluation.decoding)}."
    if evaluation.held_out:
        head += f" Held out: {md(evaluation.held_out)}."
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
            f"{method} They tell how much a value would vary with other problems of the same kind, and nothing about "
            "other kinds of problem. A difference whose interval includes 0 may be chance."
        )
    if evaluation.stop_rate is not None:
        parts.append(
            f"Stop rate, the share of generations that end on a stop token: {100 * evaluation.stop_rate:.1f} %."
        )
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
        "default": "It is used where the conversation has no system message; the caller's own replaces it.",
        "compose": "It always opens the system message; the caller's own text follows it.",
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
        "hardware": training.hardware,
    }
    lines = {name: value for name, value in counts.items() if value is not None} | training.hyperparameters
    text = f"## Training\n\nMethod: {md(training.method)}."
    return f"{text}\n\n{settings(lines)}" if lines else text


def _limitations(facts: ReleaseFacts) -> str:
    limitations = list(facts.limitations) or ["No limitation was recorded, which does not mean that there is none."]
    return "## Limitations\n\n" + "\n".join(f"- {md(line)}" for line in limitations)


def _license(facts: ReleaseFacts) -> str:
    parts = [f"License of this release: {md(facts.license.license_name or facts.license.id)}; its text is `LICENSE`."]
    if facts.obligations:
        listed = "\n".join(f"- {md(line)}" for line in facts.obligations)
        parts.append(f"Whoever redistributes it has to:\n\n{listed}")
    if facts.allowed:
        parts.append(allowed_text(facts.allowed))
    if facts.notice:
        parts.append("Notices (the file `NOTICE`):\n\n" + fence("\n".join(facts.notice)))
    return "## License and notices\n\n" + "\n\n".join(parts)


def _openness(facts: ReleaseFacts) -> str:
    """Which parts are public under which terms; a part without a record is not called open."""
    return "## Openness\n\n" + "\n".join(f"- {md(line)}" for line in facts.openness) if facts.openness else ""


def _verify() -> str:
    return "## Verifying the files\n\n" + fence("sha256sum -c SHA256SUMS", "bash")


def _recipe(facts: ReleaseFacts) -> str:
    code = UNKNOWN if facts.code_revision is None else md(facts.code_revision)
    if facts.dirty:
        code += ", with changes that were not committed"
    text = (
        "## Recipe\n\n`recipe.yaml` is the recipe that made this release, with names in place of local paths and of "
        "private addresses; `lineage.yaml` is its lineage.\n\n"
        f"- code revision: {code}"
    )
    return f"{text}\n{settings(dict(sorted(facts.versions.items())))}" if facts.versions else text
