"""What the trainers have in common: optimiser, numbers, checkpoints, logs, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.config.recipe import StudentConfig
from distill.train import parallel

_OPTIMIZERS = {"adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "adafactor": "adafactor"}


def common_arguments(student: StudentConfig, dtype: str, checkpoints: Path, metrics: Path) -> dict[str, Any]:
    """Arguments for ``TrainingArguments`` and its subclasses, without rate, schedule and batches."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(checkpoints),
        "bf16": dtype == "bfloat16",
        **({"optim": _OPTIMIZERS[student.optimizer]} if student.optimizer in _OPTIMIZERS else {}),
        "adam_beta1": student.adam_beta1,
        "adam_beta2": student.adam_beta2,
        "weight_decay": student.weight_decay,
        "max_grad_norm": student.max_grad_norm,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "save_steps": student.save_steps,
        "save_total_limit": 2,  # the older one is whole while the newer one is written
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [name for name in student.report_to if name != "tensorboard"] or "none",
        "run_name": metrics.name,
        "project": "distill",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "seed": student.seed,
        **parallel.training_arguments(student, dtype, on_gpu),
    }


def set_trackers(trainer: Any, names: Sequence[str], metrics: Path) -> None:
    """Trackers that a trainer's own ``report_to`` does not set up; and nothing on stdout, which belongs to results."""
    from transformers import PrinterCallback

    if "tensorboard" in names:  # transformers' own way to name its folder is an environment variable
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(metrics.with_suffix("")))))
    trainer.remove_callback(PrinterCallback)
