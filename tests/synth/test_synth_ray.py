"""A real Ray cluster of two nodes on this machine, and what it does when parts of it are killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from hostile_endpoint import Call, serving
from sample_runs import draw, log_of, rows_of, stored
from tiny_moe import ANSWER, write_tiny_moe
from waiting import gone, line_count, meanwhile, repeatedly, until

from licensing.errors import MissingDependency
from synth.distributed import ray as ray_engine
from synth.distributed.config import EngineConfig, LocalEngine, RayEngine
from synth.distributed.open import open_teacher
from synth.problems.problem import Prompt
from synth.sampling.config import TeacherSampling
from synth.teachers.config import FakeTeacher, OpenAITeacher, VllmServerTeacher, VllmTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.teacher import Request

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROMPTS = [
    Prompt.model_validate({"id": str(i), "prompt": f"{i} + 1?", "answer": str(i + 1), "kind": "math", "source": "here"})
    for i in range(40)
]
TEACHER = FakeTeacher(latency_s=0.08, concurrency=2, seed=3)
SAMPLING = TeacherSampling(num_samples=5)


def new_cluster() -> Any:
    """A cluster whose head has one core."""
    from ray.cluster_utils import Cluster

    return Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})


def started(start: Callable[[], Any], tries: int = 4) -> Any:
    """What ``start`` returns. Ray gives a node 30 seconds to come up, which a busy machine does not always have."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
    return None


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("ray", reason="pip install ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    import ray

    return ray


@pytest.fixture
def cluster(ray: ModuleType) -> Iterator[Any]:
    """Two nodes of one core each: two raylets, one of them the head's."""
    made = started(new_cluster)
    try:
        started(lambda: made.add_node(num_cpus=1))
        yield made
    finally:
        if ray.is_initialized():
            ray.shutdown()
        made.shutdown()


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def workers(node: Any) -> list[psutil.Process]:
    """The processes in which replicas, or their shares, run on that node."""
    found = []
    for process in raylet(node).children(recursive=True):
        with suppress(psutil.Error):  # it has just gone
            if any(name in " ".join(process.cmdline()) for name in ("_Actor", "_Share")):
                found.append(process)
    return found


@contextmanager
def suspended(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """They stand still, so that a run cannot end before the test has seen what it waits for."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def run(
    engine: EngineConfig,
    folder: Path,
    config: FakeTeacher | VllmTeacher | VllmServerTeacher = TEACHER,
    prompts: Sequence[Prompt] = PROMPTS,
    sampling: TeacherSampling = SAMPLING,
) -> str:
    """Sample into ``folder``; returns the digest of the samples."""
    teacher = open_teacher(engine, config)
    try:
        return draw(folder, prompts, sampling, config, teacher).samples_digest
    finally:
        teacher.close()


def local_run(folder: Path) -> str:
    """The digest of the same recipe in this process. The fake's speed is in neither its requests nor its answers."""
    return run(LocalEngine(), folder, TEACHER.model_copy(update={"latency_s": 0.0}))


def test_a_node_killed_in_the_middle_loses_and_doubles_no_sample(cluster: Any, tmp_path: Path, capfd: Any) -> None:
    victim = cluster.worker_nodes.copy().pop()
    log = log_of(tmp_path / "ray")

    def kill() -> None:
        """As a machine goes: its raylet and all that it runs, at once, while its replica answers."""
        until(lambda: line_count(log), "the first sample")
        with suspended(workers(cluster.head_node)):
            until(lambda: workers(victim), "a replica on the node")
            goal = line_count(log) + 10  # more than the other replica can have on its way
            until(lambda: line_count(log) >= goal, "samples of the node's replica")
            first = raylet(victim)
            for process in (first, *first.children(recursive=True)):
                process.kill()

    with meanwhile(kill):
        digest = run(RayEngine(address=cluster.address, replicas=2), tmp_path / "ray")
    assert digest == local_run(tmp_path / "local")
    assert len(stored(tmp_path / "ray")) == 200
    assert "ray: lost a replica with" in capfd.readouterr().err


def test_a_killed_replica_is_replaced(cluster: Any, tmp_path: Path, capfd: Any) -> None:
    log = log_of(tmp_path / "ray")

    def replicas() -> list[psutil.Process]:
        return [process for node in cluster.list_all_nodes() for process in workers(node)]

    def kill() -> None:
        until(lambda: line_count(log), "the first sample")
        first = replicas()
        with suspended(first):
            both = until(lambda: len(found := replicas()) == 2 and found, "two replicas")
            rest = [process for process in both if process != first[0]]
            with suspended(rest):
                first[0].kill()
                until(
                    lambda: len(set(replicas()) - {first[0], *rest}) == 1, "a new replica beside the one that was left"
                )

    with meanwhile(kill):
        digest = run(RayEngine(address=cluster.address, replicas=2), tmp_path / "ray")
    until(lambda: not replicas(), "the end of all replicas")
    assert digest == local_run(tmp_path / "local")
    assert "ray: lost a replica with" in capfd.readouterr().err


def test_sampling_begins_with_the_first_replica_and_others_join_with_their_node(
    ray: ModuleType, tmp_path: Path
) -> None:
    log = log_of(tmp_path / "ray")
    cluster = started(new_cluster)
    try:
        engine = RayEngine(address=cluster.address, replicas=3)
        digests: list[str] = []
        # Ray manages its nodes from the main thread only
        sampling = threading.Thread(target=lambda: digests.append(run(engine, tmp_path / "ray")))
        sampling.start()
        until(lambda: line_count(log), "the first sample")
        alone = workers(cluster.head_node)
        with suspended(alone):
            late = started(lambda: cluster.add_node(num_cpus=2))
            until(lambda: len(workers(late)) == 2, "two replicas on the new node")
        sampling.join()
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()
    assert len(alone) == 1
    assert digests == [local_run(tmp_path / "local")]


def test_a_replica_over_two_nodes_that_loses_one_moves_to_another(cluster: Any, tmp_path: Path, capfd: Any) -> None:
    started(lambda: cluster.add_node(num_cpus=1))
    log = log_of(tmp_path / "ray")

    def kill() -> None:
        until(lambda: line_count(log), "the first sample")
        used = [node for node in cluster.list_all_nodes() if workers(node)]
        assert len(used) == 2
        first = raylet(next(node for node in used if node is not cluster.head_node))
        for process in (first, *first.children(recursive=True)):
            process.kill()

    with meanwhile(kill):
        digest = run(RayEngine(address=cluster.address, nodes_per_replica=2), tmp_path / "ray")
    assert digest == local_run(tmp_path / "local")
    assert len(stored(tmp_path / "ray")) == 200
    assert "ray: lost a replica with" in capfd.readouterr().err


@pytest.mark.timeout(400)
def test_vllm_shares_a_model_between_two_nodes(cluster: Any, tmp_path: Path) -> None:
    """Tensor parallelism over two nodes, one rank on each."""
    for name in ("torch", "transformers", "vllm"):
        pytest.importorskip(name)
    moe = tmp_path / "moe"
    write_tiny_moe(moe)
    config = VllmTeacher(
        model=str(moe),
        name="me/moe",
        dtype="float32",
        max_model_len=512,
        tensor_parallel_size=2,
        engine_args={"enforce_eager": True},
    )
    prompts = [Prompt(id=str(i), prompt=f"{i}x", answer="4", kind="math", source="here") for i in range(6)]
    ranks: set[tuple[int, int]] = set()

    def look() -> None:
        for number, node in enumerate(cluster.list_all_nodes()):
            for process in raylet(node).children(recursive=True):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith("VLLM::Worker"):
                        ranks.add((number, process.pid))

    with repeatedly(look):
        run(
            RayEngine(address=cluster.address, nodes_per_replica=2),
            tmp_path,
            config,
            prompts,
            TeacherSampling(num_samples=1, temperature=0, max_new_tokens=32),
        )
    assert [row["text"] for row in rows_of(tmp_path)] == [ANSWER] * 6
    nodes, pids = map(set, zip(*ranks, strict=True))
    assert len(nodes) == len(pids) == 2, ranks
    until(lambda: all(map(gone, pids)), "the end of both ranks")


class PoisonedEngine(FakeEngine):
    """Asked for problem 7, its process dies."""

    def submit(self, request: Request) -> None:
        if request.prompt.id == "7":
            os.kill(os.getpid(), signal.SIGKILL)
        super().submit(request)


class PoisonedActor(ray_engine._Actor):
    def hello(self) -> dict[str, Any]:
        import synth.distributed.replica

        synth.distributed.replica.build_teacher = PoisonedEngine  # type: ignore[attr-defined, assignment]
        return super().hello()


def test_a_request_that_kills_its_engine_becomes_an_error_row(
    ray: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the test's classes exist on no other node
    monkeypatch.setattr(ray_engine, "_Actor", PoisonedActor)
    monkeypatch.setattr(ray_engine, "_LONGEST_WAIT_S", 0.1)
    teacher = open_teacher(RayEngine(address="local", replicas=2, max_deaths=2, cpus_per_replica=0), TEACHER)
    try:
        summary = draw(tmp_path, PROMPTS[:12], TeacherSampling(num_samples=1), TEACHER, teacher)
    finally:
        teacher.close()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert not ray.is_initialized()
    assert summary.finish_reasons == {"error": 1, "stop": 11}
    (failed,) = (row for row in rows_of(tmp_path) if row["error"] is not None)
    assert failed["problem_id"] == "7"
    assert "2 replicas died" in failed["error"]


@pytest.mark.timeout(400)
def test_a_replica_may_hold_a_server_and_leaves_nothing_of_it(ray: ModuleType, tmp_path: Path) -> None:
    for name in ("torch", "transformers", "vllm"):
        pytest.importorskip(name)
    moe = tmp_path / "moe"
    write_tiny_moe(moe)
    config = VllmServerTeacher(
        model=str(moe),
        name="me/moe",
        dtype="float32",
        max_model_len=512,
        start_timeout_s=300,
        engine_args={"enforce_eager": True},
    )
    prompts = [Prompt(id=str(i), prompt=f"{i}x", answer="4", kind="math", source="here") for i in range(6)]
    served: set[int] = set()

    def look() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "serve" in process.cmdline():
                    served.add(process.pid)

    with repeatedly(look):
        run(
            RayEngine(address="local", replicas=1),
            tmp_path,
            config,
            prompts,
            TeacherSampling(num_samples=1, temperature=0, max_new_tokens=32),
        )
    assert [row["text"] for row in rows_of(tmp_path)] == [ANSWER] * 6
    assert served
    until(lambda: all(map(gone, served)), "the end of the servers")


def test_an_endpoint_that_ends_the_run_is_no_dead_replica(cluster: Any, tmp_path: Path) -> None:
    def act(call: Call) -> None:
        (Call.answer if len(endpoint.bodies) <= 6 else lambda one: one.refuse(402, "credit"))(call)

    config = RayEngine(address=cluster.address, replicas=2)
    with serving(act) as endpoint:
        teacher = OpenAITeacher(model="m", base_url=endpoint.url, license="mit", concurrency=2)
        engine = open_teacher(config, teacher)
        try:
            with pytest.raises(MissingDependency, match="credit"):
                draw(tmp_path, PROMPTS, SAMPLING, teacher, engine)
        finally:
            engine.close()
        assert len(endpoint.bodies) < 20, "no replica was started again to ask once more"
    assert {row["finish_reason"] for row in stored(tmp_path)} == {"stop"}
