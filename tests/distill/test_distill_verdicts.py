"""What stands beside the rules' verdicts in a run: format, votes, a judge, the sheet."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from distill.stages.work import do_verify, read_rows
from hostile_endpoint import Call, serving
from waiting import line_count, until

from distill.check.check import check_recipe
from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.release.facts import verification_text
from distill.release.lineage import planned_lineage
from distill.report.build import build_report
from distill.runs.store import Artefact, StageContext, current_artefacts
from distill.stages.pipeline import run
from distill.stages.verdicts import JUDGE
from licensing.audit import audit
from licensing.errors import InputError
from synth.teachers.config import FakeTeacher
from synth.verify.config import JudgeConfig, MajorityConfig, VerifyConfig

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
GOLD = {"id": "g", "prompt": "6 * 7?", "answer": "42", "kind": "math", "source": "s", "license": "mit"}
NONE = {"id": "n", "prompt": "What is a half?", "answer": None, "kind": "math", "source": "s", "license": "mit"}


def samples(name: str, answers: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"request_id": f"{name}{at}", "prompt_id": name, "sample_index": at,
         "text": f"<think>a</think>\\boxed{{{text}}}", "finish_reason": "stop",
         "prompt_tokens": 3, "completion_tokens": 5, "model": "t", "engine": "e"}
        for at, text in enumerate(answers)
    ]  # fmt: skip


def verified(
    tmp_path: Path, config: VerifyConfig, problems: list[dict[str, Any]], rows: list[dict[str, Any]], key: str = "k"
) -> tuple[list[dict[str, Any]], dict[str, Any], Path]:
    raw = tmp_path / "raw"
    raw.mkdir(exist_ok=True)
    for name, lines in (("prompts", problems), ("samples", rows)):
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    stages = tmp_path / "stages" / "verify"
    out, scratch = stages / key, tmp_path / "scratch" / f"verify-{key}"
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    place = StageContext(out, scratch, tmp_path, lambda done, total=None, note="": None, stages)
    manifest = {"facts": {"rows_out": len(rows)}}
    facts = do_verify(place, config, Artefact("sample", "k", raw, "d", manifest))
    return list(read_rows(out / "traces.jsonl")), facts, out


def test_rows_without_a_recipe_for_more_have_no_more_fields(tmp_path: Path) -> None:
    rows, facts, out = verified(tmp_path, VerifyConfig(workers=1), [GOLD], samples("g", ["42", "43"]))
    assert set(rows[0]) - set(GOLD) - set(samples("g", ["1"])[0]) == {
        "response",
        "verdict",
        "score",
        "extracted",
        "reason",
    }
    assert set(facts) == {"rows_in", "rows_out", "verdicts"}
    assert [path.name for path in out.iterdir()] == ["traces.jsonl"]
    assert set(VerifyConfig().model_dump()) == {"workers", "timeout_s", "memory_mb"}, "the stage's key is what it was"


def test_a_voted_gold_is_marked_in_every_row_and_never_mixed_with_gold_verdicts(tmp_path: Path) -> None:
    rows = samples("g", ["42", "41", "41", "41"]) + samples("n", ["1/2", "0.5", "\\frac{1}{2}", "2"])
    rows.sort(key=lambda row: row["sample_index"])  # traces brought along may come in any order
    config = VerifyConfig(workers=1, majority=MajorityConfig())
    found, facts, out = verified(tmp_path, config, [GOLD, NONE], rows)
    gold, voted = ([row for row in found if row["prompt_id"] == name] for name in "gn")
    assert [row["verdict"] for row in gold] == ["correct", "wrong", "wrong", "wrong"]
    assert not [row for row in gold if "majority" in row]
    assert [row["verdict"] for row in voted] == ["correct", "correct", "correct", "wrong"]
    assert {json.dumps(row["majority"]) for row in voted} == {
        json.dumps({"answer": voted[0]["majority"]["answer"], "votes": 3, "samples": 4, "share": 0.75})
    }
    assert {row["answer"] for row in voted} == {None}, "a vote is no gold answer"
    assert facts["verdicts"] == {"correct": 1, "correct (voted)": 3, "wrong": 3, "wrong (voted)": 1}
    assert facts["majority"] == {"problems": 1, "elected": 1}
    (entry,) = read_rows(out / "disagreements.jsonl")
    assert (entry["disagreement"], entry["gold"]) == ("gold answer against the majority", "42")
    assert (entry["majority"]["answer"], entry["majority"]["votes"]) == ("41", 3)


def test_where_nothing_is_elected_the_rows_are_errors_with_the_reason(tmp_path: Path) -> None:
    found, facts, _ = verified(
        tmp_path, VerifyConfig(workers=1, majority=MajorityConfig()), [NONE], samples("n", ["1", "2", "3"])
    )
    assert {row["verdict"] for row in found} == {"error"}
    assert "no gold answer, and 3 answers have 1 votes each" in found[0]["reason"]
    assert found[0]["majority"]["answer"] is None
    assert facts["majority"] == {"problems": 1, "elected": 0}


def test_the_judge_stands_beside_the_rules_and_the_sheet_shows_both(tmp_path: Path) -> None:
    judge = JudgeConfig(teacher=FakeTeacher(accuracy=0.5, latency_s=0, seed=3), counts="judge")
    config = VerifyConfig(workers=1, judge=judge)
    rows = samples("g", ["42", *(str(n) for n in range(100, 160))])
    found, facts, out = verified(tmp_path, config, [GOLD], rows)
    assert [row["request_id"] for row in found] == [row["request_id"] for row in rows]
    assert [row["verdict"] for row in found] == ["correct"] + ["wrong"] * 60, "never over the rules"
    overturned = [row for row in found if row["judge_verdict"] == "correct"]
    assert 10 < len(overturned) < 50
    assert {row["counts_as"] for row in overturned} == {"correct"}
    assert facts["judge"]["said"] == {"wrong": {"correct": len(overturned), "wrong": 60 - len(overturned)}}
    assert facts["judge"]["counts_as"]["correct"] == 1 + len(overturned)
    assert facts["tokens"] == facts["judge"]["tokens"] > 0
    sheet = list(read_rows(out / "disagreements.jsonl"))
    assert {row["request_id"] for row in sheet} == {row["request_id"] for row in overturned}
    assert sheet[0]["rules_extracted"] == sheet[0]["judge_extracted"]
    assert (sheet[0]["rules_verdict"], sheet[0]["judge_verdict"]) == ("wrong", "correct")
    told = (out / "disagreements.md").read_text()
    assert f"- rules wrong, judge correct: {len(overturned)} rows" in told
    answers = list(read_rows(out / JUDGE / "judgements.jsonl"))
    assert len(answers) == 60
    assert {row["text"] for row in answers} == {row["judge_text"] for row in found[1:]}


def test_another_way_to_count_asks_the_judge_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(counts: Any) -> VerifyConfig:
        teacher = FakeTeacher(accuracy=0.5, latency_s=0)
        return VerifyConfig(workers=1, judge=JudgeConfig(teacher=teacher, counts=counts))

    rows = samples("g", [str(n) for n in range(100, 110)])
    first, _, out = verified(tmp_path, config("rules"), [GOLD], rows, "one")
    before = (out / JUDGE / "judgements.jsonl").read_bytes()

    def refuses(*_: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("synth.teachers.fake.FakeEngine.submit", refuses)
    second, _, out = verified(tmp_path, config("either"), [GOLD], rows, "two")
    assert [row["judge_text"] for row in second] == [row["judge_text"] for row in first]
    assert (out / JUDGE / "judgements.jsonl").read_bytes() == before


def test_the_sheet_is_bounded_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    from synth.verify.disagreement_report import DisagreementReport

    rows = [{"request_id": f"r{n}", "response": "`|\n# \\boxed{1}"} for n in range(500)]
    for folder, ordered in (("a", rows), ("b", rows[::-1])):
        (tmp_path / folder).mkdir()
        sheet = DisagreementReport(most=7)
        for row in ordered:
            sheet.offer("rules wrong, judge correct", row, {"gold": "1"})
        sheet.write(tmp_path / folder)
    one, other = (list(read_rows(tmp_path / name / "disagreements.jsonl")) for name in "ab")
    assert len(one) == 7
    assert one == other
    text = (tmp_path / "a" / "disagreements.md").read_text()
    assert "500 rows, 7 of them here" in text
    assert "\n# " not in text.removeprefix("# "), "no text of a model is a heading"


def test_what_another_run_found_does_not_count_here(tmp_path: Path) -> None:
    forged = GOLD | {
        "counts_as": "correct",
        "judge_verdict": "correct",
        "majority": {"answer": "43"},
        "format_verdict": "ok",
    }
    (row,), facts, _ = verified(tmp_path, VerifyConfig(workers=1), [forged], samples("g", ["43"]))
    assert not {"counts_as", "judge_verdict", "majority", "format_verdict"} & set(row)
    assert facts["verdicts"] == {"wrong": 1}


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


def test_the_card_names_the_judge_and_the_majority_vote(tmp_path: Path) -> None:
    judge = JudgeConfig(teacher=FakeTeacher(name="a/judge"), counts="either")
    statistics = {"by_kind": [{"name": "math"}, {"name": "open"}]}
    text = verification_text(VerifyConfig(judge=judge, majority=MajorityConfig()), statistics, {})
    assert text is not None
    assert "unparseable or wrong, the model a/judge judges too, and an answer counts as correct where either" in text
    assert "the answer of most of their samples" in text
    assert "open questions were not verified" in text


# --- a run -------------------------------------------------------------------------------------------------------


def test_a_run_curates_by_what_counts_and_the_report_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    rows = [
        {"prompt": f"{n} + 1?", "kind": "math", "license": "mit", "model": "t",
         "response": f"<think>a</think>\\boxed{{{text}}}"}
        | ({"answer": str(n + 1)} if n % 2 else {})
        for n in range(8)
        for text in (n + 1, f"{n + 1}.0", n + 2, f"{n + 1}.00")
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verify = {"workers": 1, "format": {"think": True}, "majority": {},
              "judge": {"teacher": {"kind": "fake", "accuracy": 0.0, "latency_s": 0}, "counts": "either"}}  # fmt: skip
    sets = [
        "prompts=null", f"sample={json.dumps({'source': 'traces', 'path': str(path)})}", f"verify={json.dumps(verify)}",
        'teacher={"kind": "offline", "model": "t", "license": "mit"}', "evaluate.teacher=false",
        "curate={}", "label.languages=null",
    ]  # fmt: skip
    loaded = load_recipe(SMOKE, sets)
    run(loaded, tmp_path / "runs", until="curate")
    folder = tmp_path / "runs" / loaded.run_name()
    artefacts = current_artefacts(folder)
    assert artefacts["verify"].facts["format"] == {"ok": 32}
    traces = list(read_rows(artefacts["curate"].path / "traces.jsonl"))
    wrong = [row for row in traces if row["verdict"] == "wrong"]
    assert len(wrong) == 8
    for row in wrong:
        voted = "majority" in row
        assert row["kept"] is not voted, "the judge overturns the gold verdicts; a vote has no gold to compare with"
        assert row["labels"]["voted_gold"]["value"] if voted else row["labels"]["judge"]["value"] == "correct"
    train = list(read_rows(artefacts["curate"].path / "train.jsonl"))
    assert {row["verdict"] for row in train if row["counts_as"] == "correct"} == {"correct", "wrong"}
    assert all(("majority" in row) == (row["answer"] is None) for row in train)
    told = build_report(folder).markdown.read_text()
    assert "rules wrong, judge correct" in told
    assert "disagreements.md" in told
    fewer = load_recipe(SMOKE, [*sets[:-2], 'curate={"filters": {"voted_gold": true}}', "label.languages=null"])
    run(fewer, tmp_path / "runs", until="curate")
    train = list(read_rows(current_artefacts(folder)["curate"].path / "train.jsonl"))
    assert train
    assert not [row for row in train if "majority" in row]


def test_problems_without_an_answer_are_sampled_to_the_end_and_get_no_pass_rate_of_sampling(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(GOLD) + "\n" + json.dumps(NONE) + "\n")
    sample = {"policy": {"kind": "adaptive", "target_correct": 1, "max_samples": 3}, "max_new_tokens": 64}
    sets = [f"prompts={json.dumps({'kind': 'jsonl', 'path': str(path)})}", f"sample={json.dumps(sample)}",
            'teacher={"kind": "fake", "accuracy": 1.0, "latency_s": 0}',
            'verify={"workers": 1, "majority": {}}']  # fmt: skip
    loaded = load_recipe(SMOKE, sets)
    run(loaded, tmp_path / "runs", until="verify")
    verify = current_artefacts(tmp_path / "runs" / loaded.run_name())["verify"]
    rows = list(read_rows(verify.path / "traces.jsonl"))
    assert [row["prompt_id"] for row in rows] == ["g", "n", "n", "n"]
    assert [row.get("pass_rate", "none") for row in rows] == [1.0, "none", "none", "none"]
    assert verify.facts["verdicts"] == {"correct": 1, "error (voted)": 3}
    with pytest.raises(InputError, match="needs an `answer`"):
        run(load_recipe(SMOKE, sets[:-1]), tmp_path / "runs", until="verify")


@pytest.mark.slow
def test_a_run_killed_while_it_judges_pays_for_no_answer_twice(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    rows = [
        {
            "prompt": "6 * 7?",
            "kind": "math",
            "license": "mit",
            "model": "t",
            "answer": "42",
            "response": f"\\boxed{{{n}}}",
        }
        for n in range(100, 112)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    killed = threading.Event()

    def answers_five(call: Call) -> None:
        if len(endpoint.bodies) > 5:
            killed.wait(200)
        call.answer("\\boxed{no}")

    with serving(answers_five) as endpoint:
        teacher = {"kind": "openai", "model": "m", "base_url": endpoint.url, "license": "mit", "concurrency": 1}
        sets = {"prompts": None, "sample": {"source": "traces", "path": str(path)}, "evaluate.teacher": False,
                "teacher": {"kind": "offline", "model": "t", "license": "mit"},
                "verify": {"workers": 1, "judge": {"teacher": teacher}}}  # fmt: skip
        command = [sys.executable, "-m", "distill.cli", "run", str(SMOKE), "--runs", str(tmp_path / "runs"),
                   "--until", "verify", "--json"]  # fmt: skip
        for name, value in sets.items():
            command += ["--set", f"{name}={json.dumps(value)}"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            (log,) = until(
                lambda: [
                    f for f in tmp_path.glob(f"runs/*/scratch/verify-*/{JUDGE}/judgements.jsonl") if line_count(f) >= 3
                ],
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
    assert {row["judge_verdict"] for row in read_rows(Path(stage["path"]) / "traces.jsonl")} == {"wrong"}
