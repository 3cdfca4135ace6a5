"""Identity talk in twelve languages: the labelled set, what is no claim, spans, time on hostile texts."""

from __future__ import annotations

import pytest
from cpu_time import growth
from identity_talk.score import labelled, score

from synth.persona.config import PersonaConfig
from synth.persona.find import find_identity, foreign

PERSONA = PersonaConfig.model_validate(
    {
        "name": "Sprig",
        "maker": "Hugging Face",
        "system": "You are Sprig.",
        "facts": {"base_model": "Qwen/Qwen3-4B", "teachers": ("openai/gpt-oss-120b",), "cutoff": "June 2025"},
    }
)


def test_the_labelled_set_has_claims_and_hard_negatives_in_every_language() -> None:
    rows = [*labelled("tuned"), *labelled("held_out")]
    assert len(rows) >= 300
    languages = {row.language for row in rows}
    assert len(languages) == 12
    for language in languages:
        mine = [row for row in rows if row.language == language]
        assert sum(not row.makers for row in mine) >= 10
        assert sum(bool(row.makers) for row in mine) >= 10


@pytest.mark.parametrize("part", ["tuned", "held_out"])
def test_precision_and_recall_on_the_labelled_set(part: str) -> None:
    result = score(part)
    assert result.precision >= 0.97, result.mistakes
    assert result.recall >= 0.97, result.mistakes


def test_a_claim_has_kind_maker_and_place() -> None:
    text = "<b>Hi</b>, I\u2019m ChatGPT-4o mini, trained by OpenAI and based on GPT-4."
    claims = find_identity(text)
    assert [(one.kind, one.maker, text[one.start : one.end]) for one in claims] == [
        ("name", "OpenAI", "ChatGPT-4o mini"),
        ("maker", "OpenAI", "OpenAI"),
        ("base", "OpenAI", "GPT-4"),
    ]


def test_a_place_is_right_behind_letters_that_change_their_length() -> None:
    text = "\u0130\u0130 said hello. I am ChatGPT."
    (claim,) = find_identity(text)
    assert text[claim.start : claim.end] == "ChatGPT"


def test_an_answer_about_identity_needs_no_word_of_ai() -> None:
    assert find_identity("I am Claude.") == []
    assert [one.maker for one in find_identity("I am Claude.", about_identity=True)] == ["Anthropic"]


@pytest.mark.parametrize(
    ("text", "foreign_makers"),
    [
        ("I am Sprig, made by Hugging Face.", []),
        ("I am built on Qwen3.", []),
        ("I am Qwen3.", ["Alibaba"]),
        ("I was trained by OpenAI.", ["OpenAI"]),
        ("I was developed by HuggingFace.", []),
        ("My knowledge cutoff is June 2025.", []),
        ("My knowledge cutoff is May 2024.", [""]),
    ],
)
def test_what_the_persona_says_of_itself_is_not_foreign(text: str, foreign_makers: list[str]) -> None:
    assert [claim.maker for claim in foreign(find_identity(text), PERSONA)] == foreign_makers


def test_an_own_name_that_holds_a_listed_one_is_not_found() -> None:
    assert find_identity("I am Qwen-Ada, an AI.", own=("Qwen-Ada",)) == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "token",
    ["a", "a ", "我", "我是", "я ", "私は", "أنا ", "मैं ", '"a', " 'a", "\u201c", "\u201ca", "`", "x: ", "x\n", "> \n",
     "2021 ", "i am ", "i am an ai trained by ", "openai ", "gpt-4 ", "gpt-", "claude", "my knowledge 2021 ", "```\n"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "openai "])
def test_time_is_linear_in_a_hostile_text(token: str, start: str) -> None:
    find_identity("I am ChatGPT. 我是ChatGPT. Я ChatGPT. أنا ChatGPT. मैं ChatGPT हूँ. 私はChatGPTです.")  # compiles
    assert growth(find_identity, start + token * (30_000 // len(token))) < 32


@pytest.mark.parametrize(
    "text",
    [
        "您好，请允许我介绍：我是ChatGPT。",
        "请允许我介绍一下自己：我是ChatGPT。",
        "Answer: I am ChatGPT.",
        "**回答：**我是ChatGPT。",
    ],
)
def test_the_writers_own_lines_are_its_own_speech(text: str) -> None:
    assert [claim.maker for claim in find_identity(text)] == ["OpenAI"]
