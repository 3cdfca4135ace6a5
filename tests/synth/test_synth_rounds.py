"""The loop: the teacher waits for no verdict, and nobody waits for a straggler."""

from __future__ import annotations

import time
from collections.abc import Mapping
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

TEACHER = FakeTeacher(model="timed")
CONFIG = TeacherSampling(policy=AdaptivePolicy(target_correct=1, max_samples=4, suspect_after=None))


def problems(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{n}", prompt=f"{n}?", answer=str(n), kind="math", source="s") for n in range(count)]


class Timed(Teacher):
    """Answers each request after its own number of seconds; remembers when it was asked."""

    model, engine = "timed", "timed 1"

    def __init__(self, seconds: dict[tuple[str, int], float], room: int = 100) -> None:
        self.asked: dict[tuple[str, int], float] = {}
        self._seconds, self._room = seconds, room
        self._flight: dict[str, float] = {}

    @property
    def capacity(self) -> int:
        return self._room - len(self._flight)

    def submit(self, request: Request) -> None:
        slot = (request.prompt.id, request.sample_index)
        self.asked[slot] = time.monotonic()
        self._flight[request.request_id] = time.monotonic() + self._seconds.get(slot, 0.0)

    def poll(self) -> list[Completion]:
        return self.poll_for(60)

    def poll_for(self, seconds: float) -> list[Completion]:
        deadline = time.monotonic() + seconds
        while self._flight:
            done = [name for name, at in self._flight.items() if at <= time.monotonic()]
            if done or time.monotonic() >= deadline:
                for name in done:
                    del self._flight[name]
                return [Completion(name, "text", "stop", 1, 1) for name in done]
            time.sleep(0.001)
        return []

    def close(self) -> None:
        self._flight.clear()


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
    court, teacher = Court(), Timed({}, room=2)
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
    court, teacher = Court(), Timed({("p0", 0): 1.0})
    monkeypatch.setattr("synth.sampling.sample.Verifier", court)
    court.decide = lambda name, count: WRONG if name == "p1" and count < 3 else RIGHT
    began = time.monotonic()
    sample(problems(2), teacher, TEACHER, CONFIG, tmp_path / "log")
    assert set(teacher.asked) == {("p0", 0), ("p1", 0), ("p1", 1), ("p1", 2)}
    assert teacher.asked["p1", 2] - began < 0.6
    assert time.monotonic() - began < 2.0


def test_a_straggler_of_a_problem_does_not_hold_up_its_other_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    court, teacher = Court(), Timed({("p0", 0): 1.0})
    monkeypatch.setattr("synth.sampling.sample.Verifier", court)
    court.decide = lambda name, count: WRONG
    config = TeacherSampling(policy=AdaptivePolicy(target_correct=2, max_samples=6, suspect_after=None))
    began = time.monotonic()
    sample(problems(1), teacher, TEACHER, config, tmp_path / "log")
    assert len(teacher.asked) == 6
    assert teacher.asked["p0", 5] - began < 0.6


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
        sample(problems(3), Timed({}), TEACHER, CONFIG, tmp_path / "log")
    assert (tmp_path / "log").read_bytes().endswith(b"\n")
