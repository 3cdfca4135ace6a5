"""Verdicts of traces: one row each, in order, computed once for a run; votes, a judge and disagreements beside them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sample_runs import draw, problems
from waiting import line_count, until

from licensing.files import read_rows
from synth.parquet_files import read_parquet
from synth.problems.problem import Prompt
from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.samples_table import write_problems
from synth.sampling.selection import write_samples
from synth.sampling.store import SampleStore
from synth.teachers.config import FakeTeacher
from synth.trace_set import TraceSet
from synth.verify.config import FormatConfig, JudgeConfig, MajorityConfig, VerifyConfig
from synth.verify.verdict import Verdict
from synth.verify.verdict_store import VERDICT_LOG, VerdictBasis, VerdictStore
from synth.verify.verify_traces import VERDICTS, VerifySummary, verify_traces

GOLD = {"id": "g", "prompt": "6 * 7?", "answer": "42", "kind": "math", "source": "s", "license": "mit"}
NO_GOLD = {"id": "n", "prompt": "What is a half?", "answer": None, "kind": "math", "source": "s", "license": "mit"}
TAGS = ("<think>", "</think>")


def samples(name: str, answers: Sequence[str], **changes: Any) -> list[dict[str, Any]]:
    return [
        {"request_id": f"{name}{at}", "problem_id": name, "sample_index": at, "teacher": "t", "engine": "e",
         "text": f"<think>a</think>\\boxed{{{text}}}", "finish_reason": "stop", "error": None, "prompt_tokens": 3,
         "completion_tokens": 5, "reasoning_tokens": None, "think_open": TAGS[0], "think_close": TAGS[1],
         "escalated": False, **changes}
        for at, text in enumerate(answers)
    ]  # fmt: skip


def stage(folder: Path, rows: Sequence[dict[str, Any]], *rows_of_problems: dict[str, Any], out: str = "out") -> None:
    """A finished sample stage with these samples."""
    (folder / out).mkdir(parents=True, exist_ok=True)
    prompts = [Prompt.model_validate(row, context={"allow_missing_gold": True}) for row in rows_of_problems or (GOLD,)]
    write_problems(folder / out, prompts)
    with SampleStore(folder / "store") as store:
        for row in rows:
            if row["request_id"] not in store:
                store.append({key: row[key] for key in ("request_id", "text", "finish_reason", "error",
                                                        "prompt_tokens", "completion_tokens", "engine")})  # fmt: skip
    write_samples(folder / out, rows)


def verified(
    folder: Path, config: VerifyConfig | None = None, *, out: str = "out", to: str = "verify"
) -> tuple[list[dict[str, Any]], VerifySummary]:
    with TraceSet(folder / out, folder / "store") as traces:
        summary = verify_traces(
            traces, config or VerifyConfig(workers=1), folder / to, folder / "store", folder / "scratch"
        )
    return list(read_parquet(folder / to / VERDICTS)), summary


def verdict_log(folder: Path) -> list[dict[str, Any]]:
    return list(read_rows(folder / "store" / VERDICT_LOG))


# --- the rules -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_trace_has_a_row_in_order_and_columns_that_nobody_asked_for_are_null(tmp_path: Path) -> None:
    rows = samples("g", ["42", "43", "x"]) + samples("o", ["Hello!"])
    rows[2]["text"] = "no idea"
    stage(tmp_path, rows, GOLD, {"id": "o", "prompt": "Hello!", "kind": "open", "source": "s"})
    found, summary = verified(tmp_path)
    assert [row["request_id"] for row in found] == ["g0", "g1", "g2", "o0"]
    assert [row["problem_id"] for row in found] == ["g", "g", "g", "o"]
    assert [row["verdict"] for row in found] == ["correct", "wrong", "unparseable", None]
    assert [row["judged"] for row in found] == [True, True, True, False]
    assert [(row["score"], row["extracted"]) for row in found[:2]] == [(1.0, "42"), (0.0, "43")]
    beside = {key for row in found for key, value in row.items() if value is not None}
    assert beside == {"request_id", "problem_id", "verdict", "judged", "score", "extracted", "reason"}
    assert summary.verdicts == {"correct": 1, "none": 1, "unparseable": 1, "wrong": 1}
    assert (summary.rows, summary.verified, summary.reused) == (4, 3, 0)
    assert [path.name for path in (tmp_path / "verify").iterdir()] == [VERDICTS]


def test_a_text_of_a_trace_is_in_the_store_and_nowhere_else(tmp_path: Path) -> None:
    rows = samples("g", ["42", "43"])
    for row in rows:
        row["text"] = f"<think>It begins here. {'a very long thought ' * 50}</think>{row['text'][-10:]}"
    stage(tmp_path, rows)
    judge = JudgeConfig(teacher=FakeTeacher(latency_s=0))
    verified(tmp_path, VerifyConfig(workers=1, judge=judge, majority=MajorityConfig()))
    holders = [
        path.relative_to(tmp_path).as_posix()
        for path in sorted(tmp_path.rglob("*"))
        if path.is_file() and b"It begins here" in path.read_bytes()  # disagreements quote the end of an answer
    ]
    assert holders == ["store/samples.jsonl"]
    assert not (tmp_path / "scratch" / VERDICTS).exists()


@pytest.mark.slow
def test_a_program_is_in_the_store_and_nowhere_else_and_equal_programs_are_told(tmp_path: Path) -> None:
    problem = {"id": "c", "prompt": "f?", "answer": None, "kind": "code", "entry_point": "f", "source": "s",
               "tests": "def check(candidate):\n    assert candidate(3) == 3"}  # fmt: skip
    rows = samples("c", ["x", "x", "x + 1"])
    for row in rows:
        body = row["text"].partition("{")[2].rstrip("}")
        row["text"] = f"<think>a</think>```python\ndef f(x):  # It begins here.\n    return {body}\n```"
    stage(tmp_path, rows, problem)
    found, _ = verified(tmp_path)
    assert [row["verdict"] for row in found] == ["correct", "correct", "wrong"]
    first, second, third = (row["extracted"] for row in found)
    assert re.fullmatch("sha256:[0-9a-f]{64}", first)
    assert first == second != third
    files = [path for path in tmp_path.rglob("*") if path.is_file() and b"It begins" in path.read_bytes()]
    assert files == [tmp_path / "store" / "samples.jsonl"]


def test_what_was_verified_while_sampling_is_not_verified_again(tmp_path: Path) -> None:
    policy = AdaptivePolicy(target_correct=2, max_samples=6)
    config = TeacherSampling(policy=policy, max_new_tokens=200)
    summary = draw(tmp_path, problems(10), config, FakeTeacher(latency_s=0, accuracy=0.5))
    assert len(verdict_log(tmp_path)) == summary.rows
    found, verification = verified(tmp_path)
    assert (verification.verified, verification.reused) == (0, summary.rows)
    assert len(verdict_log(tmp_path)) == summary.rows
    verdicts = {row["request_id"]: row["verdict"] for row in verdict_log(tmp_path)}
    assert [row["verdict"] for row in found] == [verdicts[row["request_id"]] for row in found]


def test_a_stored_verdict_is_used_and_a_changed_gold_or_rule_is_verified_anew(tmp_path: Path) -> None:
    stage(tmp_path, samples("g", ["42", "43"]))
    first, _ = verified(tmp_path)
    again, summary = verified(tmp_path, VerifyConfig(workers=2, format=FormatConfig(think=True)))
    assert (summary.verified, summary.reused) == (0, 2), "neither the number of workers nor the format is a rule"
    assert [row["verdict"] for row in again] == [row["verdict"] for row in first]
    stage(tmp_path, samples("g", ["42", "43"]), GOLD | {"answer": "43"})
    changed, summary = verified(tmp_path)
    assert [row["verdict"] for row in changed] == ["wrong", "correct"]
    assert (summary.verified, summary.reused) == (2, 0)
    _, summary = verified(tmp_path, VerifyConfig(workers=1, timeout_s=3.0))
    assert (summary.verified, summary.reused) == (2, 0)


def test_a_failed_request_has_no_verdict_for_or_against_and_no_verifier_sees_it(tmp_path: Path) -> None:
    failed = samples("g", ["42"], text="", finish_reason="error", error="ValueError: too long")
    stage(tmp_path, failed)
    (row,), summary = verified(tmp_path)
    assert (row["verdict"], row["judged"]) == ("error", False)
    assert row["reason"] == "the request failed: ValueError: too long"
    assert (summary.verified, verdict_log(tmp_path)) == (0, [])


def test_a_cut_trace_with_the_right_answer_is_judged(tmp_path: Path) -> None:
    stage(tmp_path, samples("g", ["42"], finish_reason="length"))
    (row,), _ = verified(tmp_path)
    assert (row["verdict"], row["judged"]) == ("correct", True)


@pytest.mark.slow
def test_half_a_surrogate_pair_in_an_answer_does_not_end_the_run(tmp_path: Path) -> None:
    stage(tmp_path, samples("g", ["\ud83d"]))
    (row,), _ = verified(tmp_path)
    assert row["verdict"] in ("wrong", "unparseable")


KILLED = """
import sys
from pathlib import Path
from synth.trace_set import TraceSet
from synth.verify.config import VerifyConfig
from synth.verify.verify_traces import verify_traces
folder = Path(sys.argv[1])
with TraceSet(folder / "out", folder / "store") as traces:
    verify_traces(traces, VerifyConfig(workers=1), folder / "verify", folder / "store", folder / "scratch")
"""


@pytest.mark.slow
def test_killed_while_it_verifies_a_run_computes_no_verdict_twice(tmp_path: Path) -> None:
    stage(tmp_path, samples("g", [f"{n}/7 + \\sqrt{{{n}}}" for n in range(300)]))
    log = tmp_path / "store" / VERDICT_LOG
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    lines = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        goal = lines + 20
        until(lambda: line_count(log) >= goal, f"{goal} verdicts", every_s=0.002)  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        lines = log.read_bytes().count(b"\n")
        assert not (tmp_path / "verify" / VERDICTS).exists()
    assert lines < 300, "it was killed too late to say anything"
    found, summary = verified(tmp_path)
    assert (summary.verified, summary.reused) == (300 - lines, lines)
    assert (
        len({(row["request_id"], row["basis"]) for row in verdict_log(tmp_path)}) == len(verdict_log(tmp_path)) == 300
    )
    alone = tmp_path / "alone"
    stage(alone, samples("g", [f"{n}/7 + \\sqrt{{{n}}}" for n in range(300)]))
    assert verified(alone)[0] == found


# --- format, votes, judge ------------------------------------------------------------------------------------------


def test_the_format_stands_beside_the_verdict(tmp_path: Path) -> None:
    rows = samples("g", ["42", "42"])
    rows[1]["text"] = "\\boxed{42}"
    stage(tmp_path, rows)
    found, summary = verified(tmp_path, VerifyConfig(workers=1, format=FormatConfig(think=True)))
    assert [(row["verdict"], row["format_verdict"], row["format_reason"]) for row in found] == [
        ("correct", "ok", None),
        ("correct", "bad", "no think block"),
    ]
    assert summary.format == {"bad": 1, "ok": 1}


def test_a_majority_gold_is_marked_in_every_row_and_never_mixed_with_gold_verdicts(tmp_path: Path) -> None:
    rows = samples("g", ["42", "41", "41", "41"]) + samples("n", ["1/2", "0.5", "\\frac{1}{2}", "2"])
    rows.sort(key=lambda row: row["sample_index"])  # imported traces may come in any order
    stage(tmp_path, rows, GOLD, NO_GOLD)
    found, summary = verified(tmp_path, VerifyConfig(workers=1, majority=MajorityConfig()))
    gold, voted = ([row for row in found if row["problem_id"] == name] for name in "gn")
    assert [row["verdict"] for row in gold] == ["correct", "wrong", "wrong", "wrong"]
    assert {row["majority_votes"] for row in gold} == {None}
    assert [row["verdict"] for row in voted] == ["correct", "correct", "correct", "wrong"]
    assert {(row["majority_votes"], row["majority_samples"]) for row in voted} == {(3, 4)}
    assert len({row["majority_answer"] for row in voted}) == 1
    assert summary.verdicts == {"correct": 1, "correct (voted)": 3, "wrong": 3, "wrong (voted)": 1}
    assert summary.majority == {"problems": 1, "elected": 1}
    (entry,) = read_rows(tmp_path / "verify" / "disagreements.jsonl")
    assert (entry["disagreement"], entry["gold"]) == ("gold answer against the majority", "42")
    assert (entry["majority"]["answer"], entry["majority"]["votes"]) == ("41", 3)


def test_a_vote_that_changes_is_verified_anew(tmp_path: Path) -> None:
    config = VerifyConfig(workers=1, majority=MajorityConfig())
    stage(tmp_path, samples("n", ["1", "1", "1", "2"]), NO_GOLD)
    found, _ = verified(tmp_path, config)
    assert [row["verdict"] for row in found] == ["correct", "correct", "correct", "wrong"]
    stage(tmp_path, samples("n", ["1", "1", "1", "2", "2", "2", "2"]), NO_GOLD)
    found, summary = verified(tmp_path, config)
    assert [row["verdict"] for row in found] == ["wrong"] * 3 + ["correct"] * 4
    assert summary.reused == 0


def test_where_nothing_is_elected_the_rows_are_errors_with_the_reason(tmp_path: Path) -> None:
    stage(tmp_path, samples("n", ["1", "2", "3"]), NO_GOLD)
    found, summary = verified(tmp_path, VerifyConfig(workers=1, majority=MajorityConfig()))
    assert {(row["verdict"], row["judged"]) for row in found} == {("error", False)}
    assert "no gold answer, and 3 answers have 1 votes each" in found[0]["reason"]
    assert (found[0]["majority_answer"], found[0]["majority_samples"]) == (None, 3)
    assert summary.majority == {"problems": 1, "elected": 0}


def test_the_judge_stands_beside_the_rules_and_the_report_shows_both(tmp_path: Path) -> None:
    judge = JudgeConfig(teacher=FakeTeacher(accuracy=0.5, latency_s=0, seed=3), counts="judge")
    rows = samples("g", ["42", *(str(n) for n in range(100, 160))])
    stage(tmp_path, rows)
    found, summary = verified(tmp_path, VerifyConfig(workers=1, judge=judge))
    assert [row["request_id"] for row in found] == [row["request_id"] for row in rows]
    assert [row["verdict"] for row in found] == ["correct"] + ["wrong"] * 60, "never over the rules"
    overturned = [row for row in found if row["judge_verdict"] == "correct"]
    assert 10 < len(overturned) < 50
    assert {row["counts_as"] for row in overturned} == {"correct"}
    assert summary.judge is not None
    assert summary.judge["said"] == {"wrong": {"correct": len(overturned), "wrong": 60 - len(overturned)}}
    assert summary.judge["counts_as"]["correct"] == 1 + len(overturned)
    assert summary.judge["tokens"] > 0
    report = list(read_rows(tmp_path / "verify" / "disagreements.jsonl"))
    assert {row["request_id"] for row in report} == {row["request_id"] for row in overturned}
    assert report[0]["rules_extracted"] == report[0]["judge_extracted"]
    assert (report[0]["rules_verdict"], report[0]["judge_verdict"]) == ("wrong", "correct")
    assert summary.disagreements == {"rules wrong, judge correct": len(overturned)}
    markdown = (tmp_path / "verify" / "disagreements.md").read_text()
    assert f"- rules wrong, judge correct: {len(overturned)} rows" in markdown
    answers = list(read_rows(tmp_path / "verify" / "judge" / "judgements.jsonl"))
    assert len(answers) == 60
    assert {row["text"] for row in answers} == {row["judge_text"] for row in found[1:]}


def test_a_judges_verdict_that_counts_is_judged_where_the_rules_could_not(tmp_path: Path) -> None:
    stage(tmp_path, samples("g", ["42"]), GOLD)
    with VerdictStore(tmp_path / "store") as store:  # a machine that was too busy
        basis = VerdictBasis(VerifyConfig(workers=1)).digest(GOLD, *TAGS)
        store.add("g0", basis, Verdict("timeout", 0.0, "42", "no time"))
    for counts, expected in (("rules", False), ("judge", True)):
        judge = JudgeConfig(teacher=FakeTeacher(accuracy=0, latency_s=0), when=("timeout",), counts=counts)
        ((row,), _) = verified(tmp_path, VerifyConfig(workers=1, judge=judge), to=counts)
        assert (row["verdict"], row["judge_verdict"], row["judged"]) == ("timeout", "correct", expected)


def test_another_way_to_count_asks_the_judge_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(counts: Any) -> VerifyConfig:
        return VerifyConfig(workers=1, judge=JudgeConfig(teacher=FakeTeacher(accuracy=0.5, latency_s=0), counts=counts))

    stage(tmp_path, samples("g", [str(n) for n in range(100, 110)]))
    first, _ = verified(tmp_path, config("rules"), to="one")

    def refuses(*_: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("synth.teachers.fake.FakeEngine.submit", refuses)
    second, summary = verified(tmp_path, config("either"), to="two")
    assert [row["judge_text"] for row in second] == [row["judge_text"] for row in first]
    one, two = ((tmp_path / name / "judge" / "judgements.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    assert summary.reused == 10


def test_the_report_is_bounded_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    from synth.verify.disagreement_report import DisagreementReport

    stage(tmp_path, samples("g", ["`|\n# \\boxed{1}"] * 500))
    with TraceSet(tmp_path / "out", tmp_path / "store") as trace_set:
        traces = list(trace_set)
    for folder, ordered in (("a", traces), ("b", traces[::-1])):
        (tmp_path / folder).mkdir()
        report = DisagreementReport(most=7)
        for trace in ordered:
            report.offer("rules wrong, judge correct", trace, {"gold": "1"})
        report.write(tmp_path / folder)
    one, other = (list(read_rows(tmp_path / name / "disagreements.jsonl")) for name in "ab")
    assert len(one) == 7
    assert one == other
    text = (tmp_path / "a" / "disagreements.md").read_text()
    assert "500 rows, 7 of them here" in text
    assert "\n# " not in text.removeprefix("# "), "no text of a model is a heading"
