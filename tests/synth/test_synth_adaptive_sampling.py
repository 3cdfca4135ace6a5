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
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sample_runs import draw, log_of, problems, rows_of, stops_of, stored
from waiting import line_count, until

from synth.problems.problem import Prompt
from synth.sampling.budget import BudgetTracker
from synth.sampling.config import AdaptivePolicy, BudgetConfig, EscalateConfig, TeacherSampling
from synth.sampling.policy import UNJUDGED_LIMIT
from synth.sampling.selection import SampleSummary
from synth.section import key_dump
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.teacher import Completion, FinishReason, Request, Teacher
from synth.verify.verdict_store import VerdictStore

FAKE = FakeTeacher(latency_s=0.0, concurrency=4, accuracy=0.4, seed=3)
ADAPTIVE = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=8), max_new_tokens=200)


def run(folder: Path, count: int, config: TeacherSampling, teacher: FakeTeacher = FAKE, **more: Any) -> SampleSummary:
    return draw(folder, problems(count), config, teacher, **more)


def right(row: dict[str, Any]) -> bool:
    number = int(row["problem_id"][1:]) + 1
    return row["text"].endswith(f"\\boxed{{{number}}}") and row["finish_reason"] == "stop"


def test_every_problem_gets_its_target_or_all_its_samples_and_not_one_too_many(tmp_path: Path) -> None:
    summary = run(tmp_path, 30, ADAPTIVE)
    by_problem: dict[str, list[bool]] = {}
    for row in rows_of(tmp_path):
        by_problem.setdefault(row["problem_id"], []).append(right(row))
    stops = stops_of(tmp_path)
    assert len(by_problem) == len(stops) == 30
    for name, course in by_problem.items():
        stop = stops[name]
        assert (stop["n_samples"], stop["n_judged"], stop["n_correct"]) == (len(course), len(course), sum(course))
        if stop["stopped"] == "target":
            assert sum(course) == 2
            assert course[-1]
            assert stop["estimate"] == pytest.approx(1.0 if len(course) == 2 else 1 / (len(course) - 1), abs=1e-6)
        else:
            assert stop["stopped"] == "max_samples"
            assert len(course) == 8
            assert stop["estimate"] == sum(course) / 8
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


def test_a_wrong_gold_is_marked_and_costs_four_samples(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=0.0, accuracy=1.0)
    draw(tmp_path, problems(3), ADAPTIVE, teacher, WrongGold(teacher))
    stops = list(stops_of(tmp_path).values())
    assert [row["suspect_gold"] for row in stops] == [True, False, False]
    assert [row["n_samples"] for row in stops] == [4, 2, 2]


class Failing(FakeEngine):
    """Fails every request of the first problem."""

    def submit(self, request: Request) -> None:
        super().submit(request)
        if request.prompt.id == "p0":
            flight = next(item for item in self._in_flight if item.request_id == request.request_id)
            flight.completion = Completion(request.request_id, "", "error", None, None, "refused")


def test_failed_requests_are_no_wrong_answers_and_a_problem_of_nothing_else_is_given_up(tmp_path: Path) -> None:
    teacher = FakeTeacher(latency_s=0.0, accuracy=1.0)
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=16), max_new_tokens=200)
    summary = draw(tmp_path, problems(3), config, teacher, Failing(teacher))
    stop = stops_of(tmp_path)["p0"]
    assert (stop["n_samples"], stop["n_judged"], stop["n_correct"]) == (UNJUDGED_LIMIT, 0, 0)
    assert (stop["estimate"], stop["stopped"]) == (None, "unjudged")
    assert summary.problems_stopped == {"target": 2, "unjudged": 1}


def test_programs_that_cannot_be_judged_do_not_buy_max_samples(tmp_path: Path) -> None:
    code = Prompt.model_validate(
        {"id": "c", "prompt": "Write f.", "kind": "code", "source": "s", "answer": None, "entry_point": "not a name",
         "tests": "assert f(1) == 1"}
    )  # fmt: skip
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=16), max_new_tokens=200)
    draw(tmp_path, [code, *problems(1)], config, FakeTeacher(latency_s=0, accuracy=1.0))
    stop = stops_of(tmp_path)["c"]
    assert (stop["n_samples"], stop["estimate"], stop["stopped"]) == (UNJUDGED_LIMIT, None, "unjudged")


def test_problems_without_a_gold_answer_are_sampled_in_full_and_kind_open_until_it_is_finished(tmp_path: Path) -> None:
    rows = [
        {"id": "n", "prompt": "A half?", "answer": None, "kind": "math", "source": "s"},
        {"id": "o", "prompt": "Hello!", "kind": "open", "source": "s"},
    ]
    prompts = [Prompt.model_validate(row, context={"allow_missing_gold": True}) for row in rows]
    draw(tmp_path, prompts, ADAPTIVE, FakeTeacher(latency_s=0))
    stops = stops_of(tmp_path)
    assert (stops["n"]["n_samples"], stops["n"]["stopped"]) == (8, "max_samples")
    assert (stops["o"]["n_samples"], stops["o"]["stopped"]) == (2, "target")
    assert {(row["n_judged"], row["estimate"]) for row in stops.values()} == {(0, None)}


def test_slow_answers_and_verdicts_change_neither_rows_nor_stops(tmp_path: Path) -> None:
    first = run(tmp_path / "a", 12, ADAPTIVE)
    slow = FAKE.model_copy(update={"latency_s": 0.02, "concurrency": 2})
    assert run(tmp_path / "b", 12, ADAPTIVE, slow).samples_digest == first.samples_digest
    for file in sorted((tmp_path / "a" / "out").iterdir()):
        assert (tmp_path / "b" / "out" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_higher_maximum_draws_and_verifies_only_what_is_new(tmp_path: Path) -> None:
    first = run(tmp_path, 20, ADAPTIVE, out="first")
    more = ADAPTIVE.model_copy(update={"policy": AdaptivePolicy(target_correct=3, max_samples=12)})
    second = run(tmp_path, 20, more, out="second")
    assert second.reused == first.rows
    assert run(tmp_path / "alone", 20, more).samples_digest == second.samples_digest
    assert len(stored(tmp_path)) == second.rows
    with VerdictStore(tmp_path / "store", read_only=True) as verdicts:
        assert len(verdicts) == second.rows


# --- budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("config", [TeacherSampling(num_samples=6), ADAPTIVE], ids=["fixed", "adaptive"])
def test_no_token_is_generated_over_budget_and_all_that_were_are_used(tmp_path: Path, config: TeacherSampling) -> None:
    limit = 1500
    config = config.model_copy(update={"budget": BudgetConfig(tokens=limit), "max_new_tokens": 100})
    summary = run(tmp_path, 40, config)
    assert summary.stopped == "tokens"
    spent = sum(row["completion_tokens"] for row in rows_of(tmp_path))
    assert limit - 100 < spent <= limit
    again = run(tmp_path, 40, config)
    assert (again.rows, again.reused, again.stopped) == (summary.rows, summary.rows, "tokens")


class Uncounted(FakeEngine):
    """Says nothing of what it generated, as some endpoints do."""

    def poll_for(self, seconds: float) -> list[Completion]:
        return [dataclasses.replace(answer, completion_tokens=None) for answer in super().poll_for(seconds)]


def test_tokens_that_nobody_counted_are_charged_by_the_bytes_of_their_text(tmp_path: Path) -> None:
    limit = 8000
    config = TeacherSampling(num_samples=6, max_new_tokens=1000, budget=BudgetConfig(tokens=limit))
    summary = draw(tmp_path, problems(40), config, FAKE, Uncounted(FAKE))
    assert summary.stopped == "tokens"
    rows = rows_of(tmp_path)
    assert limit - 1000 < sum(len(row["text"].encode()) for row in rows) <= limit
    assert summary.completion_tokens == 0, "what is reported is what the engine said"
    again = draw(tmp_path, problems(40), config, FAKE, Uncounted(FAKE))
    assert (again.rows, again.reused) == (len(rows), len(rows)), "nor does it begin anew with each run"


def test_money_is_a_limit_and_a_larger_budget_goes_on_from_there(tmp_path: Path) -> None:
    budget = BudgetConfig(money=0.01, price_per_million_tokens=5.0, price_per_million_prompt_tokens=1.0)
    config = TeacherSampling(num_samples=4, max_new_tokens=100, budget=budget)
    summary = run(tmp_path, 40, config)
    assert summary.stopped == "money"
    assert 0.008 < summary.completion_tokens * 5e-6 + summary.prompt_tokens * 1e-6 <= 0.01
    whole = run(tmp_path, 40, config.model_copy(update={"budget": None}))
    assert (whole.rows, whole.reused, whole.stopped) == (160, summary.rows, None)


def test_hours_count_over_resumed_runs_and_end_cleanly(tmp_path: Path) -> None:
    clock = tmp_path / "clock.json"
    config = TeacherSampling(num_samples=8, budget=BudgetConfig(hours=0.6 / 3600))
    teacher = FAKE.model_copy(update={"latency_s": 0.05})
    counts = []
    for _ in range(2):
        budget = BudgetTracker(config.budget, clock=clock)
        summary = draw(tmp_path, problems(40), config, teacher, budget=budget)
        assert summary.stopped == "hours"
        counts.append(summary.rows)
    assert 0 < counts[0] < 320
    assert counts[1] == counts[0]  # its time was up before it began


class TimedTeacher(Teacher):
    """Four places, and a clock of its own: each poll takes ten seconds and answers the oldest request."""

    model, engine = "timed", "timed 1"

    def __init__(self, finish_reason: FinishReason = "stop", *, retry: bool = False) -> None:
        self.now = 0.0
        self.sent_at: list[float] = []
        self.answered: list[str] = []
        self._in_flight: list[str] = []
        self._finish_reason, self._retry = finish_reason, retry

    @property
    def capacity(self) -> int:
        return 4 - len(self._in_flight)

    def submit(self, request: Request) -> None:
        self.sent_at.append(self.now)
        self._in_flight.append(request.request_id)

    def poll_for(self, seconds: float) -> list[Completion]:
        self.now += 10
        self.answered.append(self._in_flight.pop(0))
        if self._retry:
            return [Completion(self.answered[-1], "", "error", None, None, "broke off", retry=True)]
        return [Completion(self.answered[-1], "text", self._finish_reason, 1, 1)]

    def close(self) -> None:
        self._in_flight.clear()


@pytest.fixture
def timed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SampleSummary]:
    """Samples with a ``TimedTeacher``, by whose clock the budget's time passes."""

    def timed(teacher: TimedTeacher, config: TeacherSampling, count: int = 40, out: str = "out") -> SampleSummary:
        monkeypatch.setattr("synth.sampling.budget.time", SimpleNamespace(monotonic=lambda: teacher.now))
        budget = BudgetTracker(config.budget, clock=tmp_path / "clock.json")
        return draw(tmp_path, problems(count), config, FakeTeacher(model="timed"), teacher, out=out, budget=budget)

    return timed


def within_100_s(drain_s: float, **fields: Any) -> TeacherSampling:
    return TeacherSampling(budget=BudgetConfig(hours=100 / 3600, drain_s=drain_s), **fields)


@pytest.mark.parametrize(
    ("drain_s", "sent", "awaited", "abandoned"), [(0, 13, 0, 3), (15, 12, 1, 2), (35, 10, 3, 0), (65, 7, 3, 0)]
)
def test_in_a_drain_nothing_is_sent_and_what_comes_before_the_limit_is_kept(
    tmp_path: Path, timed_run: Callable[..., SampleSummary], drain_s: int, sent: int, awaited: int, abandoned: int
) -> None:
    config, teacher = within_100_s(drain_s), TimedTeacher()
    summary = timed_run(teacher, config)
    assert (len(teacher.sent_at), summary.awaited, summary.abandoned) == (sent, awaited, abandoned)
    assert max(teacher.sent_at) < 100 - drain_s
    assert [row["request_id"] for row in stored(tmp_path)] == teacher.answered
    assert (summary.rows, summary.stopped) == (sent - abandoned, "hours")

    again = TimedTeacher()
    resumed = timed_run(again, config)
    assert (again.sent_at, resumed.samples_digest, resumed.stopped) == ([], summary.samples_digest, "hours")


def test_what_a_drain_left_out_is_drawn_with_a_larger_budget(
    tmp_path: Path, timed_run: Callable[..., SampleSummary]
) -> None:
    first = timed_run(TimedTeacher(), within_100_s(35))
    whole = TeacherSampling()
    teacher = TimedTeacher()
    resumed = timed_run(teacher, whole, out="whole")
    assert (len(teacher.sent_at), resumed.reused, resumed.stopped) == (160 - first.rows, first.rows, None)
    alone = draw(tmp_path / "alone", problems(40), whole, FakeTeacher(model="timed"), TimedTeacher())
    assert resumed.samples_digest == alone.samples_digest


def test_a_drain_in_which_the_last_samples_come_stops_nothing(timed_run: Callable[..., SampleSummary]) -> None:
    summary = timed_run(TimedTeacher(), within_100_s(95), count=1)
    assert (summary.rows, summary.abandoned, summary.stopped) == (4, 0, None)


@pytest.mark.parametrize("teacher", [TimedTeacher("length"), TimedTeacher(retry=True)], ids=["cut", "broken off"])
def test_a_drain_sends_neither_escalations_nor_second_attempts(
    timed_run: Callable[..., SampleSummary], teacher: TimedTeacher
) -> None:
    summary = timed_run(teacher, within_100_s(95, escalate=EscalateConfig(max_new_tokens=2000)), count=1)
    assert (teacher.sent_at, summary.rows, summary.stopped) == ([0, 0, 0, 0], 4, "hours")


def test_a_drain_is_shorter_than_each_limit_of_time_and_part_of_no_key() -> None:
    assert key_dump(BudgetConfig(hours=1, drain_s=600)) == key_dump(BudgetConfig(hours=1))
    assert key_dump(TeacherSampling(budget=BudgetConfig(drain_s=600))) == key_dump(TeacherSampling())
    assert BudgetConfig(tokens=1000, drain_s=600), "a signal is a limit of time as well"
    for limit in ({"hours": 1}, {"gpu_hours": 8}, {"money": 20, "price_per_gpu_hour": 2.5}):
        assert BudgetConfig(gpus=8, drain_s=3599, **limit)
        with pytest.raises(ValueError, match=r"drain_s 3600 leaves no time .* \(3600 s\)"):
            BudgetConfig(gpus=8, drain_s=3600, **limit)


@pytest.mark.parametrize(("drain_s", "kept"), [(5, 6), (15, 7), (1000, 8)])
def test_an_interrupt_ends_the_requests_in_flight_after_the_drain_and_sends_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drain_s: int, kept: int
) -> None:
    class Interrupted(TimedTeacher):
        def poll_for(self, seconds: float) -> list[Completion]:
            done = super().poll_for(seconds)
            if self.now == 50:
                budget.interrupt()
                budget.interrupt()
            return done

    teacher = Interrupted()
    monkeypatch.setattr("synth.sampling.budget.time", SimpleNamespace(monotonic=lambda: teacher.now))
    budget = BudgetTracker(BudgetConfig(drain_s=drain_s))
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, problems(40), TeacherSampling(), FakeTeacher(model="timed"), teacher, budget=budget)
    assert max(teacher.sent_at) < 50
    assert len(stored(tmp_path)) == kept


@pytest.mark.parametrize("seconds", [1800, 3500])
def test_the_live_figure_says_when_requests_are_only_awaited(tmp_path: Path, seconds: int) -> None:
    clock = tmp_path / "clock.json"
    clock.write_text(json.dumps({"seconds": seconds}))
    meter = BudgetTracker(BudgetConfig(hours=1, drain_s=600), clock=clock)
    assert meter.note().endswith("those in flight are awaited") is (seconds > 3000)


@pytest.mark.parametrize(("seconds", "limit"), [(7190, None), (7200, "gpu_hours")])
def test_a_limit_of_gpu_hours_counts_every_gpu(tmp_path: Path, seconds: int, limit: str | None) -> None:
    clock = tmp_path / "clock.json"
    clock.write_text(json.dumps({"seconds": seconds}))
    assert BudgetTracker(BudgetConfig(gpus=8, gpu_hours=16), clock=clock).out_of_time() == limit


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
    run(tmp_path / "plain", 10, CUT)
    before = {row["request_id"]: row for row in rows_of(tmp_path / "plain")}
    cut = [row for row in before.values() if row["finish_reason"] == "length"]
    assert cut
    teacher = Listening(FAKE, can_continue=continues)
    summary = draw(tmp_path, problems(10), LONGER, FAKE, teacher)
    assert summary.escalated == len(cut)
    assert summary.finish_reasons == {"stop": 30}
    second = [request for request in teacher.asked if request.request_id not in before]
    assert len(second) == len(cut)
    in_store = {row["request_id"]: row for row in stored(tmp_path)}
    for row in rows_of(tmp_path):
        if not row["escalated"]:
            assert row == before[row["request_id"]]
            continue
        first = before[in_store[row["request_id"]]["escalated_from"]]
        assert in_store[row["request_id"]]["continued"] is continues
        if continues:
            assert row["text"].startswith(first["text"])
            assert row["completion_tokens"] > first["completion_tokens"]
    assert all(request.max_new_tokens == (370 if continues else 400) for request in second)
    assert {row["request_id"] for row in cut} <= set(in_store), "what was cut off was paid for, and is kept"


def test_escalations_resume_and_are_not_drawn_twice(tmp_path: Path) -> None:
    first = run(tmp_path, 10, LONGER)
    whole = log_of(tmp_path).read_bytes()
    again = Listening(FAKE, can_continue=True)
    assert draw(tmp_path, problems(10), LONGER, FAKE, again).samples_digest == first.samples_digest
    assert again.asked == []
    assert log_of(tmp_path).read_bytes() == whole


def test_a_recipe_that_begins_to_escalate_goes_on_from_the_traces_that_were_cut_off(tmp_path: Path) -> None:
    run(tmp_path, 10, CUT, out="cut")
    cut = [row for row in rows_of(tmp_path, "cut") if row["finish_reason"] == "length"]
    longer = Listening(FAKE, can_continue=True)
    summary = draw(tmp_path, problems(10), LONGER, FAKE, longer, out="longer")
    assert (len(longer.asked), summary.escalated) == (len(cut), len(cut))
    assert all(request.prefix for request in longer.asked)
    assert run(tmp_path / "alone", 10, LONGER).samples_digest == summary.samples_digest
    assert {row["finish_reason"] for row in rows_of(tmp_path, "cut")} == {"length", "stop"}


def test_escalations_have_a_budget_of_their_own(tmp_path: Path) -> None:
    tight = CUT.model_copy(update={"escalate": EscalateConfig(max_new_tokens=400, tokens=500)})
    summary = run(tmp_path, 10, tight)
    assert summary.escalated > 0
    assert summary.finish_reasons["length"] > 0
    rows = {row["request_id"]: row for row in stored(tmp_path)}
    spent = sum(
        row["completion_tokens"] - rows[row["escalated_from"]]["completion_tokens"]
        for row in rows.values()
        if "escalated_from" in row
    )
    assert 0 < spent <= 500
    assert summary.stopped is None


def test_a_second_try_that_fails_leaves_the_cut_trace(tmp_path: Path) -> None:
    class FailingLater(FakeEngine):
        def submit(self, request: Request) -> None:
            super().submit(request)
            if request.max_new_tokens != CUT.max_new_tokens:
                flight = next(item for item in self._in_flight if item.request_id == request.request_id)
                flight.completion = Completion(request.request_id, "", "error", None, None, "it broke")

    summary = draw(tmp_path, problems(10), LONGER, FAKE, FailingLater(FAKE))
    run(tmp_path / "plain", 10, CUT)
    assert summary.escalated == 0
    assert rows_of(tmp_path) == rows_of(tmp_path / "plain")


# --- killed ----------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from pathlib import Path
from synth.teachers.config import FakeTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.mixture import TeacherMixture
from synth.teachers.router import TeacherRouter
from synth.problems.config import JsonlPrompts
from synth.sampling.config import TeacherSampling
from synth.verify.config import VerifyConfig
from synth.verify.trace_verifier import TraceVerifier
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
engine = Engine(teacher)
if config.policy.kind == "cascade":
    second = teacher.model_copy(update={"model": "fake/second", "accuracy": 0.8})
    engine = TeacherRouter([engine, Engine(second)])
    entries = [{"teacher": one.model_dump()} for one in (teacher, second)]
    teacher = TeacherMixture.model_validate({"teachers": entries})
prompts = load_prompts(JsonlPrompts(path=sys.argv[1])).prompts
out, store = Path(sys.argv[2]) / "out", Path(sys.argv[2]) / "store"
with TraceVerifier(VerifyConfig(workers=1), store) as verifier:
    sample(prompts, engine, teacher, config, out, store, verifier=verifier)
"""
POLICIES = {
    "fixed": {"num_samples": 4, "max_new_tokens": 200},
    "adaptive": {"policy": {"kind": "adaptive", "target_correct": 2, "max_samples": 8}, "max_new_tokens": 200},
    "escalated": {
        "policy": {"kind": "adaptive", "target_correct": 2, "max_samples": 8, "first": 3},
        "max_new_tokens": 30,
        "escalate": {"max_new_tokens": 300},
    },
    "cascade": {
        "policy": {"kind": "cascade", "steps": [{"target_correct": 1, "max_samples": 2}, {"max_samples": 8}]},
        "max_new_tokens": 200,
    },
}
KILLS = {"fixed": 20, "adaptive": 10, "escalated": 10, "cascade": 4}


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_forty_times_at_random_runs_end_with_the_samples_of_runs_left_alone(tmp_path: Path, policy: str) -> None:
    source, killed, alone = tmp_path / "problems.jsonl", tmp_path / "killed", tmp_path / "alone"
    source.write_text("".join(json.dumps(prompt.row()) + "\n" for prompt in problems(40)))

    def start(where: Path, answers: int = 10_000) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, str(source), str(where), str(answers), json.dumps(POLICIES[policy])]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2])

    left_alone = start(alone)
    rng = random.Random(policy)
    log, committed = log_of(killed), b""
    for _ in range(KILLS[policy]):
        more = rng.randint(1, 5)
        process = start(killed, more + 1)
        goal = committed.count(b"\n") + more
        until(lambda: line_count(log) >= goal, f"{goal} samples")  # noqa: B023
        time.sleep(rng.random() * 0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        after = log.read_bytes()
        assert after.startswith(committed), "a committed sample was lost"
        committed = after[: after.rfind(b"\n") + 1]
        request_ids = [json.loads(line)["request_id"] for line in committed.splitlines()]
        assert len(request_ids) == len(set(request_ids)), "a sample was drawn twice"
    assert start(killed).wait(timeout=200) == 0
    assert left_alone.wait(timeout=200) == 0
    assert log.read_bytes().startswith(committed)
    assert len(stored(killed)) == len(stored(alone))
    for file in sorted((alone / "out").iterdir()):
        assert (killed / "out" / file.name).read_bytes() == file.read_bytes(), file.name
    if policy != "fixed":  # a verdict that was found before a kill is not computed again
        keys = [(row["request_id"], row["basis"]) for row in map(json.loads, verdict_lines(killed))]
        assert len(keys) == len(set(keys)) == len(verdict_lines(alone))


def verdict_lines(folder: Path) -> list[bytes]:
    return (folder / "store" / "verdicts.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize(("money", "limit"), [(2, "tokens"), (0.95, "money")])
def test_of_two_limits_the_nearer_is_named_as_the_one_that_refuses(money: float, limit: str) -> None:
    budget = BudgetTracker(BudgetConfig(tokens=1000, money=money, price_per_million_tokens=1000))
    budget.count(900, 0)
    assert budget.refusing_limit() == limit
