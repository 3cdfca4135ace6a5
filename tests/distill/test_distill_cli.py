"""The command line: exit codes, places and hints, and nothing half-written."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from report_runs import make_run, trace
from rich.console import Console
from sums import SUMS

from distill import __version__
from distill.cli.app import app
from distill.cli.progress import StageProgress, TransferProgress
from distill.config.loader import load_recipe
from distill.runs.artefact import Artefact
from distill.runs.process import BOOT
from distill.runs.stage import Stage
from distill.runs.store import Run
from distill.stages import pipeline
from distill.stages.pipeline import STAGES, stages_of
from distill.stages.sample import Sample
from licensing.errors import InputError
from synth.verify.config import VerifyConfig

ROOT = Path(__file__).resolve().parent.parent.parent
SMOKE = ROOT / "recipes" / "smoke.yaml"


SUMMING = [word for setting in SUMS for word in ("--set", setting)]


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


def commands() -> list[tuple[str, ...]]:
    """Every command by its words, as in ("samples", "merge")."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        groups = getattr(command, "commands", None)
        if groups is None:
            yield words
        for name, sub in (groups or {}).items():
            yield from below(sub, (*words, name))

    return list(below(typer.main.get_command(app), ()))


@pytest.mark.slow
def test_help_names_every_command_and_each_has_its_own(distill) -> None:
    answer = distill("--help")
    assert answer.code == 0
    assert distill().out == answer.out
    for words in commands():
        assert f"  {words[0]} " in answer.out
        page = distill(*words, "--help")
        assert page.code == 0
        assert "--json" in page.out, words


BAD_INPUTS: dict[tuple[str, ...], list[object]] = {
    ("check",): ["none.yaml"],
    ("pair",): ["nowhere", "nowhere"],
    ("preview",): ["none.yaml"],
    ("run",): ["none.yaml"],
    ("show",): ["nowhere"],
    ("report",): ["nowhere"],
    ("verify",): ["absent.jsonl", "-o", "out.jsonl"],
    ("decontaminate",): ["absent.jsonl", "--against", "absent.jsonl", "-o", "out.jsonl"],
    ("merge",): ["nowhere", "nowhere", "out"],
    ("push",): ["nowhere", "--to", "me/x"],
    ("audit",): ["no-such-target"],
    ("licences",): ["no-such"],
    ("sign",): ["nowhere"],
    ("confirm",): ["nowhere"],
    ("recipes",): ["--folder", "nowhere"],
    ("eval",): ["nowhere"],
    ("persona", "apply"): ["nowhere", "--persona", "none.yaml"],
    ("persona", "remove"): ["nowhere"],
    ("persona", "probe"): ["nowhere"],
    ("samples", "merge"): ["out", "nowhere"],
}


def test_the_bad_inputs_below_are_of_every_command() -> None:
    assert sorted(BAD_INPUTS) == sorted(commands())


@pytest.mark.slow
@pytest.mark.parametrize("words", BAD_INPUTS, ids=" ".join)
def test_with_json_a_bad_input_of_any_command_is_one_error_on_stdout_and_exit_code_2(
    distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = distill(*words, *BAD_INPUTS[words], "--json")
    assert set(answer.json) == {"error"}
    assert answer.json["error"]["exit_code"] == answer.code == 2
    assert answer.json["error"]["what"] in answer.err
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_that_of_the_package(distill) -> None:
    answer = distill("--version")
    assert (answer.code, answer.out) == (0, f"distill {__version__}\n")


@pytest.mark.slow
def test_check_accepts_the_smoke_recipe_and_forecasts_its_tokens(distill, tmp_path: Path) -> None:
    answer = distill("check", SMOKE, "--runs", tmp_path, "--json")
    assert answer.code == 0
    findings = {found["subject"]: found for found in json.loads(answer.out)}
    assert set(findings) == {"packages", "student", "teacher", "licences", "problems", "held-out problems", "disk"}
    assert "8 problems: for two models" in findings["held-out problems"]["what"]
    assert "a difference of 0.495 is detected" in findings["held-out problems"]["what"]
    assert "96 samples, at most 6,144 teacher tokens" in findings["problems"]["what"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_check_names_a_worked_example_that_is_a_held_out_problem(distill, tmp_path: Path) -> None:
    held_out = tmp_path / "held-out.jsonl"
    rows = ({"id": f"p{n}", "prompt": f"{n} + 5 =", "answer": f"{n + 5}", "kind": "math"} for n in range(8))
    held_out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    examples = "[{prompt: 3 + 5 =, response: '8'}, {prompt: 30 + 5 =, response: '35'}]"
    changes = (f"evaluate.prompts={{kind: jsonl, path: {held_out}, license: mit}}", f"teacher.examples={examples}")
    changes = (*SUMS, *changes)
    answer = distill("check", SMOKE, "--runs", tmp_path, "--json", *(w for one in changes for w in ("--set", one)))
    assert answer.code == 0, answer.out
    notes = [found for found in json.loads(answer.out) if found["where"] == "teacher.examples"]
    assert len(notes) == 1
    assert notes[0]["what"].startswith("worked example 1 of")
    assert "is held-out problem p3" in notes[0]["what"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "code", "said", "hint"),
    [
        ("student.base=no/such/model/folder", 2, "folder", "hub id"),
        ("teacher.license=", 1, "W-UPSTREAM-UNKNOWN", ""),
        ("release.license=made-up-licence", 1, "made-up-licence", ""),
        ("prompts.task=no_such_task", 2, "no_such_task", ""),
        ("evaluate.prompts={kind: jsonl, path: none.jsonl}", 2, "held-out problems: none.jsonl: cannot read it", ""),
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


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_misspelt_engine_argument_of_the_evaluation_is_found_before_anything_runs(
    distill, tmp_path: Path, verb: str
) -> None:
    if importlib.util.find_spec("vllm") is None:  # importing it would take seconds
        pytest.skip("vLLM is not installed")
    changes = ("--set", "evaluate.engine=vllm", "--set", "evaluate.engine_args.max_modle_len=64")
    answer = distill(verb, SMOKE, "--runs", tmp_path / "runs", *changes)
    assert answer.code == 2
    assert "evaluate.engine_args.max_modle_len: vLLM has no engine argument" in answer.err
    assert "did you mean max_model_len?" in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field", "hint"),
    [
        ("ray", "engine.kind=ray", "pip install ray"),
        ("deepspeed", "student.parallel.strategy=zero3", "pip install 'distill-release[deepspeed]'"),
        ("liger_kernel", "student.liger=true", "pip install 'distill-release[liger]'"),
        ("bitsandbytes", "student.optimizer=adamw_8bit", "pip install bitsandbytes"),
    ],
)
def test_check_misses_a_library_that_the_recipe_takes(
    distill, tmp_path: Path, monkeypatch, name: str, field: str, hint: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *more: None if one == name else find(one, *more))
    answer = distill("check", SMOKE, "--runs", tmp_path / "runs", *SUMMING, "--set", field)
    assert answer.code == 3
    assert f"{name} is not installed" in answer.err + answer.out
    assert hint in answer.err + answer.out


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_missing_recipe_is_a_users_error(distill, tmp_path: Path, verb: str) -> None:
    answer = distill(verb, tmp_path / "none.yaml", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "none.yaml: no such recipe" in answer.err
    assert "hint: " in answer.err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_option_is_a_users_error(distill) -> None:
    assert distill("run", SMOKE, "--no-such-option").code == 2


@pytest.mark.parametrize("option", ["--until", "--only"])
@pytest.mark.parametrize(
    "stage", ["trian", "replay", "select", "on_policy", "sample_2", "select_control", "formats", "compress"]
)
def test_a_stage_that_the_recipe_does_not_have_begins_no_run(distill, tmp_path: Path, option: str, stage: str) -> None:
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", option, stage)
    assert answer.code == 2
    assert f"{option}: the recipe has no stage {stage}" in answer.err
    stages = "prepare, sample, verify, label, curate, train, export, train_control, export_control, evaluate, audit"
    assert f"it has {stages}, package\n" in re.sub(r"\s*\n\s+", " ", answer.err)
    assert not (tmp_path / "runs").exists()


def test_each_section_that_adds_stages_is_known() -> None:
    changes = ["release.formats=[gguf-q8_0,w8a8]", "replay={prompts: {kind: jsonl, path: p.jsonl}}", "train.rounds=2"]
    changes += ["train.select={problems: 4, checkpoints: 2}", "teacher={kind: vllm, model: a/b, license: mit}"]
    changes += ["sample.logprobs=20"]
    assert set(STAGES) - set(stages_of(load_recipe(SMOKE, changes))) == {"logits", "on_policy"}
    fewer = stages_of(load_recipe(SMOKE, [*changes, "curate.control_arm=false"]))
    assert [stage for stage in fewer if "control" in stage] == []


REPLAY = ("replay={prompts: {kind: jsonl, path: PROMPTS, source: mine, license: mit}}",)
LOGPROBS = ("teacher={kind: vllm, model: models/a, license: mit, name: me/a}", "sample.logprobs=8")
ON_POLICY = (
    "train={stages: [sft, on_policy], on_policy: {teacher: {model: models/a, license: mit, name: me/a}}}",
    "curate.control_arm=false", "student.max_length=1024",
)  # fmt: skip
DATA = ["prepare", "sample", "verify", "label", "curate"]
ROUND = [*DATA, "train", "export", "sample_2", "verify_2", "label_2", "curate_2", "train_2"]


@pytest.mark.parametrize(
    ("stage", "settings", "stages"),
    [
        ("replay", REPLAY, [*DATA[:-1], "replay"]),
        ("curate", REPLAY, [*DATA[:-1], "replay", "curate"]),
        ("logprobs", LOGPROBS, [*DATA, "logprobs"]),
        ("select", ("train.select={problems: 4}",), [*DATA, "train", "select"]),
        (
            "select_control", ("train.select={problems: 4}",),
            [*DATA, "train", "select", "export", "train_control", "select_control"],
        ),
        (
            "logits", (*LOGPROBS, "train={stages: [sft, logits], logits: {}}", "curate.control_arm=false"),
            [*DATA, "logprobs", "train", "logits"],
        ),
        ("on_policy", ON_POLICY, [*DATA, "train", "on_policy"]),
        *((ROUND[at], ("train.rounds=2",), ROUND[: at + 1]) for at in range(ROUND.index("sample_2"), len(ROUND))),
        ("export_2", ("train.rounds=2",), [*ROUND, "export_2"]),
    ],
)  # fmt: skip
def test_a_stage_that_a_section_adds_can_be_the_last_one_and_only_those_before_it_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, settings: tuple[str, ...], stages: list[str]
) -> None:
    """The stages do no work here: their order is the pipeline's, and where it ends the run directory's."""
    executed: list[str] = []

    def execute(run: Run, stage: Stage[Any], folder: Path) -> Artefact[Any]:
        executed.append(stage.name)
        facts = SimpleNamespace(rows_out=96, left_out={}, samples=96)
        return Artefact(stage.name, stage.key, folder, stage.key, {}, facts)

    monkeypatch.setattr(Run, "_execute", execute)
    monkeypatch.setattr(pipeline, "_require_fit", lambda *arguments: None)
    prompts = problems(tmp_path, problem(1))
    recipe = load_recipe(SMOKE, [one.replace("PROMPTS", str(prompts)) for one in settings])
    with pytest.raises(InputError, match="stage prepare is not finished"):
        pipeline.run(recipe, tmp_path / "runs", only=stage)
    assert executed == []
    assert pipeline.run(recipe, tmp_path / "runs", until=stage).stage == stage
    assert executed == stages


@pytest.mark.slow
def test_only_runs_one_stage_whose_inputs_are_finished(distill, tmp_path: Path) -> None:
    fast = ("run", SMOKE, "--runs", tmp_path, *SUMMING, "--set", "teacher.latency_s=0", "--set", "prompts.limit=4")
    answer = distill(*fast, "--only", "sample")
    assert answer.code == 2
    assert "distill run RECIPE --until prepare" in answer.err
    assert distill(*fast, "--until", "prepare").code == 0
    assert distill(*fast, "--only", "sample").code == 0
    (run,) = tmp_path.iterdir()
    assert sorted(path.name for path in (run / "stages").iterdir()) == ["prepare", "sample"]
    assert distill(*fast, "--only", "nothing").code == distill(*fast, "--only", "sample", "--until", "sample").code == 2


def test_a_broken_problem_line_stops_the_run_and_names_the_line(distill, tmp_path: Path) -> None:
    path = problems(tmp_path, problem(1), '{"id": "p2", "prompt": ', problem(3))
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", "--until", "sample", *with_problems(path))
    assert answer.code == 2
    assert f"{path}:2" in answer.err
    assert "Traceback" not in answer.err
    assert not list((tmp_path / "runs").glob("*/stages/sample/*/manifest.json"))


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_gold_answer_that_does_not_verify_stops_the_run_before_a_token_is_spent(distill, tmp_path: Path) -> None:
    path = problems(tmp_path, problem(1), problem(2, answer="\\frac{1}{"))
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", *with_problems(path))
    assert answer.code == 2
    assert "gold answer of problem p2 does not verify" in answer.err
    assert not list((tmp_path / "runs").glob("*/store/samples.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(("on_bad_row", "level"), [("stop", "error"), ("skip", "note")])
def test_check_stops_at_an_unreadable_gold_unless_bad_rows_are_skipped(
    distill, tmp_path: Path, on_bad_row: str, level: str
) -> None:
    path = problems(tmp_path, problem(1), problem(2, answer="\\frac{1}{"))
    answer = distill("check", SMOKE, "--json", *with_problems(path, f"prompts.on_bad_row={on_bad_row}"))
    findings = [one for one in json.loads(answer.out) if "gold answer of p2" in one["what"]]
    assert [one["level"] for one in findings] == [level], answer.out


@pytest.mark.slow
def test_when_every_sample_is_wrong_the_run_stops_before_training_and_says_why(distill, tmp_path: Path) -> None:
    more = (*SUMMING, "--set", "teacher.accuracy=0", "--set", "teacher.latency_s=0", "--set", "prompts.limit=6")
    answer = distill("run", SMOKE, "--runs", tmp_path, *more)
    assert answer.code == 1
    assert "stage curate: no trace is left to train on; verdicts: 24 wrong" in answer.err
    assert not list(tmp_path.glob("*/stages/train"))


def test_an_unknown_licence_blocks_before_anything_is_spent(distill, tmp_path: Path) -> None:
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", "--set", "teacher.license=proprietary-thing")
    assert answer.code == 1
    assert "fake-teacher" in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_changed_num_samples_asks_only_for_what_is_new(distill, tmp_path: Path) -> None:
    fast = ("--runs", tmp_path, "--until", "sample", *SUMMING, "--set", "teacher.latency_s=0")
    fast += ("--set", "prompts.limit=5")
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
        "verify", source, "-o", out, "--workers", 1,
        "--require-format", "think", "--require-format", "boxed", "--majority", 3,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["verdicts"] == {"correct (voted)": 3, "wrong (voted)": 1}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(row["format_verdict"], row["format_reason"]) for row in found} == {("bad", "no think block")}
    assert {row["majority"]["votes"] for row in found} == {3}


def test_verify_refuses_the_former_meaning_of_format_and_names_the_new_option(distill, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    answer = distill("verify", source, "-o", tmp_path / "out.jsonl", "--format", "think")
    assert answer.code == 2
    assert "hint: write --require-format think" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# --- files of rows -----------------------------------------------------------------------------------------------

ROWS = [
    {"id": "a", "kind": "math", "answer": "2", "response": "so \\boxed{2}"},
    {"id": "é", "kind": "math", "answer": "2", "response": "so \\boxed{3}\u2028"},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"
FORMS = {
    "lines": LINES.encode(),
    "lines in gzip": gzip.compress(LINES.encode()),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + LINES.encode(),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + LINES.encode("utf-16-be"),
    "array": json.dumps(ROWS, indent=1).encode(),
    "array in UTF-16 in gzip": gzip.compress(("\n " + json.dumps(ROWS)).encode("utf-16")),
}
OTHERS = {
    "Parquet": b"PAR1\x15\x04\n{\x00",
    "zip": b"PK\x03\x04{\n{}",
    "UTF-16 without a mark": LINES.encode("utf-16-le"),
    "UTF-32": LINES.encode("utf-32"),
    "CSV": b"id,answer,response\n1,2,3\n",
    "array broken off": json.dumps(ROWS).encode()[:-9],
    "gzip broken off": gzip.compress(LINES.encode())[:-9],
}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("form", FORMS)
def test_verify_and_decontaminate_read_every_form_of_a_file_of_rows(distill, tmp_path: Path, form: str) -> None:
    source, out = tmp_path / "rows", tmp_path / "new" / "folder" / "out.jsonl"
    source.write_bytes(FORMS[form])
    answer = distill("verify", source, "-o", out, "--workers", 1)
    assert answer.code == 0, answer.err
    assert [row["verdict"] for row in rows_of(out)] == ["correct", "wrong"]
    assert [{key: row[key] for key in ROWS[0]} for row in rows_of(out)] == ROWS
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    other = tmp_path / "another" / "out.jsonl"
    answer = distill("decontaminate", source, "--against", source, "-o", other)
    assert answer.code == 2  # the rows have no text of a test item, so the set was read as far as that
    assert "no text under any of" in answer.err
    items = tmp_path / "items"
    items.write_bytes(gzip.compress(json.dumps([{"prompt": "What is the sum of all the digits?"}]).encode("utf-16")))
    answer = distill("decontaminate", source, "--against", items, "-o", other)
    assert answer.code == 0, answer.err
    assert (json.loads(answer.out)["rows"], json.loads(answer.out)["items"]) == (2, 1)
    assert [row["id"] for row in rows_of(other)] == ["a", "é"]


@pytest.mark.parametrize("form", OTHERS)
def test_a_file_of_another_format_is_a_users_error_and_leaves_nothing(distill, tmp_path: Path, form: str) -> None:
    source, out = tmp_path / "rows", tmp_path / "out.jsonl"
    source.write_bytes(OTHERS[form])
    items = tmp_path / "items"
    items.write_text('{"prompt": "What is the sum of all the digits?"}\n')
    for command in (["verify", source], ["decontaminate", source, "--against", items]):
        answer = distill(*command, "-o", out)
        assert answer.code == 2, answer.out
        assert "rows" in answer.err
        assert "hint: " in answer.err
        assert "Traceback" not in answer.err
    assert not out.exists()


def test_a_broken_first_line_is_a_row_with_a_reason_where_rows_follow(distill, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('not JSON\n[1]\n{"kind": "math", "answer": "1", "weight": 1e999}\n' + LINES)
    assert distill("verify", source, "-o", out, "--workers", 1).code == 0
    assert [row["verdict"] for row in rows_of(out)] == ["error", "error", "error", "correct", "wrong"]
    assert ["in.jsonl:1" in rows_of(out)[0]["unreadable"], "list" in rows_of(out)[1]["unreadable"]] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_rows_come_from_a_pipe_too_and_may_vote(tmp_path: Path, name: str) -> None:
    rows = [{"id": str(n), "prompt": "2 + 2?", "kind": "math", "response": "\\boxed{4}"} for n in range(3)]
    command = [sys.executable, "-m", "distill.cli", "verify", name, "-o", "out.jsonl", "--majority", "3"]
    done = subprocess.run(
        command, input=gzip.compress(json.dumps(rows).encode()), capture_output=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"] == {"correct (voted)": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


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


@pytest.mark.slow
def test_recipes_lists_the_shipped_ones_or_a_folder_and_prints_the_schema(distill, tmp_path: Path) -> None:
    assert "smoke\tEvery stage" in distill("recipes").out
    mine = tmp_path / "mine.yaml"
    mine.write_text(SMOKE.read_text().replace("name: smoke", "name: mine"))
    assert distill("recipes", "--folder", tmp_path).out.startswith(f"{mine}\t")
    (entry,) = json.loads(distill("recipes", "--folder", tmp_path, "--json").out)
    assert (entry["name"], entry["file"]) == ("mine", str(mine))
    assert "student" in json.loads(distill("recipes", "--schema").out)["properties"]


def test_show_without_a_run_is_a_users_error(distill, tmp_path: Path) -> None:
    answer = distill("show", tmp_path)
    assert answer.code == 2
    assert "no run is here" in answer.err


@pytest.mark.slow
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
    assert "run the same command again to resume" in done.stderr


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


# --- JSON, errors, exit codes ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "none.yaml"],
        ["run", "none.yaml"],
        ["run", SMOKE, "--until", "trian"],
        ["run", SMOKE, "--set", "teacher.license=proprietary-thing"],
        ["show", "nowhere"],
        ["report", "nowhere"],
        ["verify", "absent.jsonl", "-o", "out.jsonl"],
        ["decontaminate", "absent.jsonl", "--against", "absent.jsonl", "-o", "out.jsonl"],
        ["audit", "no-such-target"],
        ["audit", "no-such-target", "--format", "table"],
        ["licences", "no-such"],
        ["recipes", "--folder", "nowhere"],
        ["recipes", "--no-such-option"],
        ["no-such-command"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)).replace(str(SMOKE), "smoke"),
)
def test_with_json_an_error_is_one_json_value_on_stdout(
    distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, answer = distill(*arguments), distill(*arguments, "--json")
    error = json.loads(answer.out)["error"]
    assert set(error) == {"what", "where", "hint", "exit_code"}
    assert error["exit_code"] == answer.code == plain.code > 0
    assert error["what"] in answer.err
    if "--format" not in arguments:
        assert plain.out == ""
        assert error["what"] in plain.err
    assert list(tmp_path.iterdir()) == []


def test_licences_are_printed_as_json(distill) -> None:
    entries = json.loads(distill("licences", "--json").out)
    assert {"id": "apache-2.0", "name": "Apache License 2.0", "kind": "licence", "spdx": "Apache-2.0"} in entries
    assert json.loads(distill("licences", "llama3.3", "--json").out)["id"] == "llama3.3"


def test_audit_takes_json_as_the_other_commands_do(distill, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage.yaml"
    lineage.write_text("release: me/Tiny\nkind: model\ndeclared: {license: mit}\ninputs: []\n")
    answer = distill("audit", lineage, "--json")
    assert json.loads(answer.out) == json.loads(distill("audit", lineage, "--format", "json").out)
    assert "contradict" in distill("audit", lineage, "--json", "--format", "markdown").err


@pytest.mark.slow
def test_on_a_terminal_verify_prints_a_table_and_with_json_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(LINES)

    def shown(*more: str) -> str:
        reader, terminal = os.openpty()
        command = [sys.executable, "-m", "distill.cli", "verify", "in.jsonl", "-o", "out.jsonl", *more]
        done = subprocess.run(command, stdout=terminal, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
        os.close(terminal)
        assert done.returncode == 0
        with open(reader, "rb", closefd=True) as text:
            return text.read1(4096).decode()

    assert shown().split() == ["out.jsonl:", "2", "rows", "correct", "1", "wrong", "1"]
    assert json.loads(shown("--json"))["verdicts"] == {"correct": 1, "wrong": 1}


def broken(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "breaking.py").write_text(
        "import sys\nfrom distill.cli import app as cli\n"
        "@cli.app.command()\ndef fail(as_json: bool = cli.typer.Option(False, '--json')) -> None:\n"
        "    raise ZeroDivisionError('a division')\n"
        "cli.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "breaking", "fail", *more], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_bug_of_ours_exits_with_70_its_traceback_and_the_request_to_report_it(tmp_path: Path) -> None:
    done = broken(tmp_path)
    assert (done.returncode, done.stdout) == (70, "")
    assert "Traceback (most recent call last)" in done.stderr
    assert "internal error: ZeroDivisionError: a division" in done.stderr
    assert "please report it" in done.stderr
    done = broken(tmp_path, "--json")
    assert done.returncode == json.loads(done.stdout)["error"]["exit_code"] == 70


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("1 / 0", 70, "ZeroDivisionError"), ("os.kill(os.getpid(), 9)", 3, "was killed by signal 9")],
)
def test_a_bug_in_a_stages_process_exits_with_70_and_a_killed_one_with_3(
    distill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, said: str
) -> None:
    monkeypatch.setattr(Sample, "takes_accelerator", True)  # so that it has a process of its own
    program = f"import os; from distill.stages.sample import Sample; Sample.run = lambda *_: {fault}; main()"
    monkeypatch.setattr("distill.runs.process.BOOT", BOOT.removesuffix("main()") + program)
    answer = distill("run", SMOKE, "--runs", tmp_path, "--until", "sample", *SUMMING, "--json")
    error = answer.json["error"]
    assert answer.code == error["exit_code"] == code
    assert said in error["what"]
    assert ("report it" in error["hint"]) is (code == 70)


@pytest.mark.slow
def test_a_reader_that_has_left_causes_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "distill.cli", "licences", "mit"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")  # typer's answer


@pytest.mark.slow
def test_show_prints_a_run_whose_endpoint_reports_no_token_counts(distill, tmp_path: Path) -> None:
    run = make_run(tmp_path, [trace(0)])
    manifest = run / "stages" / "evaluate" / "k2" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mean_tokens": 12.5', '"mean_tokens": null'))
    answer = distill("show", run)
    assert answer.code == 0
    assert "student after" in answer.out
    assert {row["mean_tokens"] for row in json.loads(distill("show", run, "--json").out)["scores"]} == {None}


@pytest.mark.slow
def test_show_verify_finds_a_file_that_was_changed_resized_or_removed(distill, tmp_path: Path) -> None:
    assert distill("run", SMOKE, "--runs", tmp_path, "--until", "prepare").code == 0
    answer = distill("show", tmp_path, "--verify")
    assert answer.code == 0
    assert "every file of every finished stage matches" in answer.out
    assert json.loads(distill("show", tmp_path, "--verify", "--json").out)["problems"] == []
    assert "problems" not in json.loads(distill("show", tmp_path, "--json").out)
    (config,) = tmp_path.glob("*/stages/prepare/*/model/config.json")
    text = config.read_text()
    for content in (text.swapcase(), text + " ", None):
        config.unlink() if content is None else config.write_text(content)
        answer = distill("show", tmp_path, "--verify")
        assert answer.code == 1
        assert str(config) in answer.err
        (problem,) = json.loads(distill("show", tmp_path, "--verify", "--json").out)["problems"]
        assert str(config) in problem


def test_progress_without_a_terminal_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("distill.cli.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    shown = io.StringIO()
    with StageProgress(Console(file=shown, width=200)) as progress:
        report = progress.stage_begins("sample")
        for done, second in (
            (1000, 100),
            (1010, 105),
            (1100, 120),
            (1100, 121),
            (10, 150),
            (20, 160),
        ):  # 1,000 were there before
            now[0] = second
            report(done, 2000, "4 cut")
    assert shown.getvalue().splitlines() == [
        "sample: begins",
        "sample: 1,100 of 2,000, 5.0/s, 0:03:00 left, 4 cut",
        "sample: 10 of 2,000, 4 cut",  # it counts anew
        "sample: 20 of 2,000, 1.0/s, 0:33:00 left, 4 cut",
    ]


def test_progress_of_a_transfer_tells_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("distill.cli.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    shown = io.StringIO()
    with TransferProgress(Console(file=shown, width=200)) as progress:
        for step, done, second in (("upload", 1, 100), ("upload", 5_000_000, 105), ("upload", 30_000_000, 115),
                                   ("verify", 1, 116)):  # fmt: skip
            now[0] = second
            progress(step, done, 120_000_000)
    assert shown.getvalue().splitlines() == [
        "upload: 120.0 MB",
        "upload: 30.0 MB of 120.0 MB, 2.0 MB/s, 0:00:45 left",
        "verify: 120.0 MB",
    ]
    shown = io.StringIO()
    with TransferProgress(Console(file=shown, width=200, force_terminal=True)) as progress:
        progress("upload", 30_000_000, 120_000_000)
    assert "30.0/120.0 MB" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.getvalue())


def test_progress_on_a_terminal_is_a_bar_with_rate_and_time_left() -> None:
    shown = io.StringIO()
    bar = re.compile(r"sample .* \d+/5000 +\d+\.\d/s +\S+ left \d+:\d\d:\d\d")
    deadline = time.monotonic() + 60
    with StageProgress(Console(file=shown, width=200, force_terminal=True)) as progress:
        report = progress.stage_begins("sample")
        for done in range(1, 5000):
            report(done, 5000)
            if bar.search(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.getvalue())) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
    assert bar.search(re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.getvalue()))
