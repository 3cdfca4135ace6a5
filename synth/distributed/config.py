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
        1, ge=1, description="Fewer live replicas for `start_timeout_s` end the run, which can be resumed."
    )
    start_timeout_s: float = Operational(
        1800, gt=0, description="Seconds with fewer than `min_replicas` live ones before the run ends."
    )
    nodes_per_replica: int | None = Operational(
        None,
        ge=1,
        description="Nodes that share an engine equally (kind vllm). Absent: the fewest whose GPUs hold it.",
    )
    gpus_per_replica: float | None = Operational(
        None, ge=0, description="Absent: the teacher's parallel sizes multiplied where the cluster has GPUs, else 0."
    )
    cpus_per_replica: float | None = Operational(
        None,
        ge=0,
        description="Absent: 1 a node; for a model on a cluster without GPUs, all cores of its smallest node.",
    )
    resources: dict[str, float] = Operational(
        default_factory=dict, description="Custom Ray resources, by name, on each of its nodes."
    )
    max_restarts: int = Operational(
        8,
        ge=0,
        description="Restarts of a replica without a completed request before it is abandoned, deaths of nodes aside.",
    )
    max_deaths: int = Operational(
        4, ge=2, description="Replicas that die on one request before it is an error row, deaths of nodes aside."
    )

    nodes: int | None = Operational(
        None, ge=1, description="Nodes of the cluster, so that `distill check` finds what cannot be placed."
    )
    gpus_per_node: float | None = Operational(None, ge=0, description="GPUs of each node; beside `nodes`.")

    @model_validator(mode="after")
    def check_replicas(self) -> RayEngine:
        if self.min_replicas > self.replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than replicas {self.replicas}: lower it")
        if (self.nodes is None) != (self.gpus_per_node is None):
            raise ValueError("nodes and gpus_per_node say the cluster's size together: set both or none")
        return self


EngineConfig = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]
