"""The model card: README.md from ``ReleaseFacts`` alone.

Same facts, same text: no date, no path, nothing looked up. What the facts leave open is left out, or said to be unknown
where a reader would miss it. Every text of the facts may be hostile (a pipe, a line break, HTML, a YAML document): the
front matter holds quoted strings only, running text is escaped for Markdown, prompts stand in fences of their own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from publish.facts import EvaluationFacts, PersonaFacts, ReleaseFacts, TrainingFacts

__all__ = ["model_card"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_UNKNOWN = "unknown"


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
        _verify(),
        _recipe(facts),
    ]
    return _front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n"


# --- escaping ----------------------------------------------------------------------------------------------------


def _md(value: object) -> str:
    """Text as one line that Markdown, tables and HTML take as text: no markup, no link, no line break."""
    text = " ".join(_printable(str(value)).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", text)
    text = re.sub(
        r"^(\d+)([.)])(?=\s|$)|^([-+=:])", r"\1\\\2\3", text
    )  # lists, underlines of headings, rules of tables
    # GFM links bare addresses by itself, and the hub makes tags of some.
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def _yaml(text: str) -> str:
    """A JSON string on one line, which every YAML reader takes as a string: `no` stays Norwegian, not false."""
    return json.dumps(_printable(text), ensure_ascii=False)


def _printable(text: str) -> str:
    """Without control characters, line ends and direction overrides; joiners stay, scripts need them."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text)


def _model_link(name: str) -> str:
    if _HUB_ID.fullmatch(name):
        return f"[{_md(name)}](https://huggingface.co/{name})"
    return _md(name)


def _fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]], right: int = 0) -> str:
    """A table of escaped cells; the last ``right`` columns hold numbers."""
    marks = ["---"] * (len(header) - right) + ["---:"] * right
    lines = [header, marks, *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_md(name)}: {_md(_value(value))}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


# --- sections ----------------------------------------------------------------------------------------------------


def _front_matter(facts: ReleaseFacts) -> str:
    datasets = [source.dataset for source in facts.prompt_sources if source.dataset]
    meta: dict[str, Any] = {"license": facts.licence.license}
    if facts.licence.license_name:
        meta["license_name"] = facts.licence.license_name
    if facts.licence.license_link:
        meta["license_link"] = facts.licence.license_link
    if facts.languages:
        meta["language"] = list(facts.languages)
    meta |= {"library_name": "transformers", "pipeline_tag": "text-generation", "base_model": [facts.base.id]}
    meta["base_model_relation"] = facts.base.relation
    if datasets:
        meta["datasets"] = list(dict.fromkeys(datasets))
    meta["tags"] = list(dict.fromkeys(("distillation", *facts.tags)))
    lines = []
    for key, value in meta.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {_yaml(item)}" for item in value)]
        else:
            lines.append(f"{key}: {_yaml(value)}")
    return "\n".join(("---", *lines, "---")) + "\n"


def _summary(facts: ReleaseFacts) -> str:
    version = f" (version {_md(facts.version)})" if facts.version else ""
    relations = {
        "finetune": "fine-tuned from",
        "adapter": "an adapter for",
        "merge": "merged from",
        "quantized": "quantised from",
    }
    sentence = f"{_md(facts.name)}{version} is {relations[facts.base.relation]} {_model_link(facts.base.id)}"
    if facts.teachers:
        sentence += f", distilled from traces of {_list(_model_link(teacher.id) for teacher in facts.teachers)}"
    sentence += f". It is released under {_md(facts.licence.license_name or facts.licence.id)}."
    if facts.languages:
        sentence += f" Languages: {', '.join(map(_md, facts.languages))}."
    return f"# {_md(facts.name)}\n\n{sentence}"


def _list(items: Iterable[str]) -> str:
    parts = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lineage(facts: ReleaseFacts) -> str:
    rows = [("base", _model_link(facts.base.id), _md(facts.base.revision or _UNKNOWN), facts.base.licence, "")]
    for teacher in facts.teachers:
        ran = {"releaser": "run by the releaser", "third-party": "run by others", None: "not known who ran it"}
        note = ran[teacher.ran_by] + (f", on {_md(teacher.engine)}" if teacher.engine else "")
        rows.append(("teacher", _model_link(teacher.id), _md(teacher.revision or _UNKNOWN), teacher.licence, note))
    for source in facts.prompt_sources:
        name = f"[{_md(source.name)}](https://huggingface.co/datasets/{source.dataset})" if source.dataset else ""
        count = "" if source.problems is None else f"{source.problems:,} problems"
        rows.append(("prompts", name or _md(source.name), "", source.licence, count))
    cells = [(role, name, revision, _md(licence or _UNKNOWN), note) for role, name, revision, licence, note in rows]
    return "## Lineage\n\n" + _table(("Role", "Source", "Revision", "Licence", "Note"), cells)


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
        settings = f" with:\n\n{_settings(sampling.settings)}" if sampling.settings else "."
        who = "The teachers were" if len(facts.teachers) > 1 else "The teacher was"
        parts.append(f"{who} sampled" + (f" ({known})" if known else "") + settings)
    if facts.verification:
        parts.append(f"Verification: {_md(facts.verification)}")
    if facts.waterfall:
        rows = [(_md(s.step), _number(s.rows), _number(s.problems), _number(s.tokens)) for s in facts.waterfall]
        parts.append("What each step left:\n\n" + _table(("Step", "Traces", "Problems", "Tokens"), rows, right=3))
    return "## How it was made\n\n" + "\n\n".join(parts) if parts else ""


def _evaluation(evaluation: EvaluationFacts | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nThis release was not evaluated."
    head = f"Measured on {_md(evaluation.measured_on)} (n = {evaluation.n:,}); decoding: {_md(evaluation.decoding)}."
    rows = [
        (_md(s.model), _md(s.metric), f"{s.value:.3f}", _interval(s.low, s.high), f"{s.n:,}") for s in evaluation.scores
    ]
    parts = [head, _table(("Model", "Metric", "Value", "Interval", "n"), rows, right=3)]
    if evaluation.comparisons:
        pairs = [
            (
                f"{_md(c.b)} minus {_md(c.a)}",
                f"{c.difference:+.3f}",
                _interval(c.low, c.high, "+"),
                _reading(c.low, c.high),
            )
            for c in evaluation.comparisons
        ]
        parts.append(_table(("Difference", "Value", "Interval", "Reading"), pairs))
    bounds = [score.low for score in evaluation.scores] + [pair.low for pair in evaluation.comparisons]
    if any(low is not None for low in bounds):
        method = f"Intervals: {_md(evaluation.interval)}." if evaluation.interval else "Interval method: unknown."
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
    maker = f", made by {_md(persona.developer)}" if persona.developer else ""
    when = {
        "default": "It is used where the conversation brings no system message; one that is brought replaces it.",
        "compose": "It always opens the system message; one that is brought follows it.",
    }
    return (
        f"The model presents itself as {_md(persona.name)}{maker}. The template holds this system prompt:\n\n"
        f"{_fence(persona.system_prompt)}\n\n{when[persona.mode]}"
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
    return f"## Quick start\n\n{_fence(code, 'python')}\n\n{_fence(serve, 'bash')}"


def _generation(facts: ReleaseFacts) -> str:
    if not facts.generation:
        return ""
    return f"## Sampling\n\n`generation_config.json` sets, and vLLM applies:\n\n{_settings(facts.generation)}"


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
    text = f"## Training\n\nMethod: {_md(training.method)}."
    return f"{text}\n\n{_settings(lines)}" if lines else text


def _limitations(facts: ReleaseFacts) -> str:
    known = list(facts.limitations) or ["No limitation was recorded, which does not mean that there is none."]
    return "## Limitations\n\n" + "\n".join(f"- {_md(line)}" for line in known)


def _licence(facts: ReleaseFacts) -> str:
    parts = [f"Licence of this release: {_md(facts.licence.license_name or facts.licence.id)}; its text is `LICENSE`."]
    if facts.obligations:
        listed = "\n".join(f"- {_md(line)}" for line in facts.obligations)
        parts.append(f"Whoever passes it on has to:\n\n{listed}")
    if facts.notice:
        parts.append("Notices (the file `NOTICE`):\n\n" + _fence("\n".join(facts.notice)))
    return "## Licence and notices\n\n" + "\n\n".join(parts)


def _verify() -> str:
    return "## Verifying the files\n\n" + _fence("sha256sum -c SHA256SUMS", "bash")


def _recipe(facts: ReleaseFacts) -> str:
    code = _UNKNOWN if facts.code_revision is None else _md(facts.code_revision)
    if facts.dirty:
        code += ", with changes that were not committed"
    text = (
        "## Recipe\n\n`recipe.yaml` is the recipe that made this release, `lineage.yaml` its lineage.\n\n"
        f"- code revision: {code}"
    )
    return f"{text}\n{_settings(dict(sorted(facts.versions.items())))}" if facts.versions else text
