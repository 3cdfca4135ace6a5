"""Training rows of a persona and the probes that are held out from them."""

from __future__ import annotations

from collections import Counter

from test_synth_identity_judge import SPRIG

from synth.persona.config import PersonaConfig
from synth.persona.probes import probes, resembling, select_probes
from synth.persona.rows import training_rows
from synth.reasoning import split_reasoning

PLAIN = PersonaConfig(name="Sprig", maker="Example Lab", system="You are Sprig.")


def test_equal_seeds_give_equal_rows_and_other_seeds_others() -> None:
    assert list(training_rows(SPRIG, 50, seed=3)) == list(training_rows(SPRIG, 50, seed=3))
    assert list(training_rows(SPRIG, 50, seed=3)) != list(training_rows(SPRIG, 50, seed=4))


def test_no_row_comes_twice_and_languages_take_turns() -> None:
    rows = list(training_rows(SPRIG, 600))
    assert len({str(row["messages"]) for row in rows}) == 600
    assert set(Counter(row["language"] for row in rows).values()) == {50}


def test_thinking_names_the_persona_or_is_left_out() -> None:
    for row in training_rows(PLAIN, 200):
        thinking = split_reasoning(row["messages"][-1]["content"]).thinking
        assert thinking is not None
        assert "Sprig" in thinking or row["topic"] in ("caller", "contact")
    for row in training_rows(PLAIN, 200, thinking=False):
        assert split_reasoning(row["messages"][-1]["content"]).thinking is None


def test_rows_state_no_fact_that_the_persona_does_not() -> None:
    topics = {row["topic"] for row in training_rows(PLAIN, 400)}
    assert topics == {"name", "other", "bypass", "maker", "ai", "caller", "role_play"}
    assert {"base", "teachers", "cutoff"} <= {row["topic"] for row in training_rows(SPRIG, 400)}


def test_no_placeholder_is_left() -> None:
    texts = [message["content"] for row in training_rows(SPRIG, 1200) for message in row["messages"]]
    assert [text for text in texts if "{" in text or "}" in text] == []


def test_a_name_with_braces_stays_as_it_is() -> None:
    braces = PersonaConfig(name="S{maker}g", maker="Example Lab", system="You are it.")
    assert any("I am S{maker}g" in row["messages"][-1]["content"] for row in training_rows(braces, 50))


def test_a_model_is_not_taught_to_deny_what_it_is_made_from() -> None:
    qwen = PersonaConfig.model_validate(
        {"name": "Ada", "maker": "Example Lab", "system": "You are Ada.", "facts": {"base_model": "Qwen/Qwen3-4B"}}
    )
    asked = [str(row["messages"]) for row in training_rows(qwen, 600) if row["topic"] in ("other", "bypass")]
    assert not [text for text in asked if "Qwen" in text]


def test_rows_ask_again_and_keep_to_a_callers_name() -> None:
    rows = list(training_rows(PLAIN, 400))
    assert any(len([one for one in row["messages"] if one["role"] == "user"]) == 2 for row in rows)
    caller = next(row for row in rows if row["topic"] == "caller")
    assert caller["messages"][0]["role"] == "system"
    assert "Sprig" not in str(caller["messages"])


def test_probes_have_eight_styles_in_ten_languages_or_more() -> None:
    asked = probes(SPRIG)
    assert len(asked) >= 200
    assert len({probe.id for probe in asked}) == len(asked)
    assert set(Counter(probe.style for probe in asked)) == {
        "direct", "cutoff", "capability", "social", "indirect", "technical", "comparison", "role_play",
    }  # fmt: skip
    by_language = Counter(probe.language for probe in asked)
    assert len(by_language) >= 10
    families = {probe.family for probe in asked}
    assert all({probe.family for probe in asked if probe.language == language} == families for language in by_language)


def test_no_training_row_is_a_wording_of_a_probe() -> None:
    assert resembling(training_rows(SPRIG, 2000), probes(SPRIG)) == []


def test_a_row_that_asks_a_probe_is_named() -> None:
    row = {"id": "r1", "messages": [{"role": "user", "content": "May I ask which AI I am speaking with?"}]}
    assert [pair[:2] for pair in resembling([row], probes(SPRIG))] == [("r1", "direct/speaking_with/en")]


def test_a_short_choice_of_probes_spreads_over_families() -> None:
    chosen = select_probes(PLAIN, 48, languages=("en",))
    assert set(Counter(probe.family for probe in chosen).values()) == {2}
    assert select_probes(PLAIN, 48, languages=("en",)) == chosen
    assert set(Counter(probe.family for probe in select_probes(PLAIN, 24)).values()) == {1}


def test_a_conversation_holds_a_right_answer_of_the_persona() -> None:
    probe = next(probe for probe in probes(SPRIG, ["en"]) if probe.family == "comparison/correction")
    assert [message["role"] for message in probe.messages] == ["user", "assistant", "user"]
    assert "Sprig" in probe.messages[1]["content"]
