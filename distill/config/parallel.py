"""Recipe section ``student.parallel``: the processes that train together, and what each of them holds.

Nothing here is part of a stage's key: the batch of an optimiser step is ``student.batch_size`` whatever their number.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from synth.section import Operational, Section

Strategy = Literal["ddp", "fsdp2", "zero3"]


class ParallelConfig(Section):
    """One process a GPU. With one process in all, ``strategy`` decides nothing."""

    processes: int | None = Operational(None, ge=1, description="Processes a node; absent: one a GPU, on a CPU one.")
    nodes: int = Operational(1, ge=1, description="Nodes that share the file system of the run.")
    rendezvous: str | None = Operational(
        None, pattern=r"^[\w.-]+:\d{1,5}$", description="HOST:PORT of the first node; needed for several nodes."
    )
    strategy: Strategy = Operational(
        "fsdp2",
        description="ddp: a copy of everything on each GPU; fsdp2: weights, gradients, optimiser divided among them; "
        "zero3: as fsdp2, by DeepSpeed.",
    )
    context_parallel_size: int = Operational(
        1, ge=1, description="Processes that divide each sequence among them; a divisor of all processes."
    )
    activation_checkpointing: bool | None = Operational(
        None, description="Compute activations again in the backward pass; absent: on GPUs."
    )
    cpu_offload: bool = Operational(
        False,
        description="With zero3: weights, gradients and optimiser states are in the host's memory, where the optimiser "
        "steps; a GPU has those of the layers at work.",
    )

    @model_validator(mode="after")
    def _fields_fit_together(self) -> ParallelConfig:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError("several nodes need student.parallel.rendezvous, HOST:PORT of the first one")
        if self.nodes > 1 and self.processes is None:
            raise ValueError("several nodes need student.parallel.processes, the number on each of them")
        if self.cpu_offload and self.strategy != "zero3":
            raise ValueError("cpu_offload needs strategy: zero3")
        if self.cpu_offload and (self.processes or 1) * self.nodes == 1:
            raise ValueError("cpu_offload needs student.parallel.processes, several: one trains without DeepSpeed")
        context = self.context_parallel_size
        if context > 1:
            if self.strategy == "zero3":
                raise ValueError("strategy zero3 does not divide rows: set fsdp2 or ddp, or context_parallel_size 1")
            if self.processes is None:
                raise ValueError("context_parallel_size needs student.parallel.processes")
            if (processes := self.processes * self.nodes) % context:
                raise ValueError(f"context_parallel_size {context} does not divide the processes, {processes}")
        return self
