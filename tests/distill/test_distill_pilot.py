"""Forecast, pilot, and what the sample and verify stages make of an adaptive policy and a budget."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest
from hostile_endpoint import Call, event, serving
from sums import SUMS

from distill.check.check import check_recipe
from distill.check.pilot import bounds, run_pilot, text_bytes
from distill.check.problems import check_problems, problems_of
from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.runs.facts import SampleFacts
from distill.stages.pipeline import run
from synth.problems.problem import load_prompts
from synth.sampling.config import TeacherSampling

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
ADAPTIVE = "sample={policy: {kind: adaptive, target_correct: 2, max_samples: 8}, max_new_tokens: 64}"


def recipe(*overrides: str) -> Recipe:
    return load_recipe(SMOKE, [*SUMS, "teacher.latency_s=0", *overrides])


def sampled(found: Recipe, runs: Path) -> SampleFacts:
    facts: SampleFacts = run(found, runs, until="sample").facts
    return facts


def test_the_bounds_name_samples_tokens_and_every_limit() -> None:
    fixed = TeacherSampling(num_samples=4, max_new_tokens=100)
    assert bounds(fixed, 10) == "40 samples, at most 4,000 teacher tokens"
    rich = TeacherSampling.model_validate(
        {
            "max_new_tokens": 100,
            "policy": {"kind": "adaptive", "target_correct": 2, "max_samples": 8},
            "escalate": {"max_new_tokens": 400, "tokens": 900},
            "budget": {"tokens": 5000, "money": 2, "price_per_million_tokens": 1000},
        }
    )
    assert bounds(rich, 10) == (
        "20 to 80 samples, at most 8,000 teacher tokens; escalations at most 900 tokens more; "
        "the budget stops it at 5,000 tokens, 2.0 money; generated tokens cost at most 8.00"
    )


@pytest.mark.slow
def test_texts_that_may_not_fit_the_disk_are_a_note_with_numbers() -> None:
    large = recipe("sample.num_samples=40", "sample.max_new_tokens=16384")
    problems = len(load_prompts(large.prompts).prompts) if large.prompts else 0
    size = text_bytes(large.sample, problems) if isinstance(large.sample, TeacherSampling) else 0
    assert size == problems * 40 * (4 * 16384 + 1024)
    (note,) = [one for one in check_problems(large, size - 1, partial(problems_of, large)) if one.subject == "disk"]
    assert note.level == "note"
    assert f"{problems * 40:,} samples take up to" in note.what
    enough = check_problems(large, size, partial(problems_of, large))
    assert not [one for one in enough if one.subject == "disk" and one.level != "ok"]


@pytest.mark.slow
def test_a_pilot_says_what_failed_and_that_no_tokens_were_counted() -> None:
    asked: list[str] = []

    def act(call: Call) -> None:
        with lock:
            asked.append(call.question)
            refused = len(set(asked)) > 1 and call.question != asked[0]
        if refused:
            call.refuse(400, "arrears")
            return
        call.head()
        call.send(event({"content": "a text of 21 letters."}, "stop"))
        call.raw(b"data: [DONE]\n\n")

    lock = threading.Lock()
    with serving(act) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 1}
        found = recipe(f"teacher={json.dumps(teacher)}", "sample.num_samples=2")
        forecast = run_pilot(found, 3)
        assert (forecast.drawn, forecast.failed, forecast.estimated) == (6, 4, True)
        assert "4 of 6 requests failed, the first: Error code: 400 - arrears" in str(forecast)
        assert "counts no tokens" in str(forecast)
        assert forecast.tokens == 2 * 21 * forecast.problems / 3
        asked.clear()
        findings = [one for one in check_recipe(found, Path("runs"), pilot=3) if one.subject == "pilot"]
    assert [(one.level, one.exit_code) for one in findings] == [("ok", 0), ("error", 3)]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), (ADAPTIVE,)], ids=["fixed", "adaptive"])
def test_a_pilot_of_every_problem_forecasts_what_the_run_then_takes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    found = recipe(*overrides)
    forecast = run_pilot(found, 10_000)
    facts = sampled(found, tmp_path)
    assert (forecast.problems, forecast.piloted) == (facts.problems, facts.problems)
    assert forecast.tokens == facts.tokens
    assert forecast.samples == facts.rows_out
    assert forecast.prompt_tokens == facts.prompt_tokens


@pytest.mark.slow
def test_a_pilot_of_some_problems_holds_the_truth_between_its_bounds_and_leaves_nothing(tmp_path: Path) -> None:
    findings = check_recipe(recipe(), tmp_path / "runs", pilot=8)
    assert [found.subject for found in findings][-1] == "pilot"
    forecast = run_pilot(recipe(), 8)
    assert forecast.piloted == 8
    assert forecast.tokens_low < sampled(recipe(), tmp_path / "run").tokens < forecast.tokens_high
    assert not (tmp_path / "runs").exists()


def test_money_is_forecast_from_the_prices_of_the_budget() -> None:
    priced = recipe("sample={num_samples: 4, max_new_tokens: 64, seed: 1, budget: {price_per_million_tokens: 1000}}")
    forecast = run_pilot(priced, 8)
    assert forecast.money == pytest.approx(forecast.tokens / 1000, rel=0.01)
    assert run_pilot(recipe(), 8).money is None


@pytest.mark.slow
def test_a_stage_that_its_budget_stopped_completes_and_says_so(tmp_path: Path) -> None:
    facts = sampled(recipe("sample={num_samples: 4, max_new_tokens: 64, seed: 1, budget: {tokens: 700}}"), tmp_path)
    assert facts.stopped_by_budget == "tokens"
    assert 700 - 64 < facts.tokens <= 700
    assert 0 < facts.rows_out < 96
