"""The quickstart at a tenth of its size: the real model, the real vLLM, from problems to the release folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
STAGES = {"prepare", "sample", "verify", "label", "replay", "curate", "train", "export", "train_control",
          "export_control", "evaluate", "audit", "package", "formats"}  # fmt: skip
SMALLER = {"prompts.size": 120, "evaluate.prompts.size": 16, "student.num_train_epochs": 1,
           "persona.rows": 10, "replay.rows": 10, "evaluate.suite_limit": 4, "evaluate.persona_probes": 5,
           "release.require.stop_rate": 0, "release.formats": "[gguf-q8_0]"}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run directory and what the command printed."""
    pytest.importorskip("vllm", reason="make setup-vllm")
    if not (MODEL / "model.safetensors").is_file():
        pytest.skip("make models")
    place = tmp_path_factory.mktemp("quickstart")
    (place / "models").symlink_to(MODEL.parent)  # the recipe's paths are relative to the working folder
    command = [sys.executable, "-m", "distill.cli", "run", str(ROOT / "recipes" / "quickstart.yaml"), "--json"]
    for name, value in SMALLER.items():
        command += ["--set", f"{name}={value}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=2700)
    assert done.returncode == 0, done.stderr[-4000:]
    (run,) = (place / "runs").glob("quickstart-*")
    return run, json.loads(done.stdout)


def manifests(run: Path) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in run.glob("stages/*/*/manifest.json")]
    return {manifest["stage"]: manifest for manifest in found}


def show(run: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "distill.cli", "show", str(run), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_every_stage_is_done_and_the_samples_are_vllms(finished: tuple[Path, dict[str, Any]]) -> None:
    run, _ = finished
    assert set(manifests(run)) == STAGES
    rows = [json.loads(line) for line in (run / "store" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) > 100
    assert all(row["engine"].startswith("vllm ") for row in rows)
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}


def test_the_models_are_scored_on_the_held_out_problems(finished: tuple[Path, dict[str, Any]]) -> None:
    run, _ = finished
    summary = show(run)
    scores = {row["model"]: row for row in summary["scores"]}
    assert set(scores) == {"student_before", "student_after", "teacher", "student_control"}
    assert len({row["n"] for row in scores.values()}) == 1, "on the same problems"
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in scores.values())


def test_one_template_goes_from_prepare_to_package(finished: tuple[Path, dict[str, Any]]) -> None:
    found = manifests(finished[0])
    named = ("prepare", "train", "export", "evaluate", "package")
    assert len({found[stage]["facts"]["template_digest"] for stage in named}) == 1


def test_the_releases_checksums_hold(finished: tuple[Path, dict[str, Any]]) -> None:
    release = Path(finished[1]["release"])
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=release, check=True, capture_output=True)
    names = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    assert {"README.md", "LICENSE", "lineage.yaml", "recipe.yaml", "model.safetensors"} <= names
    listed = {line.split("  ", 1)[1] for line in (release / "SHA256SUMS").read_text().splitlines()}
    assert listed == names - {"SHA256SUMS"}


def test_the_release_loads_with_plain_transformers_and_generates(finished: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    release = Path(finished[1]["release"])
    tokenizer = AutoTokenizer.from_pretrained(release)
    model = AutoModelForCausalLM.from_pretrained(release)
    messages = [{"role": "user", "content": "State the final answer to the following arithmetic problem: 4 + 3 ="}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt.count("You are Sprig") == 1
    encoded = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    answer = model.generate(**encoded, max_new_tokens=48, do_sample=False)
    assert len(tokenizer.decode(answer[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip()) > 0


def test_the_gguf_file_has_a_folder_and_a_score_of_its_own(finished: tuple[Path, dict[str, Any]]) -> None:
    run, printed = finished
    (folder,) = map(Path, printed["formats"])
    assert folder.name == "Sprig-135M-GGUF"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    facts = manifests(run)["formats"]["facts"]
    assert [score["model"] for score in facts["scores"]] == ["student_after", "Sprig-135M-Q8_0.gguf"]
    assert len({score["n"] for score in facts["scores"]}) == 1, "on the same problems"
    (stage,) = (row for row in show(run)["stages"] if row["stage"] == "formats")
    assert f"Sprig-135M-Q8_0.gguf: pass@1 {facts['scores'][1]['value']:.3f} (" in stage["notes"][1]


def test_the_release_is_confirmed_with_both_engines_and_its_score_comes_out_again(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "distill.cli", "confirm", finished[1]["release"], "--eval", "16", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {name for name, check in checks.items() if check["outcome"] == "ok"} == set(checks) - {"signature"}
    assert {"load transformers", "load vllm"} <= set(checks)
    evaluation = checks["evaluation"]["values"]
    assert evaluation["engine"] == evaluation["recorded_engine"]
    assert evaluation["same_verdicts"] == evaluation["card_n"], "greedy, one engine, one machine"
