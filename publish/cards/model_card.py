"""The model card: README.md from ``ReleaseFacts`` alone. ``model_card.md.jinja`` holds its sentences.

Same facts, same text: no date, no path, no look-up. A missing fact is left out, or called unknown where a reader would
miss it. Texts of the facts are untrusted (a pipe, a line break, HTML, a YAML document) and escaped; prompts stand in
code blocks of their own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from publish.cards.front_matter import model_front_matter
from publish.cards.markdown import (
    HUB_ID,
    Markdown,
    decimal,
    duty_lines,
    interval,
    lineage_table,
    link,
    listed,
    md,
    render_card,
    table,
    waterfall,
)
from publish.cards.plots import has_score_plot
from publish.facts import (
    MAY_BE_CHANCE,
    Comparison,
    EvaluationFacts,
    ProbeScore,
    ReleaseFacts,
    Score,
    ScoredModel,
    TeacherFacts,
    TrainingFacts,
    chance_text,
    p_text,
    trained_on_text,
)

_GPAI_FLOPS = 1e23
"""Indicative criterion for a general-purpose model: C(2025) 7719 final, point 17."""


def model_card(facts: ReleaseFacts) -> str:
    """Markdown with YAML front matter, as the hub reads it; ends with one line break."""
    evaluation, training = facts.evaluation, facts.training
    text = render_card(
        "model_card.md.jinja",
        facts,
        kind="model",
        teachers=[_teacher(teacher) for teacher in facts.teachers],
        lineage=_lineage(facts),
        waterfall=waterfall(facts.waterfall),
        plot=has_score_plot(evaluation),
        scores=score_table(evaluation) if evaluation else None,
        other_scores=other_score_table(evaluation) if evaluation else None,
        probes=probe_table(facts.persona.probes) if facts.persona else None,
        differences=difference_table(evaluation) if evaluation else None,
        suites=suite_table(evaluation) if evaluation and evaluation.suites else None,
        trained_on=trained_on_text(recall) if evaluation and (recall := evaluation.planted_recall) else None,
        worse=_worse(evaluation) if evaluation else None,
        has_intervals=_has_intervals(evaluation) if evaluation else None,
        training_settings=_training_settings(training) if training else None,
        flops=_scientific(training.flops) if training and training.flops else None,
        eu_duty=_eu_duty(facts, training) if training else None,
        duties=duty_lines(facts.duties),
        notice="\n".join(facts.notice),
        sections=Markdown(facts.sections or ""),
        transformers_code=_transformers_code(facts),
        vllm_code=_vllm_code(facts),
        verify_code=f"sha256sum -c SHA256SUMS\ndistill confirm {_shell_name(facts)}",
        citation=_citation(facts),
    )
    return f"{model_front_matter(facts)}\n{text}"


# --- who made it -------------------------------------------------------------------------------------------------


def _teacher(teacher: TeacherFacts) -> Markdown:
    prompt = _teacher_prompt(teacher)
    name = "that same model" if teacher.is_base else link(teacher.id)
    return Markdown(f"{name} {prompt}" if prompt and teacher.is_base else name)


def _teacher_prompt(teacher: TeacherFacts) -> str:
    """What the teacher's prompt holds and the student's does not."""
    number = teacher.worked_examples
    examples = [f"{number} worked example{'s' if number > 1 else ''}"] if number else []
    parts = [*examples, *(["a system prompt"] if teacher.system_prompt else [])]
    return f"with {' and '.join(parts)} in its prompt, which the student does not see" if parts else ""


def _lineage(facts: ReleaseFacts) -> Markdown:
    operator = {"releaser": "run by the releaser", "third-party": "run by others", None: "operator unknown"}
    notes = []
    for teacher in facts.teachers:
        same = "the base itself" if teacher.is_base else ""
        engine = f"on {teacher.engine}" if teacher.engine else ""
        notes.append(", ".join(filter(None, (same, _teacher_prompt(teacher), operator[teacher.ran_by], engine))))
    counts = ["" if one.problems is None else f"{one.problems:,} problems" for one in facts.prompt_sources]
    base = ("base", link(facts.base.id), facts.base.revision, facts.base.license, "")
    return lineage_table([base], facts, notes, counts)


# --- evaluation --------------------------------------------------------------------------------------------------


def _has_intervals(evaluation: EvaluationFacts) -> bool:
    return any(row.low is not None for rows in (evaluation.scores, evaluation.comparisons) for row in rows)


def score_table(evaluation: EvaluationFacts) -> Markdown:
    """Every model with its engine, score and answers; its sampling values where models differ in them, lengths of
    thinking and answer where they were measured."""
    abouts = [score.about for score in evaluation.scores]
    differ = any(about.sampling != abouts[0].sampling for about in abouts)
    lengths = any(about.mean_answer_chars is not None for about in abouts)
    header = [
        "Model",
        "Engine",
        *(["Sampling"] if differ else []),
        "Metric",
        "Score",
        "Interval",
        "Problems",
        "Samples",
    ]
    header += ["Stop rate", "Truncated", "Mean tokens"]
    header += ["Thinking, characters", "Answer, characters"] if lengths else []
    rows = [
        (
            score.model, _engine(score), *([_sampling(score.about)] if differ else []), score.metric,
            decimal(score.value), interval(score.low, score.high), f"{score.n:,}", f"{score.num_samples:,}",
            _percent(score.about.stop_rate), _percent(score.about.truncated), _count(score.about.mean_tokens),
            *([_count(score.about.mean_thinking_chars), _count(score.about.mean_answer_chars)] if lengths else []),
        )
        for score in evaluation.scores
    ]  # fmt: skip
    return table(header, rows, right=9 if lengths else 7)


def other_score_table(evaluation: EvaluationFacts) -> Markdown:
    """pass@k, maj@k and the like; empty where only one metric was measured."""
    if not evaluation.other_scores:
        return Markdown("")
    rows = [
        (score.model, score.metric, decimal(score.value), interval(score.low, score.high))
        for score in evaluation.other_scores
    ]
    return table(("Model", "Metric", "Score", "Interval"), rows, right=2)


def probe_table(probes: Sequence[ProbeScore]) -> Markdown:
    """What each model says it is; empty where nobody asked."""
    rows = [
        (one.model, decimal(one.right), interval(one.low, one.high), *map(decimal, (one.leaks, one.refuses)))
        for one in probes
    ]
    return table(("Model", "Right", "Interval", "Leaks", "Refuses"), rows, right=4) if rows else Markdown("")


def _engine(score: Score) -> str:
    return ", ".join(filter(None, (score.about.engine, score.about.dtype)))


def _sampling(about: ScoredModel) -> str | None:
    return ", ".join(f"{name} {value:g}" for name, value in about.sampling.items()) or None


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def difference_table(evaluation: EvaluationFacts) -> Markdown:
    rows = [
        (
            f"{pair.b} minus {pair.a}",
            decimal(pair.difference, "+"),
            interval(pair.low, pair.high, "+"),
            p_text(pair.p_adjusted),
            _reading(pair, evaluation.n),
        )
        for pair in evaluation.comparisons
    ]
    return table(("Difference", "Value", "Interval", "p", "Reading"), rows)


def suite_table(evaluation: EvaluationFacts) -> Markdown:
    rows = [
        (
            change.suite,
            f"{change.n:,}",
            decimal(change.before),
            decimal(change.after),
            decimal(change.difference, "+"),
            interval(change.low, change.high, "+"),
            p_text(change.p_adjusted),
            _reading(change, change.n),
            "-" if change.trained_on is None else f"{change.trained_on:,}",
        )
        for change in evaluation.suites
    ]
    header = ("Suite", "Problems", "Before", "After", "Difference", "Interval", "p", "Reading", "Trained on")
    return table(header, rows)


def _reading(pair: Comparison, n: int) -> str:
    """Whether it may be chance, and then what would have been noticed, and what it would take."""
    if pair.reading != MAY_BE_CHANCE or pair.minimum_detectable_effect is None:
        return pair.reading
    return f"{pair.reading}: {chance_text(pair.minimum_detectable_effect, pair.items_to_detect, n)}"


def _worse(evaluation: EvaluationFacts) -> Markdown:
    """What is lower than the base's, beyond chance, of all that was measured."""
    base = {score.model for score in evaluation.scores if score.about.role == "base"}
    pairs = [(evaluation.benchmark, pair) for pair in evaluation.comparisons if pair.a in base]
    pairs += [(change.suite, change) for change in evaluation.suites]
    if not pairs:
        return Markdown("the base was not evaluated, so this is not known.")
    lower = [
        f"{md(name)} by {-pair.difference:.3f} ({interval(pair.low, pair.high, '+')})"
        for name, pair in pairs
        if pair.reading == "lower"
    ]
    if lower:
        return Markdown(f"{listed(map(Markdown, lower))}, compared with the base.")
    return Markdown("no score here is lower than the base's beyond chance; nothing else was measured.")


# --- training ----------------------------------------------------------------------------------------------------


def _training_settings(training: TrainingFacts) -> dict[str, Any]:
    counts = {
        "rows": training.rows,
        "tokens": training.tokens,
        "optimiser steps": training.steps,
        "trained parameters": training.trained_parameters,
    }
    lines: dict[str, Any] = {name: f"{value:,}" for name, value in counts.items() if value is not None}
    return lines | ({"hardware": training.hardware} if training.hardware else {}) | training.hyperparameters


def _eu_duty(facts: ReleaseFacts, training: TrainingFacts) -> Markdown | None:
    """The line of the AI Act that matters for a modified model, and which duty follows.

    Synthetic data count with the compute that generated them (recital 111), about two operations for each parameter
    that a token passes (Kaplan et al.). How many those are of a teacher is unknown: the number that would matter is.
    """
    if training.flops is None:
        return None
    base = training.base_flops
    if base is None:
        line = _GPAI_FLOPS / 3
        name = f"{_scientific(line)}, which stands for a third of the base's training compute where that is not known"
    elif base / 3 >= _GPAI_FLOPS - base:
        line = base / 3
        name = f"a third of the base's training compute, {_scientific(line)}"
    else:
        line = _GPAI_FLOPS - base
        name = f"{_scientific(line)}, with which it would reach, together with the base's, 1e23 (point 17)"
    where = "European Commission, guidelines C(2025) 7719 final, points 60 and 61"
    if training.flops > line:
        return Markdown(
            f"In the European Union: the training compute is above {name}: whoever trained it is the provider of a "
            "general-purpose AI model, as far as the modification goes, and must publish a copyright policy and a "
            f"summary of the training content (AI Act, Article 53(1)(c) and (d)) ({where})."
        )
    text = (
        f"In the European Union: the training compute is not above {name}: whoever trained it did not become the "
        f"provider of a general-purpose AI model ({where})."
    )
    tokens = sum(one.tokens or 0 for one in (facts.sampling, facts.first_student) if one)
    if tokens:
        parameters = _scientific((line - training.flops) / (2 * tokens))
        text += (
            f" Generating training data counts, too (AI Act, recital 111): with the {tokens:,} sampled tokens, at 2 "
            f"operations a parameter, this holds for teachers that use up to {parameters} parameters for a token."
        )
    return Markdown(text)


def _scientific(value: float) -> str:
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


# --- code --------------------------------------------------------------------------------------------------------


def _transformers_code(facts: ReleaseFacts) -> str:
    limit = _new_tokens(facts)
    return f"""from transformers import AutoModelForCausalLM, AutoTokenizer

name = {json.dumps(facts.name)}  # or the path of this folder
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="bfloat16")
messages = [{{"role": "user", "content": "What is 2 + 3?"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens={limit})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""


def _new_tokens(facts: ReleaseFacts) -> int:
    """The limit that was evaluated: a shorter one would cut answers that were scored whole."""
    limit = facts.evaluation.sampling.get("max_new_tokens") if facts.evaluation else None
    return limit if isinstance(limit, int) else 256


def _vllm_code(facts: ReleaseFacts) -> str:
    """vLLM applies generation_config.json, but does not read its ``do_sample: false``."""
    greedy = facts.generation.get("do_sample") is False
    option = " --override-generation-config '{\"temperature\": 0}'" if greedy else ""
    return f"vllm serve {_shell_name(facts)}{option}"


def _shell_name(facts: ReleaseFacts) -> str:
    return shlex.quote(facts.name if facts.name.isprintable() else "path/to/this/folder")


def _citation(facts: ReleaseFacts) -> str:
    fields = {"title": facts.name, "version": facts.version}
    if HUB_ID.fullmatch(facts.name):
        owner = facts.name.partition("/")[0]
        fields = {"author": owner, **fields, "url": f"https://huggingface.co/{facts.name}"}
    key = re.sub(r"[^A-Za-z0-9-]+", "-", facts.name.rpartition("/")[2]).strip("-") or "model"
    lines = [f"  {name} = {{{_bibtex(value)}}}" for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", ",\n".join(lines), "}"])


def _bibtex(text: str) -> str:
    return re.sub(r"[^\w .:/+-]", "", text.replace("\n", " "))
