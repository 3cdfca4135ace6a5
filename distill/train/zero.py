"""DeepSpeed's ZeRO-3: its configuration, written from the recipe, and what its engine does otherwise than torch's own.

Its engine steps behind the backward pass of a step's last micro batch, before the trainer would. It leaves a step out
whose gradient norm is not finite, and names an infinite norm then, which the loss guard sees.
"""

from __future__ import annotations

from typing import Any

from licensing.errors import MissingDependency

LIVE_PARAMETERS = 2**27
"""Weights that a GPU may hold whole beside those of the layer at work, fetched before or kept for the backward pass."""
REDUCED_PARAMETERS = 2**26
"""Gradients that are collected before they go from rank to rank."""


def zero3_config(max_grad_norm: float, dtype: str, cpu_offload: bool = False) -> dict[str, Any]:
    """The configuration of DeepSpeed's engine for a training that computes in ``dtype``: "bfloat16" or "float32".

    Weights are fetched, and gradients summed, in the numbers that they are trained in. With ``cpu_offload`` torch's
    AdamW steps on the host, as it does on a GPU: DeepSpeed's own would have to be compiled.
    """
    offloaded = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}} if cpu_offload else {}
    return {
        "train_micro_batch_size_per_gpu": 1,  # an item of the trainer is a step, whose micro batches are our own
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {
            "stage": 3,
            "stage3_max_live_parameters": LIVE_PARAMETERS,
            "stage3_max_reuse_distance": LIVE_PARAMETERS,
            "reduce_bucket_size": REDUCED_PARAMETERS,
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": True,  # in their own numbers, not in 16 bits
            **offloaded,
        },
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {"enabled": dtype == "bfloat16", "dtype": "bfloat16", "lower_precision_safe_modules": []},
    }


def check_installed(on_gpu: bool) -> None:
    """Raise MissingDependency where DeepSpeed is missing. To be called before the processes of a training meet."""
    try:
        from deepspeed import ops
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"student.parallel.strategy zero3 needs {error.name}",
            where="student.parallel.strategy",
            hint="pip install 'distill-release[deepspeed]'",
        ) from error
    if not on_gpu:  # it would compile, for a minute, code by which processes of one CPU exchange tensors
        ops.__compatible_ops__["deepspeed_shm_comm"] = False


def divide_weights(trainer: Any) -> None:
    """Divide the weights of a trainer's model among the processes, one by one. Every rank has to call it.

    DeepSpeed's engine would move all of them to each GPU before.
    """
    import deepspeed

    deepspeed.zero.Init(module=trainer.model, config_dict_or_path=trainer.args.deepspeed)
    for buffer in trainer.model.buffers():
        buffer.data = buffer.data.to(trainer.args.device)


def backward(engine: Any, loss: Any, last: bool) -> None:
    """The backward pass of one micro batch, and behind the ``last`` one of a step the step of the optimiser.

    Not by accelerate: it makes the last one the only boundary of accumulation, and on the host the optimiser has the
    gradients of boundaries alone.
    """
    engine.backward(loss)
    if last:
        engine.step()
        # A weight that no micro batch of the next step uses would get these gradients again.
        engine.optimizer.grad_partitions_flat_buffer.zero_()
        for weights in engine.optimizer.fp32_partitioned_groups_flat:
            if weights.grad is not None:  # kept from step to step on the host alone
                weights.grad.zero_()


def shown_by_gradients(loss: Any, total: Any) -> Any:
    """``loss`` for the backward pass: where ``total``, the step's loss on this rank, is not finite, no gradient is."""
    import torch

    return loss * torch.where(total.isfinite(), 1.0, torch.nan)
