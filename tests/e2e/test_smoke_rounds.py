"""The smoke recipe with train.rounds: 2, killed while the student is sampled and run again.

Its problems all have one answer, and its traces say it in some ways: so the tiny student learns to give that answer, in
ways that the traces of a problem do not have.
"""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_tables import training_rows_of
from smoke import COMMAND, ROOT, executed, manifests, the_run
from waiting import line_count, until

from distill.runs.facts import FIRST_STUDENT
from distill.runs.store import current_artefacts
from licensing.files import read_rows, write_rows
from licensing.lineage import load_lineage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORDS = ("ok", "yes", "sum", "add", "so", "now")
PROBLEMS = 6
SAMPLES = 4


def command(runs: Path, traces: Path, *more: str) -> list[str]:
    changes = (
        "prompts=", "teacher={kind: offline, model: t, license: mit}", f"sample={{source: traces, path: {traces}}}",
        "evaluate.teacher=false", "evaluate.batch_size=1", "evaluate.prompts.size=3", "evaluate.max_new_tokens=16",
        "curate.control_arm=false", "curate.max_traces_per_problem=",
        "persona=", "student.method={kind: full, learning_rate: 1.0e-2}", "student.num_train_epochs=60",
        "student.batch_size=6", "student.save_steps=1000", "train.rounds=2",
        f"train.student_sample={{num_samples: {SAMPLES}, temperature: 0.7, max_new_tokens: 40, "
        "budget: {tokens: 100000}}",
    )  # fmt: skip
    options = [part for change in changes for part in ("--set", change)]
    return [*COMMAND, "run", "recipes/smoke.yaml", "--runs", str(runs), "--json", *options, *more]


def finish(runs: Path, traces: Path, *more: str) -> None:
    done = subprocess.run(command(runs, traces, *more), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    write_rows(path, (
        {"id": f"p{n}", "prompt": f"{n} + {7 - n} =", "answer": "7", "kind": "math", "source": "sums",
         "license": "mit", "response": f"<think>\n{WORDS[n]}\n</think>\n\n\\boxed{{7}}"}
        for n in range(PROBLEMS)
    ))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, traces: Path) -> Path:
    """The folder of a run that was killed behind the first answers of the student, and run again."""
    runs = tmp_path_factory.mktemp("rounds")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(runs, traces), cwd=ROOT, start_new_session=True, **quiet)
    try:
        until(
            lambda: (
                process.poll() is not None
                or any(line_count(log) > PROBLEMS for log in runs.glob("smoke-*/store/samples.jsonl"))
            ),
            "answers of the student",
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(runs.glob("smoke-*/stages/sample_2/*/manifest.json")), "killed before it was finished"
    finish(runs, traces)
    return runs


@pytest.fixture(scope="module")
def stages(runs: Path) -> dict[str, Any]:
    return current_artefacts(the_run(runs))


def test_a_killed_round_ends_as_one_left_alone(runs: Path, traces: Path, tmp_path: Path) -> None:
    shutil.copytree(the_run(runs), tmp_path / the_run(runs).name, symlinks=True)
    shutil.rmtree(the_run(tmp_path) / "stages" / "sample_2")
    log = the_run(tmp_path) / "store" / "samples.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:PROBLEMS]))
    finish(tmp_path, traces, "--until", "sample_2")
    assert executed(tmp_path) == ["sample_2"]
    assert manifests(tmp_path)["sample_2"] == manifests(runs)["sample_2"]


def test_the_student_answers_each_problem_and_no_request_is_sent_twice(runs: Path, stages: dict[str, Any]) -> None:
    rows = list(read_rows(the_run(runs) / "store" / "samples.jsonl"))
    assert len({row["request_id"] for row in rows}) == len(rows) == PROBLEMS * (1 + SAMPLES)
    table = pq.read_table(stages["sample_2"].path / "samples.parquet").to_pylist()
    of_student = [row["problem_id"] for row in table if row["teacher"] == FIRST_STUDENT]
    assert of_student == [f"p{n}" for n in range(PROBLEMS) for _ in range(SAMPLES)]
    (engine,) = read_rows(stages["sample_2"].path / "engines.jsonl")
    assert (engine["model"], engine["revision"][:8]) == (FIRST_STUDENT, "content-")


def test_the_second_student_is_trained_on_what_the_first_one_solved(runs: Path, stages: dict[str, Any]) -> None:
    rows = training_rows_of(the_run(runs))
    own = [row for row in rows if row["model"] == FIRST_STUDENT]
    assert own
    assert {row["verdict"] for row in rows} == {"correct"}
    assert stages["curate_2"].facts["student_rows"] == len(own) == len(rows) - PROBLEMS
    first, second = stages["train"].facts, stages["train_2"].facts
    assert second["rows_in"] == len(rows) > first["rows_in"] == first["rows_out"] == PROBLEMS
    # On some CPUs the random student writes a second closing tag.
    assert second["rows_out"] == len(rows) - sum(second["left_out"].values()) > PROBLEMS
    inputs = json.loads((stages["export_2"].path / "manifest.json").read_text())["inputs"]
    assert inputs["train_2"] == stages["train_2"].digest
    (shipped,) = stages["package"].path.glob("Smoke-Tiny/*.safetensors")
    (weights,) = (stages["export_2"].path / "model").glob("*.safetensors")
    assert shipped.read_bytes() == weights.read_bytes()


def test_release_and_report_say_who_wrote_which_rows(runs: Path, stages: dict[str, Any]) -> None:
    run, release = the_run(runs), stages["package"].path
    count = stages["curate_2"].facts["student_rows"]
    data = pq.read_table(next(release.glob("Smoke-Tiny-traces/*.parquet"))).to_pylist()
    own = [row for row in data if row["teacher"] == FIRST_STUDENT]
    assert len(own) == count
    revision = f"content-{stages['export'].digest[:16]}"
    assert {row["teacher_revision"] for row in own} == {revision}
    assert {json.loads(row["sampling"])["max_new_tokens"] for row in own} == {40}
    for card in (release / "Smoke-Tiny" / "README.md", release / "Smoke-Tiny-traces" / "README.md"):
        text = card.read_text()
        assert f"A first student was trained on {PROBLEMS} rows and answered the same problems" in text
        assert f"it wrote {count} of the selected traces" in text
        assert revision in text
        assert "on the traces of both.\n\nVerification:" in text
    inputs = [(one.id, one.role) for one in load_lineage(release / "Smoke-Tiny" / "lineage.yaml").inputs]
    assert inputs == [("t", "generator"), ("sums", "data")]
    scores = {score["model"] for score in stages["evaluate"].facts["scores"]}
    assert scores == {"student_before", FIRST_STUDENT, "student_after"}
    report = subprocess.run([*COMMAND, "report", str(run)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert report.returncode == 0, report.stderr
    page = (run / "report" / "report.md").read_text()
    assert f"The student of the first round wrote {count} of the {PROBLEMS + count} selected traces." in page
    tokens = stages["sample_2"].facts["student"]["tokens"]
    assert re.search(rf"Budget of stage sample\\_2:\n.*\n\| tokens \| {tokens:,} \| 100,000 \|", page, re.DOTALL)
