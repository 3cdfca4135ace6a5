"""Ray itself: joining or starting a cluster, and the resources of a replica on each of its nodes."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Any

from licensing.errors import InputError, MissingDependency
from synth.distributed.config import RayEngine
from synth.distributed.placement import gpus_of, nodes_of
from synth.teachers.config import TeacherConfig

_WITHOUT_MODEL = frozenset({"fake", "offline", "openai"})  # kinds whose replica needs no accelerator


def check_installed() -> None:
    """Raise MissingDependency where Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingDependency("Ray is not installed", where="engine.kind", hint="pip install ray")


def connect(address: str) -> tuple[Any, bool]:
    """The ray module, connected, and whether this call connected it (then the caller disconnects).

    Raises MissingDependency where Ray is not installed or no cluster answers, InputError where the cluster runs another
    version of Ray or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports from this tool or its parts
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    check_installed()
    import ray

    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(
            address=address,
            configure_logging=False,
            logging_level=logging.ERROR,
            log_to_driver=False,  # it would print on stdout
            **options,
        )
    except ConnectionError as error:
        raise MissingDependency(
            f"no Ray cluster answers at {address}",
            where="engine.address",
            hint="start one with `ray start --head`, or set engine.address to local",
        ) from error
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise
        raise InputError(
            " ".join(str(error).split())[:300],
            where="engine.address",
            hint="use the cluster's versions of Python and Ray here",
        ) from error
    return ray, True


def replica_options(ray: Any, config: RayEngine, teacher: TeacherConfig) -> tuple[int, dict[str, Any]]:
    """Nodes of one replica, and Ray's resource options on each of them; defaults as the recipe's schema says.

    Raises InputError as ``nodes_of`` does.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_model = teacher.kind not in _WITHOUT_MODEL
    # The recipe's number counts too: the nodes that are there first may be the smaller ones.
    sizes = [config.gpus_per_node or 0, *(node.get("GPU", 0) for node in alive)]
    most_gpus = max(sizes) if has_model else 0
    try:
        nodes = nodes_of(config, teacher, most_gpus)
    except ValueError as error:
        raise InputError(str(error), where="engine") from error
    gpus = gpus_of(config, teacher) / nodes if most_gpus or config.gpus_per_replica is not None else 0
    if config.cpus_per_replica is not None:
        cpus = config.cpus_per_replica / nodes
    else:
        cores = [node["CPU"] for node in alive if node.get("CPU")]
        cpus = min(cores) if has_model and not gpus and cores else 1
    return nodes, {"num_gpus": gpus, "num_cpus": cpus, "resources": dict(config.resources)}


def reserve_nodes(ray: Any, nodes: int, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """A placement group with one bundle on each of ``nodes`` nodes, and the scheduling strategy for each bundle.

    It returns at once: actors in it start when the cluster has room for all of them.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    amounts = {"GPU": options["num_gpus"], "CPU": options["num_cpus"], **options["resources"]}
    bundle = {name: amount for name, amount in amounts.items() if amount} or {"CPU": 1}
    group = ray.util.placement_group([bundle] * nodes, strategy="STRICT_SPREAD")
    return group, [PlacementGroupSchedulingStrategy(group, index) for index in range(nodes)]


def resource_text(nodes: int, options: dict[str, Any]) -> str:
    """What a replica needs, for people: "8 GPU, 1 CPU on one node"."""
    amounts = {"GPU": options["num_gpus"], "CPU": options["num_cpus"], **options["resources"]}
    text = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount) or "nothing"
    return f"{text} on one node" if nodes == 1 else f"{text} on each of {nodes} nodes"
