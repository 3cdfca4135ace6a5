"""Supervised fine-tuning, full or LoRA (PEFT), loss on the completion only, with transformers' ``Trainer``.

What is added to the trainer:

- an item of its data set is a whole optimiser step, so that rows can be packed without changing the batch
  (``batches.py``), in a layout that was checked on the first rows (``layout_check.py``);
- the head runs on labelled positions alone, on every device (``loss.py``);
- Liger's kernels take the place of norms and MLPs where they compute the same (``kernels.py``);
- a step that is not finite is skipped, and its rows are named (``guard.py``);
- each checkpoint is marked when it is whole, and a resume takes the newest marked one (``checkpoints.py``);
- nothing is sent anywhere but to the trackers that the recipe names.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config.recipe import StudentConfig, key_digest
from distill.models.folder import read_base
from distill.models.turn_format import turn_format
from distill.runs.stage import Reporter
from distill.train import parallel, zero
from distill.train.arguments import common_arguments, set_trackers
from distill.train.batches import Steps, training_order
from distill.train.checkpoints import MARK, complete, fingerprint_of, library_versions, newest_complete
from distill.train.context import check_context_layers
from distill.train.environment import require_modules, training_environment
from distill.train.guard import NOT_FINITE, LossGuard
from distill.train.kernels import use_kernels
from distill.train.layout_check import CheckedLayout, check_layouts, short_texts
from distill.train.loss import LabelledHead, own_losses
from distill.train.metrics import MetricsLog, ModelFlops, peak_flops
from distill.train.result import TrainResult, end_losses, logged_steps
from distill.train.rows import TokenRows, refuse_long_rows, token_rows
from distill.train.weights import open_model, save_trained, training_dtype
from licensing.errors import Refused
from licensing.files import link_or_copy, write_rows

_LOGGED = {name: name for name in ("step", "loss", "learning_rate", "grad_norm", "problem", "rows")}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_SNAPSHOTS = "snapshots"
_SKIPPED_AT_MOST = 3  # or 1 % of the steps, if that is more


@dataclass(frozen=True)
class Snapshots:
    """Weights at ``count`` equal distances of optimiser steps. Those of the end are what training leaves anyway; those
    before it go to folders STEP of ``folder``, in the same form."""

    count: int
    folder: Path


def train_sft(
    student: StudentConfig,
    start: Path,
    rows: Iterable[Mapping[str, Any]],
    out: Path,
    checkpoints: Path,
    progress: Reporter,
    *,
    rows_digest: str,
    metrics: Path,
    samples: int | None = None,
    snapshots: Snapshots | None = None,
) -> TrainResult:
    """Train the student of folder ``start`` (as ``prepare`` writes it) on ``rows`` (id, messages, source; read once).

    ``out`` becomes an adapter folder or a folder of full safetensors weights, plus train_log.json and left_out.jsonl,
    with equal bytes for equal inputs on one kind of CPU and one number of threads. ``checkpoints`` is a private folder:
    a call after a crash continues from the newest whole one and ends with the bytes of a call left alone. The
    tokenised rows are there, too.

    Args:
        rows_digest: Identity of ``rows``; tokenised rows and checkpoints of another one are not used.
        metrics: A file of JSON lines that gets one line a step (``metrics.py``).
        samples: Rows to train on in all; ``num_train_epochs`` passes if None.
        snapshots: Weights of steps before the end to write besides. No other byte changes. Not in several processes
            with fsdp2.

    Raises:
        Refused: The template does not end a turn with the first stop token, too many steps are not finite, or a step is
            bad and ``on_bad_step`` is stop.
        InputError: No row can be trained on, or one is too long and ``on_long_row`` is fail.
        MissingDependency: torch, transformers, peft or accelerate, a tracker, memory or disk.

    Each of several processes calls it (``distill.train.launch``) and gets the same result; the first one reads ``rows``
    and writes the files.

    Not covered: quantised bases.
    """
    require_modules("training", "student", "accelerate", "peft", "torch", "transformers")
    import torch

    if student.liger:
        require_modules("training with Liger's kernels", "student.liger", "triton", "liger_kernel")
    parts = student.parallel.context_parallel_size
    if parts > 1:
        check_context_layers(start, student.max_length)
    base = read_base(start)
    names = {number: text for text, number in base.special.items()}
    pad_id, stop_ids = base.generation["pad_token_id"], base.generation["eos_token_id"]
    turn_format(base.render, names[stop_ids[0]])  # raises where engines would stop at another token than the template's
    template = [
        (start / name).read_bytes()
        for name in ("tokenizer.json", "config.json", "chat_template.jinja", "generation_config.json")
    ]
    versions = library_versions("torch", "transformers", "peft", "accelerate")
    dtype = training_dtype(student.dtype)
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoints.chmod(0o700)  # what is unpickled from here is ours alone
    rows_key = fingerprint_of(rows_digest, str(student.max_length), versions, *template)
    on_gpu = torch.cuda.is_available()
    first, ranks = parallel.rank() == 0, parallel.world_size()
    parallel.start_processes(student.parallel, on_gpu)
    with parallel.first_rank_first():
        data = token_rows(start, rows, student.max_length, checkpoints, rows_key)
    if student.on_long_row == "fail":
        refuse_long_rows(data, student.max_length)
    if samples is None:
        samples = max(1, round(student.num_train_epochs * len(data)))
    order = training_order(len(data), samples, student.seed)

    device = "cuda" if on_gpu else "cpu"
    layout = parallel.checkpoint_layout(student.parallel)
    identity = [rows_key, key_digest(student), str(samples), dtype, device, layout]
    with training_environment(checkpoints, "student.micro_batch_size", "student.max_length"):
        model = open_model(student, start, dtype)
        trained_parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        context = parallel.context_group(student.parallel)
        checked = check_layouts(model, data, order[: student.batch_size], pad_id, context)
        for refusal in checked.refused if first else ():
            progress(0, None, f"training in {checked.layout} rows; refused: {refusal}")
        fault = None
        if student.liger:
            fault = use_kernels(model, short_texts(data, order[: student.batch_size]), dtype, device)
            if fault is None:  # what began without them does not go on with them
                identity.append(library_versions("liger-kernel", "triton"))
            elif first:
                progress(0, None, f"training without Liger's kernels: {fault}")
        fingerprint = fingerprint_of(*identity)
        resume = newest_complete(checkpoints, fingerprint, remove=first)
        most_tokens = student.micro_batch_size * int(data.lengths.max())
        steps = Steps(data, order, student.batch_size, most_tokens, pad_id, checked.layout, ranks, parts)
        trainer = _trainer(student, model, steps, data, checked, dtype, checkpoints, fingerprint, metrics, progress)
        snapshot_steps = [] if snapshots is None else steps_at_equal_distances(len(steps), snapshots.count)
        if snapshot_steps:
            trainer.add_callback(
                _snapshot_callback(trainer, student, start, snapshot_steps, checkpoints / _SNAPSHOTS, fingerprint)
            )
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        save_trained(trainer, student, start, out)
        if first and snapshots is not None:
            shutil.rmtree(snapshots.folder, ignore_errors=True)
            for step in snapshot_steps:  # linked, since a kill before the stage is finished goes on from here
                shutil.copytree(
                    checkpoints / _SNAPSHOTS / str(step),
                    snapshots.folder / str(step),
                    copy_function=link_or_copy,
                    ignore=shutil.ignore_patterns(MARK),
                )
    if first:
        write_rows(out / "left_out.jsonl", ({"id": row.id, "reason": row.reason} for row in data.left_out))
    history = logged_steps(trainer, _LOGGED)
    facts = {
        "rows_in": len(data) + len(data.left_out),
        "rows_out": len(data),
        "samples": samples,
        "tokens": data.tokens,
        "trained_tokens": data.trained_tokens,
        "steps": trainer.state.global_step,
        "method": student.method.kind,
        "dtype": dtype,
        "layout": checked.layout,
        "layouts_refused": list(checked.refused),
        **({"liger": fault or "used"} if student.liger else {}),
        "trained_parameters": trained_parameters,
        **end_losses(history),
        "problem_steps": [
            {key: entry[key] for key in ("step", "problem", "rows")} for entry in history if "problem" in entry
        ],
        "left_out": dict(sorted(Counter(row.reason for row in data.left_out).items())),
        "left_out_sources": dict(sorted(Counter(row.source for row in data.left_out if row.source).items())),
    }
    return TrainResult.written(facts, history, resume, out if first else None)


def steps_at_equal_distances(steps: int, count: int) -> list[int]:
    """The optimiser steps whose weights are snapshots: ``count`` equal distances but for the end, fewer where there are
    fewer steps."""
    return sorted({step for at in range(1, count) if 0 < (step := round(steps * at / count)) < steps})


def _snapshot_callback(
    trainer: Any, student: StudentConfig, start: Path, steps: Sequence[int], folder: Path, fingerprint: str
) -> Any:
    """A callback that saves the weights behind each of ``steps``, before the trainer's own checkpoint of that step: so
    what a resume goes on from has all that is earlier."""
    from transformers import TrainerCallback

    class SaveSnapshots(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in steps:
                out = folder / str(state.global_step)
                save_trained(trainer, student, start, out)
                if parallel.rank() == 0:
                    complete(out, fingerprint)

    return SaveSnapshots()


def _trainer(
    student: StudentConfig,
    model: Any,
    steps: Steps,
    data: TokenRows,
    checked: CheckedLayout,
    dtype: str,
    checkpoints: Path,
    fingerprint: str,
    metrics: Path,
    progress: Reporter,
) -> Any:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    on_gpu = torch.cuda.is_available()
    first, ranks = parallel.rank() == 0, parallel.world_size()
    arguments = TrainingArguments(
        **common_arguments(student, dtype, checkpoints, metrics),
        per_device_train_batch_size=1,  # one item is one optimiser step
        gradient_accumulation_steps=1,
        num_train_epochs=1,  # the items are those of all epochs
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        learning_rate=student.method.learning_rate,
        **_schedule(student),
        warmup_steps=int(student.warmup_ratio * len(steps)),  # rounded down: the first warm-up step has rate 0
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one device: nn.DataParallel would split a step that is one item
    peak = peak_flops(torch.cuda.get_device_name()) if on_gpu and dtype == "bfloat16" else None
    flops = ModelFlops(model, full=student.method.kind == "full")
    log = MetricsLog(metrics, data, flops, peak * ranks if peak else None)
    most_skipped = max(_SKIPPED_AT_MOST, len(steps) // 100)
    head = LabelledHead(model) if checked.labelled_head else None
    config = model.config.get_text_config()
    # Mixtures of experts: the load-balancing loss, weighted as the model's own configuration has it.
    router_loss = getattr(config, "router_aux_loss_coef", None) if hasattr(config, "output_router_logits") else None
    more = {"output_router_logits": True} if router_loss else {}

    guard = LossGuard()

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for entry in state.log_history:  # of the steps before a resume
                guard.look(entry)
            if first:
                log.start(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
            if trainer.accelerator.optimizer_step_was_skipped:  # by DeepSpeed: the trainer leaves the schedule out, too
                lr_scheduler.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs and first:
                progress(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            parallel.wait_for_all()
            if first:
                complete(checkpoints / f"checkpoint-{state.global_step}", fingerprint)

    class StepTrainer(Trainer):
        """One item is one step: a list of micro batches."""

        _problem: str | None = None
        _loss = float("nan")

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            model.train()
            batches = [self._prepare_inputs(batch) for batch in inputs]
            count = parallel.sum_of_ranks(sum((batch["labels"] != -100).sum() for batch in batches))
            total = torch.zeros((), device=self.args.device)
            for batch in batches:
                # The gradients of ranks are averaged, so the loss of each is multiplied by their number.
                with parallel.reduced_once(self, model, batch is batches[-1]):
                    with self.compute_loss_context_manager():
                        losses, output = head.losses(model, batch, **more) if head else own_losses(model, batch, **more)
                        loss = losses.sum() * ranks / count
                        if more and output.aux_loss is not None:  # Llama 4 has a weight for one and computes none
                            loss = loss + router_loss * output.aux_loss / len(batches)
                    total += loss.detach()
                    if self.is_deepspeed_enabled:
                        if last := batch is batches[-1]:
                            loss = zero.shown_by_gradients(loss, total)
                        zero.backward(model, loss, last)
                    else:
                        self.accelerator.backward(loss)
            total = parallel.sum_of_ranks(total) / ranks
            self._loss = total.item()
            return total if math.isfinite(self._loss) else torch.zeros_like(total)  # the trainer adds its losses up

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            parallel.use_fsdp(self)

        def floating_point_ops(self, inputs: Any) -> int:
            return 0  # counted in metrics.py

        def _clip_grad_norm(self, model: Any) -> Any:
            norm = super()._clip_grad_norm(model)
            self._problem = guard.look({"loss": self._loss, "grad_norm": float(norm)})
            if self._problem == NOT_FINITE:
                model.zero_grad()  # the optimizer leaves weights without a gradient as they are
            return norm

        def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
            if "grad_norm" not in logs:  # the summary at the end
                return
            rows = steps.rows(self.state.global_step - 1)
            logs |= {"loss": self._loss, **log.of_step(rows)}
            if self._problem:
                logs |= {"problem": self._problem, "rows": [data.id(row) for row in rows]}
            super().log(logs, start_time)
            if first:
                log.write({"step": self.state.global_step} | logs)
            if self._problem:
                skipped = sum(entry.get("problem") == NOT_FINITE for entry in self.state.log_history)
                if student.on_bad_step == "stop" or skipped > most_skipped:
                    raise _bad_step(self.state.global_step, self._problem, logs["rows"], skipped)

    trainer = StepTrainer(
        model=model, args=arguments, train_dataset=steps, data_collator=lambda items: items[0], callbacks=[Watch()]
    )
    if trainer.is_deepspeed_enabled:
        zero.divide_weights(trainer)
    set_trackers(trainer, student.report_to, metrics)
    return trainer


def _bad_step(step: int, problem: str, rows: Sequence[str], skipped: int) -> Refused:
    if problem == NOT_FINITE:
        what = f"the loss or the gradient norm is not finite at step {step} ({skipped} such steps)"
        hint = "lower the learning rate, or set student.dtype: float32; the step's rows are in the metrics file"
        return Refused(what, where="student.method.learning_rate", hint=hint)
    return Refused(
        f"step {step} is a {problem}; its rows: {', '.join(rows[:8])}",
        where="student.on_bad_step",
        hint="look at the rows with `distill report RUN`, or set on_bad_step: skip, which logs a spike and goes on",
    )


def _schedule(student: StudentConfig) -> dict[str, Any]:
    if student.min_lr_ratio:
        kwargs = {"min_lr_rate": student.min_lr_ratio}
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": kwargs}
    return {"lr_scheduler_type": _SCHEDULES[student.lr_scheduler]}
