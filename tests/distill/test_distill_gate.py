"""The release gate: the measurements decide, thresholds evaluate nothing again, and every refusal says why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import commit, make_run, trace

from distill.config.recipe import RequireConfig
from distill.evaluate.metrics import summarise
from distill.evaluate.statistics import mean_interval
from distill.release.gate import decide, gate_of_release, gate_of_run
from distill.runs.facts import STUDENT
from distill.stages.compress import Compress
from distill.stages.formats import Formats
from licensing.errors import InputError, Refused
from synth.section import key_dump


def evaluation(solved: int = 60, stopped: float = 1.0, n: int = 100, **more: Any) -> dict[str, Any]:
    """Of each 100 of ``n`` problems, the base solves 40 and the student ``solved``, the base's among them."""
    rows = {
        name: [
            {"prompt_id": f"p{at}", "verdict": "correct" if at % 100 < correct else "wrong", "extracted": None,
             "finish_reason": "stop" if at % 100 < 100 * stopped else "length", "completion_tokens": 5,
             "engine": "fake 1"}
            for at in range(n)
        ]
        for name, correct in (("student_before", 40), (STUDENT, solved))
    }  # fmt: skip
    return summarise(rows).model_dump(mode="json") | more


def reasons(require: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    gate = decide(RequireConfig.model_validate(require), measured)
    return [check.reason for check in gate.checks if not check.go]


def test_a_student_that_does_not_stop_is_no_release() -> None:
    assert decide(RequireConfig(), evaluation(stopped=0.95)).go
    assert reasons({}, evaluation(stopped=0.94)) == ["stop rate 0.940 (required: at least 0.95)"]


def test_the_lower_bound_of_the_gain_decides_not_the_gain() -> None:
    measured = evaluation(solved=45)
    (pair,) = measured["comparisons"]
    assert pair["low"] < 0 < pair["difference"]
    assert reasons({"gain_over_base": -0.5}, measured) == []
    (reason,) = reasons({"gain_over_base": 0.0}, measured)
    assert "gain over the base +0.050" in reason
    assert f"lower bound {pair['low']:+.3f}" in reason
    assert f"; may be chance: differences from {pair['minimum_detectable_effect']:.3f} are noticed here; with" in reason
    assert reasons({"gain_over_base": 0.0}, evaluation(solved=60)) == []
    (beyond_chance,) = reasons({"gain_over_base": 0.2}, evaluation(solved=60))
    assert beyond_chance.endswith("(required: at least 0.2)")


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.03])
def test_a_reason_names_the_problems_that_would_meet_the_requirement(gain: float) -> None:
    (reason,) = reasons({"gain_over_base": gain}, evaluation(solved=45))
    words = re.search(r"; with the same difference about ([\d,]+) problems would do$", reason)
    assert words is not None
    needed = int(words[1].replace(",", ""))
    fewer, more = (100 * round(needed * share / 100) for share in (0.6, 1.5))
    assert reasons({"gain_over_base": gain}, evaluation(solved=45, n=max(100, fewer)))
    assert reasons({"gain_over_base": gain}, evaluation(solved=45, n=more)) == []


@pytest.mark.parametrize("gain", [0.05, 0.049999])
def test_no_number_of_problems_makes_a_difference_larger(gain: float) -> None:
    (reason,) = reasons({"gain_over_base": gain}, evaluation(solved=45))
    assert reason.endswith("are noticed here")


def test_the_lower_bound_of_every_suite_decides() -> None:
    suites = [
        {"suite": "constraints", "difference": -0.01, "low": -0.04},
        {"suite": "refusals", "difference": -0.1, "low": -0.2},
    ]
    measured = evaluation(side_effects=suites)
    assert reasons({"side_effects": 0.05}, measured) == [
        "refusals -0.100, lower bound -0.200 (required: at least -0.05)"
    ]
    assert reasons({"side_effects": 0.2}, measured) == []


def test_few_probes_do_not_show_a_low_leak_rate() -> None:
    few, many = ({"persona_probes": {"leaks": 0, "n": n, "high": mean_interval([0.0] * n)[1]}} for n in (20, 400))
    assert "0 of 20 persona probes leak, upper bound 0.161" in reasons({"leak_rate": 0.02}, evaluation(**few))[0]
    assert reasons({"leak_rate": 0.02}, evaluation(**many)) == []


@pytest.mark.parametrize("field", ["side_effects", "leak_rate", "gain_over_base"])
def test_what_was_not_measured_is_not_met(field: str) -> None:
    measured = evaluation()
    measured["comparisons"] = []
    assert len(reasons({field: 0.5}, measured)) == 1


def test_a_refusal_names_every_reason_and_what_to_change() -> None:
    gate = decide(RequireConfig(gain_over_base=0.5), evaluation(stopped=0.5))
    with pytest.raises(Refused) as refused:
        gate.raise_if_no_go("no release is built")
    assert "stop rate 0.500" in refused.value.what
    assert "gain over the base" in refused.value.what
    assert "release.require.stop_rate, release.require.gain_over_base" in (refused.value.hint or "")


def test_no_threshold_is_part_of_a_key() -> None:
    assert key_dump(RequireConfig(leak_rate=0.1)) == {}


# --- where it is read --------------------------------------------------------------------------------------------


def set_recipe(run: Path, require: dict[str, Any]) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | {"release": {"require": require}}))


def test_show_says_go_or_no_go_with_the_reason(distill: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, [trace(n) for n in range(4)])
    assert distill("show", run, "--json").json["gate"]["go"] is True
    set_recipe(run, {"gain_over_base": 0.2})
    answer = distill("show", run)
    assert answer.code == 0
    assert "no-go: gain over the base +0.500, lower bound +0.125" in answer.out
    assert "release gate: no-go" in answer.out
    checks = distill("show", run, "--json").json["gate"]["checks"]
    assert [(check["name"], check["go"]) for check in checks] == [("stop_rate", True), ("gain_over_base", False)]


def test_a_file_of_another_format_has_its_own_stop_rate_in_the_gate_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, [trace(0)])
    scores = [{"model": STUDENT, "stop_rate": 1.0}, {"model": "Ada-Q4_K_M.gguf", "stop_rate": 0.9}]
    commit(run, "formats", "k8", {"scores": scores})
    commit(run, "compress", "k9", {"scores": [scores[0], {"model": "Ada-W8A8", "stop_rate": 0.8}]})
    gate = gate_of_run(run)
    assert gate is not None
    assert [check.reason for check in gate.checks if not check.go] == [
        "stop rate of Ada-Q4_K_M.gguf 0.900 (required: at least 0.95)",
        "stop rate of Ada-W8A8 0.800 (required: at least 0.95)",
    ]


def test_a_threshold_is_in_no_key_of_a_stage_that_scores_a_format() -> None:
    assert "stop_rate" in Formats.not_keyed & Compress.not_keyed


def test_a_recipe_of_a_gate_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, [trace(0)])
    set_recipe(run, {"stop_rate": "high"})
    with pytest.raises(InputError, match=r"release.require cannot be read"):
        gate_of_run(run)


def release_folder(folder: Path, require: str) -> Path:
    folder.mkdir()
    (folder / "SHA256SUMS").write_text("")
    (folder / "evaluation.json").write_text(json.dumps(evaluation(solved=45)))
    (folder / "recipe.yaml").write_text(f"release:\n  version: 1.0.0\n  require: {require}\n")
    return folder


def test_a_no_go_release_is_not_made_public(distill: Any, tmp_path: Path) -> None:
    folder = release_folder(tmp_path / "release", "{gain_over_base: 0.01}")
    answer = distill("push", folder, "--to", "acme/ada", "--public", "--yes")
    assert answer.code == 1
    assert "no-go, nothing is made public: gain over the base +0.050" in answer.err
    gate = gate_of_release(release_folder(tmp_path / "go", "{gain_over_base: -0.1}"))
    assert gate is not None
    assert gate.go


def test_an_evaluation_of_another_form_is_an_input_error(tmp_path: Path) -> None:
    folder = release_folder(tmp_path / "release", "{}")
    (folder / "evaluation.json").write_text('{"scores": [{"model": "student_after"}]}')
    with pytest.raises(InputError, match="holds no scores of an evaluation"):
        gate_of_release(folder)


def test_a_folder_without_an_evaluation_has_no_gate(tmp_path: Path) -> None:
    assert gate_of_release(tmp_path) is None


def test_the_old_threshold_is_refused_with_its_new_place(distill: Any) -> None:
    answer = distill("check", "smoke", "--set", "evaluate.min_stop_rate=0.5")
    assert answer.code == 2
    assert "evaluate.min_stop_rate is now release.require.stop_rate" in answer.err
