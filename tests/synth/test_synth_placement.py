"""How many nodes a replica takes, and what `distill check` refuses because no cluster of the recipe's size holds it."""

from __future__ import annotations

from typing import Any

import pytest

from synth.distributed.config import RayEngine
from synth.distributed.placement import check_placement, nodes_of
from synth.teachers.config import FakeTeacher, OpenAITeacher, VllmServerTeacher, VllmTeacher
from synth.teachers.vllm import shared_arguments


def teacher(tensor: int, pipeline: int = 1, name: str = "a/671b", **more: Any) -> VllmTeacher:
    return VllmTeacher(model=name, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, **more)


@pytest.mark.parametrize(
    ("tensor", "pipeline", "gpus_per_node", "nodes"),
    [
        (8, 1, 8, 1),
        (8, 2, 8, 2),
        (16, 1, 8, 2),
        (4, 1, 8, 1),
        (4, 3, 8, 2),
        (5, 2, 8, 2),
        (8, 2, 0, 1),
        (2, 1, None, 1),
    ],
)
def test_a_replica_takes_the_fewest_nodes_that_share_its_ranks_equally(
    tensor: int, pipeline: int, gpus_per_node: int | None, nodes: int
) -> None:
    assert nodes_of(RayEngine(), teacher(tensor, pipeline), gpus_per_node) == nodes


def test_the_recipe_may_say_how_many_nodes() -> None:
    assert nodes_of(RayEngine(nodes_per_replica=4), teacher(8, 2), 8) == 4
    assert nodes_of(RayEngine(nodes_per_replica=2), FakeTeacher(), 0) == 2
    assert nodes_of(RayEngine(nodes_per_replica=2), OpenAITeacher(model="m", base_url="http://127.0.0.1/v1"), 8) == 1


@pytest.mark.parametrize(
    ("engine", "member", "reason"),
    [
        (RayEngine(nodes_per_replica=1), teacher(8, 2), "needs 16 GPUs on 1 node, and a node has 8"),
        (RayEngine(gpus_per_replica=1.5), teacher(1), "1.5 GPUs on 1 node are no whole number a node"),
        (RayEngine(nodes_per_replica=3), teacher(8), "8 ranks .* which 3 nodes cannot share"),
        (RayEngine(), VllmServerTeacher(model="a/b", tensor_parallel_size=16), "kind vllm_server runs on one"),
        (RayEngine(nodes_per_replica=2), teacher(8, engine_args={"nnodes": 2}), "engine_args.nnodes is set by"),
    ],
)
def test_what_no_node_can_hold_is_refused(engine: RayEngine, member: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        nodes_of(engine, member, 8)


def test_all_ranks_of_an_engine_over_several_nodes_get_the_recipes_seed_or_one_random_one() -> None:
    assert shared_arguments(teacher(2, engine_args={"seed": 7}), 2, "10.0.0.1")["seed"] == 7
    assert len({shared_arguments(teacher(2), 2, "10.0.0.1")["seed"] for _ in range(3)}) > 1


def cluster(nodes: int, **more: Any) -> RayEngine:
    return RayEngine(nodes=nodes, gpus_per_node=8, **more)


@pytest.mark.parametrize(
    ("engine", "member"),
    [
        (cluster(4, replicas=2), teacher(8, 2)),
        (cluster(4, replicas=8), teacher(4)),
        (cluster(1, replicas=40, gpus_per_replica=0.2), teacher(1)),
        (cluster(3, replicas=3), teacher(4, 2)),
        (cluster(2, replicas=2, nodes_per_replica=2), teacher(8)),
    ],
)
def test_replicas_that_the_cluster_holds_pass(engine: RayEngine, member: VllmTeacher) -> None:
    check_placement(engine, [member])
    with pytest.raises(ValueError, match=rf"engine\.replicas is {engine.replicas + 1}, and .* hold"):
        check_placement(engine.model_copy(update={"replicas": engine.replicas + 1}), [member])


def test_a_replica_that_needs_more_nodes_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="1 node of 8 GPUs hold 0 replicas of a/671b"):
        check_placement(cluster(1), [teacher(8, 2)])


def test_of_several_teachers_one_has_the_cluster_and_the_smallest_sets_the_number_of_replicas() -> None:
    both = [teacher(1, name="a/8b"), teacher(8, 2)]
    check_placement(cluster(2, replicas=16), both)
    with pytest.raises(ValueError, match=r"replicas is 17, .* hold 16 replicas of a/8b"):
        check_placement(cluster(2, replicas=17), both)
    with pytest.raises(ValueError, match=r"min_replicas is 2, .* hold 1 replica of a/671b"):
        check_placement(cluster(2, replicas=16, min_replicas=2), both)
