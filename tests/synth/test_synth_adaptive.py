"""Adaptive sampling, budgets and escalation through ``sample()``: with the fake teacher and the real verifier."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import line_count, until

from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AdaptivePolicy, BudgetConfig, EscalateConfig, TeacherSampling
from synth.sampling.requests import RequestPlan
from synth.sampling.sample import SampleSummary, harvest, sample
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.teacher import Completion, Request
from synth.verify.config import VerifyConfig

FAKE = FakeTeacher(latency_s=0.0, concurrency=4, accuracy=0.4, seed=3)
ADAPTIVE = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=8), max_new_tokens=200)


def problems(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{n}", prompt=f"{n} + 1?", answer=str(n + 1), kind="math", source="s") for n in range(count)]


def rows_of(log: Path, name: str | None = None) -> list[dict[str, Any]]:
    path = log.with_name(name) if name else log
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def run(log: Path, count: int, config: TeacherSampling, teacher: FakeTeacher = FAKE) -> SampleSummary:
    return sample(problems(count), FakeEngine(teacher), teacher, config, log, verify=VerifyConfig(workers=1))


def right(row: dict[str, Any]) -> bool:
    number = int(row["prompt_id"][1:]) + 1
    return row["text"].endswith(f"\\boxed{{{number}}}") and row["finish_reason"] == "stop"


def test_every_problem_gets_its_target_or_all_its_samples_and_not_one_too_many(tmp_path: Path) -> None:
    log = tmp_path / "log"
    summary = run(log, 30, ADAPTIVE)
    by_problem: dict[str, list[bool]] = {}
    for row in rows_of(log):
        by_problem.setdefault(row["prompt_id"], []).append(right(row))
    labels = {row["prompt_id"]: row for row in rows_of(log, "problems.jsonl")}
    assert len(by_problem) == len(labels) == 30
    for name, course in by_problem.items():
        assert labels[name]["samples"] == len(course)
        assert labels[name]["correct"] == sum(course)
        if labels[name]["stopped"] == "target":
            assert sum(course) == 2
            assert course[-1]
        else:
            assert labels[name]["stopped"] == "max_samples"
            assert len(course) == 8
    assert summary.rows < 30 * 8 / 1.3
    assert summary.problems_stopped is not None
    assert set(summary.problems_stopped) <= {"target", "max_samples"}


class WrongGold(FakeEngine):
    """Knows better than the gold of the first problem, and says so every time."""

    def submit(self, request: Request) -> None:
        if request.prompt.id == "p0":
            prompt = request.prompt.model_copy(update={"answer": "99"})
            request = Request(**{**vars(request), "prompt": prompt})
        super().submit(request)


def test_a_wrong_gold_is_labelled_and_costs_four_samples(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=0.0, accuracy=1.0)
    log = tmp_path / "log"
    sample(problems(3), WrongGold(teacher), teacher, ADAPTIVE, log, verify=VerifyConfig(workers=1))
    labels = rows_of(log, "problems.jsonl")
    assert labels[0]["labels"] == ["suspect_gold"]
    assert labels[0]["samples"] == 4
    assert [row["labels"] for row in labels[1:]] == [[], []]
    assert [row["samples"] for row in labels[1:]] == [2, 2]


def test_a_straggler_and_slow_verdicts_leave_no_mark(tmp_path: Path) -> None:
    run(tmp_path / "a", 12, ADAPTIVE)
    slow = FAKE.model_copy(update={"latency_s": 0.02, "concurrency": 2})
    run(tmp_path / "b", 12, ADAPTIVE, slow)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_higher_maximum_asks_only_for_what_is_new(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "log", tmp_path / "new" / "log"
    first = run(old, 20, ADAPTIVE)
    more = ADAPTIVE.model_copy(update={"policy": AdaptivePolicy(target_correct=3, max_samples=12)})
    assert harvest(new, [old], RequestPlan(problems(20), FAKE, more).request_ids()) == first.rows
    second = run(new, 20, more)
    assert second.reused == first.rows
    assert run(tmp_path / "alone" / "log", 20, more).rows == second.rows
    assert new.read_bytes() == (tmp_path / "alone" / "log").read_bytes()


# --- budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TeacherSampling(num_samples=6), ADAPTIVE], ids=["fixed", "adaptive"])
def test_no_token_is_generated_over_budget_and_all_that_were_are_used(tmp_path: Path, config: TeacherSampling) -> None:
    log, limit = tmp_path / "log", 1500
    config = config.model_copy(update={"budget": BudgetConfig(tokens=limit), "max_new_tokens": 100})
    summary = run(log, 40, config)
    assert summary.stopped == "tokens"
    spent = sum(row["completion_tokens"] for row in rows_of(log))
    assert limit - 100 < spent <= limit
    again = run(log, 40, config)
    assert (again.rows, again.reused, again.stopped) == (summary.rows, summary.rows, "tokens")


class Uncounted(FakeEngine):
    """Says nothing of what it generated, as some endpoints do."""

    def poll_for(self, seconds: float) -> list[Completion]:
        return [dataclasses.replace(answer, completion_tokens=None) for answer in super().poll_for(seconds)]


def test_tokens_that_nobody_counted_are_charged_by_the_bytes_of_their_text(tmp_path: Path) -> None:
    log, limit = tmp_path / "log", 8000
    config = TeacherSampling(num_samples=6, max_new_tokens=1000, budget=BudgetConfig(tokens=limit))
    summary = sample(problems(40), Uncounted(FAKE), FAKE, config, log)
    assert summary.stopped == "tokens"
    rows = rows_of(log)
    assert limit - 1000 < sum(len(row["text"].encode()) for row in rows) <= limit
    assert summary.completion_tokens == 0, "what is reported is what the engine said"
    again = sample(problems(40), Uncounted(FAKE), FAKE, config, log)
    assert (again.rows, again.reused) == (len(rows), len(rows)), "nor does it begin anew with each run"


def test_money_is_a_limit_and_a_larger_budget_goes_on_from_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    budget = BudgetConfig(money=0.01, price_per_million_tokens=5.0, price_per_million_prompt_tokens=1.0)
    config = TeacherSampling(num_samples=4, max_new_tokens=100, budget=budget)
    summary = run(log, 40, config)
    assert summary.stopped == "money"
    assert 0.008 < summary.completion_tokens * 5e-6 + summary.prompt_tokens * 1e-6 <= 0.01
    whole = run(log, 40, config.model_copy(update={"budget": None}))
    assert (whole.rows, whole.reused, whole.stopped) == (160, summary.rows, None)


def test_hours_count_over_resumed_runs_and_end_cleanly(tmp_path: Path) -> None:
    log, clock = tmp_path / "log", tmp_path / "clock.json"
    config = TeacherSampling(num_samples=8, budget=BudgetConfig(hours=0.6 / 3600))
    teacher = FAKE.model_copy(update={"latency_s": 0.05})
    counts = []
    for _ in range(2):
        meter = BudgetTracker(config.budget, clock=clock)
        summary = sample(problems(40), FakeEngine(teacher), teacher, config, log, meter=meter)
        assert summary.stopped == "hours"
        counts.append(summary.rows)
    assert 0 < counts[0] < 320
    assert counts[1] == counts[0]  # its time was up before it began


def test_the_live_figure_names_every_limit() -> None:
    meter = BudgetTracker(
        BudgetConfig(tokens=1000, hours=2, gpus=8, gpu_hours=16, money=3, price_per_million_tokens=1000)
    )
    meter.count(500, 10)
    assert meter.note().startswith("500 of 1,000 tokens, 0.00 of 2 h, 0.0 of 16 GPU-h, cost 0.50 of 3.00")


# --- escalation ------------------------------------------------------------------------------------------------------

CUT = TeacherSampling(num_samples=3, max_new_tokens=30)
LONGER = CUT.model_copy(update={"escalate": EscalateConfig(max_new_tokens=400)})


class Listening(FakeEngine):
    """Remembers what it was asked."""

    def __init__(self, config: FakeTeacher, *, can_continue: bool) -> None:
        super().__init__(config)
        self.can_continue = can_continue
        self.asked: list[Request] = []

    def submit(self, request: Request) -> None:
        self.asked.append(request)
        super().submit(request)


@pytest.mark.parametrize("continues", [True, False])
def test_a_cut_trace_is_tried_once_more_with_a_larger_limit(tmp_path: Path, continues: bool) -> None:
    log = tmp_path / "log"
    run(tmp_path / "plain", 10, CUT)
    before = {row["request_id"]: row for row in rows_of(tmp_path / "plain")}
    cut = [row for row in before.values() if row["finish_reason"] == "length"]
    assert cut
    teacher = Listening(FAKE, can_continue=continues)
    summary = sample(problems(10), teacher, FAKE, LONGER, log)
    assert summary.escalated == len(cut)
    assert summary.finish_reasons == {"stop": 30}
    second = [request for request in teacher.asked if request.request_id not in before]
    assert len(second) == len(cut)
    for row in rows_of(log):
        if "escalated_from" not in row:
            assert row == before[row["request_id"]]
            continue
        first = before[row["escalated_from"]]
        assert row["continued"] is continues
        if continues:
            assert row["text"].startswith(first["text"])
            assert row["completion_tokens"] > first["completion_tokens"]
    assert all(request.max_new_tokens == (370 if continues else 400) for request in second)
    assert sorted(row["request_id"] for row in rows_of(log, "escalated.jsonl")) == sorted(r["request_id"] for r in cut)


def test_escalations_resume_and_are_not_asked_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sample(problems(10), FakeEngine(FAKE), FAKE, LONGER, log)
    whole, aside = log.read_bytes(), log.with_name("escalated.jsonl").read_bytes()
    again = Listening(FAKE, can_continue=True)
    sample(problems(10), again, FAKE, LONGER, log)
    assert again.asked == []
    assert (log.read_bytes(), log.with_name("escalated.jsonl").read_bytes()) == (whole, aside)


def test_escalations_have_a_budget_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tight = CUT.model_copy(update={"escalate": EscalateConfig(max_new_tokens=400, tokens=500)})
    summary = sample(problems(10), FakeEngine(FAKE), FAKE, tight, log)
    assert summary.escalated > 0
    assert summary.finish_reasons["length"] > 0
    first = {row["request_id"]: row for row in rows_of(log, "escalated.jsonl")}
    spent = sum(
        row["completion_tokens"] - first[row["escalated_from"]]["completion_tokens"]
        for row in rows_of(log)
        if "escalated_from" in row
    )
    assert 0 < spent <= 500
    assert summary.stopped is None


def test_a_second_try_that_fails_leaves_the_cut_trace(tmp_path: Path) -> None:
    class Failing(FakeEngine):
        def submit(self, request: Request) -> None:
            super().submit(request)
            if request.max_new_tokens != CUT.max_new_tokens:
                flight = next(item for item in self._in_flight if item.request_id == request.request_id)
                flight.completion = Completion(request.request_id, "", "error", None, None, "it broke")

    log = tmp_path / "log"
    summary = sample(problems(10), Failing(FAKE), FAKE, LONGER, log)
    run(tmp_path / "plain", 10, CUT)
    assert summary.escalated == 0
    assert log.read_bytes() == (tmp_path / "plain").read_bytes()


# --- killed ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.problems.config import JsonlPrompts
from synth.sampling.config import TeacherSampling
from synth.verify.config import VerifyConfig
from synth.problems.problem import load_prompts
from synth.sampling.sample import sample

class Engine(FakeEngine):
    left = int(sys.argv[3])  # after so many answers it stands still: nothing ends before it is killed
    def poll_for(self, seconds):
        if self.left <= 0:
            time.sleep(1000)
        done = super().poll_for(seconds)
        self.left -= len(done)
        return done

teacher = FakeTeacher(latency_s=0.02, concurrency=4, accuracy=0.4)
config = TeacherSampling.model_validate_json(sys.argv[4])
prompts = load_prompts(JsonlPrompts(path=sys.argv[1])).prompts
sample(prompts, Engine(teacher), teacher, config, Path(sys.argv[2]), verify=VerifyConfig(workers=1))
"""
POLICIES = {
    "fixed": {"num_samples": 4, "max_new_tokens": 200},
    "adaptive": {"policy": {"kind": "adaptive", "target_correct": 2, "max_samples": 8}, "max_new_tokens": 200},
    "escalated": {
        "policy": {"kind": "adaptive", "target_correct": 2, "max_samples": 8, "first": 3},
        "max_new_tokens": 30,
        "escalate": {"max_new_tokens": 300},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_ten_times_at_random_it_ends_with_the_samples_of_a_run_left_alone(tmp_path: Path, policy: str) -> None:
    source, log, alone = tmp_path / "problems.jsonl", tmp_path / "killed" / "log", tmp_path / "alone" / "log"
    source.write_text("".join(json.dumps(prompt.row()) + "\n" for prompt in problems(40)))

    def start(where: Path, answers: int = 10_000) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, str(source), str(where), str(answers), json.dumps(POLICIES[policy])]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2])

    left_alone = start(alone)
    rng = random.Random(policy)
    committed = b""
    for _ in range(10):
        more = rng.randint(1, 9)
        process = start(log, more + 3)
        goal = committed.count(b"\n") + more
        until(lambda: line_count(log) >= goal, f"{goal} samples")  # noqa: B023
        time.sleep(rng.random() * 0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        after = log.read_bytes()
        assert after.startswith(committed), "a committed sample was lost"
        committed = after[: after.rfind(b"\n") + 1]
        identities = [json.loads(line)["request_id"] for line in committed.splitlines()]
        assert len(identities) == len(set(identities)), "a sample was doubled"
    assert start(log).wait(timeout=200) == 0
    assert left_alone.wait(timeout=200) == 0
    for file in sorted(alone.parent.iterdir()):
        assert (log.parent / file.name).read_bytes() == file.read_bytes(), file.name
