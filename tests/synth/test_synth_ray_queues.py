"""Which replica a request goes to, with threads in the place of Ray's actors."""

from __future__ import annotations

import concurrent.futures
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from sample_runs import draw, problems

from synth.distributed import ray as ray_engine
from synth.distributed.config import RayEngine
from synth.distributed.replica import Replica, unpacked
from synth.sampling.config import TeacherSampling
from synth.teachers.config import FakeTeacher


class Actor(Replica):
    """A replica that keeps what it is sent."""

    made: ClassVar[list[Actor]] = []

    def hello(self) -> dict[str, Any]:
        self.requests: list[Any] = []
        self.made.append(self)
        return super().hello() | {"node": str(len(self.made))}

    def submit(self, requests: str) -> None:
        self.requests += unpacked(requests)
        super().submit(requests)


class Threads:
    """As much of Ray as the driver uses."""

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=RuntimeError, ActorUnavailableError=ConnectionError)

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(16)

    def remote(self, kind: Any) -> Any:
        def method(call: Any) -> Any:
            return SimpleNamespace(remote=lambda *arguments: self._pool.submit(call, *arguments))

        def actor(*arguments: Any) -> Any:
            own = kind(*arguments)
            return SimpleNamespace(
                **{name: method(getattr(own, name)) for name in ("hello", "submit", "collect", "close")}
            )

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=actor))

    def wait(self, calls: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        when = concurrent.futures.FIRST_COMPLETED if num_returns == 1 else concurrent.futures.ALL_COMPLETED
        done, waiting = concurrent.futures.wait(calls, timeout, when)
        return list(done), list(waiting)

    def get(self, call: Any) -> Any:
        return call.result()

    def nodes(self) -> list[dict[str, Any]]:
        return []

    def kill(self, actor: Any) -> None:
        pass


def test_the_samples_of_a_problem_go_to_few_replicas_and_none_has_less_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "check_installed", lambda: None)
    monkeypatch.setattr(ray_engine, "connect", lambda address: (Threads(), False))
    monkeypatch.setattr(ray_engine, "replica_options", lambda *_: (1, {}))
    monkeypatch.setattr(ray_engine, "_Actor", Actor)
    monkeypatch.setattr(Actor, "made", [])
    config = FakeTeacher(latency_s=0.02, concurrency=8)
    teacher = ray_engine.RayTeacher(RayEngine(replicas=4), config)
    try:
        assert draw(tmp_path, problems(60), TeacherSampling(num_samples=8), config, teacher).rows == 480
    finally:
        teacher.close()
    replicas: dict[str, set[int]] = defaultdict(set)
    for number, actor in enumerate(Actor.made):
        for request in actor.requests:
            replicas[request.prompt.id].add(number)
    assert sum(map(len, replicas.values())) < 2.5 * 60, "four where any replica takes what comes next"
    assert min(len(actor.requests) for actor in Actor.made) > 60
