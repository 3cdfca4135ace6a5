"""The sampler: no teacher waits for a verdict, and no problem waits for a slow sample of another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sample_runs import draw, problems, stored

from synth.problems.problem import Prompt
from synth.reasoning import split_reasoning
from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.policy import Grade
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import Completion, Request, Teacher
from synth.trace import Trace
from synth.verify.config import VerifyConfig
from synth.verify.trace_verifier import TraceVerifier
from synth.verify.verdict_store import VERDICT_LOG

pytestmark = pytest.mark.timeout(60)  # where a slow sample is waited for, the run never ends
TEACHER = FakeTeacher(model="timed")
CONFIG = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=4, suspect_after=None))


class HeldTeacher(Teacher):
    """Answers each request at once, except those in ``held``: they are answered when ``released`` is true."""

    model, engine = "timed", "timed 1"

    def __init__(self, held: tuple[str, int] | None = None, room: int = 100) -> None:
        self.asked: list[tuple[str, int]] = []
        self.released: Callable[[], bool] = lambda: True
        self._held, self._room = held, room
        self._in_flight: dict[str, tuple[str, int]] = {}

    @property
    def capacity(self) -> int:
        return self._room - len(self._in_flight)

    def submit(self, request: Request) -> None:
        slot = (request.prompt.id, request.sample_index)
        self.asked.append(slot)
        self._in_flight[request.request_id] = slot

    def poll_for(self, seconds: float) -> list[Completion]:
        if not self._in_flight:
            return []

        def ready() -> list[str]:
            return [name for name, slot in self._in_flight.items() if slot != self._held or self.released()]

        if not ready():  # a verdict may come meanwhile
            time.sleep(min(seconds, 0.01))
        done = ready()
        for name in done:
            del self._in_flight[name]
        return [Completion(name, "text", "stop", 1, 1) for name in done]

    def close(self) -> None:
        self._in_flight.clear()


class Grader:
    """In the verifier's place: grades are given when the test says so."""

    def __init__(self) -> None:
        self.open: list[tuple[str, Future[Grade]]] = []
        self.decide: Any = lambda problem, count: None  # -> a grade, or None for later
        self.count: dict[str, int] = {}

    def grade(self, trace: Trace) -> Future[Grade]:
        answer: Future[Grade] = Future()
        name = trace.problem_id
        self.count[name] = self.count.get(name, 0) + 1
        grade = self.decide(name, self.count[name])
        if grade is None:
            self.open.append((name, answer))
        else:
            answer.set_result(grade)
        return answer


RIGHT, WRONG = Grade(True, matches_gold=True), Grade(False, "2")


def test_every_problem_is_asked_before_the_first_verdict_comes(tmp_path: Path) -> None:
    grader, teacher = Grader(), HeldTeacher(room=2)

    def late(name: str, count: int) -> Grade | None:
        if len(teacher.asked) == 30:  # the last problem's sample is in: now the grades come
            while grader.open:
                grader.open.pop()[1].set_result(RIGHT)
            return RIGHT
        return None

    grader.decide = late
    assert draw(tmp_path, problems(30), CONFIG, TEACHER, teacher, verifier=grader).rows == 30


def test_a_verdict_lets_a_problem_go_on_while_a_slow_sample_of_another_runs(tmp_path: Path) -> None:
    grader, teacher = Grader(), HeldTeacher(held=("p0", 0))
    grader.decide = lambda name, count: WRONG if name == "p1" and count < 3 else RIGHT
    teacher.released = lambda: ("p1", 2) in teacher.asked
    draw(tmp_path, problems(2), CONFIG, TEACHER, teacher, verifier=grader)
    assert set(teacher.asked) == {("p0", 0), ("p1", 0), ("p1", 1), ("p1", 2)}


def test_a_slow_sample_of_a_problem_does_not_hold_up_its_other_samples(tmp_path: Path) -> None:
    grader, teacher = Grader(), HeldTeacher(held=("p0", 0))
    grader.decide = lambda name, count: WRONG
    teacher.released = lambda: ("p0", 5) in teacher.asked
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=6, suspect_after=None))
    draw(tmp_path, problems(1), config, TEACHER, teacher, verifier=grader)
    assert len(teacher.asked) == 6


def test_what_the_verifier_raises_ends_the_run_with_every_sample_kept(tmp_path: Path) -> None:
    class Broken(Grader):
        def grade(self, trace: Trace) -> Future[Grade]:
            answer: Future[Grade] = Future()
            answer.set_exception(RuntimeError("no verifier"))
            return answer

    with pytest.raises(RuntimeError, match="no verifier"):
        draw(tmp_path, problems(3), CONFIG, TEACHER, HeldTeacher(), verifier=Broken())
    assert stored(tmp_path)


# --- a fixed policy --------------------------------------------------------------------------------------------------

FIXED = TeacherSampling(num_samples=2)


@pytest.mark.slow
def test_samples_of_a_fixed_policy_are_verified_while_others_are_drawn(tmp_path: Path) -> None:
    verdicts, teacher = tmp_path / "store" / VERDICT_LOG, HeldTeacher(held=("p9", 1))
    teacher.released = lambda: verdicts.exists() and verdicts.read_bytes().count(b"\n") == 19
    with TraceVerifier(VerifyConfig(workers=1), tmp_path / "store", background=True) as verifier:
        assert draw(tmp_path, problems(10), FIXED, TEACHER, teacher, verifier=verifier).rows == 20
    ids = [json.loads(line)["request_id"] for line in verdicts.read_bytes().splitlines()]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {row["request_id"] for row in stored(tmp_path)}


def test_at_the_end_a_fixed_policy_waits_for_no_verdict(tmp_path: Path) -> None:
    grader = Grader()
    assert draw(tmp_path, problems(100), FIXED, TEACHER, HeldTeacher(), verifier=grader).rows == 200
    assert 0 < len(grader.open) == sum(grader.count.values()) <= 64


def test_where_verifying_fails_a_fixed_policy_samples_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Grader):
        def grade(self, *_: Any) -> Future[Grade]:
            raise RuntimeError("no verifier")

    assert draw(tmp_path, problems(100), FIXED, TEACHER, HeldTeacher(room=1), verifier=Broken()).rows == 200
    assert capfd.readouterr().err.count("no verifier") == 1


def test_of_a_fixed_policy_nothing_is_verified_that_has_no_gold_answer_or_no_answer(tmp_path: Path) -> None:
    class Failing(HeldTeacher):
        def poll_for(self, seconds: float) -> list[Completion]:
            done = super().poll_for(seconds)
            return [Completion(one.request_id, "", "error", None, None, "refused") for one in done]

    grader = Grader()
    grader.decide = lambda name, count: RIGHT
    without = [Prompt(id="o", prompt="Hi!", kind="open", source="s")]
    unanswered = {"id": "m", "prompt": "1 + 1?", "kind": "math", "source": "s"}
    without.append(Prompt.model_validate(unanswered, context={"allow_missing_gold": True}))
    draw(tmp_path, without, FIXED, TEACHER, HeldTeacher(), verifier=grader)
    draw(tmp_path, problems(3), FIXED, TEACHER, Failing(), verifier=grader)
    assert grader.count == {}
    draw(tmp_path, problems(3), FIXED, TEACHER, HeldTeacher(), verifier=grader)
    assert grader.count.keys() <= {"p0", "p1", "p2"}


def test_a_verdict_that_a_busy_machine_may_cause_is_computed_once_more_by_stage_verify_and_then_never(
    tmp_path: Path,
) -> None:
    problem = {"id": "p", "kind": "unknown"}
    tags = ("<think>", "</think>")
    trace = Trace("a", problem, 0, "2", split_reasoning("2"), "t", "e", "stop", None, 1, 1, *tags)

    def verified(background: bool) -> tuple[int, int]:
        with TraceVerifier(VerifyConfig(workers=1), tmp_path, background=background) as verifier:
            assert verifier.submit(trace).result().verdict == "error"
        return verifier.verified, verifier.reused

    sampled, resumed = verified(background=True), verified(background=True)
    assert (sampled, resumed) == ((1, 0), (0, 1))
    stage, again = verified(background=False), verified(background=False)
    assert (stage, again) == ((1, 0), (0, 1))
    assert verified(background=True) == (0, 1), "the final verdict replaces the provisional one"
    first, last = (json.loads(line) for line in (tmp_path / VERDICT_LOG).read_bytes().splitlines())
    assert first.pop("provisional")
    assert first == last
