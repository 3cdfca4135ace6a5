"""All labels of one trace, and what the traces of one problem share."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from licensing.secrets import secrets
from synth.decontaminate import Finder
from synth.dedup import signature
from synth.labels.code_blocks import broken_code
from synth.labels.config import LabelConfig
from synth.labels.pii import personal_data
from synth.labels.reasoning_format import differs
from synth.language import LanguageShares, languages, mixing
from synth.persona.find import identity_talk
from synth.problems.problem import conversation_text
from synth.refusals import refusal
from synth.repetition import repetition
from synth.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = (
    "truncated", "think", "answer_mismatch", "language_mixing", "repetition", "refusal", "identity_leak", "secrets",
    "personal_data", "broken_code", "contaminated",
)  # fmt: skip
"""Labels with a value and a reason: columns ``<label>`` and ``<label>_reason``. Values are true, false, or null where
the label does not apply, the recipe switched it off, or its limits stopped it (then there is a reason all the same);
that of `think` is the state of the think block."""


def label_schema() -> pa.Schema:
    """Columns of ``labels-*.parquet``, the same whatever the recipe switches off.

    `language_*` are ISO 639-1 codes of the parts of a trace; `digest` is the sha256 of the text after NFC and
    white-space folding; `characters` counts those of the text and `answer_characters` those of the answer without the
    white space around it; `signature` is the MinHash of the text.
    """
    import pyarrow as pa

    columns = [("request_id", pa.string()), ("problem_id", pa.string())]
    for name in LABELS:
        columns += [(name, pa.string() if name == "think" else pa.bool_()), (f"{name}_reason", pa.string())]
    columns += [(f"language_{part}", pa.string()) for part in ("prompt", "think", "answer")]
    columns += [("characters", pa.int64()), ("answer_characters", pa.int64())]
    return pa.schema([*columns, ("digest", pa.binary()), ("signature", pa.binary())])


def label_problem(problem: Mapping[str, Any], config: LabelConfig, finder: Finder | None) -> dict[str, Any]:
    """What the traces of one problem share: `language` of the question; `set`, `item` and `how` of a match with a test
    item; `overlap`, None where there are no test sets to compare with; `signature` (MinHash of the question), None
    where near duplicates are switched off."""
    text = conversation_text(problem["messages"])
    language = languages(config.languages).spoken(text).main if config.languages else None
    match, overlap = finder.find(text) if finder else (None, None)
    near = config.near_duplicates
    labels = {"language": language, "overlap": overlap, **(match.as_dict() if match else {})}
    return labels | {"signature": signature(text, near.num_perm) if near else None}


def label_trace(trace: Trace, problem: Mapping[str, Any], config: LabelConfig, finder: Finder | None) -> dict[str, Any]:
    """The row of ``label_schema``; ``problem``: what ``label_problem`` says."""
    reasoning, text = trace.reasoning, trace.text
    row: dict[str, Any] = {
        **_facts(trace),
        **_label("think", reasoning.state, reasoning.reason),
        **_label("answer_mismatch", *differs(reasoning)),
        **_flag("repetition", repetition(text)),
        **_flag("refusal", refusal(reasoning.answer)),
        **_flag("identity_leak", identity_talk(text, len(text) - len(reasoning.answer))),
        **_label("broken_code", *broken_code(reasoning.answer)),
    }
    if config.languages:
        row |= _languages(problem["language"], reasoning.thinking or "", reasoning.answer, config)
    if config.secrets:
        row |= _flag("secrets", secrets(text)) | _flag("personal_data", personal_data(text))
    if finder is not None:
        match = problem if "how" in problem else None
        if match is None and config.decontaminate.responses and (in_text := finder.find(text)[0]) is not None:
            match = in_text.as_dict()
        row |= _flag("contaminated", f"{match['how']} match with {match['set']} {match['item']}" if match else None)
    if config.near_duplicates:
        row["signature"] = signature(text, config.near_duplicates.num_perm)
    return row


def no_labels(trace: Trace, config: LabelConfig, finder: Finder | None, reason: str) -> dict[str, Any]:
    """The row of a trace whose labels were stopped by their limits: null, with that reason."""
    off = {"language_mixing"} if not config.languages else set()
    off |= {"secrets", "personal_data"} if not config.secrets else set()
    off |= {"contaminated"} if finder is None else set()
    return {**{f"{name}_reason": reason for name in LABELS if name not in off}, **_facts(trace)}


def _facts(trace: Trace) -> dict[str, Any]:
    """What needs no measurement that could take long."""
    cut = trace.finish_reason == "length"
    folded = " ".join(unicodedata.normalize("NFC", trace.text).split())
    return {
        "request_id": trace.request_id,
        "problem_id": trace.problem_id,
        **_label("truncated", cut, "cut off at the limit of tokens" if cut else None),
        "characters": len(trace.text),
        "answer_characters": len(trace.reasoning.answer.strip()),
        "digest": hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest(),
    }


def _label(name: str, value: Any, reason: str | None) -> dict[str, Any]:
    return {name: value, f"{name}_reason": reason}


def _flag(name: str, reason: str | None) -> dict[str, Any]:
    return _label(name, reason is not None, reason)


def _languages(prompt: str | None, thinking: str, answer: str, config: LabelConfig) -> dict[str, Any]:
    detector = languages(config.languages)
    in_thinking, in_answer = (
        detector.spoken(part, prompt) if part.strip() else LanguageShares(None, {}) for part in (thinking, answer)
    )
    mixed = mixing(prompt, in_thinking, in_answer)
    return {
        "language_prompt": prompt,
        "language_think": in_thinking.main,
        "language_answer": in_answer.main,
        **_flag("language_mixing", "; ".join(mixed) or None),
    }
