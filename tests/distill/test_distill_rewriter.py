"""The persona's rewriter in a run: in stage curate, in check, lineage and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_endpoint import serving

from distill.check.check import check_recipe
from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.release.lineage import planned_lineage
from distill.report.summary import sections
from distill.runs.artefact import Artefact
from distill.runs.store import current_artefacts
from distill.stages.pipeline import run

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
LEAK = "I am Claude, an AI and Anthropic's best model."
REPLY = "I am Smoke, an AI and the smoke test's best model."


def recipe(rewriter: dict[str, Any], *settings: str) -> Recipe:
    policy = ("persona.identity_talk=rewrite", f"persona.rewriter={json.dumps(rewriter)}")
    return load_recipe(SMOKE, [*policy, *settings])


def openai(url: str, **fields: Any) -> dict[str, Any]:
    return {"teacher": {"kind": "openai", "model": "m", "base_url": url, **fields}}


def test_the_rewriters_words_are_trained_on_so_the_lineage_has_it_as_a_reformatter() -> None:
    url = "https://api.openai.com/v1"
    lineage = planned_lineage(recipe(openai(url, terms="openai-services-agreement")))
    (one,) = [one for one in lineage.inputs if one.role == "reformatter"]
    assert (one.id, one.licence, one.endpoint) == ("m", "openai-services-agreement", url)
    assert "reformatter" not in {one.role for one in planned_lineage(load_recipe(SMOKE)).inputs}


@pytest.mark.slow
def test_check_shows_what_the_rewriter_may_cost_and_where_its_section_is_wrong(tmp_path: Path) -> None:
    budget = {"tokens": 5000, "price_per_million_tokens": 2.0}
    rewriter = {"teacher": {"kind": "fake"}, "max_new_tokens": 100, "budget": budget}
    findings = [one for one in check_recipe(recipe(rewriter), tmp_path) if one.subject == "rewriter"]
    assert [one.level for one in findings] == ["note", "ok"]
    assert "96 questions, at most 9,600 rewriter tokens" in findings[1].what
    assert "stops it at 5,000 tokens" in findings[1].what
    unknown = recipe(openai("https://a.example/v1", license="mit"))
    errors = [one for one in check_recipe(unknown, tmp_path) if one.level == "error"]
    assert "persona.rewriter.teacher.terms" in {one.where for one in errors}


@pytest.mark.slow
def test_a_run_rewrites_by_the_model_and_pays_for_no_answer_twice(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n} + 1?", "answer": str(n + 1), "kind": "math", "license": "mit", "source": "s", "model": "t",
         "response": f"<think>{LEAK if n == 3 else 'A sum.'}</think>\\boxed{{{n + 1}}}"}
        for n in range(6)
    ]  # fmt: skip
    traces = tmp_path / "traces.jsonl"
    traces.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        "prompts=null", f"sample={json.dumps({'source': 'traces', 'path': str(traces)})}", "evaluate.teacher=false",
        'teacher={"kind": "offline", "model": "t", "license": "mit"}', "curate.control_arm=false",
    ]  # fmt: skip
    with serving(lambda call: call.answer(REPLY)) as endpoint:
        rewriting = recipe(
            openai(endpoint.url, license="mit") | {"budget": {"price_per_million_tokens": 1e6}}, *settings
        )
        data: Artefact[Any] = run(rewriting, tmp_path / "runs", until="curate")
        (data.path / "manifest.json").unlink()
        again: Artefact[Any] = run(rewriting, tmp_path / "runs", until="curate")
        assert len(endpoint.bodies) == 1
    assert again.digest == data.digest
    assert again.manifest["requests"]["first"] is not None, "the day on which the rewriter was asked"
    facts = again.facts.rewriter
    assert (facts.model, facts.questions, facts.traces) == ("m", 1, {"rewritten": 1})
    assert again.facts.rows_out == 6
    (folder,) = (tmp_path / "runs").iterdir()
    parts = sections(rewriting.model_dump(mode="json"), current_artefacts(folder), None, ())
    (waterfall,) = [section for section in parts if section.title == "Waterfall"]
    assert "1 distinct requests, 1 answers, 7 completion tokens, 5 prompt tokens, cost 7.00." in waterfall.blocks
