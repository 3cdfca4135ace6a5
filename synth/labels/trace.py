"""All labels of one trace, and those of its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from synth.decontaminate import Finder, Match
from synth.labels.code_blocks import broken_code
from synth.labels.config import LabelConfig
from synth.labels.language import Spoken, languages, mixing
from synth.labels.pii import personal_data, secrets
from synth.labels.reasoning_format import differs
from synth.labels.refusals import identity_leak, refusal
from synth.labels.repetition import repetition
from synth.problems.problem import text_of
from synth.reasoning import split_row

__all__ = ["FLAGS", "Label", "PromptLabels", "label_prompt", "label_trace", "no_labels", "prompt_text"]

FLAGS = (
    "truncated", "think", "answer_mismatch", "language_mixing", "repetition", "refusal", "identity_leak",
    "suspect_gold", "secrets", "personal_data", "broken_code", "format", "voted_gold",
)  # fmt: skip
"""Labels of a trace that can leave it out: each has a reason exactly where it does."""


class Label(TypedDict):
    """What was found out, and why. ``value`` is None where it could not be found out, or nobody looked."""

    value: Any
    reason: str | None


@dataclass(frozen=True)
class PromptLabels:
    """What the traces of one problem share."""

    text: str
    language: str | None
    match: Match | None
    overlap: float | None
    """None where no test set was given."""


def prompt_text(row: Mapping[str, Any]) -> str:
    """All that the student is asked: the text of every message, or the prompt."""
    messages = row.get("messages")
    if isinstance(messages, list):
        return "\n".join(text_of(turn.get("content")) for turn in messages if isinstance(turn, Mapping))
    return str(row.get("prompt") or "")


def label_prompt(row: Mapping[str, Any], config: LabelConfig, finder: Finder | None) -> PromptLabels:
    text = prompt_text(row)
    spoken = languages(config.languages).spoken(text).main if config.languages else None
    match, overlap = finder.find(text) if finder else (None, None)
    return PromptLabels(text, spoken, match, overlap)


def label_trace(
    row: Mapping[str, Any], prompt: PromptLabels, config: LabelConfig, finder: Finder | None
) -> dict[str, Label]:
    """Every label that can be read off one trace; those of its problem as a whole come later, from all traces."""
    response: str = row["response"]
    reasoning = split_row(row)
    answer = reasoning.answer
    mismatch, how = differs(reasoning)
    suspect = "suspect_gold" in labels if isinstance(labels := row.get("labels"), list) else False
    broken, error = broken_code(answer)
    loop = repetition(response)
    found = _of_row(row) | {
        "think": Label(value=reasoning.state, reason=reasoning.reason),
        "answer_mismatch": Label(value=mismatch, reason=how),
        **_language(prompt.language, reasoning.thinking or "", answer, config),
        "repetition": _flag(loop),
        "refusal": _flag(refusal(answer)),
        "identity_leak": _flag(identity_leak(response)),
        "suspect_gold": _flag("samples agree with each other and never with the gold" if suspect else None),
        "broken_code": Label(value=broken, reason=error),
    }
    if config.secrets:
        found |= {"secrets": _flag(secrets(response)), "personal_data": _flag(personal_data(response))}
    match = prompt.match
    if match is None and finder is not None and config.decontaminate.responses:
        match = finder.find(response)[0]
    if finder is not None:
        found["contaminated"] = _flag(f"{match.how} match with {match.item.set} {match.item.id}" if match else None)
    return found


def no_labels(row: Mapping[str, Any], config: LabelConfig, finder: Finder | None, why: str | None) -> dict[str, Label]:
    """The labels of a trace whose labelling did not end: null, with the reason, where the row does not say them."""
    names = ["think", "answer_mismatch", "repetition", "refusal", "identity_leak", "suspect_gold", "broken_code"]
    names += ["language", "language_mixing"] if config.languages else []
    names += ["secrets", "personal_data"] if config.secrets else []
    names += ["contaminated"] if finder is not None else []
    return _of_row(row) | {name: Label(value=None, reason=why) for name in names}


def _of_row(row: Mapping[str, Any]) -> dict[str, Label]:
    """What the row says itself: the verdict, what stands beside it where the recipe asked for it, how it ended."""
    cut = row.get("finish_reason") == "length"
    found = {
        "verdict": Label(value=row.get("verdict"), reason=row.get("reason")),
        "tokens": Label(value=row.get("completion_tokens"), reason=None),
        "truncated": Label(value=cut, reason="cut off at the limit of tokens" if cut else None),
        "license": Label(value=row.get("license"), reason=None),
    }
    if "format_verdict" in row:
        found["format"] = Label(value=row["format_verdict"], reason=row.get("format_reason"))
    if "judge_verdict" in row:
        found["judge"] = Label(value=row["judge_verdict"], reason=row.get("judge_reason"))
        found["counts_as"] = Label(value=row.get("counts_as"), reason=None)
    if isinstance(vote := row.get("majority"), Mapping):
        told = f"{vote.get('votes')} of {vote.get('samples')} samples say so" if vote.get("answer") else None
        found["voted_gold"] = _flag(told)
    return found


def _flag(reason: str | None) -> Label:
    return Label(value=reason is not None, reason=reason)


def _language(prompt: str | None, think: str, answer: str, config: LabelConfig) -> dict[str, Label]:
    if not config.languages:
        return {}
    detector = languages(config.languages)
    thought, said = (detector.spoken(part, prompt) if part.strip() else Spoken(None, {}) for part in (think, answer))
    mixed = mixing(prompt, thought, said)
    value = {"prompt": prompt, "think": thought.main, "answer": said.main}
    return {"language": Label(value=value, reason=None), "language_mixing": _flag("; ".join(mixed) or None)}
