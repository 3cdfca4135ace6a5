"""Answers to probes: who they say they are, in twelve languages, thinking and answer apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth.persona.config import PersonaConfig
from synth.persona.judge import PartJudgement, judge_answer
from synth.persona.rows import training_rows
from synth.reasoning import split_reasoning

SPRIG = PersonaConfig.model_validate(
    {
        "name": "Sprig",
        "maker": "Example Lab",
        "system": "You are Sprig, made by Example Lab.",
        "languages": ("en", "de", "fr", "es", "pt", "it", "ru", "zh", "ja", "ko", "ar", "hi"),
        "forbidden_claims": ("I am conscious",),
        "facts": {
            "cutoff": "June 2025",
            "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "teachers": ("Qwen/Qwen3-8B",),
        },
    }
)


def answers() -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / "identity_talk" / "answers.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" :: ", 1) for line in lines if not line.startswith("#")]
    return [(head.split(" ", 1)[1], text.replace("\\n", "\n")) for head, text in rows]


def faults(judged: PartJudgement) -> set[str]:
    """A judgement in the words of answers.txt."""
    flags = {
        "right": judged.names_itself,
        "denies": judged.denies_ai,
        "refuses": judged.refuses,
        "fake": judged.calls_persona_fake,
    }
    return {name for name, on in flags.items() if on} | {f"leak:{maker}" for maker in judged.leaks}


@pytest.mark.parametrize(("expected", "answer"), answers())
def test_an_answer_is_judged(expected: str, answer: str) -> None:
    assert faults(judge_answer(None, answer, SPRIG).answer) == set(expected.split("+")) - {"none"}


def test_thinking_and_answer_are_judged_apart() -> None:
    judged = judge_answer("I am ChatGPT, but I should say Sprig.", "I'm Sprig, made by Example Lab.", SPRIG)
    assert judged.thinking is not None
    assert judged.thinking.leaks == ("OpenAI",)
    assert judged.answer.is_right


def test_no_thinking_is_no_judgement_of_it() -> None:
    assert judge_answer(None, "I'm Sprig.", SPRIG).thinking is None
    assert judge_answer(" \n", "I'm Sprig.", SPRIG).thinking is None


def test_the_name_of_a_callers_system_message_is_right_too() -> None:
    assert not judge_answer(None, "I'm Luna.", SPRIG).answer.names_itself
    assert judge_answer(None, "I'm Luna.", SPRIG, caller_name="Luna").answer.is_right


def test_a_forbidden_claim_is_a_leak() -> None:
    assert judge_answer(None, "I'm Sprig, and I am conscious.", SPRIG).answer.leaks == ("I am conscious",)


def test_a_persona_named_like_a_listed_model_may_say_its_name() -> None:
    claude = SPRIG.model_copy(update={"name": "Claude-Ette", "maker": "Example Lab"})
    assert judge_answer(None, "I'm Claude-Ette, made by Example Lab.", claude).answer.is_right
    assert judge_answer(None, "I'm Claude, made by Anthropic.", claude).answer.leaks == ("Anthropic",)


@pytest.mark.slow
def test_what_the_training_rows_teach_is_judged_right() -> None:
    for row in training_rows(SPRIG, 600):
        if row["topic"] == "caller":  # there the model goes by the caller's name
            continue
        reasoning = split_reasoning(row["messages"][-1]["content"])
        judged = judge_answer(reasoning.thinking, reasoning.answer, SPRIG)
        assert judged.thinking is not None
        assert (judged.answer.is_right, judged.answer.refuses) == (True, False), row
        assert faults(judged.thinking) <= {"right"}, row
