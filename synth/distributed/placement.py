"""How many nodes a replica takes, and whether the cluster has them. Ray is not imported here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synth.distributed.config import RayEngine
from synth.teachers.config import FakeTeacher, OpenAITeacher, TeacherConfig, VllmTeacher

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_SET_BY_PLACEMENT = ("nnodes", "node_rank", "master_addr", "master_port", "distributed_executor_backend")


def gpus_of(engine: RayEngine, teacher: TeacherConfig) -> float:
    """GPUs of one replica: what the recipe says, else the product of tensor, pipeline and data parallel sizes."""
    return _parallel_size(teacher) if engine.gpus_per_replica is None else engine.gpus_per_replica


def _parallel_size(teacher: TeacherConfig) -> int:
    arguments = getattr(teacher, "engine_args", {})
    return math.prod(int(getattr(teacher, name, None) or arguments.get(name) or 1) for name in _PARALLEL)


def nodes_of(engine: RayEngine, teacher: TeacherConfig, gpus_per_node: float | None) -> int:
    """Nodes of one replica: what the recipe says, else the fewest that hold its GPUs in equal shares.

    ``gpus_per_node``: None where unknown, 0 where the nodes have none. A fake teacher has an actor on each node, and
    nothing runs in the further ones. Raises ValueError where the engine cannot be divided so, a node has too few GPUs,
    or its share is more than one GPU and no whole number, which Ray does not place.
    """
    if isinstance(teacher, OpenAITeacher):
        return 1
    gpus, ranks = gpus_of(engine, teacher), _parallel_size(teacher)
    nodes, most = engine.nodes_per_replica, gpus_per_node or math.inf
    if nodes is None:
        divisors = (count for count in range(1, ranks + 1) if ranks % count == 0)
        nodes = next((count for count in divisors if gpus / count <= most), 1)
    name = teacher.public_id
    if gpus / nodes > most:
        raise ValueError(
            f"{name} needs {gpus / nodes:g} GPUs on {_count(nodes, 'node')}, and a node has {most:g}: raise its "
            "parallel sizes, or engine.nodes_per_replica"
        )
    if engine.gpus_per_replica is not None and gpus / nodes > 1 and gpus % nodes:
        raise ValueError(
            f"{gpus:g} GPUs on {_count(nodes, 'node')} are no whole number a node: change engine.gpus_per_replica"
        )
    if nodes == 1 or isinstance(teacher, FakeTeacher):
        return nodes
    if not isinstance(teacher, VllmTeacher):
        raise ValueError(
            f"{name} needs {nodes} nodes, and kind {teacher.kind} runs on one: set teacher.kind: vllm, or start the "
            "server yourself and name it (kind openai)"
        )
    if ranks % nodes:
        raise ValueError(
            f"{name} has {ranks} ranks (tensor_parallel_size x pipeline_parallel_size), which {nodes} nodes cannot "
            "share equally: change engine.nodes_per_replica or the parallel sizes"
        )
    taken = next((argument for argument in _SET_BY_PLACEMENT if argument in teacher.engine_args), None)
    if taken is not None:
        raise ValueError(f"teacher.engine_args.{taken} is set by the placement on {nodes} nodes: remove it")
    return nodes


def check_placement(engine: RayEngine, teachers: Sequence[TeacherConfig]) -> None:
    """Raise ValueError for what can never be placed: as ``nodes_of``, and more replicas than the cluster holds, where
    the recipe says its size. Of several teachers one at a time has the cluster."""
    counts: dict[str, int] = {}
    for teacher in teachers:
        nodes = nodes_of(engine, teacher, engine.gpus_per_node)
        if engine.nodes is not None and not isinstance(teacher, OpenAITeacher):
            counts[teacher.public_id] = _replicas_that_fit(engine, teacher, nodes)
    for name, count in counts.items():
        needed = engine.replicas if count == max(counts.values()) else engine.min_replicas
        if count < needed:
            which = "replicas" if needed == engine.replicas else "min_replicas"
            raise ValueError(
                f"engine.{which} is {needed}, and {_count(engine.nodes or 0, 'node')} of {engine.gpus_per_node:g} GPUs "
                f"hold {_count(count, 'replica')} of {name}: lower it, or correct engine.nodes and engine.gpus_per_node"
            )


def _replicas_that_fit(engine: RayEngine, teacher: TeacherConfig, nodes: int) -> int:
    assert engine.nodes is not None
    assert engine.gpus_per_node is not None
    share = gpus_of(engine, teacher) / nodes
    if nodes > engine.nodes or isinstance(teacher, FakeTeacher) or not share or not engine.gpus_per_node:
        return 0 if nodes > engine.nodes else engine.replicas
    on_a_node = math.floor(round(engine.gpus_per_node / share, 6))  # 1 // 0.2 is 4
    return engine.nodes * on_a_node // nodes


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
