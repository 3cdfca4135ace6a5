"""Traces in which the teacher says who it is: dropped, rewritten to the persona, or kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from trace_builder import Result, curated, trace

from synth.curate.config import CurateConfig
from synth.persona.config import PersonaConfig
from synth.persona.find import find_identity
from synth.persona.rewrite import rewrite


def persona(policy: Literal["drop", "rewrite", "keep"] = "rewrite", **facts: Any) -> PersonaConfig:
    return PersonaConfig.model_validate(
        {"name": "Sprig", "maker": "Example Lab", "system": "You are Sprig.", "identity_talk": policy, "facts": facts}
    )


def rewritten(text: str, who: PersonaConfig | None = None) -> str | None:
    return rewrite(text, find_identity(text), who or persona())


def select(tmp_path: Path, rows: list[dict[str, Any]], who: PersonaConfig | None, **fields: Any) -> Result:
    return curated(rows, CurateConfig.model_validate(fields), tmp_path / "out", persona=who)


LEAK = "<think>I am DeepSeek-R1, made by DeepSeek. 2 + 3 = 5</think>\\boxed{5}"


@pytest.mark.slow
def test_drop_leaves_out_what_the_teacher_says_of_itself_and_says_what_it_is(tmp_path: Path) -> None:
    result = select(tmp_path, [trace("p", 0), trace("p", 1, text=LEAK)], persona("drop"))
    assert result.ids() == ["p-0"]
    reason = "thinking: name DeepSeek-R1 (DeepSeek); thinking: maker DeepSeek (DeepSeek)"
    assert result.drop_reasons()["p-1"] == f"identity_talk: {reason}"
    assert [step["step"] for step in result.waterfall][:3] == ["sampled", "answered", "identity_talk"]


@pytest.mark.slow
def test_without_a_persona_the_traces_stay(tmp_path: Path) -> None:
    result = select(tmp_path, [trace("p", 0), trace("p", 1, text=LEAK)], None)
    assert result.ids() == ["p-0", "p-1"]


@pytest.mark.slow
def test_what_is_the_personas_own_is_no_leak(tmp_path: Path) -> None:
    own = PersonaConfig(name="DeepSeek-R1", maker="DeepSeek", system="You are DeepSeek-R1.", identity_talk="drop")
    assert select(tmp_path, [trace("p", 1, text=LEAK)], own).ids() == ["p-1"]


@pytest.mark.slow
def test_rewriting_changes_the_claim_alone_and_keeps_both_texts(tmp_path: Path) -> None:
    result = select(tmp_path, [trace("p", 0), trace("p", 1, text=LEAK)], persona())
    plain, changed = result.rows()
    text = "<think>I am Sprig, made by Example Lab. 2 + 3 = 5</think>\\boxed{5}"
    assert changed["messages"][-1]["content"] == text
    assert changed["rewritten"] == ["thinking: name DeepSeek-R1 (DeepSeek)", "thinking: maker DeepSeek (DeepSeek)"]
    assert plain["rewritten"] is None
    assert pq.read_table(result.out / "rewrites.parquet").to_pylist() == [
        {"request_id": "p-1", "text": text, "claims": changed["rewritten"]}
    ]
    with result.tables.open() as traces:
        assert traces.text("p-1") == LEAK


@pytest.mark.slow
def test_a_rewritten_text_is_another_digest_of_the_selection(tmp_path: Path) -> None:
    first = select(tmp_path / "a", [trace("p", 1, text=LEAK)], persona())
    other = persona().model_copy(update={"name": "Twig"})
    assert first.texts_digest != select(tmp_path / "b", [trace("p", 1, text=LEAK)], other).texts_digest


def test_a_trace_whose_verdict_is_another_after_rewriting_is_dropped(tmp_path: Path) -> None:
    result = select(tmp_path, [trace("p", 0, text=LEAK, extracted="6")], persona())
    assert result.drop_reasons()["p-0"] == (
        "identity_talk: rewriting changes the answer: correct '6' becomes correct '5'"
    )


@pytest.mark.slow
def test_an_answer_that_is_the_name_itself_is_dropped(tmp_path: Path) -> None:
    text = "<think>hm</think>I am ChatGPT, made by OpenAI: \\boxed{5}. Final answer: I am ChatGPT"
    rows = [trace("p", 0, text=text, answer="ChatGPT", verdict="correct", extracted="ChatGPT")]
    assert select(tmp_path, rows, persona()).ids() == []


@pytest.mark.parametrize(
    "text",
    [
        "<think>My knowledge cutoff is September 2021.</think>\\boxed{5}",
        "<think>I am Claude, an AI and Anthropic's best model.</think>\\boxed{5}",
        "<think>I'm based on GPT-4.</think>\\boxed{5}",
    ],
)
def test_what_cannot_be_made_true_is_dropped(tmp_path: Path, text: str) -> None:
    result = select(tmp_path, [trace("p", 0, text=text)], persona())
    assert str(result.drop_reasons()["p-0"]).startswith("identity_talk: cannot be rewritten: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As ChatGPT, I cannot browse.", "As Sprig, I cannot browse."),
        ("Ich bin ChatGPT, ein Sprachmodell von OpenAI.", "Ich bin Sprig, ein Sprachmodell von Example Lab."),
        ("我是通义千问，由阿里云开发。", "我是Sprig，由Example Lab开发。"),
        ("私はChatGPTです。", "私はSprigです。"),
        ("Я ChatGPT, меня создала компания OpenAI.", "Я Sprig, меня создала компания Example Lab."),
        ("ChatGPT is made by OpenAI. I am Qwen.", "ChatGPT is made by OpenAI. I am Sprig."),
    ],
)
def test_names_are_replaced_where_the_writer_claims_them(text: str, expected: str) -> None:
    assert rewritten(text) == expected


def test_a_base_model_becomes_the_personas() -> None:
    assert rewritten("I'm based on GPT-4.", persona(base_model="org/Small-1B")) == "I'm based on Small-1B."


@pytest.mark.slow
def test_a_control_arm_has_no_identity_talk_either(tmp_path: Path) -> None:
    rows = [*(trace("p", n) for n in range(5)), *(trace("q", n, "wrong", text=f"{LEAK} {n}") for n in range(30))]
    result = select(tmp_path, rows, persona("drop"), control_arm=True)
    assert {name[0] for name in result.ids("control")} == {"p"}
