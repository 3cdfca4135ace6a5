"""How the processes of a training share its work, weights, gradients and optimiser: DDP, FSDP2 or ZeRO-3.

The settings of transformers' ``TrainingArguments`` for ``student.parallel``, and what the libraries leave to us: on CPU
processes accelerate knows DDP alone, though its code for FSDP2 runs there.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from distill.config.parallel import ParallelConfig
from distill.config.recipe import StudentConfig
from distill.train.checkpoints import library_versions
from distill.train.context import ContextGroup
from distill.train.zero import check_installed, zero3_config
from licensing.errors import MissingDependency


def world_size() -> int:
    """The processes that train together, of all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def checkpoint_layout(parallel: ParallelConfig) -> str:
    """Names the form of a checkpoint's files: one of another form cannot be resumed from."""
    world, context = world_size(), parallel.context_parallel_size
    sums = f"-context-{context}" if context > 1 else ""  # other sums of floats
    version = f"-{library_versions('deepspeed')}" if parallel.strategy == "zero3" else ""
    offload = "-offload" if parallel.cpu_offload else ""
    return "whole" if world == 1 else f"{parallel.strategy}-{world}{sums}{version}{offload}"


def divided(parallel: ParallelConfig) -> bool:
    """Whether weights, gradients and optimizer are divided among the processes."""
    return world_size() > 1 and parallel.strategy != "ddp"


def start_processes(parallel: ParallelConfig, on_gpu: bool) -> None:
    """Join the process group, before transformers' ``TrainingArguments`` would. Does nothing in a single process."""
    if world_size() == 1:
        return
    if parallel.strategy == "zero3":
        check_installed(on_gpu)
    from accelerate import PartialState

    PartialState(cpu=not on_gpu)


@contextlib.contextmanager
def first_rank_first() -> Iterator[None]:
    """Let rank 0 leave the block before the others enter it."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Until every rank is here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier()


def sum_of_ranks(value: Any) -> Any:
    """The sum of a tensor over all ranks."""
    if world_size() > 1:
        import torch

        torch.distributed.all_reduce(value)
    return value


def context_group(parallel: ParallelConfig) -> ContextGroup | None:
    """The ranks in succession that divide each sequence with this one; None where each has its own."""
    size = parallel.context_parallel_size
    return None if size == 1 else _context_group(size)


@functools.cache
def _context_group(size: int) -> ContextGroup:
    import torch
    from torch import distributed

    # accelerate's group takes tensors of GPUs alone, and with fsdp2 layouts are checked on the CPU.
    both = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else None
    group, _ = distributed.new_subgroups(size, backend=both)

    class Gather(torch.autograd.Function):
        """That of ``torch.distributed.nn`` has no backward pass for a part of the ranks with gloo (torch 2.13)."""

        @staticmethod
        def forward(_: Any, part: Any) -> Any:
            whole = part.new_empty(size * part.shape[0], *part.shape[1:])
            with _exchange():
                distributed.all_gather_into_tensor(whole, part.contiguous(), group)
            return whole

        @staticmethod
        def backward(_: Any, gradient: Any) -> Any:
            part = gradient.new_empty(gradient.shape[0] // size, *gradient.shape[1:])
            with _exchange():
                distributed.reduce_scatter_tensor(part, gradient.contiguous(), group=group)
            return part

    def gather(part: Any, dimension: int) -> Any:
        return Gather.apply(part.movedim(dimension, 0)).movedim(0, dimension)

    return ContextGroup(size, rank() % size, gather)


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """What fails here is no fault of the model, which ``distill.train.layout_check`` would make of a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise MissingDependency(
            f"the processes that divide rows cannot exchange them: {error}",
            where="student.parallel.context_parallel_size",
            hint="logs/train-rank<N>.log may say more; set it to 1 to train without",
        ) from error


@contextlib.contextmanager
def reduced_once(trainer: Any, model: Any, last: bool) -> Iterator[None]:
    """Forward and backward pass of one micro batch of a step: gradients go from rank to rank behind the last one.

    FSDP2 and ZeRO-3 reduce them behind each, since they would have to keep whole ones until then.
    """
    accelerator = trainer.accelerator
    as_ddp = not (accelerator.is_fsdp2 or trainer.is_deepspeed_enabled)
    with accelerator.no_sync(model) if as_ddp and not last else contextlib.nullcontext():
        yield


def training_arguments(student: StudentConfig, dtype: str, on_gpu: bool) -> dict[str, Any]:
    """Arguments for transformers' ``TrainingArguments``."""
    parallel = student.parallel
    again = on_gpu if parallel.activation_checkpointing is None else parallel.activation_checkpointing
    alone = {"use_cpu": not on_gpu, "gradient_checkpointing": again}
    if world_size() == 1:
        return alone
    if parallel.strategy == "ddp":
        return alone | {"ddp_find_unused_parameters": False}
    if parallel.strategy == "zero3":  # for `bf16` it would train bfloat16 weights
        config = zero3_config(student.max_grad_norm, dtype, parallel.cpu_offload)
        return alone | {"deepspeed": config, "bf16": False}
    settings = {
        "version": 2,
        "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "SHARDED_STATE_DICT",
        "activation_checkpointing": again,
    }
    return {"use_cpu": not on_gpu, "fsdp": True, "fsdp_config": settings}


def use_fsdp(trainer: Any) -> None:
    """After transformers' Trainer has made its accelerator: FSDP2 on CPU processes too, gradients summed in float32."""
    if trainer.args.fsdp_plugin_args is None:
        return
    import torch
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = trainer.accelerator.state
    if not trainer.is_fsdp_enabled:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
    if trainer.args.bf16:  # accelerate would cast the losses, and sum gradients of ranks in bfloat16
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)


def full_state_dict(trainer: Any, trainable_only: bool) -> dict[str, Any]:
    """The trained weights, whole, on rank 0; an empty dictionary on the others. Every rank has to call it."""
    if trainer.is_fsdp_enabled:
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        # PEFT looks weights up by the names of modules, of which torch gives none to the wrappers of checkpointing.
        for name, module in list(trainer.model.named_modules()):
            if isinstance(module, CheckpointWrapper):
                trainer.model.set_submodule(name, module._checkpoint_wrapped_module)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trainable_only)
        return dict(get_model_state_dict(trainer.model, options=options))
    if trainer.is_deepspeed_enabled:
        engine = trainer.model_wrapped
        return dict(engine._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=trainable_only) or {})
    if rank() > 0:
        return {}
    if trainable_only:
        return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    return dict(trainer.model.state_dict())
