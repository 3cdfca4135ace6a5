"""The command line: exit codes, places and hints, and nothing half-written."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cli.app import main
from synth.verify.config import VerifyConfig

ROOT = Path(__file__).resolve().parent.parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*args: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["distill", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        code = left.value.code
        return Answer(code if isinstance(code, int) else 0, out, err)

    return call


def problems(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "problems.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def problem(number: int, **more: object) -> str:
    row = {"id": f"p{number}", "prompt": f"What is {number} + 1?", "answer": str(number + 1), "kind": "math"}
    return json.dumps(row | {"source": "test", "license": "mit"} | more)


def with_problems(path: Path, *more: str) -> list[str]:
    # a JSON object is YAML: the whole section is replaced
    return [str(item) for name in (f"prompts={json.dumps({'kind': 'jsonl', 'path': str(path)})}", *more)
            for item in ("--set", name)]  # fmt: skip


def test_help_names_every_command() -> None:
    said = subprocess.run([sys.executable, "-m", "distill.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0
    for command in ("check", "run", "show", "report", "verify", "decontaminate", "audit", "licences", "recipes"):
        assert f"  {command} " in said.stdout


def test_check_accepts_the_smoke_recipe_and_forecasts_its_tokens(distill, tmp_path: Path) -> None:
    answer = distill("check", SMOKE, "--runs", tmp_path, "--json")
    assert answer.code == 0
    findings = {found["subject"]: found for found in json.loads(answer.out)}
    assert set(findings) == {"parts", "student", "teacher", "licences", "problems", "disk"}
    assert "96 samples, at most 6,144 teacher tokens" in findings["problems"]["what"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "code", "said", "hint"),
    [
        ("student.base=no/such/model/folder", 2, "folder", "hub id"),
        ("teacher.license=", 1, "W-UPSTREAM-UNKNOWN", ""),
        ("release.license=made-up-licence", 1, "made-up-licence", ""),
        ("prompts.task=no_such_task", 2, "no_such_task", ""),
    ],
)
def test_check_finds_what_would_fail_later(
    distill, tmp_path: Path, override: str, code: int, said: str, hint: str
) -> None:
    answer = distill("check", SMOKE, "--runs", tmp_path, "--set", override)
    assert answer.code == code
    assert said in answer.err
    assert hint in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_missing_recipe_is_a_users_error(distill, tmp_path: Path, verb: str) -> None:
    answer = distill(verb, tmp_path / "none.yaml", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "none.yaml: no such recipe" in answer.err
    assert "hint: " in answer.err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_option_is_a_users_error(distill) -> None:
    assert distill("run", SMOKE, "--no-such-option").code == 2


def test_until_must_name_a_stage(distill, tmp_path: Path) -> None:
    answer = distill("run", SMOKE, "--runs", tmp_path, "--until", "trian")
    assert answer.code == 2
    assert "prepare" in answer.err


def test_a_broken_problem_line_stops_the_run_and_names_the_line(distill, tmp_path: Path) -> None:
    path = problems(tmp_path, problem(1), '{"id": "p2", "prompt": ', problem(3))
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", "--until", "sample", *with_problems(path))
    assert answer.code == 2
    assert f"{path}:2" in answer.err
    assert "Traceback" not in answer.err
    assert not list((tmp_path / "runs").glob("*/stages/sample/*/manifest.json"))


def test_broken_problem_lines_can_be_skipped_and_are_kept_with_their_reason(distill, tmp_path: Path) -> None:
    path = problems(tmp_path, problem(1), "{", b'{"id": "\xff"}', problem(4))
    more = with_problems(path, "prompts.on_bad_row=skip", "teacher.latency_s=0")
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", "--until", "sample", *more)
    assert answer.code == 0, answer.err
    (bad,) = (tmp_path / "runs").glob("*/stages/sample/*/bad_rows.jsonl")
    rows = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [row["where"].rsplit(":", 1)[1] for row in rows] == ["2", "3"]
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_problem_file_is_a_users_error(distill, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", *with_problems(path))
    assert answer.code == 2
    assert str(path) in answer.err


def test_a_gold_answer_that_does_not_verify_stops_the_run_before_a_token_is_spent(distill, tmp_path: Path) -> None:
    path = problems(tmp_path, problem(1), problem(2, answer="\\frac{1}{"))
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", *with_problems(path))
    assert answer.code == 2
    assert "gold answer of problem p2 does not verify" in answer.err
    assert not list((tmp_path / "runs").glob("*/store/samples.jsonl"))


def test_when_every_sample_is_wrong_the_run_stops_before_training_and_says_why(distill, tmp_path: Path) -> None:
    more = ("--set", "teacher.accuracy=0", "--set", "teacher.latency_s=0", "--set", "prompts.size=6")
    answer = distill("run", SMOKE, "--runs", tmp_path, *more)
    assert answer.code == 1
    assert "stage curate: no trace is left to train on; verdicts: 24 wrong" in answer.err
    assert not list(tmp_path.glob("*/stages/train"))


def test_an_unknown_licence_blocks_before_anything_is_spent(distill, tmp_path: Path) -> None:
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", "--set", "teacher.license=proprietary-thing")
    assert answer.code == 1
    assert "fake-teacher" in answer.err
    assert not (tmp_path / "runs").exists()


def test_a_changed_num_samples_asks_only_for_what_is_new(distill, tmp_path: Path) -> None:
    fast = ("--runs", tmp_path, "--until", "sample", "--set", "teacher.latency_s=0", "--set", "prompts.size=5")
    assert distill("run", SMOKE, *fast).code == 0
    (store,) = tmp_path.glob("*/store/samples.jsonl")
    before = store.read_bytes()
    assert before.count(b"\n") == 20
    assert distill("run", SMOKE, *fast, "--set", "sample.num_samples=6").code == 0
    assert store.read_bytes().startswith(before)
    assert store.read_bytes().count(b"\n") == 30


def test_verify_gives_one_row_for_one_row_in_order_and_resumes(distill, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "kind": "math", "answer": "2", "response": "so \\boxed{2}", "mine": 7},
        {"id": "b", "kind": "math", "gold": "2", "response": "so \\boxed{3}"},
        {"id": "c", "kind": "math", "answer": "\\frac{1}{", "response": "\\boxed{1}"},
        {"id": "d", "kind": "math", "answer": "2", "response": "I do not know"},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]) + "{broken\n" + json.dumps(rows[2]) + "\n"
                      + json.dumps(rows[3]) + "\n")  # fmt: skip
    out = tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.partial").write_text(json.dumps(rows[0] | {"verdict": "correct"}) + '\n{"id": "b", "ver')
    settings = VerifyConfig().model_dump(mode="json", exclude={"workers"})
    work = {"input": hashlib.sha256(source.read_bytes()).hexdigest(), "settings": settings}
    (tmp_path / "out.jsonl.partial.json").write_text(json.dumps(work))
    answer = distill("verify", source, "-o", out, "--workers", 1)
    assert answer.code == 0, answer.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in found] == ["correct", "wrong", "error", "error", "unparseable"]
    assert found[0]["mine"] == 7
    assert "in.jsonl:3" in json.dumps(found[2])
    assert json.loads(answer.out)["verdicts"] == {"correct": 1, "error": 2, "unparseable": 1, "wrong": 1}
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_verify_also_says_what_the_format_is_and_lets_rows_vote(distill, tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "prompt": "2 + 2?", "kind": "math", "response": f"\\boxed{{{4 if n else 5}}}"} for n in range(4)
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = distill(
        "verify", source, "-o", out, "--workers", 1, "--format", "think", "--format", "boxed", "--majority", 3
    )
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["verdicts"] == {"correct (voted)": 3, "wrong (voted)": 1}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(row["format_verdict"], row["format_reason"]) for row in found} == {("bad", "no think block")}
    assert {row["majority"]["votes"] for row in found} == {3}


def test_audit_prints_the_contract_form_and_says_no_by_exit_code(distill, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage.yaml"
    lineage.write_text(
        "release: acme/Tiny-Reasoner\nkind: model\ndeclared: {license: apache-2.0}\ninputs:\n"
        "  - {id: meta-llama/Llama-3.3-70B-Instruct, role: base, licence: llama3.3}\n"
    )
    answer = distill("audit", lineage, "--format", "json")
    found = json.loads(answer.out)
    assert answer.code == 1
    assert found["verdict"] == "violating"
    assert "V-NAME-PREFIX:Llama" in found["violations"]
    assert set(found) > {"release", "verdict", "obligations", "violations", "warnings", "findings", "openness"}
    assert (found["openness"]["mof"], found["openness"]["osaid"]) == (None, False)


def test_licences_prints_one_and_refuses_an_unknown_one(distill) -> None:
    assert "Built with Llama" in distill("licences", "llama3.3").out
    assert "apache-2.0\t" in distill("licences").out
    assert distill("licences", "no-such").code == 2


def test_recipes_lists_and_gives_the_schema(distill) -> None:
    assert "smoke.yaml" in distill("recipes", "--folder", ROOT / "recipes").out
    assert "student" in json.loads(distill("recipes", "--schema").out)["properties"]


def test_show_without_a_run_is_a_users_error(distill, tmp_path: Path) -> None:
    answer = distill("show", tmp_path)
    assert answer.code == 2
    assert "no run is here" in answer.err


@pytest.mark.parametrize("interrupted", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_an_interrupt_exits_with_130_wherever_it_arrives(interrupted: str, tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(
        "import sys\nfrom distill.cli import app as cli\n"
        f"@cli.app.command()\ndef stop() -> None:\n    {interrupted}\n"
        "sys.argv = ['distill', 'stop']\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopping"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 130
    assert "goes on from here" in done.stderr


def test_audit_as_cyclonedx_is_a_bill_with_a_model_card(distill, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage.yaml"
    lineage.write_text(
        "release: me/Tiny\nkind: model\ndeclared: {license: mit}\ninputs: [{id: a/b, role: base, licence: mit}]\n",
        encoding="utf-8",
    )
    answer = distill("audit", lineage, "--format", "cyclonedx")
    assert answer.code == 0
    bill = json.loads(answer.out)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["modelCard"]
