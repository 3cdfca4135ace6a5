"""Presets at the command line: `distill recipes --presets`, and what `distill check` says of each without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from distill.check.check import Finding, check_recipe
from distill.check.preview import preview
from distill.cli.app import app
from distill.config.recipe import Recipe
from distill.release.lineage import declared_licenses, planned_lineage
from licensing.errors import InputError
from licensing.registry import resolve
from synth.problems.config import HubPrompts
from synth.problems.preset import presets

SMOKE: dict[str, Any] = YAML(typ="safe", pure=True).load(Path(__file__).parents[2] / "recipes" / "smoke.yaml")


def recipe(name: str, **prompts: Any) -> Recipe:
    return Recipe.model_validate({**SMOKE, "prompts": {"kind": "hub", "preset": name, **prompts}})


def of_traces(name: str, **sample: Any) -> Recipe:
    teacher = {"kind": "offline", "model": "some/model", "license": "mit"}
    evaluate = {**SMOKE["evaluate"], "teacher": False}
    sections = {key: value for key, value in SMOKE.items() if key not in ("prompts", "sample")}
    sample = {"source": "traces", "preset": name, **sample}
    return Recipe.model_validate({**sections, "teacher": teacher, "evaluate": evaluate, "sample": sample})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set can be opened."""
    monkeypatch.setitem(sys.modules, "datasets", None)


def problems(found: list[Finding]) -> str:
    return "\n".join(f"{one.level} {one.where}: {one.what}" for one in found if one.subject == "problems")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", sorted(presets()))
def test_check_says_what_a_preset_is_and_what_the_run_fetches(name: str, tmp_path: Path) -> None:
    preset = presets()[name]
    text = problems(check_recipe(recipe(name, license="mit"), tmp_path))
    assert not any(line.startswith("error") for line in text.splitlines())
    assert f"the run fetches {preset.dataset} (" in text
    assert preset.rows in text
    assert ("each row has its own license" in text) == (preset.license_text == "by row")
    for fault in preset.faults:
        assert f"{fault.reference}: known fault: {fault.what}" in text


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", sorted(name for name, preset in presets().items() if preset.traces))
def test_check_of_traces_fetches_nothing_either(name: str, tmp_path: Path) -> None:
    found = check_recipe(of_traces(name, license="mit"), tmp_path)
    assert f"the run fetches {presets()[name].dataset} (" in problems(found)
    assert [one.what for one in found if one.level == "error" and one.subject != "packages"] == []


@pytest.mark.usefixtures("offline")
def test_a_set_whose_license_nobody_states_stops_a_recipe_that_declares_none(tmp_path: Path) -> None:
    found = check_recipe(recipe("skywork-or1-math"), tmp_path)
    errors = [one for one in found if one.subject == "licences" and one.level == "error"]
    assert [one.where for one in errors] == ["Skywork/Skywork-OR1-RL-Data"]
    assert "the license is unclear" in problems(found)
    fixed = check_recipe(recipe("skywork-or1-math", license="mit"), tmp_path)
    assert not [one for one in fixed if one.subject == "licences" and one.level == "error"]


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_held_out_problems_by_a_preset_are_described_too(tmp_path: Path) -> None:
    evaluate = {**SMOKE["evaluate"], "prompts": {"kind": "hub", "preset": "math-500"}}
    found = check_recipe(Recipe.model_validate({**SMOKE, "evaluate": evaluate}), tmp_path)
    text = [one.what for one in found if one.subject == "held-out problems"]
    assert any("preset math-500: 500" in what for what in text)
    assert any("the run fetches HuggingFaceH4/MATH-500 (split test" in what for what in text)


@pytest.mark.slow
def test_check_counts_bad_rows_golds_and_conditions_of_a_local_copy(tmp_path: Path) -> None:
    rows = [
        {"problem": f"{n} + 1?", "answer": answer, "question_type": kind, "problem_is_valid": "Yes",
         "solution_is_valid": "Yes", "problem_type": "Algebra", "source": "x", "synthetic": False}
        for n, (answer, kind) in enumerate([("1", "math-word-problem"), ("2", "math-word-problem"), ("B", "MCQ"),
                                            ("D", "MCQ"), ("5", "proof"), (["6"], "math-word-problem")])
    ]  # fmt: skip
    path = tmp_path / "numina.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {"kind": "jsonl", "preset": "numinamath-1.5", "path": str(path), "on_bad_row": "skip"}
    text = problems(check_recipe(Recipe.model_validate({**SMOKE, "prompts": prompts}), tmp_path))
    assert "1 rows do not meet a condition: question_type (1)" in text
    assert "5 problems (gold answers verified: 2 of 2 choice, 2 of 3 math)" in text
    assert text.count("the problem is skipped") == 1


def test_the_lineage_names_the_data_set_and_nothing_that_it_does_not_tell() -> None:
    inputs = {one.id: one for one in planned_lineage(of_traces("s1k-1.1", license="mit")).inputs}
    assert inputs["simplescaling/s1K-1.1"].licence == "mit"
    assert inputs["some/model"].revision is None


@pytest.mark.parametrize("name", sorted(name for name, preset in presets().items() if preset.license))
def test_the_audit_knows_the_license_of_every_preset(name: str) -> None:
    assert resolve(presets()[name].license) is not None


def test_licenses_of_a_mixture_are_those_of_the_parts_that_are_taken() -> None:
    def declared(**where: Any) -> list[str | None] | None:
        prompts = recipe("tulu-3-sft-mixture", where=where).prompts
        assert isinstance(prompts, HubPrompts)
        return declared_licenses(prompts)

    assert declared() == [None, "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "mit", "odc-by"]
    assert declared(source=["ai2-adapt-dev/oasst1_converted", "ai2-adapt-dev/no_robots_converted"]) == [
        "apache-2.0", "cc-by-nc-4.0"
    ]  # fmt: skip
    assert declared(source={"pattern": "oasst1|flan_v2"}) == [None, "apache-2.0"]
    named = recipe("tulu-3-sft-mixture", license="mit", where={"source": {"pattern": "flan_v2"}}).prompts
    assert isinstance(named, HubPrompts)
    assert declared_licenses(named) == ["mit"], "of parts that state none: the recipe's"


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="the nearest is openr1-math-220k"):
        recipe("openr1-math")


def test_fields_of_the_recipe_go_before_those_of_the_preset() -> None:
    prompts = recipe("numinamath-1.5", where={"problem_type": "Algebra", "synthetic": False}, split="test").prompts
    assert prompts is not None
    dump = prompts.model_dump(mode="json")
    assert (dump["split"], dump["license"]) == ("test", "apache-2.0")
    assert set(dump["where"]) == {"question_type", "problem_is_valid", "solution_is_valid", "answer", "problem_type",
                                  "synthetic"}  # fmt: skip
    assert type(prompts).model_validate(dump) == prompts, "a run's recipe is read as it was written"
    assert recipe("numinamath-1.5", where={}).prompts == recipe("numinamath-1.5").prompts
    lifted = recipe("numinamath-1.5", where={"question_type": None}).prompts
    assert lifted is not None
    assert lifted.model_dump()["where"]["question_type"] is None, "null removes a condition"


def test_the_student_sees_the_bare_question_unless_it_has_a_template_of_its_own(tmp_path: Path) -> None:
    template = {"reasoning_gym": "{question} Put it in a box."}
    student, teacher = ({**SMOKE[name], "prompt_template": template} for name in ("student", "teacher"))
    (_, bare), (_, wrapped) = (
        preview(Recipe.model_validate({**SMOKE, **sections}), tmp_path / "run", 1)
        for sections in ({"teacher": teacher}, {"student": student})
    )
    assert "Put it in a box." not in str(bare[0].prompt)
    assert "Put it in a box." in str(wrapped[0].prompt)


def test_the_list_of_presets_is_text_or_json() -> None:
    text = CliRunner().invoke(app, ["recipes", "--presets"])
    assert [line.partition("\t")[0] for line in text.stdout.splitlines()] == list(presets())
    entries = json.loads(CliRunner().invoke(app, ["recipes", "--presets", "--json"]).stdout)
    assert {entry["name"]: entry["license"] for entry in entries} == {
        name: preset.license for name, preset in presets().items()
    }


def test_a_wrong_key_in_a_mapping_is_answered_with_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    prompts = {"kind": "hub", "dataset": "a/b", "columns": {"answer": {"path": "x", "patern": "(a)"}}}
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump({**SMOKE, "prompts": prompts}, file)
    answer = CliRunner().invoke(app, ["check", str(path)])
    assert isinstance(answer.exception, InputError)
    assert answer.exception.what == "unknown key 'patern'"
    assert answer.exception.hint == "did you mean 'pattern'?"
