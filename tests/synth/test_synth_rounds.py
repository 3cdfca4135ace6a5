"""The loop: the teacher waits for no verdict, and nobody waits for a straggler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from synth.problems.problem import Prompt
from synth.sampling.config import AdaptivePolicy, TeacherSampling
from synth.sampling.sample import sample
from synth.teachers.config import FakeTeacher
from synth.teachers.teacher import Completion, Request, Teacher
from synth.verify.verdict import Verdict

pytestmark = pytest.mark.timeout(60)  # where a straggler is waited for, the run never ends
TEACHER = FakeTeacher(model="timed")
CONFIG = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=4, suspect_after=None))


def problems(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{n}", prompt=f"{n}?", answer=str(n), kind="math", source="s") for n in range(count)]


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

    def poll(self) -> list[Completion]:
        done: list[Completion] = []
        while self._in_flight and not done:
            done = self.poll_for(0.01)
        return done

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


class Court:
    """In the verifier's place: verdicts are given when the test says so."""

    def __init__(self) -> None:
        self.open: list[tuple[str, Future[Verdict]]] = []
        self.decide: Any = lambda problem, count: None  # -> a verdict, or None for later
        self.count: dict[str, int] = {}

    def __call__(self, _: object) -> Court:
        return self

    def __enter__(self) -> Court:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, row: Mapping[str, Any]) -> Future[Verdict]:
        answer: Future[Verdict] = Future()
        name = row["id"]
        self.count[name] = self.count.get(name, 0) + 1
        verdict = self.decide(name, self.count[name])
        if verdict is None:
            self.open.append((name, answer))
        else:
            answer.set_result(verdict)
        return answer


RIGHT, WRONG = Verdict("correct", 1.0, "1"), Verdict("wrong", 0.0, "2")


def test_every_problem_is_asked_while_no_verdict_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    court, teacher = Court(), HeldTeacher(room=2)
    monkeypatch.setattr("synth.sampling.sample.Verifier", court)

    def late(name: str, count: int) -> Verdict | None:
        if len(teacher.asked) == 30:  # the last problem's sample is in: now the court sits
            while court.open:
                court.open.pop()[1].set_result(RIGHT)
            return RIGHT
        return None

    court.decide = late
    assert sample(problems(30), teacher, TEACHER, CONFIG, tmp_path / "log").rows == 30


def test_a_verdict_lets_a_problem_go_on_while_a_straggler_of_another_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    court, teacher = Court(), HeldTeacher(held=("p0", 0))
    monkeypatch.setattr("synth.sampling.sample.Verifier", court)
    court.decide = lambda name, count: WRONG if name == "p1" and count < 3 else RIGHT
    teacher.released = lambda: ("p1", 2) in teacher.asked
    sample(problems(2), teacher, TEACHER, CONFIG, tmp_path / "log")
    assert sorted(teacher.asked) == [("p0", 0), ("p1", 0), ("p1", 1), ("p1", 2)]


def test_a_straggler_of_a_problem_does_not_hold_up_its_other_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    court, teacher = Court(), HeldTeacher(held=("p0", 0))
    monkeypatch.setattr("synth.sampling.sample.Verifier", court)
    court.decide = lambda name, count: WRONG
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=6, suspect_after=None))
    teacher.released = lambda: ("p0", 5) in teacher.asked
    sample(problems(1), teacher, TEACHER, config, tmp_path / "log")
    assert len(teacher.asked) == 6


def test_what_the_verifier_raises_ends_the_run_with_every_sample_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Court):
        def submit(self, row: Mapping[str, Any]) -> Future[Verdict]:
            answer: Future[Verdict] = Future()
            answer.set_exception(RuntimeError("no verifier"))
            return answer

    monkeypatch.setattr("synth.sampling.sample.Verifier", Broken())
    with pytest.raises(RuntimeError, match="no verifier"):
        sample(problems(3), HeldTeacher(), TEACHER, CONFIG, tmp_path / "log")
    assert (tmp_path / "log").read_bytes().endswith(b"\n")
