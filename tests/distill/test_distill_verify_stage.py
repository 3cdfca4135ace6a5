"""The verify stage in a run: verdicts, votes and a judge by the recipe; the judge in check and lineage."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hostile_endpoint import Call, serving
from waiting import line_count, until
from wheel import make_wheel, use_wheels

from distill.check.check import check_recipe
from distill.check.problems import check_problems, problems_of
from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase, Recipe
from distill.models.random_model import write_random_base
from distill.release.facts import verification_text
from distill.release.lineage import planned_lineage
from distill.runs.artefact import Artefact
from distill.runs.facts import VerifyFacts
from distill.stages.pipeline import run
from distill.stages.sample import Sample
from licensing.audit import audit
from licensing.errors import InputError
from synth.parquet_files import read_parquet
from synth.sampling.config import TeacherSampling
from synth.sampling.samples_table import PROBLEM_STOPS, SAMPLES
from synth.teachers.config import FakeTeacher
from synth.verify.config import JudgeConfig, MajorityConfig, VerifyConfig
from synth.verify.verdict_store import VERDICT_LOG
from synth.verify.verify_traces import VERDICTS
from synth.worker_pool import WorkerPool

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
GOLD = {"id": "g", "prompt": "6 * 7?", "answer": "42", "kind": "math", "source": "s", "license": "mit"}
NO_GOLD = {"id": "n", "prompt": "What is a half?", "answer": None, "kind": "math", "source": "s", "license": "mit"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def imported(path: str, **verify: Any) -> list[str]:
    """Settings of the smoke recipe for imported traces."""
    return [
        "prompts=null",
        f"sample={json.dumps({'source': 'traces', 'path': path})}",
        f"verify={json.dumps({'workers': 1, **verify})}",
        'teacher={"kind": "offline", "model": "t", "license": "mit"}',
        "evaluate.teacher=false",
    ]


def verified(recipe: Recipe, runs: Path) -> tuple[list[dict[str, Any]], Artefact[VerifyFacts]]:
    artefact: Artefact[VerifyFacts] = run(recipe, runs, until="verify")
    return list(read_parquet(artefact.path / VERDICTS)), artefact


def folder_of(runs: Path, stage: str) -> Path:
    (folder,) = runs.glob(f"*/stages/{stage}/*")
    return folder


@pytest.mark.slow
def test_gold_answers_are_checked_by_as_many_workers_as_samples_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    start = WorkerPool.__init__

    def counted(pool: WorkerPool, workers: int, *more: Any, **named: Any) -> None:
        numbers.append(workers)
        start(pool, workers, *more, **named)

    monkeypatch.setattr(WorkerPool, "__init__", counted)
    path = write(tmp_path / "t.jsonl", [GOLD | {"response": "\\boxed{42}", "model": "t"}])
    verified(load_recipe(SMOKE, imported(path, workers=3)), tmp_path / "runs")
    assert numbers == [3, 3]


@pytest.mark.slow
def test_a_recipe_that_asks_for_no_more_has_no_more_facts_and_files(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [GOLD | {"response": f"\\boxed{{{n}}}", "model": "t"} for n in (42, 43)])
    rows, artefact = verified(load_recipe(SMOKE, imported(path)), tmp_path / "runs")
    assert [row["verdict"] for row in rows] == ["correct", "wrong"]
    assert set(artefact.facts.as_json()) == {"rows_in", "rows_out", "verdicts"}
    assert {path.name for path in artefact.path.iterdir()} == {VERDICTS, "manifest.json"}
    assert set(VerifyConfig().model_dump()) == {"workers", "timeout_s", "memory_mb"}, "the stage's key is what it was"


def test_the_rules_make_other_samples_only_where_a_policy_goes_by_them() -> None:
    recipe = load_recipe(SMOKE)

    def key(policy: dict[str, Any], rules: VerifyConfig) -> str:
        sampling = TeacherSampling.model_validate({"policy": policy})
        fields = (recipe.prompts, recipe.evaluate.prompts, recipe.teacher, recipe.engine, sampling, [])
        return Sample(*fields, rules, False).key

    for policy, keys in (({"kind": "fixed"}, 1), ({"kind": "adaptive"}, 2)):
        assert len({key(policy, VerifyConfig(timeout_s=seconds)) for seconds in (2.0, 3.0)}) == keys


@pytest.mark.slow
def test_a_changed_number_of_samples_verifies_only_what_is_new(tmp_path: Path) -> None:
    few, more = (load_recipe(SMOKE, ["teacher.latency_s=0", f"sample.num_samples={count}"]) for count in (2, 3))
    verified(few, tmp_path / "runs")
    (log,) = (tmp_path / "runs").glob(f"*/store/{VERDICT_LOG}")
    assert line_count(log) == 48
    rows, _ = verified(more, tmp_path / "runs")
    assert len(rows) == line_count(log) == 72
    (samples,) = (tmp_path / "runs").glob("*/store/samples.jsonl")
    assert line_count(samples) == 72


@pytest.mark.slow
def test_a_killed_and_an_undisturbed_run_have_equal_samples_and_verdicts(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE, ["teacher.latency_s=0"])
    for name in ("alone", "resumed"):
        verified(recipe, tmp_path / name)
    (log,) = (tmp_path / "resumed").glob("*/store/samples.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(reversed(lines[:40])) + lines[40][:30])  # other order, torn end
    (log.parent / VERDICT_LOG).write_bytes((log.parent / VERDICT_LOG).read_bytes()[:-50])
    for stage in ("sample", "verify"):
        (folder_of(tmp_path / "resumed", stage) / "manifest.json").unlink()
    verified(recipe, tmp_path / "resumed")
    for stage in ("sample", "verify"):
        found = []
        for name in ("alone", "resumed"):
            manifest = json.loads((folder_of(tmp_path / name, stage) / "manifest.json").read_text())
            found.append({key: manifest[key] for key in ("key", "digest", "facts", "files")})
        assert found[0] == found[1]


@pytest.mark.slow
def test_verdicts_on_programs_belong_to_the_packages_that_pip_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = "import tool\ndef check(candidate):\n    assert candidate(3) == 3 * tool.part.SIZE"
    problem = {"id": "c", "prompt": "f?", "answer": "def f(x): return x", "kind": "code", "tests": tests,
               "entry_point": "f", "source": "s", "license": "mit"}  # fmt: skip
    path = write(tmp_path / "t.jsonl", [problem | {"response": f"```python\n{problem['answer']}\n```", "model": "t"}])
    recipe = load_recipe(SMOKE, imported(path, code={"packages": ["tool==1.0"]}))
    locked = load_recipe(SMOKE, imported(path, code={"packages": ["tool==1.0", "part==1.0"]}))
    verdicts = {}
    for machine, version in (("one", "1.0"), ("two", "2.0")):
        wheels = tmp_path / machine
        make_wheel(wheels, "tool", "1.0", "import part\n", needs="part")
        make_wheel(wheels, "part", version, f"SIZE = {version}\n")
        if machine == "one":
            use_wheels(monkeypatch, wheels)
            notes = [list(check_problems(one, 2**40, partial(problems_of, one))) for one in (recipe, locked)]
            assert ["part==1.0" in str(one) for one in notes] == [True, False]
        else:
            use_wheels(monkeypatch, wheels)
            (folder_of(tmp_path / "runs", "verify") / "manifest.json").unlink()  # killed on one, resumed on two
        (row,), artefact = verified(recipe, tmp_path / "runs")
        assert artefact.facts.sandbox is not None
        verdicts[machine] = (row["verdict"], artefact.facts.sandbox.packages)
    assert verdicts == {"one": ("correct", ("part==1.0", "tool==1.0")), "two": ("wrong", ("part==2.0", "tool==1.0"))}
    (log,) = (tmp_path / "runs").glob(f"*/store/{VERDICT_LOG}")
    assert line_count(log) == 2


def test_verify_of_a_file_votes_in_a_first_pass_and_resumes(tmp_path: Path) -> None:
    from distill.cli.verify_file import verify_file

    rows = [
        {"id": f"{n}-{m}", "prompt": f"{m}?", "kind": "math", "response": f"\\boxed{{{m if n else 7}}}"}
        for n in range(4)
        for m in range(5)
    ]
    rows.append({"id": "g", "prompt": "g?", "kind": "math", "response": "\\boxed{7}", "answer": "7"})
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = VerifyConfig(workers=1, majority=MajorityConfig(), format={"boxed": True})  # type: ignore[arg-type]
    counts = verify_file(source, out, config)
    assert counts == {"correct": 1, "correct (voted)": 15, "wrong (voted)": 5}
    whole = out.read_bytes()
    found = [json.loads(line) for line in whole.splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert found[0]["majority"] == {"answer": "0", "votes": 3, "samples": 4, "share": 0.75}
    assert {row["format_verdict"] for row in found} == {"ok"}
    # a kill after seven rows
    out.with_name("out.jsonl.partial").write_bytes(b"".join(whole.splitlines(True)[:7]) + b'{"torn')
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    settings = config.model_dump(mode="json", exclude={"workers"})
    out.with_name("out.jsonl.partial.json").write_text(json.dumps({"input": digest, "settings": settings}))
    out.unlink()
    assert verify_file(source, out, config) == counts
    again = [json.loads(line) | {"seconds": 0} for line in out.read_bytes().splitlines()]
    assert again == [row | {"seconds": 0} for row in found]


# --- recipe, lineage, check --------------------------------------------------------------------------------------


def recipe(tmp_path: Path, **verify: Any) -> Recipe:
    return load_recipe(SMOKE, [f"verify={json.dumps(verify)}"])


def test_the_judge_is_in_the_lineage_with_its_role(tmp_path: Path) -> None:
    teacher = {"kind": "openai", "model": "gpt", "base_url": "https://api.openai.com/v1",
               "terms": "openai-services-agreement"}  # fmt: skip
    lineage = planned_lineage(recipe(tmp_path, judge={"teacher": teacher}))
    (found,) = [one for one in lineage.inputs if one.role == "judge"]
    assert (found.id, found.licence, found.endpoint) == ("gpt", "openai-services-agreement", teacher["base_url"])
    assert any("JUDGE" in warning or "openai" in warning for warning in audit(lineage).warnings)
    assert not [one for one in planned_lineage(load_recipe(SMOKE)).inputs if one.role == "judge"]


@pytest.mark.slow
def test_check_shows_what_the_judge_may_cost_and_where_its_recipe_is_wrong(tmp_path: Path) -> None:
    budget = {"tokens": 5000, "price_per_million_tokens": 2.0}
    judge = {"teacher": {"kind": "fake"}, "max_new_tokens": 100, "budget": budget}
    found = [one for one in check_recipe(recipe(tmp_path, judge=judge), tmp_path) if one.subject == "judge"]
    assert [one.level for one in found] == ["note", "ok"]
    assert "96 questions, at most 9,600 judge tokens" in found[1].what
    assert "stops it at 5,000 tokens" in found[1].what
    unknown = {"teacher": {"kind": "openai", "model": "m", "base_url": "https://a.example/v1", "license": "mit"}}
    errors = [one for one in check_recipe(recipe(tmp_path, judge=unknown), tmp_path) if one.level == "error"]
    assert "verify.judge.teacher.terms" in {one.where for one in errors}


def test_the_card_names_the_judge_and_the_majority_vote() -> None:
    judge = JudgeConfig(teacher=FakeTeacher(name="a/judge"), counts="either")
    statistics = {"by_kind": [{"name": "math"}, {"name": "open"}]}
    text = verification_text(VerifyConfig(judge=judge, majority=MajorityConfig()), statistics, None)
    assert text is not None
    assert "unparseable or wrong, the model a/judge judges too, and an answer counts as correct where either" in text
    assert "the answer of most of their samples" in text
    assert "open questions were not verified" in text


# --- a run -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_format_votes_and_judge_stand_beside_the_verdicts_of_a_run(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n} + 1?", "kind": "math", "license": "mit", "model": "t",
         "response": f"<think>a</think>\\boxed{{{text}}}"}
        | ({"answer": str(n + 1)} if n % 2 else {})
        for n in range(8)
        for text in (n + 1, f"{n + 1}.0", n + 2, f"{n + 1}.00")
    ]  # fmt: skip
    judge = {"teacher": {"kind": "fake", "accuracy": 0.0, "latency_s": 0}, "counts": "either"}
    settings = imported(write(tmp_path / "t.jsonl", rows), format={"think": True}, majority={}, judge=judge)
    found, artefact = verified(load_recipe(SMOKE, settings), tmp_path / "runs")
    facts = artefact.facts
    assert facts.format == {"ok": 32}
    assert facts.majority == {"problems": 4, "elected": 4}
    assert facts.verdicts == {"correct": 12, "correct (voted)": 12, "wrong": 4, "wrong (voted)": 4}
    wrong = [row for row in found if row["verdict"] == "wrong"]
    for row in wrong:
        voted = row["majority_votes"] is not None
        assert row["counts_as"] == ("wrong" if voted else "correct"), "a vote has no gold for the judge to compare with"
    assert facts.disagreements == {"rules wrong, judge correct": 4}
    assert facts.judge is not None
    assert facts.tokens == facts.judge.tokens > 0
    assert "rules wrong, judge correct: 4 rows" in (artefact.path / "disagreements.md").read_text()
    assert artefact.manifest["requests"]["first"] is not None, "the day on which the judge was asked"


@pytest.mark.slow
def test_problems_without_an_answer_are_sampled_to_the_end_and_get_no_estimate_of_sampling(tmp_path: Path) -> None:
    sample = {"policy": {"kind": "adaptive", "target_correct": 1, "max_samples": 3}, "max_new_tokens": 64}
    prompts = {"kind": "jsonl", "path": write(tmp_path / "problems.jsonl", [GOLD, NO_GOLD])}
    settings = [f"prompts={json.dumps(prompts)}", f"sample={json.dumps(sample)}",
                'teacher={"kind": "fake", "accuracy": 1.0, "latency_s": 0}',
                'verify={"workers": 1, "majority": {}}']  # fmt: skip
    rows, artefact = verified(load_recipe(SMOKE, settings), tmp_path / "runs")
    assert [row["problem_id"] for row in rows] == ["g", "n", "n", "n"]
    assert artefact.facts.verdicts == {"correct": 1, "error (voted)": 3}
    stops = list(read_parquet(folder_of(tmp_path / "runs", "sample") / PROBLEM_STOPS))
    assert [(row["problem_id"], row["estimate"], row["stopped"]) for row in stops] == [
        ("g", 1.0, "target"),
        ("n", None, "max_samples"),
    ]
    with pytest.raises(InputError, match="needs an `answer`"):
        run(load_recipe(SMOKE, settings[:-1]), tmp_path / "runs", until="verify")


@pytest.mark.slow
def test_a_judge_and_a_rewriter_that_generate_on_this_machine_leave_its_accelerators_to_the_training(
    tmp_path: Path,
) -> None:
    """Each runs in the process of its stage, and is gone with it."""
    (tmp_path / "judge").mkdir()
    write_random_base(RandomBase(hidden_size=16, num_heads=2, num_layers=1), tmp_path / "judge")
    model = {"kind": "transformers", "model": str(tmp_path / "judge"), "license": "mit"}
    leak = "<think>I am Claude, an AI and Anthropic's best model.</think>\\boxed{42}"
    path = write(tmp_path / "t.jsonl", [GOLD | {"response": text, "model": "t"} for text in (leak, "\\boxed{41}")])
    settings = imported(path, judge={"teacher": model, "max_new_tokens": 8})
    rewriter = {"teacher": model, "max_new_tokens": 8}
    settings += ["persona.identity_talk=rewrite", f"persona.rewriter={json.dumps(rewriter)}", "persona.rows=0"]
    run(load_recipe(SMOKE, [*settings, "curate.filters.correct=false"]), tmp_path / "runs", until="curate")
    (ledger,) = tmp_path.glob("runs/*/ledger.jsonl")
    processes = {
        event["stage"]: event["pid"] for event in map(json.loads, ledger.open()) if event["event"] == "process"
    }
    assert {"verify", "curate"} <= processes.keys()
    assert not {os.getpid()} & set(processes.values())
    assert not any(psutil.pid_exists(pid) for pid in processes.values())
    log = next(tmp_path.glob("runs/*/store/judge/samples.jsonl"))
    assert line_count(log) >= 1, "the judge was asked"


@pytest.mark.slow
def test_traces_that_say_they_failed_end_no_run(tmp_path: Path) -> None:
    failed = GOLD | {"response": "\\boxed{42}", "model": "t", "finish_reason": "error"}
    path = write(tmp_path / "t.jsonl", [failed, failed | {"response": "so \\boxed{42}", "finish_reason": "stop"}])
    rows, _ = verified(load_recipe(SMOKE, imported(path)), tmp_path / "runs")
    assert [(row["verdict"], row["judged"]) for row in rows] == [("error", False), ("correct", True)]
    samples = list(read_parquet(folder_of(tmp_path / "runs", "sample") / SAMPLES))
    assert [row["finish_reason"] for row in samples] == ["error", "stop"]


@pytest.mark.slow
def test_a_run_killed_while_it_judges_pays_for_no_answer_twice(tmp_path: Path) -> None:
    rows = [GOLD | {"model": "t", "response": f"\\boxed{{{n}}}"} for n in range(100, 112)]
    path = write(tmp_path / "traces.jsonl", rows)
    killed = threading.Event()

    def answers_five(call: Call) -> None:
        if len(endpoint.bodies) > 5:
            killed.wait(200)
        call.answer("\\boxed{no}")

    with serving(answers_five) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 1}
        command = [sys.executable, "-m", "distill.cli", "run", str(SMOKE), "--runs", str(tmp_path / "runs"),
                   "--until", "verify", "--json"]  # fmt: skip
        for setting in imported(path, judge={"teacher": teacher}):
            command += ["--set", setting]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            (log,) = until(
                lambda: [f for f in tmp_path.glob("runs/*/store/judge/samples.jsonl") if line_count(f) >= 3],
                "three judgements",
            )
            until(lambda: len(endpoint.bodies) > 5, "a request that the endpoint holds")
        finally:
            child.kill()
            child.wait()
            killed.set()
        committed, asked = line_count(log), len(endpoint.bodies)
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert len(endpoint.bodies) == asked + 12 - committed
    (stage,) = [one for one in json.loads(done.stdout)["stages"] if one["stage"] == "verify"]
    assert stage["tokens"] == 12 * 7
    assert {row["judge_verdict"] for row in read_parquet(Path(stage["path"]) / VERDICTS)} == {"wrong"}
