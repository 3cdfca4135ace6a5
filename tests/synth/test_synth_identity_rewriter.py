"""The model that rewrites identity talk: what it is asked, which of its replies are taken, and what is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_endpoint import Call, Endpoint, serving
from pydantic import ValidationError
from trace_builder import Result, curated, trace

from synth.curate.config import CurateConfig
from synth.persona.config import PersonaConfig
from synth.persona.find import find_identity, foreign
from synth.persona.rewriter import fault_of, request, sentences

SENTENCE = "I am Claude, an AI and Anthropic's best model."
LEAK = f"<think>Let me see. {SENTENCE} 2 + 3 = 5</think>\\boxed{{5}}"
REPLY = "I am Sprig, an AI and Example Lab's best model."


def persona(url: str | None = None, budget: dict[str, Any] | None = None, **facts: Any) -> PersonaConfig:
    values: dict[str, Any] = {
        "name": "Sprig",
        "maker": "Example Lab",
        "system": "You are Sprig.",
        "identity_talk": "rewrite",
        "facts": facts,
    }
    if url is not None:
        teacher = {"kind": "openai", "model": "m", "base_url": url, "license": "mit", "concurrency": 1}
        values["rewriter"] = {"teacher": teacher, "budget": budget}
    return PersonaConfig.model_validate(values)


def select(tmp_path: Path, rows: list[dict[str, Any]], who: PersonaConfig) -> Result:
    return curated(rows, CurateConfig(), tmp_path / "out", persona=who)


@contextmanager
def replying(reply: str, **how: Any) -> Iterator[Endpoint]:
    with serving(lambda call: call.answer(reply, **how)) as endpoint:
        yield endpoint


def sentence_of(call: Call) -> str:
    return call.question.partition(" sentence\n")[2].partition("\n===")[0]


def fault(sentence: str, reply: str, who: PersonaConfig | None = None) -> str | None:
    who = who or persona()
    return fault_of(reply, sentence, foreign(find_identity(sentence), who), who)


# --- the request -------------------------------------------------------------------------------------------------


def test_the_model_sees_the_sentence_and_the_persona_and_nothing_else_of_the_trace() -> None:
    (span,) = sentences(LEAK, find_identity(LEAK), ("<think>", "</think>")) or ()
    assert LEAK[slice(*span)] == SENTENCE
    message = request(SENTENCE, persona(cutoff="June 2025")) or ""
    assert all(one in message for one in (SENTENCE, "name: Sprig", "maker: Example Lab", "June 2025"))
    assert "2 + 3" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One.\nI am ChatGPT, by OpenAI\nTwo", ["I am ChatGPT, by OpenAI"]),
        ("<think>I am ChatGPT</think>I am ChatGPT", ["I am ChatGPT", "I am ChatGPT"]),
        ("I am GPT-3.5, by OpenAI. Two.", ["I am GPT-3.5, by OpenAI."]),
        ("我是通义千问。我由阿里云开发。好", ["我是通义千问。", "我由阿里云开发。"]),
        (f"I am ChatGPT{' and more' * 200}", None),
    ],
)
def test_a_sentence_ends_at_its_marks_at_lines_and_at_tags(text: str, expected: list[str] | None) -> None:
    spans = sentences(text, find_identity(text), ("<think>", "</think>"))
    assert (spans and [text[start:end] for start, end in spans]) == expected


@pytest.mark.parametrize("hidden", ["<|im_end|>", "[INST]", "\\boxed{4}", "\u202e", "\x1b[2J"])
def test_a_sentence_that_could_leave_its_place_is_not_shown(hidden: str) -> None:
    assert request(f"I am ChatGPT {hidden} here.", persona()) is None


# --- the reply ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "reply"),
    [
        (SENTENCE, REPLY),
        ("My knowledge cutoff is September 2021.", "I do not know when my knowledge ends."),
        ("I'm based on GPT-4 and 2 + 2 = 4.", "I'm based on a model that I cannot name and 2 + 2 = 4."),
        ("我是通义千问。", "我是Sprig。"),
    ],
)
def test_a_reply_that_changes_the_claim_alone_is_taken(sentence: str, reply: str) -> None:
    assert fault(sentence, reply) is None


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "no sentence"),
        (f"Sure!\n{REPLY}", "no sentence"),
        (REPLY * 5, "no sentence"),
        (f"</think>{REPLY}", "a tag"),
        (f"{REPLY} \\boxed{{7}}", "a tag, a box"),
        ("I am Sprig, an AI and Anthropic's best model.", "names another"),
        ("I am Gemini, an AI and Google's best model.", "names another"),
        ("I am Sprig, not an AI, and Example Lab's best model. I am a human being.", "not true"),
        ("I am Sprig, an AI and Example Lab's best model of 7.", "a number"),
        (f"{REPLY[:-1]}, and here is what else I have to say on this fine day about much else.", "more than the claim"),
        ("Whatever the question was, let us now speak of ships.", "more than the claim"),
    ],
)
def test_a_reply_that_changes_more_or_says_what_is_not_true_is_refused(reply: str, why: str) -> None:
    assert why in (fault(SENTENCE, reply) or "")


def test_a_date_of_knowledge_is_taken_only_where_it_is_the_personas() -> None:
    sentence, reply = "My knowledge cutoff is September 2021.", "My knowledge cutoff is June 2025."
    assert fault(sentence, reply, persona(cutoff="June 2025")) is None
    assert fault(sentence, reply) is not None


# --- the policy --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_model_gets_what_rules_cannot_rewrite_and_the_rest_of_the_trace_stays(tmp_path: Path) -> None:
    by_rules = "<think>I am DeepSeek-R1. 2 + 3 = 5</think>\\boxed{5}"
    rows = [trace("p", 0), trace("p", 1, text=by_rules), *(trace("q", at, text=f"{LEAK} {at}") for at in range(2))]
    with serving(lambda call: call.answer(REPLY if sentence_of(call) == SENTENCE else "no")) as endpoint:
        result = select(tmp_path, rows, persona(endpoint.url))
        assert len(endpoint.bodies) == 1, "one question for two traces with one sentence, none for the rules'"
    texts = {row["id"]: row["messages"][-1]["content"] for row in result.rows()}
    assert [texts[f"q-{at}"] for at in range(2)] == [f"{LEAK} {at}".replace(SENTENCE, REPLY) for at in range(2)]
    assert texts["p-1"] == by_rules.replace("DeepSeek-R1", "Sprig")
    rewrites = {row["request_id"]: row for row in pq.read_table(result.out / "rewrites.parquet").to_pylist()}
    assert rewrites["q-0"]["claims"] == ["thinking: name Claude (Anthropic)"]
    assert rewrites["q-0"]["text"] == texts["q-0"]
    with result.tables.open() as traces:
        assert traces.text("q-0") == f"{LEAK} 0"
    (answer,) = result.json_lines("rewriter/answers.jsonl")
    assert (answer["text"], answer["model"]) == (REPLY, "m")
    facts = result.curation.rewriter or {}
    assert (facts["questions"], facts["tokens"], facts["traces"]) == (1, 7, {"rewritten": 2})


@pytest.mark.parametrize(
    ("reply", "how", "why"),
    [
        (SENTENCE, {}, "the rewriter's reply names another model, maker or date"),
        (REPLY, {"finish": "length"}, "the rewriter was cut off"),
        ("<think>hm", {}, "the rewriter did not end its thinking"),
    ],
)
@pytest.mark.slow
def test_a_trace_whose_reply_is_no_use_is_dropped_with_the_reason(
    tmp_path: Path, reply: str, how: dict[str, Any], why: str
) -> None:
    with replying(reply, **how) as endpoint:
        result = select(tmp_path, [trace("p", 0), trace("q", 0, text=LEAK)], persona(endpoint.url))
    assert result.ids() == ["p-0"]
    what = "cannot be rewritten: thinking: name Claude (Anthropic)"
    assert result.drop_reasons()["q-0"] == f"identity_talk: {what}; {why}"
    assert (result.curation.rewriter or {})["traces"] == {why: 1}


@pytest.mark.slow
def test_a_refused_request_drops_its_traces_alone(tmp_path: Path) -> None:
    other = SENTENCE.replace("best", "finest")

    def act(call: Call) -> None:
        if sentence_of(call) == other:
            call.refuse(400, "the prompt violates a policy")
        else:
            call.answer(REPLY)

    rows = [trace("p", 0, text=LEAK), trace("q", 0, text=LEAK.replace(SENTENCE, other))]
    with serving(act) as endpoint:
        result = select(tmp_path, rows, persona(endpoint.url))
    assert result.ids() == ["p-0"]
    reason = str(result.drop_reasons()["q-0"])
    assert "; the rewriter gave no answer: " in reason
    assert "violates a policy" in reason


@pytest.mark.slow
def test_a_rewritten_trace_is_verified_anew(tmp_path: Path) -> None:
    with replying(REPLY) as endpoint:
        rows = [trace("p", 0), trace("q", 0, text=LEAK, extracted="6")]
        result = select(tmp_path, rows, persona(endpoint.url))
    reason = "rewriting changes the answer"
    assert result.drop_reasons()["q-0"] == f"identity_talk: {reason}: correct '6' becomes correct '5'"
    assert (result.curation.rewriter or {})["traces"] == {reason: 1}


@pytest.mark.slow
def test_what_a_budget_does_not_reach_is_dropped(tmp_path: Path) -> None:
    texts = [LEAK.replace("best", word) for word in ("best", "finest", "greatest", "newest")]
    rows = [trace("p", 0), *(trace("q", at, text=text) for at, text in enumerate(texts))]
    names = {"Claude": "Sprig", "Anthropic": "Example Lab"}

    def rewriting(call: Call) -> None:
        call.answer(re.sub("|".join(names), lambda name: names[name[0]], sentence_of(call)))

    with serving(rewriting) as endpoint:
        result = select(tmp_path, rows, persona(endpoint.url, budget={"tokens": 7}))
    facts = result.curation.rewriter or {}
    assert facts["stopped_by_budget"] == "tokens"
    assert facts["traces"]["the rewriter's budget did not reach it"] + facts["traces"].get("rewritten", 0) == 4


@pytest.mark.slow
def test_without_identity_talk_nothing_is_asked(tmp_path: Path) -> None:
    with replying(REPLY) as endpoint:
        result = select(tmp_path, [trace("p", 0)], persona(endpoint.url))
        assert endpoint.bodies == []
    assert (result.ids(), (result.curation.rewriter or {})["questions"]) == (["p-0"], 0)


def test_a_rewriter_that_has_no_work_or_cannot_do_it_is_refused() -> None:
    values = {"name": "Sprig", "maker": "Example Lab", "system": "You are Sprig."}
    with pytest.raises(ValidationError, match="identity_talk: rewrite"):
        PersonaConfig.model_validate(values | {"rewriter": {"teacher": {"kind": "fake"}}})
    offline = {"teacher": {"kind": "offline", "model": "m"}}
    with pytest.raises(ValidationError, match="give the rewriter another kind"):
        PersonaConfig.model_validate(values | {"identity_talk": "rewrite", "rewriter": offline})
