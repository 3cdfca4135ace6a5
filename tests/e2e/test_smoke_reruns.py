"""What makes a finished run do work again, and what does not: each case at the level of the command."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from smoke import (
    COMMAND,
    ROOT,
    STAGES,
    copy_of,
    distill,
    events,
    executed,
    last_event,
    ledger,
    manifests,
    run_smoke,
    the_run,
)
from waiting import until

from distill.config.loader import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def copied(alone: Path, tmp_path: Path) -> Path:
    return copy_of(alone, tmp_path / "runs")


@pytest.mark.parametrize(
    "setting",
    [
        "verify.workers=3",
        "label.workers=2",
        "teacher.concurrency=3",
        "sample.budget={gpus: 2, price_per_gpu_hour: 3}",
        "student.save_steps=7",
        "student.micro_batch_size=1",
        "evaluate.batch_size=3",
        "evaluate.engine_args={gpu_memory_utilization: 0.5, tensor_parallel_size: 2}",
    ],
)
def test_a_field_that_changes_only_speed_re_runs_no_stage_that_costs(copied: Path, setting: str) -> None:
    run_smoke(copied, "--set", setting, "--until", "evaluate")  # audit and package ship the recipe
    assert executed(copied) == []


def test_a_format_that_is_added_repeats_nothing_and_what_llama_cpp_does_not_know_is_named(copied: Path) -> None:
    """The smoke student has a tokenizer of its own, which llama.cpp's converter cannot know."""
    done = distill("run", "recipes/smoke.yaml", "--runs", copied, "--set", "release.formats=[gguf-q8_0]")
    assert done.code == 2
    assert "pre-tokenizer was not recognized" in done.err
    assert "Traceback" not in done.err
    assert executed(copied) == []


def test_another_evaluation_asks_only_for_answers_that_are_not_there(copied: Path) -> None:
    answers = next(copied.glob("*/store/evaluation/answers.jsonl"))
    before = answers.read_bytes()
    run_smoke(copied, "--set", "evaluate.teacher=false", "--until", "evaluate")
    assert executed(copied) == ["evaluate"]
    assert answers.read_bytes() == before
    sampled = ("--set", "evaluate.teacher=false", "--set", "evaluate.temperature=0.7")
    run_smoke(copied, *sampled, "--set", "evaluate.num_samples=2", "--until", "evaluate")
    new = answers.read_bytes().removeprefix(before)
    probes = 6  # of the release, whose generation config names the temperature
    assert new.count(b"\n") == 3 * 8 * 2 + probes, "three students, eight problems, two samples"


def test_another_threshold_of_the_gate_evaluates_nothing(copied: Path) -> None:
    run_smoke(copied, "--set", "release.require.stop_rate=0.0001", "--until", "audit")
    assert executed(copied) == []
    done = distill("run", "recipes/smoke.yaml", "--runs", copied, "--set", "release.require.stop_rate=0.95")
    assert done.code == 1
    assert "stop rate" in done.err
    assert "Traceback" not in done.err
    assert executed(copied) == []


def test_a_changed_license_file_and_changed_sections_of_the_card_ship_with_the_next_run(
    copied: Path, tmp_path: Path
) -> None:
    text, sections = tmp_path / "LICENSE.txt", tmp_path / "sections.md"
    settings = ("--set", f"release.license_file={text}", "--set", f"release.card_sections={sections}")
    for license_words, words, stages in (
        ("The first text.\n", "The first words.", ["audit", "package"]),
        ("Another text.\n", "The first words.", ["audit", "package"]),
        ("Another text.\n", "Other words.", ["package"]),
    ):
        text.write_text(license_words)
        sections.write_text(f"## Our words\n\n{words}\n")
        release = Path(run_smoke(copied, *settings)["release"])
        assert executed(copied) == stages
        assert (release / "LICENSE").read_text() == license_words
        assert words in (release / "README.md").read_text()


def test_changed_problems_are_sampled_and_what_stands_behind_them_is_run_again(copied: Path, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"id": f"p{n}", "prompt": f"{n} + {n} =", "answer": str(2 * n), "kind": "math"} for n in range(12)]
    setting = ("--set", f"prompts={{kind: jsonl, path: {problems}, source: mine, license: mit}}", "--until", "curate")
    for number in range(2):
        rows[0]["prompt"] = f"{number} + {number} + 0 ="
        rows[0]["answer"] = str(2 * number)
        problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run_smoke(copied, *setting)
        assert executed(copied) == ["sample", "verify", "label", "curate"]
    run_smoke(copied, *setting)
    assert executed(copied) == []


def test_changed_base_weights_are_noticed_wherever_the_path_begins(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (base,) = the_run(alone).glob("stages/prepare/*/model")
    (tmp_path / "base").mkdir()
    for file in base.iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    setting = ("--set", "student.base=~/base", "--set", "student.license=mit", "--until", "prepare")
    runs = tmp_path / "runs"
    run_smoke(runs, *setting)
    run_smoke(runs, *setting)
    assert executed(runs) == []
    weights = tmp_path / "base" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    run_smoke(runs, *setting)
    assert executed(runs) == ["prepare"]


def test_a_template_that_was_edited_after_prepare_never_ships(copied: Path) -> None:
    (template,) = the_run(copied).glob("stages/export/*/model/chat_template.jinja")
    text = template.read_text()
    assert "You are Smoke" in text
    template.write_text(text.replace("You are Smoke", "You are Smork"))  # the size stays, so a reuse does not notice
    for stage in ("evaluate", "package"):
        for manifest in the_run(copied).glob(f"stages/{stage}/*/manifest.json"):
            manifest.unlink()
    done = distill("run", "recipes/smoke.yaml", "--runs", copied)
    assert done.code == 1
    assert "chat template changed" in done.err


def test_a_file_of_a_finished_stage_that_was_edited_is_refused_and_show_verify_finds_any_change(copied: Path) -> None:
    (file,) = the_run(copied).glob("stages/curate/*/waterfall.json")
    content = file.read_text()
    file.write_text(content.replace("sampled", "SAMPLED"))
    shown = distill("show", copied, "--verify")
    assert shown.code == 1
    assert "waterfall.json was changed" in shown.out + shown.err
    file.write_text(content + " ")
    done = distill("run", "recipes/smoke.yaml", "--runs", copied)
    assert done.code == 2
    assert "waterfall.json has" in done.err
    file.write_text(content)
    assert distill("show", copied, "--verify").code == 0


def test_stages_that_take_an_accelerator_run_in_processes_of_their_own_which_are_gone_afterwards(alone: Path) -> None:
    processes = {event["stage"]: event["pid"] for event in ledger(alone) if event["event"] == "process"}
    driver = next(event["pid"] for event in ledger(alone) if event["event"] == "run")
    assert set(processes) == {"train", "export", "train_control", "export_control", "evaluate"}
    assert len({driver, *processes.values()}) == 6
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_can_be_the_last_one_and_can_be_run_alone(copied: Path, stage: str) -> None:
    shown = run_smoke(copied, "--until", stage)
    assert [row["stage"] for row in shown["stages"]] == list(STAGES[: STAGES.index(stage) + 1])
    run_smoke(copied, "--only", stage)
    assert executed(copied) == []


def test_one_stage_alone_needs_the_ones_before_it(tmp_path: Path) -> None:
    done = distill("run", "recipes/smoke.yaml", "--runs", tmp_path, "--only", "label")
    assert done.code == 2
    assert "stage prepare is not finished" in done.err
    assert "--until prepare" in done.err


def test_a_larger_budget_asks_for_what_is_new_and_copies_no_text(copied: Path) -> None:
    samples = the_run(copied) / "store" / "samples.jsonl"
    before, inode = samples.read_bytes(), os.stat(samples).st_ino
    run_smoke(copied, "--set", "sample.budget.tokens=10000000", "--until", "sample")
    assert executed(copied) == ["sample"]
    assert samples.read_bytes() == before
    run_smoke(copied, "--set", "sample.num_samples=6", "--until", "sample")
    assert os.stat(samples).st_ino == inode
    assert samples.read_bytes().startswith(before)
    assert samples.read_bytes().count(b"\n") == 24 * 6


def test_an_error_in_a_process_of_its_own_keeps_its_words_and_its_exit_code(copied: Path) -> None:
    done = distill("run", "recipes/smoke.yaml", "--runs", copied, "--set", "student.max_length=16")
    assert done.code == 2, done.err
    assert "longer than max_length 16" in done.err
    assert "hint: " in done.err
    assert "train" not in executed(copied)
    assert "curate" in manifests(copied)


def test_a_stage_process_that_is_killed_ends_the_run_with_its_name_and_the_next_run_goes_on(copied: Path) -> None:
    shutil.rmtree(the_run(copied) / "stages" / "train")
    process = subprocess.Popen(
        [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(copied)], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    event = until(lambda: (event := last_event(copied)).get("event") == "process" and event, "the training process")
    os.kill(event["pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 3
    assert "the process of stage train was killed by signal 9" in said
    run_smoke(copied, "--until", "train")
    assert executed(copied) == ["train"]


def test_a_killed_training_goes_on_from_its_checkpoint_with_a_smaller_micro_batch(copied: Path) -> None:
    """What the hint of an error about memory asks for."""
    longer = ("--set", "student.num_train_epochs=8", "--only", "train")  # so that it is killed before its end
    command = [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(copied), *longer]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = the_run(copied)
    until(lambda: list(run.glob("scratch/train-*/checkpoint-*/complete.json")), "the first checkpoint", 600)
    os.kill(next(event["pid"] for event in events(copied) if event["event"] == "process"), signal.SIGKILL)
    assert process.wait(600) == 3
    metrics = run / "logs" / "train.metrics.jsonl"
    first_step = metrics.read_text().splitlines()[0]
    run_smoke(copied, *longer, "--set", "student.micro_batch_size=1")
    assert executed(copied) == ["train"]
    assert metrics.read_text().splitlines()[0] == first_step, "its seconds, too: it was not taken again"


def test_a_changed_license_of_the_bases_folder_ships_with_the_next_run(alone: Path, tmp_path: Path) -> None:
    (model,) = the_run(alone).glob("stages/prepare/*/model")
    base, runs = tmp_path / "base", tmp_path / "runs"
    shutil.copytree(model, base)
    settings = ("--set", f"student.base={base}", "--set", "student.license=mit", "--set", "student.name=acme/base")
    for text, stages in (("The first terms.\n", list(STAGES)), ("Other terms.\n", ["audit", "package"])):
        (base / "LICENSE").write_text(text)
        release = Path(run_smoke(runs, *settings)["release"])
        assert executed(runs) == stages
        assert (release / "LICENSES" / "LICENSE-mit.txt").read_text() == text


def test_a_torn_last_line_of_the_ledger_hinders_neither_show_nor_the_next_run(copied: Path) -> None:
    log = the_run(copied) / "ledger.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    assert distill("show", copied).code == 0
    run_smoke(copied)
    added = log.read_bytes()[len(whole) - 20 :].decode().splitlines()
    assert added[0] == "", "the torn line ends before the first event"
    newest_events = [json.loads(line) for line in added[1:]]
    assert [event["event"] for event in newest_events] == ["run", *["reused"] * len(STAGES)]
    assert distill("show", copied, "--verify").code == 0


def records(folder: Path) -> dict[tuple[str, str], float]:
    """The score in each record of Every Eval Ever, by suite and name of the model."""
    from jsonschema import Draft7Validator  # importing it takes two seconds

    schema = Draft7Validator(json.loads((ROOT / "tests/publish/every_eval_ever/eval.schema.json").read_text()))
    scores = {}
    for path in (folder / "evaluation" / "data").rglob("*.json"):
        record = json.loads(path.read_text())
        schema.validate(record)
        result = record["evaluation_results"][0]
        assert result["metric_config"]["metric_id"] == "pass@1"
        interval = result["score_details"]["uncertainty"]["confidence_interval"]
        assert interval["method"].startswith("95 %")
        scores[result["evaluation_name"], record["model_info"]["id"]] = result["score_details"]["score"]
    return scores


def test_suites_that_are_added_evaluate_again_and_what_got_worse_is_in_every_place(copied: Path) -> None:
    settings = (
        "--set",
        "evaluate.suites=[chat-format, 'reasoning-gym:chain_sum:5']",
        "--set",
        "evaluate.suite_limit=6",
        "--set",
        "evaluate.inspect_log=true",
    )
    shown = run_smoke(copied, *settings)
    assert executed(copied) == ["evaluate", "audit", "package"]
    assert [(row["suite"], row["n"]) for row in shown["side_effects"]] == [
        ("chat-format", 6), ("reasoning-gym-chain_sum-5", 5),
    ]  # fmt: skip
    release = Path(shown["release"])
    assert json.loads((release / "evaluation.json").read_text())["side_effects"] == shown["side_effects"]
    assert shown["planted_recall"]["verbatim"] == 1.0
    card = (release / "README.md").read_text()
    assert "| chat-format | 6 |" in card
    assert "Thinking, characters | Answer, characters" in card
    assert "The search finds these shares of planted copies: verbatim 1.00" in card
    shown_text = distill("show", copied).out
    assert re.search(r"chat-format: student after +transformers", shown_text), "how the models answered"
    assert distill("report", copied).code == 0
    report = (the_run(copied) / "report" / "report.md").read_text()
    assert "What got better or worse" in report
    assert "| chat-format: student after | transformers" in report, "how the models answered"
    assert "The control arm beside the training rows" in report
    assert "pass rate of the problem" in report, "by which it is matched"
    assert "verbatim 1.00" in report
    assert shown["side_effects"][0]["trained_on"] == 0
    from inspect_ai.log import read_eval_log  # here: it takes seconds, of every worker that collects this file

    logs = map(read_eval_log, (the_run(copied) / "logs" / "inspect").glob("*.eval"))
    values = {(log.eval.task, log.eval.model): log.results.scores[0].metrics["pass@1"].value for log in logs}
    assert len(values) == len(shown["scores"]) + 2 * 2
    students = [row for row in shown["scores"] if row["model"].startswith("student")]
    assert [values["held-out", row["model"]] for row in students] == [row["value"] for row in students]
    recorded = records(the_run(copied) / "logs")
    assert {name: score for name, score in recorded.items() if name[0] == "held-out" and "student" in name[1]} == {
        ("held-out", row["model"]): row["value"] for row in students
    }
    assert recorded.keys() == values.keys()
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml")
    base, own = recipe.student.public_id, recipe.release.name
    shipped = records(release)
    for effect in shown["side_effects"]:
        assert shipped[effect["suite"], base] == effect["before"]["value"]
        assert shipped[effect["suite"], own] == effect["after"]["value"]
    assert len([*release.rglob("*_samples.jsonl")]) == 1, "of the held-out problems alone"
    run_smoke(copied, *settings)
    assert executed(copied) == []
    done = distill("run", "recipes/smoke.yaml", "--runs", copied, "--set", "evaluate.suites=[chat-fromat]")
    assert (done.code, "the nearest is chat-format" in done.err) == (2, True)
