"""A replica without Ray, and the driver on a Ray of ours that does what the test says."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hostile_endpoint import Call, serving
from sample_runs import draw, problems, rows_of, stored
from waiting import until

from licensing.errors import InputError, MissingDependency
from synth.distributed import ray as ray_engine
from synth.distributed.cluster import replica_options, resource_text
from synth.distributed.config import LocalEngine, RayEngine
from synth.distributed.open import open_router, open_teacher
from synth.distributed.replica import Replica, packed, share_hello, unpacked
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.sampling.requests import first_requests
from synth.teachers.config import FakeTeacher, OpenAITeacher, VllmTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.mixture import TeacherMixture
from synth.teachers.teacher import Completion, Request

TEACHER = FakeTeacher(latency_s=0.002, concurrency=4, seed=3)


def requests(count: int) -> list[Request]:
    prompts = [
        Prompt.model_validate({"id": str(i), "prompt": f"{i} + 1 é?", "answer": str(i + 1), "kind": "math",
                               "source": "here", "level": i})
        for i in range(count)
    ]  # fmt: skip
    return list(first_requests(prompts, TEACHER, TeacherSampling(num_samples=1)))


def test_a_request_comes_out_of_a_message_as_it_went_in() -> None:
    asked = requests(3)
    asked.append(dataclasses.replace(asked[0], prefix="so far", prefix_ids=(5, 1, 2)))
    half_a_pair = ({"role": "user", "content": "\ud83d?"},)
    asked.append(dataclasses.replace(asked[0], messages=half_a_pair, sampling_options={"top_k": 5, "min_p": 1e-300}))
    assert unpacked(packed(asked)) == asked


# --- the replica -------------------------------------------------------------------------------------------------


@pytest.fixture
def replica() -> Iterator[Replica]:
    one = Replica(TEACHER.model_dump_json())
    yield one
    one.close(2)


def collect_all(replica: Replica, count: int) -> list[str]:
    """The ids of the answers, in the order in which they come, until there are so many."""
    names: list[str] = []
    last = 0

    def enough() -> bool:
        nonlocal last
        reply = json.loads(replica.collect(last, 1 << 30, 1))
        last = reply["last"]
        names.extend(answer["request_id"] for answer in reply["answers"])
        return len(names) >= count

    until(enough, f"{count} answers")
    return names


def test_a_replica_answers_each_request_once_however_often_it_is_sent(replica: Replica) -> None:
    hello = replica.hello()
    assert hello["engine"] == "fake 1"
    assert hello["limit"] >= 8
    asked = requests(30)
    for _ in range(3):
        replica.submit(packed(asked))
    assert sorted(collect_all(replica, 30)) == sorted(r.request_id for r in asked)
    assert json.loads(replica.collect(30, 1 << 30, 0.2))["answers"] == []


def test_an_answer_whose_reply_was_lost_is_given_again(replica: Replica) -> None:
    replica.hello()
    replica.submit(packed(requests(1)))
    first = json.loads(replica.collect(0, 1 << 30, 60))
    again = json.loads(replica.collect(0, 1 << 30, 60))
    assert len(first["answers"]) == 1
    assert again == first
    replica.submit(packed(requests(1)))  # not acknowledged: still known
    assert json.loads(replica.collect(first["last"], 1 << 30, 0.2))["answers"] == []


def test_an_engine_that_cannot_be_built_says_why_instead_of_dying() -> None:
    hello = Replica(json.dumps({"kind": "offline", "model": "x/y"})).hello()
    assert hello["failure"]["kind"] == "InputError"
    assert "traces" in hello["failure"]["hint"]


def test_a_hungry_engine_takes_what_comes_while_it_is_at_work(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing before it has all four, so the first one runs while the others come."""
    in_flight: list[str] = []
    submit, poll_for = FakeEngine.submit, FakeEngine.poll_for

    def counted(self: FakeEngine, request: Request) -> None:
        in_flight.append(request.request_id)
        submit(self, request)

    def held(self: FakeEngine, seconds: float) -> list[Completion]:
        if len(in_flight) == 4:
            return poll_for(self, seconds)
        time.sleep(min(seconds, 0.01))
        return []

    monkeypatch.setattr(FakeEngine, "submit", counted)
    monkeypatch.setattr(FakeEngine, "poll_for", held)
    replica.hello()
    asked = requests(4)
    replica.submit(packed(asked[:1]))
    until(lambda: in_flight, "the first request in the engine")
    replica.submit(packed(asked[1:]))
    assert len(collect_all(replica, 4)) == 4


def test_an_engine_that_fails_at_work_reports_it(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "poll_for", lambda self, seconds: 1 / 0)
    replica.hello()
    replica.submit(packed(requests(1)))
    failure = json.loads(replica.collect(0, 1 << 30, 60))["failure"]
    assert failure["kind"] == "bug"
    assert "ZeroDivisionError" in failure["what"]


# --- the driver, on a Ray of ours --------------------------------------------------------------------------------


class RayError(Exception):
    pass


class ActorUnavailableError(RayError):
    pass


class RayTaskError(Exception):
    pass


class OurShare:
    """The share of a further node."""

    def __init__(self, config: str, node: str, ray: OurRay) -> None:
        self.config, self.node, self.ray = config, node, ray

    def hello(self) -> dict[str, Any]:
        return share_hello(self.config) | {"node": self.node, "engine": self.ray.share_engine}

    def run(self, config: str, rank: int) -> dict[str, Any]:
        self.ray.dead_nodes.add(self.node)
        return {"kind": "InputError", "what": "vLLM does not start", "where": None, "hint": None}


class OurRay:
    """Calls run when they are waited for. ``fault(actor number, what, arguments)`` may raise in their place."""

    exceptions = SimpleNamespace(
        RayError=RayError, ActorUnavailableError=ActorUnavailableError, RayTaskError=RayTaskError
    )

    def __init__(self) -> None:
        self.fault: Callable[[int, str, tuple[Any, ...]], None] = lambda *_: None
        self.started: list[Replica] = []
        self.events: list[str] = []
        self.dead_nodes: set[str] = set()
        self.shares = 0
        self.lost_share = ""  # the node whose share fails when it runs
        self.share_engine = "fake 1"
        self.util = SimpleNamespace(remove_placement_group=self.events.append)

    def remote(self, actor_class: type) -> Any:
        def share(config: str) -> Any:
            self.shares += 1
            share = OurShare(config, f"share{self.shares}", self)
            hello, run = [
                SimpleNamespace(remote=lambda *given, what=what: (0, share, what, given, object()))
                for what in ("hello", "run")
            ]
            return SimpleNamespace(hello=hello, run=run)

        def create(config: str, nodes: int) -> Any:
            replica, number = Replica(config, nodes), len(self.started)
            self.started.append(replica)
            self.events.append("start")

            def method(what: str) -> Any:
                return SimpleNamespace(remote=lambda *given: (number, replica, what, given, object()))

            return SimpleNamespace(**{what: method(what) for what in ("hello", "submit", "collect", "drain", "close")})

        remote = share if actor_class is ray_engine._Share else create
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))

    def wait(self, calls: list[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        calls = [call for call in calls if call[2] != "run" or call[1].node == self.lost_share]
        return (calls, []) if timeout is not None else (calls[-1:], calls[:-1])

    def get(self, call: Any) -> Any:
        number, replica, what, given, _ = call
        self.fault(number, what, given)
        if what == "collect":
            given = (*given[:2], 0.02)
        answer = getattr(replica, what)(*given)
        return {"node": f"node{number}", **answer} if what == "hello" else answer

    def kill(self, _: Any) -> None:
        self.events.append("kill")

    def nodes(self) -> list[dict[str, Any]]:
        seen = [f"node{number}" for number in range(len(self.started))]
        seen += [f"share{number + 1}" for number in range(self.shares)]
        return [{"NodeID": n, "Alive": n not in self.dead_nodes, "Resources": {"CPU": 2.0}} for n in seen]


@pytest.fixture
def our_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[OurRay]:
    ray = OurRay()
    monkeypatch.setattr(ray_engine, "check_installed", lambda: None)
    monkeypatch.setattr(ray_engine, "connect", lambda address: (ray, False))
    monkeypatch.setattr(ray_engine, "reserve_nodes", lambda ray, nodes, options: ("group", [None] * nodes))
    monkeypatch.setattr(ray_engine, "_LONGEST_WAIT_S", 0.01)
    yield ray
    for replica in ray.started:
        replica.close(1)


def ask_all(teacher: Any, asked: list[Request]) -> list[Completion]:
    answers: list[Completion] = []
    waiting = iter(asked)
    following = next(waiting, None)
    while len(answers) < len(asked):
        while following is not None and teacher.capacity > 0:
            teacher.submit(following)
            following = next(waiting, None)
        answers += teacher.poll()
    return answers


def test_two_replicas_give_every_answer_of_the_local_engine_once(our_ray: OurRay) -> None:
    asked = requests(60)
    teacher = open_teacher(RayEngine(replicas=2), TEACHER)
    answers = ask_all(teacher, asked)
    alone = ask_all(FakeEngine(TEACHER), asked)
    key = lambda c: c.request_id  # noqa: E731
    assert sorted(answers, key=key) == sorted(alone, key=key)
    assert teacher.engine == "fake 1"
    assert teacher.poll() == []
    assert all(replica._last > 5 for replica in our_ray.started), "both replicas worked"


def test_token_ids_and_what_the_engines_settled_on_come_back_once(
    our_ray: OurRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FakeEngine.poll_for

    def cut(self: FakeEngine, seconds: float) -> list[Completion]:
        return [dataclasses.replace(done, token_ids=(7, 8)) for done in answer(self, seconds)]

    facts = [{"model": TEACHER.model, "engine": "fake 1", "revision": "r1", "config": {"dtype": "bfloat16"}}]
    monkeypatch.setattr(FakeEngine, "poll_for", cut)
    monkeypatch.setattr(FakeEngine, "engine_info", facts)
    teacher = open_teacher(RayEngine(replicas=2), TEACHER)
    answers = ask_all(teacher, requests(20))
    assert {done.token_ids for done in answers} == {(7, 8)}
    assert teacher.engine_info == facts


def test_replicas_that_are_not_there_yet_hold_nobody_up(our_ray: OurRay) -> None:
    real_wait = our_ray.wait

    def wait(calls: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return real_wait([call for call in calls if call[0] == 1], 1, 0)[0], []  # number 0 never comes up

    our_ray.wait = wait  # type: ignore[method-assign]
    answers = ask_all(open_teacher(RayEngine(replicas=2), TEACHER), requests(20))
    assert len(answers) == 20


def test_a_replica_that_stays_unreachable_is_replaced_and_no_request_is_blamed(our_ray: OurRay) -> None:
    def fault(number: int, what: str, given: tuple[Any, ...]) -> None:
        if number < 4 and what == "collect":
            raise ActorUnavailableError("no connection")

    our_ray.fault = fault
    answers = ask_all(open_teacher(RayEngine(max_deaths=2, max_restarts=0), TEACHER), requests(20))
    assert {completion.finish_reason for completion in answers} == {"stop"}
    assert len(answers) == 20
    assert len(our_ray.started) == 5


def test_a_poisoned_request_becomes_an_error_row_and_the_others_are_answered(our_ray: OurRay) -> None:
    asked = requests(60)
    poison = asked[17].request_id
    dead: set[int] = set()

    def fault(number: int, what: str, given: tuple[Any, ...]) -> None:
        if what == "submit" and poison in given[0]:
            dead.add(number)
        if number in dead:
            raise RayError("the actor died")

    our_ray.fault = fault
    answers = {c.request_id: c for c in ask_all(open_teacher(RayEngine(max_deaths=3), TEACHER), asked)}
    assert len(answers) == 60
    failed = [c for c in answers.values() if c.finish_reason == "error"]
    assert [c.request_id for c in failed] == [poison]
    assert failed[0].error is not None
    assert failed[0].error.startswith("3 replicas died")
    assert len(dead) == 3


def test_a_request_is_not_blamed_for_the_death_of_its_node(our_ray: OurRay) -> None:
    dead: set[int] = set()

    def fault(number: int, what: str, given: tuple[Any, ...]) -> None:
        if what == "submit" and number < 6:
            dead.add(number)
            our_ray.dead_nodes.add(f"node{number}")
        if number in dead:
            raise RayError("the node died")

    our_ray.fault = fault
    answers = ask_all(open_teacher(RayEngine(max_deaths=2, max_restarts=0), TEACHER), requests(5))
    assert [c.finish_reason for c in answers if c.finish_reason == "error"] == []
    assert len(our_ray.started) == 7


def test_a_further_node_that_dies_before_the_first_answer_is_neither_the_users_error_nor_a_requests(
    our_ray: OurRay,
) -> None:
    our_ray.lost_share = "share1"
    teacher = open_teacher(RayEngine(nodes_per_replica=2, max_deaths=2, max_restarts=0), TEACHER)
    answers = ask_all(teacher, requests(5))
    assert {completion.finish_reason for completion in answers} == {"stop"}
    teacher.close()
    assert our_ray.events == ["start", "kill", "kill", "group"] * 2
    assert our_ray.shares == 2


def test_a_further_node_with_another_engine_is_not_used(our_ray: OurRay) -> None:
    our_ray.share_engine = "fake 2"
    with pytest.raises(InputError, match="share1 runs fake 2 where others run fake 1"):
        ask_all(open_teacher(RayEngine(nodes_per_replica=2), TEACHER), requests(2))


def test_a_further_node_that_cannot_build_the_teacher_says_why() -> None:
    hello = share_hello(json.dumps({"kind": "offline", "model": "x/y"}))
    assert hello["failure"]["kind"] == "InputError"


def test_a_replica_that_dies_at_every_start_ends_the_run(our_ray: OurRay) -> None:
    def fault(number: int, what: str, given: tuple[Any, ...]) -> None:
        raise RayError("out of memory")

    our_ray.fault = fault
    with pytest.raises(MissingDependency, match="no replica is left, after 2 restarts: out of memory"):
        ask_all(open_teacher(RayEngine(max_restarts=2), TEACHER), requests(2))
    assert len(our_ray.started) == 3


def test_too_few_replicas_for_too_long_end_the_run(our_ray: OurRay) -> None:
    our_ray.wait = lambda calls, num_returns, timeout: ([], calls)  # type: ignore[method-assign]
    with pytest.raises(MissingDependency, match="0 of 2 replicas") as raised:
        ask_all(open_teacher(RayEngine(replicas=2, min_replicas=2, start_timeout_s=0.05), TEACHER), requests(2))
    assert raised.value.hint is not None
    assert "1 CPU" in raised.value.hint


def test_an_engine_that_refuses_the_recipe_is_the_users_error(our_ray: OurRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, request: Request) -> None:
        raise InputError("vLLM does not start", where="teacher.model", hint="look")

    monkeypatch.setattr(FakeEngine, "submit", refuse)
    with pytest.raises(InputError, match=r"teacher\.model, on Ray node node0: vLLM does not start"):
        ask_all(open_teacher(RayEngine(), TEACHER), requests(2))


def test_a_node_with_other_code_is_refused(our_ray: OurRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "code_digest", lambda: "other")
    with pytest.raises(InputError, match="another version"):
        ask_all(open_teacher(RayEngine(), TEACHER), requests(2))


def test_a_replica_of_another_engine_is_not_used_and_the_run_goes_on(
    our_ray: OurRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = Replica.hello

    def other_engine(self: Replica) -> dict[str, Any]:
        return hello(self) | ({"engine": "fake 2"} if self is our_ray.started[1] else {})

    monkeypatch.setattr(Replica, "hello", other_engine)
    teacher = open_teacher(RayEngine(replicas=2), TEACHER)
    assert len(ask_all(teacher, requests(20))) == 20
    assert teacher.engine == "fake 1"
    assert our_ray.started[1]._last == 0
    assert len(our_ray.started) == 2


@pytest.mark.slow
def test_before_an_endpoint_ends_the_run_every_replica_answers_what_it_has_sent(
    our_ray: OurRay, tmp_path: Path
) -> None:
    """One request finds the credit used up while five answers are on their way at both replicas: they are paid for."""
    refused = threading.Event()

    def act(call: Call) -> None:
        if call.question == "0 + 1?":
            until(lambda: len(endpoint.bodies) == 6, "all six requests")
            call.refuse(402, "credit")
            refused.set()
        else:
            refused.wait(30)
            # The second replica's come later: the first has ended meanwhile. In another order all holds as well.
            time.sleep(0.1 if int(call.question[0]) < 5 else 0.6)
            call.answer()

    with serving(act) as endpoint:
        teacher = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", concurrency=3)
        engine = open_teacher(RayEngine(replicas=2), teacher)
        with pytest.raises(MissingDependency, match="credit"):
            draw(tmp_path, problems(10), TeacherSampling(num_samples=1), teacher, engine)
        engine.close()
    assert {row["finish_reason"] for row in stored(tmp_path)} == {"stop"}
    assert len(stored(tmp_path)) == len(endpoint.bodies) - 1


def test_a_missing_ray_is_answered_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependency, match="pip install ray"):
        open_teacher(RayEngine(address="local"), TEACHER)


def test_a_replica_asks_for_the_accelerators_of_its_engine() -> None:
    def nodes(*resources: dict[str, float]) -> Any:
        return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": each} for each in resources])

    gpus, cpus = nodes({"CPU": 96, "GPU": 8}, {"CPU": 4}), nodes({"CPU": 64}, {"CPU": 16})
    big = VllmTeacher(model="a/b", tensor_parallel_size=4, engine_args={"data_parallel_size": 2})

    def text(ray: Any, engine: RayEngine, teacher: Any = big) -> str:
        return resource_text(*replica_options(ray, engine, teacher))

    assert text(gpus, RayEngine()) == "8 GPU, 1 CPU on one node"
    assert text(cpus, RayEngine()) == "16 CPU on one node"
    assert text(gpus, RayEngine(), TEACHER) == "1 CPU on one node"
    own = RayEngine(gpus_per_replica=0.5, cpus_per_replica=3, resources={"h200": 1})
    assert text(gpus, own) == "0.5 GPU, 3 CPU, 1 h200 on one node"
    wide = VllmTeacher(model="a/b", tensor_parallel_size=8, pipeline_parallel_size=2)
    assert text(gpus, RayEngine(), wide) == "8 GPU, 1 CPU on each of 2 nodes"
    head = nodes({"CPU": 4, "GPU": 1})  # the others join later
    assert text(head, RayEngine(nodes=3, gpus_per_node=8), wide) == "8 GPU, 1 CPU on each of 2 nodes"
    with pytest.raises(InputError, match="needs 16 GPUs on 1 node, and a node has 8"):
        text(gpus, RayEngine(nodes_per_replica=1), wide)


def test_a_cascade_on_ray_ends_with_the_samples_of_a_local_run_one_teacher_at_a_time(
    our_ray: OurRay, tmp_path: Path
) -> None:
    members = [FakeTeacher(model=f"fake/{rate}", accuracy=rate, latency_s=0) for rate in (0.4, 0.9)]
    teachers = TeacherMixture.model_validate({"teachers": [{"teacher": one.model_dump()} for one in members]})
    steps = [{"target_correct": 2, "max_samples": 5}, {"target_correct": 1, "max_samples": 6}]
    config = TeacherSampling.model_validate({"policy": {"kind": "cascade", "steps": steps}})
    digests = set()
    for name, engine in (("ray", RayEngine(replicas=2)), ("local", LocalEngine())):
        router = open_router(engine, teachers)
        digests.add(draw(tmp_path / name, problems(20), config, teachers, router).samples_digest)
        router.close()
    assert len(digests) == 1
    assert {row["teacher"] for row in rows_of(tmp_path / "ray")} == {one.model for one in members}
    assert our_ray.events == ["start", "start", "kill", "kill"] * 2


def test_more_replicas_needed_than_wanted_is_refused() -> None:
    with pytest.raises(ValueError, match="min_replicas 3 is more than replicas 2"):
        RayEngine(replicas=2, min_replicas=3)
