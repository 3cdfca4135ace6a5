"""`engine`: where the teacher's requests run. The place is no part of a key: every field is operational."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synth.section import Operational, Section


class LocalEngine(Section):
    """Requests run in this process."""

    kind: Literal["local"] = Operational("local")


class RayEngine(Section):
    """Requests run on Ray actors. A replica is one actor on one node that holds one whole engine."""

    kind: Literal["ray"] = Operational("ray")
    address: str = Operational(
        "auto",
        min_length=1,
        description="auto: the cluster that RAY_ADDRESS names or that runs here; local: start one here; or host:port.",
    )
    replicas: int = Operational(
        1, ge=1, description="Engines wanted; sampling begins with the first and others may join."
    )
    min_replicas: int = Operational(
        1, ge=1, description="Fewer live ones for `start_timeout_s` end the run, resumable."
    )
    start_timeout_s: float = Operational(
        1800, gt=0, description="Seconds that fewer than `min_replicas` are waited for."
    )
    gpus_per_replica: float | None = Operational(
        None, ge=0, description="Absent: the teacher's parallel sizes multiplied where the cluster has GPUs, else 0."
    )
    cpus_per_replica: float | None = Operational(
        None, ge=0, description="Absent: 1; for a model on a cluster without GPUs, all cores of its smallest node."
    )
    resources: dict[str, float] = Operational(default_factory=dict, description="Ray resources of one's own, by name.")
    max_restarts: int = Operational(
        8, ge=0, description="Deaths without an answer in between, its node's not counted, after which it is left dead."
    )
    max_deaths: int = Operational(
        4, ge=2, description="So many replicas may die on one request, its node's deaths not counted: an error row."
    )

    @model_validator(mode="after")
    def _enough_replicas(self) -> RayEngine:
        if self.min_replicas > self.replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is more than replicas {self.replicas}: lower it")
        return self


EngineConfig = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]
