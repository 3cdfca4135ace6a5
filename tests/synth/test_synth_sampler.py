"""The sampler: no teacher waits for a verdict, and no problem waits for a slow sample of another."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sample_runs import draw, problems, stored

from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.online_verification import Grade
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import Completion, Request

TEACHER = FakeTeacher(model="timed")
CONFIG = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=4, suspect_after=None))


class Timed:
    """Answers each request at once, but for those of ``slow``: they end once ``release_after`` was asked for."""

    model, engine = "timed", "timed 1"

    def __init__(self, slow: Collection[tuple[str, int]], room: int = 100) -> None:
        self.asked: list[tuple[str, int]] = []
        self.release_after: tuple[str, int] | None = None
        self._slow, self._room = slow, room
        self._deadline = time.monotonic() + 60
        self._flight: dict[str, tuple[str, int]] = {}

    @property
    def capacity(self) -> int:
        return self._room - len(self._flight)

    def submit(self, request: Request) -> None:
        sample = (request.prompt.id, request.sample_index)
        self.asked.append(sample)
        self._flight[request.request_id] = sample

    def poll(self) -> list[Completion]:
        return self.poll_for(60)

    def poll_for(self, seconds: float) -> list[Completion]:
        deadline = time.monotonic() + seconds
        while self._flight:
            done = [name for name, sample in self._flight.items() if sample not in self._slow or self._released()]
            if done or time.monotonic() >= deadline:
                for name in done:
                    del self._flight[name]
                return [Completion(name, "text", "stop", 1, 1) for name in done]
            time.sleep(0.001)
        return []

    def _released(self) -> bool:
        assert time.monotonic() < self._deadline, f"{self.release_after} was not asked for"
        return self.release_after in self.asked

    def close(self) -> None:
        self._flight.clear()


class Grader:
    """In the verifier's place: grades are given when the test says so."""

    def __init__(self) -> None:
        self.open: list[tuple[str, Future[Grade]]] = []
        self.decide: Any = lambda problem, count: None  # -> a grade, or None for later
        self.count: dict[str, int] = {}

    def grade(self, problem: Mapping[str, Any], sample: Mapping[str, Any], *tags: str) -> Future[Grade]:
        answer: Future[Grade] = Future()
        name = problem["id"]
        self.count[name] = self.count.get(name, 0) + 1
        grade = self.decide(name, self.count[name])
        if grade is None:
            self.open.append((name, answer))
        else:
            answer.set_result(grade)
        return answer


RIGHT, WRONG = Grade(True, True, True, None), Grade(True, False, False, "2")


def test_every_problem_is_asked_before_the_first_verdict_comes(tmp_path: Path) -> None:
    grader, teacher = Grader(), Timed((), room=2)

    def late(name: str, count: int) -> Grade | None:
        if len(teacher.asked) == 30:  # the last problem's sample is in: now the grades come
            while grader.open:
                grader.open.pop()[1].set_result(RIGHT)
            return RIGHT
        return None

    grader.decide = late
    assert draw(tmp_path, problems(30), CONFIG, TEACHER, teacher, verifier=grader).rows == 30


def test_a_verdict_lets_a_problem_go_on_while_a_slow_sample_of_another_runs(tmp_path: Path) -> None:
    grader, teacher = Grader(), Timed({("p0", 0)})
    grader.decide = lambda name, count: WRONG if name == "p1" and count < 3 else RIGHT
    teacher.release_after = ("p1", 2)  # the slow sample ends when the other problem's third one was asked for
    draw(tmp_path, problems(2), CONFIG, TEACHER, teacher, verifier=grader)
    assert set(teacher.asked) == {("p0", 0), ("p1", 0), ("p1", 1), ("p1", 2)}


def test_a_slow_sample_of_a_problem_does_not_hold_up_its_other_samples(tmp_path: Path) -> None:
    grader, teacher = Grader(), Timed({("p0", 0)})
    grader.decide = lambda name, count: WRONG
    teacher.release_after = ("p0", 5)
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=6, suspect_after=None))
    draw(tmp_path, problems(1), config, TEACHER, teacher, verifier=grader)
    assert len(teacher.asked) == 6


def test_what_the_verifier_raises_ends_the_run_with_every_sample_kept(tmp_path: Path) -> None:
    class Broken(Grader):
        def grade(self, problem: Mapping[str, Any], sample: Mapping[str, Any], *tags: str) -> Future[Grade]:
            answer: Future[Grade] = Future()
            answer.set_exception(RuntimeError("no verifier"))
            return answer

    with pytest.raises(RuntimeError, match="no verifier"):
        draw(tmp_path, problems(3), CONFIG, TEACHER, Timed(()), verifier=Broken())
    assert stored(tmp_path)
