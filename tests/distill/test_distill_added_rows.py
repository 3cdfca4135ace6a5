"""Training rows that no trace gave: about the persona's identity, and the base's own answers to general prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_tables import training_rows_of
from scripted_teacher import Reply, Scripted

from distill.config.recipe import EvaluationSettings, RandomBase
from distill.evaluate.suites.suite import find_suites
from distill.models.random_model import write_random_base
from distill.runs.artefact import Artefact
from distill.runs.stage import StageContext
from distill.runs.tables import REPLAY
from distill.stages.replay import Replay
from licensing.errors import Refused
from licensing.files import read_rows, write_rows
from publish.chat_template import add_persona
from synth.decontaminate import Finder, Item
from synth.persona.config import PersonaConfig
from synth.persona.probes import probes, resembling
from synth.persona.replay import ReplayConfig, general_prompts
from synth.problems.config import JsonlPrompts

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "tests" / "distill" / "sums_held_out.jsonl"


def chatty(messages: list[dict[str, str]]) -> str:
    """Says who the base is where "name" is in the question."""
    return "I am SmolLM, made by Hugging Face." if "name" in messages[-1]["content"].lower() else "Gladly."


def cut_off(messages: list[dict[str, str]]) -> str:
    return "length" if "long" in messages[-1]["content"] else "stop"


def replay(
    root: Path, monkeypatch: pytest.MonkeyPatch, rows: int, finish: Reply = cut_off, held_out: Path = HELD_OUT
) -> list[dict[str, Any]]:
    return replay_with(Scripted(chatty, finish), root, monkeypatch, rows, held_out)


def replay_with(
    teacher: Scripted, root: Path, monkeypatch: pytest.MonkeyPatch, rows: int, held_out: Path = HELD_OUT
) -> list[dict[str, Any]]:
    model = root / "prepared" / "model"
    model.mkdir(parents=True)
    write_random_base(RandomBase(hidden_size=16, num_layers=1), model)
    template = model / "chat_template.jinja"
    template.write_text(add_persona(template.read_text(), "You are Ada."))
    monkeypatch.setattr("distill.evaluate.run.build_teacher", lambda _: teacher)
    prepared: Any = Artefact("prepare", "k", root / "prepared", "d", {}, None)
    problems = JsonlPrompts(path=str(held_out))
    stage = Replay(ReplayConfig(rows=rows), "acme/base", EvaluationSettings(), None, problems, None, prepared)
    out = root / "out"
    out.mkdir()
    stage.run(StageContext(out, root / "scratch", root, root, lambda done, total=None, note="": None))
    assert all(request.temperature == 0 for request in teacher.requests)
    return list(read_rows(out / REPLAY))


def test_the_bases_own_finished_answers_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = replay(tmp_path, monkeypatch, 100)
    assert len(rows) == 100
    assert {row["kind"] for row in rows} == {"open"}
    assert {row["model"] for row in rows} == {"acme/base"}
    assert all([message["role"] for message in row["messages"]] == ["user", "assistant"] for row in rows)
    assert not any("long" in row["messages"][0]["content"] for row in rows), "the answer was cut off"
    assert not any("SmolLM" in row["messages"][1]["content"] for row in rows), "the answer says who the base is"


def test_prompts_are_asked_in_their_order_until_there_are_rows_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Scripted(chatty, cut_off)
    rows = replay_with(teacher, tmp_path / "some", monkeypatch, 10)
    assert len(rows) == 10
    assert 10 <= len(teacher.requests) <= 40
    every = replay(tmp_path / "all", monkeypatch, 150)
    assert rows == every[:10]


def test_a_portion_that_fails_ends_nothing_and_no_prompt_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first 20 prompts, which ten rows ask for, five are answered, and of the ten behind them none."""
    questions = [prompt.question for prompt in general_prompts()]

    def finish(messages: list[dict[str, str]]) -> str:
        return "error" if 5 <= questions.index(messages[-1]["content"]) < 30 else "stop"

    teacher = Scripted(lambda messages: "Gladly.", finish)
    rows = replay_with(teacher, tmp_path, monkeypatch, 10)
    sent = [request.messages[-1]["content"] for request in teacher.requests]
    assert sent == questions[:40], "each once, in order: 20, then twice the five that are missing, twice"
    assert [row["messages"][0]["content"] for row in rows] == [*questions[:5], *questions[30:35]]


def test_a_base_that_answers_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="base answered nothing"):
        replay(tmp_path, monkeypatch, 150, finish=lambda _: "error")


def test_a_base_that_ends_no_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="none of the base's 150 answers stops"):
        replay(tmp_path, monkeypatch, 150, finish=lambda _: "length")


def test_no_held_out_problem_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = tmp_path / "held_out.jsonl"
    question = next(prompt.question for prompt in general_prompts() if "long" not in prompt.question)
    write_rows(held_out, [{"id": "a", "prompt": question, "kind": "open"}])
    rows = replay(tmp_path, monkeypatch, 150, held_out=held_out)
    assert rows
    assert question not in {row["messages"][0]["content"] for row in rows}
    write_rows(held_out, ({"id": one.id, "prompt": one.question, "kind": "open"} for one in general_prompts()))
    with pytest.raises(Refused, match="each of 150 prompts holds a held-out problem"):
        replay(tmp_path / "all", monkeypatch, 150, held_out=held_out)


def test_general_prompts_are_distinct_and_ask_for_no_identity() -> None:
    ada = PersonaConfig(name="Ada", maker="Acme", system="You are Ada.")
    prompts = [{"id": prompt.id, "messages": list(prompt.messages)} for prompt in general_prompts()]
    assert len({prompt["messages"][0]["content"] for prompt in prompts}) == 150
    assert resembling(prompts, probes(ada)) == []


def test_general_prompts_are_none_of_the_side_effect_suite() -> None:
    suites = find_suites(["side-effects"])
    finder = Finder(Item(one.name, problem.id, problem.question) for one in suites for problem in one.problems())
    assert [prompt.question for prompt in general_prompts() if finder.find(prompt.question)[0]] == []


@pytest.mark.slow
def test_a_run_adds_rows_about_its_persona_and_none_is_a_probe(distill: Any, tmp_path: Path) -> None:
    recipe, runs = ROOT / "recipes" / "smoke.yaml", ("--runs", tmp_path, "--until", "curate")
    assert distill("run", recipe, *runs).code == 0
    (run,) = tmp_path.iterdir()
    rows = training_rows_of(run)
    about = [row for row in rows if row.get("source") == "persona"]
    assert 0 < len(about) <= 0.25 * len(rows)
    assert all("<think>" in row["messages"][-1]["content"] for row in about)
    persona = PersonaConfig(name="Smoke", maker="the smoke test", system="You are Smoke.")
    assert resembling(about, probes(persona)) == []
    before = set(run.glob("stages/*/*/manifest.json"))
    assert distill("run", recipe, *runs, "--set", "persona.rows=0").code == 0
    (manifest,) = set(run.glob("stages/*/*/manifest.json")) - before
    assert manifest.parts[-3] == "curate"
    assert not [row for row in training_rows_of(run) if row.get("source") == "persona"]
