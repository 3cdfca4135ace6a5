"""Training rows about identity, made from the persona: `data/rows.yaml` filled in, drawn with a seed.

Questions by name, about maker, base, teachers, cutoff, license and contact (where the persona states them), other
models' names, insisting users, "ignore your instructions", role-play, and a caller's own system message, which the
model follows. Every answer is true of the persona, and so is what is thought before it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from synth.persona.claims import load
from synth.persona.config import PersonaConfig
from synth.persona.find import makers_in
from synth.reasoning import THINK_CLOSE, THINK_OPEN

_TOPICS = {
    "name": 5, "other": 5, "bypass": 4, "maker": 3, "ai": 1, "caller": 1, "role_play": 1, "base": 1, "teachers": 1,
    "cutoff": 1, "license": 1, "contact": 1,
}  # fmt: skip
"""Topics and how often each is drawn. Those from `base` on need a fact of the persona's."""
_OTHERS = ("ChatGPT", "GPT-4", "Claude", "Gemini", "DeepSeek", "Qwen", "Llama", "Grok", "Mistral", "Copilot")
_CALLERS = ("Luna", "Max", "Nora", "Sam", "Maya", "Leo")
_NEUTRAL, _PERSONA = 0.2, 0.2
"""Shares of rows with a system message that says nothing of identity, and with the persona's. The others have none, and
the chat template adds its own."""
_TRIES = 100


def training_rows(
    persona: PersonaConfig, count: int, *, seed: int = 0, thinking: bool = True
) -> Iterator[dict[str, Any]]:
    """Rows in the persona's languages, in turn.

    Args:
        persona: Who the student is; it speaks no other languages than ``TAUGHT_LANGUAGES``, which the recipe checks.
        count: Rows; fewer come where the wordings are used up (an English persona has some thousands).
        seed: Of the drawing. Equal arguments give equal rows.
        thinking: Whether the answers have a think block.

    Yields:
        id, messages (the last one the assistant's, with ``<think>`` and ``</think>``), kind "open", source "persona",
        language, topic.
    """
    data = load("rows.yaml")
    draw = random.Random(f"persona/{seed}")
    facts = _facts(persona)
    topics = [topic for topic, weight in _TOPICS.items() for _ in range(weight) if topic not in facts or facts[topic]]
    others = _others(persona)
    earlier = set[str]()
    for number in range(count):
        language = persona.spoken[number % len(persona.spoken)]
        for _ in range(_TRIES):
            topic = draw.choice(topics)
            values = {**facts, "other": draw.choice(others), "caller": draw.choice(_CALLERS)}
            messages = _conversation(data[language], topic, values, persona.system_for(language), draw, thinking)
            if repr(messages) not in earlier:
                break
        else:
            return
        earlier.add(repr(messages))
        yield {
            "id": f"persona-{number}",
            "messages": messages,
            "kind": "open",
            "source": "persona",
            "language": language,
            "topic": topic,
        }


def right_answer(persona: PersonaConfig, language: str) -> str:
    """A right answer to "Who are you?"."""
    template: str = load("rows.yaml")[language]["name"]["say"][0]
    return fill(template, _facts(persona))


def fill(template: str, values: Mapping[str, str | None]) -> str:
    """A template with its ``{names}`` replaced, once: a value may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]] or "", template)


def _facts(persona: PersonaConfig) -> dict[str, str | None]:
    facts = persona.facts
    return {
        "name": persona.name,
        "maker": persona.maker,
        "base": facts.base_model,
        "teachers": ", ".join(facts.teachers) or None,
        "cutoff": facts.cutoff,
        "license": facts.license,
        "contact": facts.contact,
    }


def _others(persona: PersonaConfig) -> list[str]:
    """Names that the persona is asked about and denies: none of its own, and none of a model that it is made from."""
    origins = " ".join(filter(None, (persona.name, persona.maker, persona.facts.base_model, *persona.facts.teachers)))
    own = set(makers_in(origins))
    return [other for other in _OTHERS if not own.intersection(makers_in(other))]


def _conversation(
    language: Mapping[str, Any],
    topic: str,
    values: Mapping[str, str | None],
    system: str,
    draw: random.Random,
    thinking: bool,
) -> list[dict[str, str]]:
    words = language[topic]

    def one(key: str) -> str:
        return fill(draw.choice(words[key]), values)

    def answer(key: str) -> str:
        return f"{THINK_OPEN}\n{one('think')}\n{THINK_CLOSE}\n\n{one(key)}" if thinking else one(key)

    messages = []
    if topic == "caller":
        messages.append({"role": "system", "content": one("system")})
    elif (chance := draw.random()) < _NEUTRAL:
        messages.append({"role": "system", "content": draw.choice(language["neutral"])})
    elif chance < _NEUTRAL + _PERSONA:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": one("ask")})
    if "again" in words and draw.random() < 0.5:
        messages += [{"role": "assistant", "content": one("say")}, {"role": "user", "content": one("again")}]
        return [*messages, {"role": "assistant", "content": answer("say_again")}]
    return [*messages, {"role": "assistant", "content": answer("say")}]
