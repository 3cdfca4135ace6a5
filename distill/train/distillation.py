"""What trainings on a teacher's distribution have in common, whichever of TRL's trainers they take.

They go on from what SFT left, an adapter or whole weights, and leave the same files; their checkpoints are marked when
they are whole; their metrics are written as SFT's are; a step whose gradient is not finite ends them before it changes
a weight; and TRL's report to the hub is off. Dropout is off: the distribution that is trained is the one that is
shipped.

Not covered: several processes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from distill.config.recipe import LoraMethod, StudentConfig, key_digest
from distill.config.train import LogitsConfig, OnPolicyConfig
from distill.models.folder import read_base
from distill.models.vocabulary import crop_vocabulary
from distill.runs.stage import Reporter
from distill.train.arguments import common_arguments, set_trackers
from distill.train.checkpoints import complete, fingerprint_of, library_versions, newest_complete
from distill.train.metrics import StepLog
from distill.train.weights import open_base, trained_in_float32, without_adapter
from licensing.errors import MissingDependency, Refused

_TRL = (1, 16)
"""The minor version whose trainers are extended here, private methods and experimental modules among them: where
another one calls them otherwise, the loss is another, without an error."""
TRL_INSTALL = "pip install 'distill-release[train]'"


def require_trl(where: str) -> None:
    """Raises MissingDependency where TRL is not installed, or in another minor version than these trainings are written
    for. ``where``: their place in the recipe. Imports nothing."""
    try:
        version = metadata.version("trl")
    except metadata.PackageNotFoundError as error:
        raise MissingDependency("trl is not installed", where=where, hint=TRL_INSTALL) from error
    if Version(version).release[:2] != _TRL:
        raise MissingDependency(
            f"TRL {version} is installed, and distillation extends private parts of {_TRL[0]}.{_TRL[1]}",
            where=where,
            hint=TRL_INSTALL,
        )


def resume_point(
    student: StudentConfig, config: OnPolicyConfig | LogitsConfig, dtype: str, inputs_digest: str, checkpoints: Path
) -> tuple[str, Path | None]:
    """The training's fingerprint, and its newest whole checkpoint in the folder ``checkpoints``, which is made private;
    what is torn there, or of another training, is removed. ``inputs_digest``: identity of everything that is read."""
    import torch

    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoints.chmod(0o700)  # what is unpickled from here is ours alone
    fingerprint = fingerprint_of(
        inputs_digest,
        library_versions("torch", "transformers", "peft", "accelerate", "trl"),
        key_digest(student),
        key_digest(config),
        dtype,
        "cuda" if torch.cuda.is_available() else "cpu",
    )
    return fingerprint, newest_complete(checkpoints, fingerprint)


def open_student(
    student: StudentConfig, start: Path, trained: Path, dtype: str, vocabulary: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """What an earlier training left in ``trained``, on the device: an adapter for the model of ``start``, or whole
    weights; over the first ``vocabulary`` tokens, or all. And the rows of full weights that were cut off."""
    import torch

    lora = isinstance(student.method, LoraMethod)
    model = open_base(student, start if lora else trained, dtype)
    cut_off = {} if vocabulary is None else crop_vocabulary(model, vocabulary)
    if lora:
        from peft import PeftModel

        model = trained_in_float32(PeftModel.from_pretrained(model, trained, is_trainable=True))
    for module in model.modules():  # TRL switches off the layers alone; attention takes its share from an attribute
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
                setattr(module, name, 0.0)
    positions_from_mask(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), cut_off


def positions_from_mask(model: Any) -> None:
    """Give a model's tokens, beside padding, the positions that they have in an answer.

    TRL pads prompts on the left and leaves positions to the model, which counts the padding in. Rotary embeddings do
    not see that; learned ones do (GPT-2), and the distribution would be another than the one that answers come from.
    """
    base = without_adapter(model).base_model
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return

    def add_positions(_: Any, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = inputs.get("attention_mask")
        if mask is not None and inputs.get("position_ids") is None and inputs.get("past_key_values") is None:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return args, inputs

    base.register_forward_pre_hook(add_positions, with_kwargs=True)


def token_weighted_trainer() -> Any:
    """TRL's ``ServerDistillationTrainer`` with the same weight for each token of a step, however the step is divided:
    TRL weighs each forward pass alike."""
    from trl.experimental.server_distillation import ServerDistillationTrainer

    class TokenWeightedTrainer(ServerDistillationTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            mean = super().compute_loss(model, inputs) * self.current_gradient_accumulation_steps
            return mean * inputs["completion_mask"].sum() / inputs["num_items_in_batch"]

    return TokenWeightedTrainer


def step_trainer(
    kind: Any,
    settings: Any,
    student: StudentConfig,
    config: OnPolicyConfig | LogitsConfig,
    section: str,
    model: Any,
    start: Path,
    data: Any,
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    metrics: Path,
    progress: Reporter,
    before_checkpoint: Callable[[], None] = lambda: None,
    **more: Any,
) -> Any:
    """A trainer of TRL's class ``kind`` over ``data``, whose rows are those of all steps in their order.

    Args:
        settings: The class of its arguments, with the loss and what is the trainer's own set.
        section: Where ``config`` stands in the recipe.
        before_checkpoint: Called before a checkpoint counts.
        more: Further arguments of the trainer.
    """
    from transformers import AutoTokenizer, TrainerCallback

    arguments = settings(
        **common_arguments(student, dtype, checkpoints, metrics),
        disable_dropout=True,
        shuffle_dataset=False,  # the order is that of ``training_order``
        per_device_train_batch_size=config.in_one_pass,
        gradient_accumulation_steps=config.batch_size // config.in_one_pass,
        num_train_epochs=1,  # the rows are those of all steps
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one device; TRL refuses nn.DataParallel
    log = StepLog(metrics)

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            log.start(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "grad_norm" in logs:
                log.write({"step": state.global_step, "seconds": log.seconds(), **logs})
                length = logs["completions/mean_length"]
                progress(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}, {length:.0f} tokens per answer")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            before_checkpoint()
            complete(checkpoints / f"checkpoint-{state.global_step}", fingerprint)

    class StepTrainer(kind):
        def _send_telemetry(self) -> None:
            """Nothing: TRL tells the hub which model is trained on what."""

        def _clip_grad_norm(self, model: Any) -> Any:
            norm = super()._clip_grad_norm(model)
            if not math.isfinite(float(norm)):
                raise Refused(
                    f"the gradient norm of step {self.state.global_step + 1} is not finite",
                    where=f"{section}.learning_rate",
                    hint="lower it, or set student.dtype: float32; the run goes on from its newest checkpoint",
                )
            return norm

    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    stop_id = read_base(start).stop_ids[0]
    if tokenizer.pad_token_id >= model.config.vocab_size:  # cut off; what is padded is masked, so any token will do
        tokenizer.pad_token_id = stop_id
    if tokenizer.eos_token_id is None:  # TRL stops there beside the ids of the generation config
        tokenizer.eos_token_id = stop_id
    trainer = StepTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Watch()], **more
    )
    set_trackers(trainer, student.report_to, metrics)
    return trainer
