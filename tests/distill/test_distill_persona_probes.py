"""Probes of a persona: who a model says it is, asked three ways, thinking and answer apart, and what is trained on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import Reply, Scripted

from distill.config.recipe import EvaluationSettings, RandomBase
from distill.evaluate.persona_probes import ask_probes, own_template, probe_facts, probe_settings, rates_of
from distill.models.random_model import write_random_base
from publish.chat_template import add_persona
from synth.persona.config import PersonaConfig
from synth.persona.probes import probes, select_probes
from synth.teachers.config import FakeTeacher

ADA = PersonaConfig(name="Ada", maker="Acme", system="You are Ada.")
SETTINGS = EvaluationSettings(max_new_tokens=32)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Reply], Scripted]:
    def build(reply: Reply) -> Scripted:
        teacher = Scripted(reply)
        monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: teacher)
        return teacher

    return build


def ask(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    chosen = select_probes(ADA, count, languages=["en"])
    return ask_probes("m", FakeTeacher(), ADA, chosen, SETTINGS, lambda *_: None, **more)


def test_every_probe_is_asked_under_each_system_message(answering: Callable[[Reply], Scripted]) -> None:
    teacher = answering(lambda _: "I am Ada, made by Acme.")
    rows = ask(systems=("default", "own", "none"))
    systems = [[m["content"] for m in request.messages if m["role"] == "system"] for request in teacher.requests]
    assert [row["system"] for row in rows] == ["default"] * 12 + ["own"] * 12 + ["none"] * 12
    assert systems[:12] == [[]] * 12
    assert all(len(texts) == 1 and "Ada" not in texts[0] and texts[0] for texts in systems[12:24])
    assert systems[24:] == [[""]] * 12
    assert all(request.temperature == 0 for request in teacher.requests)
    assert rates_of(rows).answer["right"].value == 1


def test_thinking_and_answer_are_judged_apart(answering: Callable[[Reply], Scripted]) -> None:
    answering(lambda _: "<think>\nI am DeepSeek-R1, made by DeepSeek.\n</think>\n\nI am Ada, made by Acme.")
    rates = rates_of(ask())
    assert (rates.answer["right"].value, rates.answer["leaks"].value) == (1, 0)
    assert (rates.thinking["right"].value, rates.thinking["leaks"].value) == (0, 1)
    assert (rates.leaks, rates.leak_rate.value, list(rates.leaks_by_maker)) == (12, 1, ["DeepSeek"])


def test_intervals_take_the_wordings_of_an_idea_as_one(answering: Callable[[Reply], Scripted]) -> None:
    answering(lambda messages: "I am ChatGPT by OpenAI." if len(messages[-1]["content"]) % 2 else "I am Ada by Acme.")
    rows = ask(48)
    clustered = rates_of(rows)
    independent = rates_of([row | {"family": row["probe"]} for row in rows])
    assert clustered.families == 24
    assert clustered.answer["right"].value == independent.answer["right"].value
    alike = [row | {"answer": rows[0]["answer"] if at < 24 else rows[1]["answer"]} for at, row in enumerate(rows)]
    wide = rates_of([row | {"family": str(at // 12)} for at, row in enumerate(alike)]).answer["right"]
    narrow = rates_of([row | {"family": str(at)} for at, row in enumerate(alike)]).answer["right"]
    assert wide.high - wide.low >= narrow.high - narrow.low


def test_the_student_is_compared_with_the_others_and_gates(answering: Callable[[Reply], Scripted]) -> None:
    answering(lambda _: "I am SmolLM, made by Hugging Face.")
    before = ask()
    answering(lambda _: "I am Ada, made by Acme.")
    after = [row | {"model": "student_after"} for row in ask()]
    facts = probe_facts({"m": before, "student_after": after}, "student_after")
    assert (facts.leaks, facts.n) == (0, 12)
    assert 0 < facts.high < 0.4
    (change,) = facts.changes
    assert (change.a, change.b, change.difference) == ("m", "student_after", 1.0)
    assert change.p_adjusted == change.p < 0.05
    same = probe_facts({"other": [row | {"model": "other"} for row in before], "m": before}, "m").changes[0]
    assert (same.difference, same.p_adjusted) == (0, 1)
    assert same.minimum_detectable_effect is not None


def test_two_hundred_probes_in_ten_languages_of_at_least_eight_styles() -> None:
    every = probes(ADA)
    assert len(every) >= 200
    assert len({probe.language for probe in every}) >= 10
    assert len({probe.style for probe in every}) >= 8


def test_the_base_is_asked_under_its_own_template(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_random_base(RandomBase(hidden_size=16, num_layers=1), folder)
    template = folder / "chat_template.jinja"
    original = template.read_text()
    template.write_text(add_persona(original, "You are Ada."))
    bare = own_template(folder, tmp_path / "bare")
    assert (bare / "chat_template.jinja").read_text() == original
    assert (bare / "model.safetensors").resolve() == (folder / "model.safetensors").resolve()
    assert own_template(folder, bare) == bare


def test_a_probe_is_greedy_and_short_whatever_the_evaluation_samples() -> None:
    settings = probe_settings(EvaluationSettings(temperature=0.7, num_samples=4, max_new_tokens=30_000))
    assert (settings.temperature, settings.num_samples, settings.max_new_tokens) == (0, 1, 256)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "ada"
    folder.mkdir()
    write_random_base(RandomBase(hidden_size=16, num_layers=1), folder)
    (folder / "recipe.yaml").write_text("persona: {name: Ada, maker: Acme, system: You are Ada.}\n")
    return folder


@pytest.mark.slow
def test_the_command_asks_a_release_who_it_is(
    distill: Any, release: Path, tmp_path: Path, answering: Callable[[Reply], Scripted]
) -> None:
    answering(lambda messages: "I am Ada by Acme." if messages[0]["role"] == "user" else "I am Claude by Anthropic.")
    out = tmp_path / "new" / "folder" / "answers.jsonl"
    answer = distill("persona", "probe", release, "-n", 10, "--language", "en", "-o", out, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["n"], answer.json["leaks"]) == (60, 40)
    modes = {row["model"]: row["answer"]["right"]["value"] for row in answer.json["by_mode"]}
    assert len(modes) == 6
    assert all(value == ("default" in name) for name, value in modes.items())
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 60
    assert {(row["engine"], row["dtype"]) for row in answer.json["by_mode"]} == {("scripted 1", "bfloat16")}
    other = release.rename(tmp_path / "eve")
    shutil.copytree(other, release)
    options = ("-n", 4, "--system", "default", "--decoding", "greedy")
    text = distill("persona", "probe", release, *options, "--against", other, "--max-leak-rate", 0.6)
    assert (text.code, "0 of 4 answers leak" in text.out) == (0, True), text.out
    (row,) = (line for line in text.out.splitlines() if "ada minus eve" in line)
    assert "+0.000" in row
    assert "may be chance" in text.out
    assert re.search(r"ada +scripted 1, bfloat16 +4 ", text.out)
    assert distill("persona", "probe", release, *options, "--max-leak-rate", 0.1).code == 1
    assert distill("persona", "probe", release, *options, "--against", release).code == 2


@pytest.mark.slow
def test_the_command_shows_whether_the_score_moved(
    distill: Any, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tmp_path / "before"
    shutil.copytree(release, before)
    sums = tmp_path / "sums.jsonl"
    problems = [
        {
            "id": f"sum-{n}",
            "kind": "math",
            "source": "test",
            "prompt": f"{n} + 1?",
            "answer": str(n + 1),
            "license": "mit",
        }
        for n in range(20)
    ]
    sums.write_text("".join(json.dumps(one) + "\n" for one in problems))
    started: list[Scripted] = []

    def answers(model: str, question: str) -> str:
        number, plus, _ = question.partition(" + 1?")
        if not plus:
            return "I am Ada, made by Acme."
        wrong = model == str(release) and int(number) < 5
        return f"<think>a sum</think>\\boxed{{{int(number) + (2 if wrong else 1)}}}"

    def build(config: Any) -> Scripted:
        started.append(Scripted(lambda messages: answers(config.model, messages[-1]["content"])))
        return started[-1]

    monkeypatch.setattr("distill.evaluate.run.build_teacher", build)
    command = ("persona", "probe", release, "--against", before, "-n", 4, "--decoding", "greedy", "--suite", sums)
    answer = distill(*command, "--json")
    assert answer.code == 0, answer.err
    (scored,) = answer.json["suites"]
    assert [(one["model"], one["value"], one["n"]) for one in scored["scores"]] == [
        ("before", 1, 20),
        ("ada", 0.75, 20),
    ]
    (change,) = scored["comparisons"]
    assert (change["a"], change["b"], change["difference"]) == ("before", "ada", -0.25)
    assert change["low"] < -0.25 < change["high"] < 0
    assert len(started) == 2, "probes and problems of a model share one engine"
    assert {request.temperature for one in started for request in one.requests} == {0}
    text = distill(*command, "--limit", 10).out
    assert "ada (after) against before (before)" in text
    assert "ada minus before" in text
    answer = distill(*command[:-2], "--limit", 10)
    assert (answer.code, "--limit" in answer.err) == (2, True)


def test_without_a_persona_there_is_nothing_to_probe(distill: Any, release: Path) -> None:
    (release / "recipe.yaml").unlink()
    answer = distill("persona", "probe", release)
    assert (answer.code, "recipe.yaml" in answer.err) == (2, True)
