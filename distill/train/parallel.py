"""How the processes of a training divide its weights, gradients and optimiser: DDP, FSDP2 or DeepSpeed's ZeRO-3.

The settings of transformers' ``TrainingArguments`` for ``student.parallel``, and what else the libraries need of us: on
CPU processes accelerate knows DDP alone, though its code for the other two runs there.
"""

from __future__ import annotations

import os
from typing import Any

from distill.config.parallel import ParallelConfig
from licensing.errors import MissingDependency

__all__ = ["checkpoint_layout", "deepspeed_config", "full_state_dict", "start_processes", "training_arguments", "use_fsdp"]


def world_size() -> int:
    """The processes that train together, of all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def checkpoint_layout(parallel: ParallelConfig) -> str:
    """Names the form of a checkpoint's files: one of another form cannot be resumed from."""
    world = world_size()
    return "whole" if world == 1 else f"{parallel.strategy}-{world}"


def start_processes(parallel: ParallelConfig, on_gpu: bool) -> None:
    """Join the process group where ``TrainingArguments``, made next, would not. Does nothing in a single process."""
    if world_size() == 1 or on_gpu or parallel.strategy != "zero3":
        return
    from accelerate import PartialState

    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"  # as TrainingArguments does, without naming gloo
    PartialState(backend="gloo")
    del os.environ["ACCELERATE_USE_DEEPSPEED"]


def training_arguments(parallel: ParallelConfig, on_gpu: bool) -> dict[str, Any]:
    """Arguments for transformers' ``TrainingArguments``. Raises MissingDependency without deepspeed for zero3."""
    again = on_gpu if parallel.activation_checkpointing is None else parallel.activation_checkpointing
    alone = {"use_cpu": not on_gpu, "gradient_checkpointing": again}
    if world_size() == 1:
        return alone
    if parallel.strategy == "ddp":
        return alone | {"ddp_find_unused_parameters": False}
    if parallel.strategy == "fsdp2":
        settings = {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "SHARDED_STATE_DICT",
            "activation_checkpointing": again,
            "cpu_offload": parallel.offload,
        }
        return {"use_cpu": not on_gpu, "fsdp": True, "fsdp_config": settings}
    try:
        import deepspeed  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"strategy zero3 needs {error.name}", where="student.parallel.strategy", hint="pip install deepspeed"
        ) from error
    settings = {"deepspeed": deepspeed_config(parallel), "gradient_checkpointing": again}
    return settings if on_gpu else settings | {"accelerator_config": {"use_configured_state": True}}


def deepspeed_config(parallel: ParallelConfig) -> dict[str, Any]:
    """DeepSpeed's configuration for ZeRO-3; transformers fills in what is "auto".

    torch's AdamW is the optimiser, as with every other strategy, on the host too where states are offloaded: DeepSpeed's
    own would be compiled on first use.
    """
    zero: dict[str, Any] = {
        "stage": 3,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if parallel.offload:
        zero |= {name: {"device": "cpu", "pin_memory": True} for name in ("offload_optimizer", "offload_param")}
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    return {
        **dict.fromkeys(sizes, "auto"),
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def use_fsdp(trainer: Any) -> None:
    """After transformers' Trainer has made its accelerator: FSDP2 on CPU processes too, where it was asked for."""
    state = trainer.accelerator.state
    if trainer.args.fsdp_plugin_args is None or trainer.is_fsdp_enabled:
        return
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if state._mixed_precision != "no":
        state.fsdp_plugin.set_mixed_precision(state._mixed_precision)
    trainer.is_fsdp_enabled = True


def full_state_dict(trainer: Any, trainable_only: bool) -> dict[str, Any]:
    """The trained weights, whole and in the host's memory, on rank 0; empty on the others. Every rank has to call it."""
    accelerator = trainer.accelerator
    if trainer.is_deepspeed_enabled:
        state = trainer.model_wrapped._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=trainable_only)
        return state or {}
    if trainer.is_fsdp_enabled:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trainable_only)
        return dict(get_model_state_dict(trainer.model, options=options))
    if not accelerator.is_main_process:
        return {}
    model = accelerator.unwrap_model(trainer.model)
    return {
        name: value
        for name, value in model.state_dict().items()
        if not trainable_only or model.get_parameter(name).requires_grad
    }
