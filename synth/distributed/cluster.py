"""Ray itself: joining or starting a cluster, and the resources of a replica."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

from licensing.errors import InputError, MissingDependency
from synth.distributed.config import RayEngine
from synth.teachers.config import TeacherConfig

__all__ = ["connect", "replica_options", "resource_text"]

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_WITHOUT_MODEL = frozenset({"fake", "offline", "openai"})  # kinds whose replica needs no accelerator


def connect(address: str) -> tuple[Any, bool]:
    """The ray module, connected, and whether this call connected it (then the caller disconnects).

    Raises MissingDependency where Ray is not installed or no cluster answers, InputError where the cluster runs another
    version of Ray or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports from this tool or its parts
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("Ray is not installed", where="engine.kind", hint="pip install ray") from error
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


def replica_options(ray: Any, config: RayEngine, teacher: TeacherConfig) -> dict[str, Any]:
    """Ray's resource options of one replica; defaults as the recipe's schema says."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = config.gpus_per_replica, config.cpus_per_replica
    has_model = teacher.kind not in _WITHOUT_MODEL
    use_gpus = has_model and any(node.get("GPU") for node in nodes)
    if gpus is None:
        gpus = parallel_size(teacher) if use_gpus else 0
    if cpus is None:
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        cpus = min(cores) if has_model and not gpus and cores else 1
    return {"num_gpus": gpus, "num_cpus": cpus, "resources": dict(config.resources)}


def parallel_size(teacher: TeacherConfig) -> int:
    """Accelerators of one engine: the product of its tensor, pipeline and data parallel sizes."""
    arguments = getattr(teacher, "engine_args", {})
    return math.prod(int(getattr(teacher, name, None) or arguments.get(name) or 1) for name in _PARALLEL)


def resource_text(options: dict[str, Any]) -> str:
    """What a replica needs, for people: "8 GPU, 1 CPU"."""
    amounts = {"GPU": options["num_gpus"], "CPU": options["num_cpus"], **options["resources"]}
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount) or "nothing"
