"""Supervised fine-tuning with TRL's ``SFTTrainer``, full or LoRA (PEFT), loss on the completion only.

Rows arrive tokenised and in their final order, so the trainer neither prepares nor shuffles. What it adds to TRL:

- on a CPU the head runs only on positions that carry loss (TRL 1.16 scores every position there);
- each checkpoint is marked when it is whole, and a resume takes the newest marked one;
- nothing is sent anywhere, and no model card is drawn.

Numbers: bfloat16 computes under autocast; what is trained (adapters, or all weights) is float32, because a rate of 1e-5
vanishes in a bfloat16 weight.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distill.config.recipe import LoraMethod, StudentConfig, key_digest
from distill.models.folder import public_name
from distill.models.tokens import Rendered, Tokens
from distill.runs.stage import Reporter
from distill.train import parallel
from distill.train.data import (
    LeftOut,
    TrainResult,
    check_end_of_turn,
    complete,
    fingerprint_of,
    load_rows,
    newest_complete,
    training_order,
)
from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import json_line, write_json, write_rows

__all__ = ["train_sft", "training_dtype"]

_LOGGED = ("step", "loss", "learning_rate", "grad_norm")
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_OPTIMIZERS = {"adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "adafactor": "adafactor"}
_CHECKED_BATCHES = 8
# CPU only. Below: rows so short that attention written out beats PyTorch's fused one, forward and backward.
_EAGER_ATTENTION_UP_TO = 256
# Above (rows x positions x vocabulary): TRL's head, which works in tiles, saves memory that ours would take.
_MAX_LOGITS = 2**28
_DISK_IS_FULL_BELOW = 16 * 2**20


def training_dtype(wanted: str) -> str:
    """ "bfloat16" or "float32": ``auto`` takes bfloat16 where the GPU has it, or the CPU has instructions for it."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # torch tells of these instructions by private names only; a version without them gets float32.
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bfloat16" if any(probe() for probe in probes if probe) else "float32"


def train_sft(
    student: StudentConfig,
    start: Path,
    rows: Iterable[Mapping[str, Any]],
    out: Path,
    checkpoints: Path,
    progress: Reporter,
) -> TrainResult:
    """Train the student of folder ``start`` (as ``prepare`` writes it) on ``rows`` (with id and messages; read once).

    ``out`` becomes an adapter folder or a folder of full safetensors weights, plus train_log.json and left_out.jsonl,
    with equal bytes for equal inputs on one kind of CPU and one number of threads. ``checkpoints`` is a private folder:
    a call after a crash continues from the newest whole one and ends with the bytes of a call left alone.

    Raises Refused where the end-of-turn token would not be trained or the loss is not finite, InputError where no row
    can be trained on, MissingDependency without torch, trl or peft, memory or disk.
    Not covered: packing, several processes, quantised bases.
    """
    try:
        import datasets  # noqa: F401 - looked for here, so that a missing one is named before a model is loaded
        import peft  # noqa: F401
        import torch
        import trl  # noqa: F401
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"training needs {error.name}", where="student", hint=f"pip install {error.name}"
        ) from error

    tokenizer = AutoTokenizer.from_pretrained(start, trust_remote_code=student.trust_remote_code)
    rows_digest = hashlib.sha256()

    def hashed() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            rows_digest.update(json_line(row))
            yield row

    if tokenizer.pad_token_id is None:
        raise InputError("the tokenizer has no pad token", where=str(start), hint="run the prepare stage again")
    stop_ids = _stop_ids(start)
    names = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    rendered, left_out = load_rows(hashed(), Tokens.of_tokenizer(tokenizer, names[stop_ids[0]]), student.max_length)
    order = training_order(
        [len(row.input_ids) for row in rendered], student.num_train_epochs, student.batch_size, student.seed
    )
    fingerprint = fingerprint_of(
        key_digest(student),
        parallel.checkpoint_layout(student.parallel),
        rows_digest.digest(),
        *((start / name).read_bytes() for name in ("config.json", "chat_template.jinja", "generation_config.json")),
    )
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoints.chmod(0o700)  # what is unpickled from here is ours alone
    resume = newest_complete(checkpoints, fingerprint, remove=parallel.rank() == 0)
    dtype = training_dtype(student.dtype)
    with _quiet(), _all_cores(), _user_errors(student, checkpoints):
        trainer = _trainer(student, start, tokenizer, rendered, order, dtype, checkpoints, fingerprint, progress)
        ordered = [rendered[row] for row in order[: _CHECKED_BATCHES * student.micro_batch_size]]
        check_end_of_turn(
            ordered, _collated(trainer, ordered, student.micro_batch_size), stop_ids, tokenizer.pad_token_id, names
        )
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        history = tuple({key: entry[key] for key in _LOGGED if key in entry} for entry in logged)
        lora = isinstance(student.method, LoraMethod)
        state = parallel.full_state_dict(trainer, trainable_only=lora)
        first = trainer.is_world_process_zero()
        if first:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            if lora:
                _save_adapter(trainer.model, state, student, out)
            else:
                _save_full(trainer.model, state, start, out, torch)
    result = TrainResult(
        rows=len(rendered),
        steps=trainer.state.global_step,
        tokens=sum(len(row.input_ids) for row in rendered),
        trained_tokens=sum(sum(row.loss_mask) for row in rendered),
        dtype=dtype,
        method=student.method.kind,
        trained_parameters=trained,
        left_out=left_out,
        history=history,
        resumed_from=int(resume.name.rpartition("-")[2]) if resume else 0,
    )
    if first:
        _write_log(result, left_out, out)
    return result


def _trainer(
    student: StudentConfig,
    start: Path,
    tokenizer: Any,
    rendered: list[Rendered],
    order: list[int],
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    progress: Reporter,
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    lora = student.method if isinstance(student.method, LoraMethod) else None
    longest = max(len(row.input_ids) for row in rendered)
    steps = math.ceil(len(order) / student.batch_size)
    parallel.start_processes(student.parallel, on_gpu)
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        bf16=dtype == "bfloat16",
        per_device_train_batch_size=student.micro_batch_size,
        gradient_accumulation_steps=student.batch_size // (student.micro_batch_size * parallel.world_size()),
        num_train_epochs=1,  # `order` holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=student.method.learning_rate,
        **_schedule(student),
        **({"optim": _OPTIMIZERS[student.optimizer]} if student.optimizer in _OPTIMIZERS else {}),
        adam_beta1=student.adam_beta1,
        adam_beta2=student.adam_beta2,
        warmup_steps=int(student.warmup_ratio * steps),  # rounded down: the first warm-up step has rate 0
        weight_decay=student.weight_decay,
        max_grad_norm=student.max_grad_norm,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_steps=student.save_steps,
        save_total_limit=2,  # the older one is whole while the newer one is written
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
        seed=student.seed,
        trust_remote_code=student.trust_remote_code,
        **parallel.training_arguments(student.parallel, on_gpu),
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one device: TRL refuses nn.DataParallel
    model = AutoModelForCausalLM.from_pretrained(
        start,
        # A frozen base may be bfloat16 (float32 would be cast again in every forward pass); trained weights may not.
        dtype=torch.bfloat16 if lora and dtype == "bfloat16" else torch.float32,
        trust_remote_code=student.trust_remote_code,
        **({"attn_implementation": "eager"} if not on_gpu and longest <= _EAGER_ATTENTION_UP_TO else {}),
    )

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:
                return
            if state.is_world_process_zero:
                progress(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")
            if not all(math.isfinite(logs[key]) for key in ("loss", "grad_norm") if key in logs):
                raise Refused(
                    f"the loss is not finite at step {state.global_step}",
                    where="student.method.learning_rate",
                    hint="lower the learning rate, or set student.dtype: float32",
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            trainer.accelerator.wait_for_everyone()
            if state.is_world_process_zero:
                complete(checkpoints / f"checkpoint-{state.global_step}", fingerprint)

    class Trainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss = None if on_gpu or return_outputs or self.aux_loss_enabled else _cpu_loss(model, inputs)
            if loss is None:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            count = (inputs["labels"][:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
            return loss / count * parallel.world_size()

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            parallel.use_fsdp(self)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Checkpoints are private: they need no card."""

        def _send_telemetry(self, *args: Any, **kwargs: Any) -> None:
            """TRL reports every training to the hub. We do not."""

    data = Dataset.from_dict(
        {"input_ids": [row.input_ids for row in rendered], "labels": [row.labels for row in rendered]}
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=data.select(order, keep_in_memory=True),
        callbacks=[Watch()],
        peft_config=None
        if lora is None
        else LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
            target_parameters=list(lora.target_parameters) or None,
            modules_to_save=list(lora.modules_to_save) or None,
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to results
    return trainer


def _schedule(student: StudentConfig) -> dict[str, Any]:
    if student.min_lr_ratio:
        kwargs = {"min_lr_rate": student.min_lr_ratio}
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": kwargs}
    return {"lr_scheduler_type": _SCHEDULES[student.lr_scheduler]}


def _cpu_loss(model: Any, inputs: Any) -> Any | None:
    """Summed cross-entropy of a micro batch, the head run only where a row of it has loss; None where TRL's is better.

    ``input_ids``, ``attention_mask`` and ``labels`` are (rows, tokens). The model's own forward pass makes the logits
    (soft-capping and scaling included), at positions [..., -1] of the union over rows of the positions before a label.
    """
    import torch

    labels = inputs["labels"][:, 1:]
    positions = (labels != -100).any(dim=0).nonzero().flatten()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps = "logits_to_keep" in inspect.signature(type(base).forward).parameters
    size = labels.size(0) * positions.numel() * base.config.get_text_config().vocab_size
    if not keeps or not positions.numel() or size > _MAX_LOGITS:
        return None
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        logits_to_keep=positions,
    ).logits
    wanted = labels[:, positions]
    trained = wanted != -100
    return torch.nn.functional.cross_entropy(logits[trained].float(), wanted[trained], reduction="sum")


def _collated(trainer: Any, rows: list[Rendered], size: int) -> Iterator[list[int]]:
    """The label rows of ``rows`` after the trainer's own collator, micro batch by micro batch."""
    for at in range(0, len(rows), size):
        batch = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows[at : at + size]]
        yield from trainer.data_collator(batch)["labels"].tolist()


def _stop_ids(start: Path) -> list[int]:
    try:
        stops = json.loads((start / "generation_config.json").read_bytes())["eos_token_id"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            "generation_config.json names no stop token", where=str(start), hint="run the prepare stage again"
        ) from error
    return stops if isinstance(stops, list) else [stops]


# --- saving ------------------------------------------------------------------------------------------------------


def _save_adapter(model: Any, state: dict[str, Any], student: StudentConfig, out: Path) -> None:
    # "auto" would ask the hub whether the vocabulary was resized; it was not, and embeddings are not trained.
    model.save_pretrained(out, state_dict=state, safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    file = out / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": public_name(student), "revision": student.revision}
    for key in ("target_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])  # PEFT keeps sets, whose order is another in every process
    write_json(file, dict(sorted(config.items())))


def _save_full(model: Any, state: dict[str, Any], start: Path, out: Path, torch: Any) -> None:
    """Full weights in the base's own dtype, beside the configuration that they started with."""
    config = json.loads((start / "config.json").read_bytes())
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch."))
    state = {name: value.to(dtype) for name, value in state.items()}
    model.save_pretrained(out, state_dict=state, max_shard_size="5GB")
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(start / name, out / name)


def _write_log(result: TrainResult, left_out: tuple[LeftOut, ...], out: Path) -> None:
    write_json(out / "train_log.json", result.facts() | {"log": list(result.history)})
    write_rows(out / "left_out.jsonl", ({"id": row.id, "reason": row.reason} for row in left_out))


# --- surroundings ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _all_cores() -> Iterator[None]:
    """All cores that this process may use, unless OMP_NUM_THREADS says otherwise: an engine before us may have taken
    torch down to one thread. Given back afterwards."""
    import torch

    before = torch.get_num_threads()
    if not os.environ.get("OMP_NUM_THREADS"):
        # Only Linux knows the cores that a process may use.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers: the stage has a progress line of its own."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _user_errors(student: StudentConfig, folder: Path) -> Iterator[None]:
    """Out of memory and out of disk, as torch and safetensors report them, in words with a next step."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MissingDependency(
            "the GPU has too little memory for a micro batch",
            where="student.micro_batch_size",
            hint=f"set a divisor of batch_size below {student.micro_batch_size}, or lower student.max_length",
        ) from error
    except (RuntimeError, SafetensorError) as error:  # a full disk comes as either, without an errno
        if shutil.disk_usage(folder).free > _DISK_IS_FULL_BELOW:
            raise
        raise MissingDependency(
            "the disk is full", where=str(folder), hint="free some space; the run resumes"
        ) from error
