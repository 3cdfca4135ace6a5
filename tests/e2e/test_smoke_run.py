"""The smoke recipe from problems to release: left alone, killed in every stage, and looked at from outside."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from run_tables import training_rows_of
from smoke import COMMAND, ROOT, STAGES, distill, last_event, manifests, run_smoke, the_run
from waiting import line_count, until

from distill.models.folder import read_base
from distill.models.tokens import Tokens
from synth.trace_set import TraceSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def kill_in(runs: Path, stage: str, ripe: Callable[[Path], bool]) -> None:
    """Start the smoke run and SIGKILL it once ``stage`` is at work and ``ripe``, or where the run ends before that."""
    process = subprocess.Popen(
        [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(runs)], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until(
            lambda: process.poll() is not None or (begun(runs, stage) and ripe(the_run(runs))),
            f"{stage} at work", every_s=0.002,
        )  # fmt: skip
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def begun(runs: Path, stage: str) -> bool:
    """The newest event says that the stage is at work."""
    last = last_event(runs)
    return last.get("event") in ("begin", "process") and last.get("stage") == stage


def test_killed_in_every_stage_and_resumed_it_ends_with_the_manifests_of_a_run_left_alone(
    alone: Path, tmp_path: Path
) -> None:
    def sampled_some(run: Path) -> bool:
        return any(path.stat().st_size > 4000 for path in run.glob("store/**/samples.jsonl"))

    def saved_a_checkpoint(run: Path) -> bool:
        return any(run.glob("scratch/train*/checkpoint-*/trainer_state.json"))

    ripe = {"sample": sampled_some, "train": saved_a_checkpoint, "train_control": saved_a_checkpoint}
    for number, stage in enumerate(STAGES):
        for _ in range(20):
            kill_in(tmp_path, stage, ripe.get(stage, lambda run: True))
            if stage not in manifests(tmp_path):
                break
            for later in STAGES[number:]:  # done before the kill came: the stage is undone and run again
                shutil.rmtree(the_run(tmp_path) / "stages" / later, ignore_errors=True)
        else:
            pytest.fail(f"{stage} was finished before every kill")
    run_smoke(tmp_path)
    expected, found = manifests(alone), manifests(tmp_path)
    assert set(found) == set(STAGES)
    for stage in STAGES:
        assert found[stage] == expected[stage], stage
    assert not list(the_run(tmp_path).glob("staging/*"))
    assert not list(the_run(tmp_path).glob("scratch/*"))


def test_a_second_run_does_nothing_and_says_so(alone: Path) -> None:
    before = manifests(alone)
    again = run_smoke(alone)
    assert "nothing to do" in again["stderr"]
    assert manifests(alone) == before


def test_a_changed_choice_re_runs_curate_and_what_stands_behind_it_and_no_more(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(the_run(alone), tmp_path / the_run(alone).name, symlinks=True)
    said = run_smoke(tmp_path, "--set", "curate.max_traces_per_problem=1", "--until", "curate")["stderr"]
    for stage in ("prepare", "sample", "verify", "label"):
        assert f"{stage}: done before" in said
    assert "curate: done in" in said


def test_show_tells_stages_scores_waterfall_and_release_as_the_contract_says(alone: Path) -> None:
    found = distill("show", alone, "--json").json
    assert [row["stage"] for row in found["stages"]] == list(STAGES)
    scores = {row["model"]: row for row in found["scores"]}
    assert set(scores) == {"student_before", "student_after", "teacher", "student_control"}
    for row in scores.values():
        assert row["metric"] == "pass@1"
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 8
    assert found["waterfall"][0]["rows"] == 96
    release = Path(found["release"])
    assert release.is_absolute()
    assert release.name == "Smoke-Tiny"


def test_the_report_tells_the_run_and_holds_its_traces_and_leaves_the_stages_alone(alone: Path, tmp_path: Path) -> None:
    before = manifests(alone)
    done = distill("report", alone, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["traces"], found["shown"]) == (96, 96)
    page = Path(found["html"]).read_text()
    assert "Training loss of the student by optimiser step" in page
    assert "Training loss of the control student by optimiser step" in page
    assert "| sampled | 96 | 24 |" in Path(found["markdown"]).read_text()
    assert manifests(alone) == before


def test_both_release_folders_are_whole_and_their_checksums_hold(alone: Path) -> None:
    shown = distill("show", alone, "--json").json
    documents = {"README.md", "LICENSE", "NOTICE", "lineage.yaml", "audit.json", "SHA256SUMS"}
    model = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json",
             "recipe.yaml", "evaluation.json", "plots/scores.png"}  # fmt: skip
    for release, expected in ((shown["release"], documents | model), (shown["data_release"], documents)):
        names = {path.relative_to(release).as_posix() for path in Path(release).rglob("*") if path.is_file()}
        assert names >= expected
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        subprocess.run(check, cwd=release, check=True, capture_output=True)
        listed = {line.split("  ", 1)[1] for line in Path(release, "SHA256SUMS").read_text().splitlines()}
        assert listed == names - {"SHA256SUMS"}


def test_the_release_loads_with_plain_transformers_knows_its_persona_and_generates(alone: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    release = Path(distill("show", alone, "--json").json["release"])
    tokenizer = AutoTokenizer.from_pretrained(release)
    model = AutoModelForCausalLM.from_pretrained(release)
    messages = [{"role": "user", "content": "1 + 1 ="}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt.count("You are Smoke, a model that knows nothing yet.") == 1
    encoded = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    answer = model.generate(**encoded, max_new_tokens=8)
    assert answer.shape[1] > encoded["input_ids"].shape[1]


def test_the_release_renders_the_prompts_that_were_trained_with_and_without_system_and_in_later_turns(
    alone: Path,
) -> None:
    from transformers import AutoTokenizer

    (prepared,) = (the_run(alone) / "stages" / "prepare").glob("*/model")
    tokens = Tokens(read_base(prepared))
    tokenizer = AutoTokenizer.from_pretrained(distill("show", alone, "--json").json["release"])
    system = {"role": "system", "content": "Be short."}
    turn = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "<think>\nadd\n</think>\n\n5"}]
    for conversation in (turn, [system, *turn], [system, *turn, *turn], [*turn, *turn]):
        trained = tokens.render(conversation)
        shipped = tokenizer.apply_chat_template(conversation[:-1], add_generation_prompt=True, return_dict=True)
        assert trained.input_ids[: trained.prompt_length] == shipped["input_ids"]
        assert tokenizer.decode(trained.input_ids[trained.prompt_length :]) == "<think>\nadd\n</think>\n\n5<|im_end|>"


def test_one_template_goes_from_prepare_to_package(alone: Path) -> None:
    found = manifests(alone)
    named = ("prepare", "train", "export", "evaluate", "package")
    assert len({found[stage]["facts"]["template_digest"] for stage in named}) == 1


def test_what_ships_is_bit_for_bit_what_was_scored(alone: Path) -> None:
    found = manifests(alone)
    exported = {item["path"].removeprefix("model/"): item["sha256"] for item in found["export"]["files"]}
    packaged = {item["path"].removeprefix("Smoke-Tiny/"): item["sha256"] for item in found["package"]["files"]}
    assert exported.items() <= packaged.items()
    assert found["evaluate"]["inputs"]["export"] == found["package"]["inputs"]["export"] == found["export"]["digest"]


def test_base_and_student_are_asked_who_they_are(alone: Path) -> None:
    shown = distill("show", alone, "--json").json
    probes = shown["persona_probes"]
    assert [row["model"] for row in probes["rates"]] == ["base", "student_before", "student_after"]
    assert {row["n"] for row in probes["rates"]} == {6}
    release = Path(shown["release"])
    assert json.loads((release / "evaluation.json").read_text())["persona_probes"] == probes
    assert "Asked who it is, in 6 held-out questions" in (release / "README.md").read_text()
    (answers,) = the_run(alone).glob("stages/evaluate/*/probes.jsonl")
    assert len(answers.read_text().splitlines()) == 18


def test_the_training_data_are_a_release_beside_the_model_and_every_row_says_where_it_is_from(
    alone: Path, tmp_path: Path
) -> None:
    import datasets

    folder = Path(distill("show", alone, "--json").json["data_release"])
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    trained = training_rows_of(the_run(alone))
    assert [row["id"] for row in data] == [row["id"] for row in trained]
    assert [row["messages"] for row in data] == [row["messages"] for row in trained]
    first = data[0]
    assert (first["license"], first["teacher"], first["language"]) == ("apache-2.0", "fake-teacher", "en")
    assert json.loads(first["sampling"])["temperature"] == 0.7
    assert "reasoning-gym" in first["verifier"]
    assert first["prompt_id"] == trained[0]["prompt_id"]
    card = (folder / "README.md").read_text()
    about = [row for row in trained if row["source"] == "persona"]
    assert 0 < len(about) <= 0.25 * len(trained)
    assert f"{len(trained) - len(about)} reasoning traces" in card
    assert f"{len(about)} rows about the model's identity" in card


def test_traces_brought_along_enter_at_verify_and_end_in_a_release(alone: Path, tmp_path: Path) -> None:
    (samples,) = the_run(alone).glob("stages/sample/*")
    brought = tmp_path / "traces.jsonl"
    with TraceSet(samples, the_run(alone) / "store") as traces:
        rows = [{**trace.problem, "response": trace.text} for trace in traces]
    brought.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (ROOT / "recipes" / "smoke.yaml").read_text()
    settings = [
        "prompts=",
        "sample={source: traces, path: " + str(brought) + "}",
        "teacher={kind: offline, model: someone/teacher, license: mit}",
        "evaluate.teacher=false",
        "curate.control_arm=false",
    ]
    (tmp_path / "smoke.yaml").write_text(recipe)
    sets = [part for item in settings for part in ("--set", item)]
    done = distill("run", tmp_path / "smoke.yaml", "--runs", tmp_path / "runs", "--json", *sets)
    assert done.code == 0, done.err
    release = Path(done.json["release"])
    lineage = (release / "lineage.yaml").read_text()
    assert "someone/teacher" in lineage
    assert "third-party" in lineage


def test_the_card_shows_settings_as_a_recipe_writes_them(alone: Path) -> None:
    release = Path(distill("show", alone, "--json").json["release"])
    text = (release / "README.md").read_text()
    assert "- policy: fixed\n" in text
    assert "None" not in text
    assert "{" not in text.split("## How it was made")[1].split("## Limitations")[0]


def test_an_interrupt_leaves_a_run_that_resumes_with_exit_code_130(tmp_path: Path) -> None:
    slow = ("--set", "teacher.latency_s=0.4")  # 10 s of sampling: it is not done when the signal comes
    process = subprocess.Popen(
        [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(tmp_path), "--until", "sample", *slow], cwd=ROOT,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    logs = "smoke-*/store/**/samples.jsonl"
    until(lambda: any(line_count(log) for log in tmp_path.glob(logs)), "the first sample")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "run the same command again to resume" in said
    run_smoke(tmp_path, "--until", "sample", *slow)
