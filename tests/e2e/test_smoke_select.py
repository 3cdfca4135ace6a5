"""The smoke recipe with train.select: killed while it selects, then run to the release of the chosen checkpoint.

More than half of its rows are too long to be trained on, and more of the control arm's than of the student's.
"""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_tables import training_rows_of
from smoke import COMMAND, ROOT, the_run
from waiting import line_count, until

from distill.models.folder import read_base
from distill.models.tokens import Tokens
from distill.runs.store import current_artefacts
from licensing.files import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHANGES = (
    "train.select={problems: 6, checkpoints: 3, rule: earliest_within_noise}", "student.num_train_epochs=4",
    "evaluate.persona_probes=0", "student.max_length=280",
)  # fmt: skip


def command(runs: Path) -> list[str]:
    changes = [part for change in CHANGES for part in ("--set", change)]
    return [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(runs), "--json", *changes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed behind the first answers of the selection, and run again."""
    runs = tmp_path_factory.mktemp("selected")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(runs), cwd=ROOT, start_new_session=True, **quiet)
    try:
        until(
            lambda: (
                process.poll() is not None
                or any(line_count(log) > 0 for log in runs.glob("smoke-*/store/evaluation/answers.jsonl"))
            ),
            "answers of the first checkpoint",
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(runs.glob("smoke-*/stages/select/*/manifest.json")), "killed before the selection was finished"
    done = subprocess.run(command(runs), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return the_run(runs)


@pytest.fixture(scope="module")
def stages(run: Path) -> dict[str, Any]:
    return current_artefacts(run)


def test_selection_problems_are_neither_sampled_nor_trained_on_nor_held_out(run: Path, stages: dict[str, Any]) -> None:
    selection = {row["id"] for row in read_rows(stages["sample"].path / "selection.jsonl")}
    assert len(selection) == stages["sample"].facts["selection_problems"] == 6
    assert not selection & {row["id"] for row in read_rows(stages["sample"].path / "problems.jsonl")}
    assert not selection & {row["prompt_id"] for arm in ("train", "control") for row in training_rows_of(run, arm)}
    assert not selection & {row["id"] for row in read_rows(stages["evaluate"].path / "problems.jsonl")}
    assert {row["prompt_id"] for row in read_rows(stages["select"].path / "items.jsonl")} == selection


def test_each_checkpoint_has_a_score_and_no_answer_was_given_twice(run: Path, stages: dict[str, Any]) -> None:
    facts = stages["select"].facts
    assert [score["model"] for score in facts["scores"]] == [f"step {step}" for step in facts["steps"]]
    assert (len(facts["steps"]), facts["steps"][-1]) == (3, stages["train"].facts["steps"])
    keys = [row["key"] for row in read_rows(run / "store" / "evaluation" / "answers.jsonl")]
    assert len(keys) == len(set(keys))
    assert stages["select_control"].facts["steps"] == facts["steps"]


def test_the_chosen_checkpoint_ships_and_card_and_report_say_so(run: Path, stages: dict[str, Any]) -> None:
    facts = stages["select"].facts
    # A random model solves nothing, so all are equal, and the first is chosen: not the one that would ship without.
    assert facts["step"] == facts["steps"][0] != facts["steps"][-1]
    assert "select" in json.loads((stages["export"].path / "manifest.json").read_text())["inputs"]
    (weights,) = (stages["export"].path / "model").glob("*.safetensors")
    (shipped,) = stages["package"].path.glob("Smoke-Tiny/*.safetensors")
    assert shipped.read_bytes() == weights.read_bytes()
    card = (shipped.parent / "README.md").read_text()
    assert (
        f"The release is the checkpoint of step {facts['step']}, by the rule earliest within noise on 6 problems"
        in card
    )
    assert "is optimistic" in card
    report = subprocess.run([*COMMAND, "report", str(run)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert report.returncode == 0, report.stderr
    assert "Checkpoints on the selection problems" in (run / "report" / "report.md").read_text()


def test_rows_that_training_left_out_say_so_in_the_data_set_and_on_both_cards(
    run: Path, stages: dict[str, Any]
) -> None:
    rows, facts = training_rows_of(run), stages["train"].facts
    tokens = Tokens(read_base(stages["prepare"].path / "model"))
    too_long = {row["id"] for row in rows if len(tokens.render(row["messages"]).input_ids) > 280}
    assert 0 < len(rows) - len(too_long) == facts["rows_out"] < len(rows)
    assert "persona" in {row["source"] for row in rows if row["id"] in too_long}, "which is no trace"
    data, why = stages["package"].path / "Smoke-Tiny-traces", "longer than max_length 280"
    (shard,) = data.glob("*.parquet")
    assert [(row["id"], row["not_trained"]) for row in pq.read_table(shard).to_pylist()] == [
        (row["id"], why if row["id"] in too_long else None) for row in rows
    ]
    card, count = (data / "README.md").read_text().replace("\\_", "_"), len(too_long)
    assert f"Training left {count} rows out, as their column `not_trained` says: {why} ({count})." in card
    assert f"- rows: {facts['rows_out']}\n" in (data.with_name("Smoke-Tiny") / "README.md").read_text()


def test_a_control_of_which_fewer_rows_are_trained_on_takes_the_steps_of_the_student(stages: dict[str, Any]) -> None:
    student, control = stages["train"].facts, stages["train_control"].facts
    assert control["rows_in"] == student["rows_in"]
    assert control["rows_out"] < student["rows_out"]
    assert (control["samples"], control["steps"]) == (student["samples"], student["steps"])
