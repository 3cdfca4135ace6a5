"""`engine`: where the teacher's requests run. The place is no part of a key: every field is operational."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synth.section import Operational, Section


class LocalEngine(Section):
    """Requests run in this process."""

    kind: Literal["local"] = Operational("local")


class RayEngine(Section):
    """Requests run on Ray actors. A replica holds one whole engine, on one node or on several."""

    kind: Literal["ray"] = Operational("ray")
    address: str = Operational(
        "auto",
        min_length=1,
        description="auto: the cluster that RAY_ADDRESS names or that runs here; local: start one here; or host:port.",
    )
    replicas: int = Operational(
        1, ge=1, description="Number of engines; sampling begins with the first one, and others may join."
    )
    min_replicas: int = Operational(
        1,
        ge=1,
        description="Least number of live replicas; with fewer for `start_timeout_s` seconds the run ends, and can be "
        "resumed.",
    )
    start_timeout_s: float = Operational(
        1800, gt=0, description="Seconds with fewer than `min_replicas` live replicas before the run ends."
    )
    nodes_per_replica: int | None = Operational(
        None,
        ge=1,
        description="Number of nodes that one engine spans, with equally many GPUs on each (kind vllm); absent: the "
        "fewest that have enough GPUs.",
    )
    gpus_per_replica: float | None = Operational(
        None,
        ge=0,
        description="GPUs of one replica; absent: the product of the teacher's parallel sizes where the cluster has "
        "GPUs, else 0.",
    )
    cpus_per_replica: float | None = Operational(
        None,
        ge=0,
        description="CPU cores of one replica; absent: 1 for each of its nodes, or, for a model on a cluster without "
        "GPUs, all cores of the smallest node.",
    )
    resources: dict[str, float] = Operational(
        default_factory=dict,
        description="Custom Ray resources that a replica takes on each of its nodes: name -> amount.",
    )
    max_restarts: int = Operational(
        8,
        ge=0,
        description="Restarts of a replica without a completed request before it is abandoned; those after the loss of "
        "a node do not count.",
    )
    max_deaths: int = Operational(
        4,
        ge=2,
        description="Crashes of replicas on one request before it becomes an error row; the loss of a node does not "
        "count.",
    )

    nodes: int | None = Operational(
        None,
        ge=1,
        description="Number of nodes of the cluster, from which `distill check` finds replicas that cannot be placed.",
    )
    gpus_per_node: float | None = Operational(
        None, ge=0, description="Number of GPUs of each node; set together with `nodes`."
    )

    @model_validator(mode="after")
    def check_replicas(self) -> RayEngine:
        if self.min_replicas > self.replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than replicas {self.replicas}: lower it")
        if (self.nodes is None) != (self.gpus_per_node is None):
            raise ValueError("nodes and gpus_per_node say the cluster's size together: set both or none")
        return self


EngineConfig = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]
