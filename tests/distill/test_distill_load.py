"""What a release answers in a clean process: it loads, it stops, its recorded items can be scored again."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from release_run import finished_stages, package, private_recipe

from distill.release.answers import ReleaseHost
from distill.release.load_check import check_load, load_engines
from distill.release.rescore import RescoreResult, rescore
from licensing.errors import InputError, Refused
from publish.evaluation import read_items


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose eight answers are recorded as correct and as ending by themselves, and a score of 0.5."""
    folder = tmp_path_factory.mktemp("load")
    recipe = private_recipe(folder)
    return package(folder, recipe, finished_stages(folder, recipe))


@pytest.fixture(scope="module")
def host() -> Iterator[ReleaseHost]:
    with ReleaseHost() as host:
        yield host


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def silent(done: int, total: int | None = None, note: str = "") -> None:
    """No progress."""


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))


def without_items(release: Path) -> None:
    shutil.rmtree(release / "evaluation")


# --- before anything is loaded ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_token_that_is_not_the_templates_end_of_turn_is_refused(host: ReleaseHost, release: Path) -> None:
    edit(release / "generation_config.json", lambda config: config | {"eos_token_id": [0]})
    with pytest.raises(Refused, match=r"does not stop at <\|im_end\|>"):
        check_load(release, "transformers", host, silent)


@pytest.mark.slow
def test_a_stop_id_outside_the_vocabulary_is_refused(host: ReleaseHost, release: Path) -> None:
    edit(release / "generation_config.json", lambda config: config | {"eos_token_id": [*config["eos_token_id"], 10**6]})
    with pytest.raises(Refused, match="outside the vocabulary"):
        check_load(release, "transformers", host, silent)


def test_a_release_is_loaded_with_the_engine_that_was_scored_whatever_the_recipe_calls_it(release: Path) -> None:
    assert load_engines(release) == ["transformers"]
    edit(
        release / "evaluation.json",
        lambda evaluation: evaluation | {"scores": [one | {"engine": "vllm 0.32.0"} for one in evaluation["scores"]]},
    )
    assert load_engines(release) == ["transformers", "vllm"]


def test_a_folder_that_needs_code_of_its_own_is_refused_before_it_loads(host: ReleaseHost, release: Path) -> None:
    edit(release / "config.json", lambda config: config | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    with pytest.raises(InputError, match="needs its own Python code"):
        check_load(release, "transformers", host, silent)


def test_recorded_verdicts_that_do_not_give_the_score_are_refused(host: ReleaseHost, release: Path) -> None:
    with pytest.raises(
        Refused, match=r"the recorded verdicts give 1\.0+ on 8 answers, but evaluation\.json has 0\.50+ on 8"
    ):
        rescore(release, 4, None, host, silent)


def test_a_release_without_items_has_nothing_to_score_again(host: ReleaseHost, release: Path) -> None:
    without_items(release)
    assert rescore(release, 4, None, host, silent) is None


@pytest.mark.parametrize("settings", [{"max_new_tokens": -1}, {"temperature": "hot"}])
def test_settings_that_make_no_sense_are_wrong_input(
    host: ReleaseHost, release: Path, settings: dict[str, Any]
) -> None:
    edit(release / "evaluation.json", lambda evaluation: evaluation | {"settings": settings})
    for score in json.loads((release / "evaluation.json").read_bytes())["scores"]:
        assert score["value"] == 0.5
    edit(release / "evaluation.json", with_score(1.0))
    with pytest.raises(InputError, match="the recorded settings are not valid"):
        rescore(release, 4, "transformers", host, silent)


def with_score(value: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda evaluation: (
        evaluation | {"scores": [score | {"value": value, "low": 0.9, "high": 1.0} for score in evaluation["scores"]]}
    )


def test_a_score_that_comes_out_again_is_given_with_what_would_have_been_noticed() -> None:
    result = RescoreResult(
        n=50, recorded=0.4, again=0.38, difference=-0.02, low=-0.13, high=0.09, p=0.6, minimum_detectable_effect=0.16,
        same_verdicts=45, same_texts=40, recorded_engine="vllm 1", engine="vllm 2", card=0.4, card_low=0.3,
        card_high=0.5, card_n=100,
    )  # fmt: skip
    assert "p = 0.6, differences from 0.160 are noticed here; 45 verdicts" in result.text()
    assert "noticed" not in replace(result, p=0.01).text()


# --- with the weights ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_that_never_stops_although_its_answers_were_recorded_as_ending_is_refused(
    host: ReleaseHost, release: Path
) -> None:
    assert all(item.finish_reason == "stop" for item in read_items(release))
    with pytest.raises(Refused, match="none of 4 answers ends on a stop token within 10 tokens"):
        check_load(release, "transformers", host, silent)


@pytest.mark.slow
def test_a_model_without_recorded_answers_is_loaded_and_the_limit_reported(host: ReleaseHost, release: Path) -> None:
    without_items(release)
    text = check_load(release, "transformers", host, silent)
    assert re.match(r"transformers \S+: [01] of 1 answers end on a stop token \(<\|im_end\|>\) within 32 tokens", text)


@pytest.mark.slow
def test_weights_that_lack_a_layer_are_refused_and_not_filled_at_random(host: ReleaseHost, release: Path) -> None:
    edit(release / "config.json", lambda config: config | {"num_hidden_layers": 2})
    with pytest.raises(Refused, match="the weights lack 9 tensors"):
        check_load(release, "transformers", host, silent)


@pytest.mark.slow
def test_a_score_that_the_weights_do_not_give_does_not_agree(host: ReleaseHost, release: Path) -> None:
    edit(release / "evaluation.json", with_score(1.0))
    result = rescore(release, 8, None, host, silent)
    assert result is not None
    assert (result.recorded, result.again, result.n) == (1.0, 0.0, 8)
    assert result.p < 0.01
    assert not result.agrees
    assert result.minimum_detectable_effect is not None
    assert result.same_verdicts == 0
    assert result.engine.startswith("transformers ")
    assert result.recorded_engine.startswith("fake 1")


@pytest.mark.slow
def test_one_process_imports_for_all_questions_without_the_hub_and_the_users_cache(
    host: ReleaseHost, release: Path
) -> None:
    without_items(release)
    for _ in range(2):
        check_load(release, "transformers", host, silent)
    process = host_process()
    assert any("libtorch" in one.path for one in process.memory_maps())
    environment = process.environ()
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert Path(environment["HF_HOME"]) != Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()


@pytest.mark.slow
def test_a_host_that_is_killed_is_started_again(host: ReleaseHost, release: Path) -> None:
    without_items(release)
    check_load(release, "transformers", host, silent)
    first = host_process()
    first.kill()
    first.wait(60)
    assert " of 1 answers " in check_load(release, "transformers", host, silent)
    assert host_process() != first


def host_process() -> psutil.Process:
    children = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    (process,) = [one for one in children if "distill.runs.process" in " ".join(one.cmdline())]
    return process
