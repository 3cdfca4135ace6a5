"""Recipe section ``student.parallel``: the processes that train together, and what each of them holds.

Nothing here is part of a stage's key: the batch of an optimiser step is ``student.batch_size`` whatever their number.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synth.section import Operational, Section

__all__ = ["ParallelConfig", "Strategy"]

Strategy = Literal["ddp", "fsdp2", "zero3"]


class ParallelConfig(Section):
    """One process a GPU. With one process in all, ``strategy`` and ``offload`` decide nothing."""

    processes: int | None = Operational(None, ge=1, description="Processes a node; absent: one a GPU, on a CPU one.")
    nodes: int = Operational(1, ge=1, description="Nodes that share the file system of the run.")
    rendezvous: str | None = Operational(
        None, pattern=r"^[\w.-]+:\d{1,5}$", description="HOST:PORT of the first node; needed for several nodes."
    )
    strategy: Strategy = Operational(
        "fsdp2",
        description="ddp: a copy of everything on each GPU; fsdp2: weights, gradients and optimiser divided among the "
        "GPUs; zero3: the same by DeepSpeed.",
    )
    activation_checkpointing: bool | None = Operational(
        None, description="Compute activations again in the backward pass; absent: on GPUs."
    )
    offload: bool = Operational(False, description="fsdp2, zero3: weights and optimiser in the memory of the host.")

    @model_validator(mode="after")
    def _fields_fit_together(self) -> ParallelConfig:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError("several nodes need student.parallel.rendezvous, HOST:PORT of the first one")
        if self.nodes > 1 and self.processes is None:
            raise ValueError("several nodes need student.parallel.processes, the number on each of them")
        if self.offload and self.strategy == "ddp":
            raise ValueError("offload needs strategy: fsdp2 or zero3; with ddp each GPU holds everything")
        return self
