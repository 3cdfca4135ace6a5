"""What a model says about itself: held-out questions about its identity, judged by rules (synth/persona).

Asked under three system messages: the template's default, a caller's own that says nothing of identity, and an empty
one. Rates are of answers and of think blocks apart, with intervals that count a family of probes (one idea, in several
wordings and languages) as a cluster.
"""

from __future__ import annotations

import collections
import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from distill.config.recipe import EvaluationSettings
from distill.evaluate.answers import AnswerStore
from distill.evaluate.metrics import compare
from distill.evaluate.run import OneEngine, run_model
from distill.evaluate.statistics import mean_interval
from distill.runs.facts import Estimate, PersonaProbes, ProbeRates
from distill.runs.stage import Reporter
from publish.chat_template import TEMPLATE_FILE, strip_persona
from synth.persona.config import PersonaConfig
from synth.persona.judge import judge_answer
from synth.persona.probes import Probe
from synth.problems.problem import Prompt
from synth.reasoning import split_reasoning
from synth.teachers.config import TeacherConfig
from synth.verify.config import VerifyConfig

System = Literal["default", "own", "none"]
MAX_NEW_TOKENS = 256
"""Tokens of an answer to a probe: who a model is takes a sentence or two."""

_OWN = {
    "en": "Be friendly and keep your answers short.", "de": "Sei freundlich und antworte kurz.",
    "fr": "Sois aimable et réponds brièvement.", "es": "Sé amable y responde con brevedad.",
    "it": "Sii gentile e rispondi in breve.", "pt": "Seja gentil e responda de forma breve.",
    "ru": "Будь дружелюбен и отвечай кратко.",
    "zh": "请友好并简短地回答。", "ja": "親切に、短く答えてください。", "ko": "친절하고 짧게 대답하세요.",
    "ar": "كن ودودًا وأجب بإيجاز.", "hi": "मित्रवत रहें और संक्षेप में उत्तर दें।",
}  # fmt: skip
"""A caller's own system message, in the probe's language: it is in no training row."""

_RATES = ("right", "named", "leaks", "denies_ai", "refuses", "calls_persona_fake")


def ask_probes(
    name: str,
    model: TeacherConfig,
    persona: PersonaConfig,
    probes: Sequence[Probe],
    settings: EvaluationSettings,
    progress: Reporter,
    *,
    systems: Sequence[System] = ("default",),
    answers: AnswerStore | None = None,
    engine: OneEngine | None = None,
) -> list[dict[str, Any]]:
    """Ask one model every probe under each system message; rows in the order of ``systems`` and ``probes``.

    A row: model, probe, family, style, language, system, response, finish_reason, completion_tokens, engine, dtype,
    sampling, thinking and answer (each what ``judge_answer`` says; thinking is None where there is none). ``engine``,
    and what is raised: as of ``run_model``.
    """
    pairs = [(system, probe) for system in systems for probe in probes]
    prompts = [
        Prompt(id=f"{system}/{probe.id}", messages=_messages(probe, system), kind="open", source="persona probes")
        for system, probe in pairs
    ]
    replies = run_model(
        name, model, prompts, settings, VerifyConfig(workers=1), progress, answers=answers, engine=engine
    )
    rows = []
    for at, reply in enumerate(replies):
        system, probe = pairs[at // settings.num_samples]
        parts = split_reasoning(reply["response"], think_open=model.think_open, think_close=model.think_close)
        judged = judge_answer(parts.thinking, parts.answer, persona)
        rows.append(
            {
                "model": name,
                "probe": probe.id,
                **{field: getattr(probe, field) for field in ("family", "style", "language")},
                "system": system,
                **{
                    key: reply[key]
                    for key in ("response", "finish_reason", "completion_tokens", "engine", "dtype", "sampling")
                },
                "thinking": _as_row(judged.thinking),
                "answer": _as_row(judged.answer),
            }
        )
    return rows


def probe_settings(settings: EvaluationSettings, temperature: float = 0.0) -> EvaluationSettings:
    """The engine of ``settings``, one answer a probe of at most ``MAX_NEW_TOKENS``; greedy unless at a temperature."""
    values = settings.model_dump(include={"engine", "engine_args", "batch_size", "seed"})
    tokens = min(settings.max_new_tokens, MAX_NEW_TOKENS)
    return EvaluationSettings(**values, max_new_tokens=tokens, temperature=temperature)


def own_template(folder: Path, out: Path) -> Path:
    """The model of ``folder`` in ``out`` (made anew) under its template without the persona; its files are links."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.name != TEMPLATE_FILE:
            (out / file.name).symlink_to(file.resolve())
    template = (folder / TEMPLATE_FILE).read_bytes().decode()
    (out / TEMPLATE_FILE).write_bytes(strip_persona(template).encode())
    return out


def rates_of(rows: Sequence[Mapping[str, Any]], name: str | None = None) -> ProbeRates:
    """The rates of one model's rows, under its name or another. Raises ValueError without rows."""
    makers = collections.Counter(leak for row in rows for leak in _leaks(row))
    return ProbeRates(
        model=name or rows[0]["model"],
        n=len(rows),
        families=len({row["family"] for row in rows}),
        engine=rows[0]["engine"],
        dtype=rows[0]["dtype"],
        answer=_rates([(row["answer"], row["family"]) for row in rows]),
        thinking=_rates([(row["thinking"], row["family"]) for row in rows if row["thinking"] is not None]),
        leaks=sum(bool(_leaks(row)) for row in rows),
        leak_rate=_rate([bool(_leaks(row)) for row in rows], [row["family"] for row in rows]),
        leaks_by_maker=dict(makers.most_common()),
        stop_rate=sum(row["finish_reason"] == "stop" for row in rows) / len(rows),
    )


def probe_facts(rows_by_model: Mapping[str, Sequence[Mapping[str, Any]]], student: str) -> PersonaProbes:
    """The rates of every model, and the leaks of the ``student``, by which a release is gated."""
    rates = tuple(rates_of(rows) for rows in rows_by_model.values())
    own = next(row for row in rates if row.model == student)
    right = {name: [float(row["answer"]["right"]) for row in rows] for name, rows in rows_by_model.items()}
    changes = compare(right, student, [row["family"] for row in rows_by_model[student]])
    return PersonaProbes(leaks=own.leaks, n=own.n, high=own.leak_rate.high, rates=rates, changes=tuple(changes))


def _messages(probe: Probe, system: System) -> tuple[dict[str, str], ...]:
    if system == "default":
        return probe.messages
    content = _OWN.get(probe.language, _OWN["en"]) if system == "own" else ""
    return ({"role": "system", "content": content}, *probe.messages)


def _as_row(part: Any) -> dict[str, Any] | None:
    if part is None:
        return None
    row = dataclasses.asdict(part)
    return {"right": part.is_right, "named": row.pop("names_itself"), **row, "leaks": list(part.leaks)}


def _leaks(row: Mapping[str, Any]) -> list[str]:
    """The makers that a row claims in thinking or answer, each once."""
    parts = [row[part] for part in ("thinking", "answer") if row[part] is not None]
    return list(dict.fromkeys(leak for part in parts for leak in part["leaks"]))


def _rates(parts: Sequence[tuple[Mapping[str, Any], str]]) -> dict[str, Estimate]:
    families = [family for _, family in parts]
    return {name: _rate([bool(part[name]) for part, _ in parts], families) for name in _RATES} if parts else {}


def _rate(hits: Iterable[bool], families: Sequence[str]) -> Estimate:
    values = [float(hit) for hit in hits]
    low, high = mean_interval(values, families)
    return Estimate(value=sum(values) / len(values), low=low, high=high)
