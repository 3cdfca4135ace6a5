"""Distillation on the log-probabilities that were kept of the teacher's own traces: no teacher is loaded or asked.

The rows are those that stage ``logprobs`` wrote (``distill.train.distillkit``): the student's prompt, and behind it the
teacher's own tokens, so that each position has the teacher's distribution of the token that follows. The loss is that
of TRL's ``ServerDistillationTrainer`` with ``beta`` 0: the forward KL over the teacher's k likeliest tokens and over
all others as one, each token of a step with the same weight. In place of a server's answers and of the student's own it
gets the kept ones; all else is as in on-policy distillation (``distill.train.distillation``).

- The temperature is 1: the log-probabilities are those of the teacher's own distribution.
- The distribution that is learnt is that of the teacher behind its own prompt: its system prompt and its text around
  the question count, as in the traces.
- The logarithms are rounded to float16: of a student that is the teacher, the loss is a little above 0.

Not covered: the reverse KL, which needs the teacher's log-probabilities of the student's likeliest tokens; mixing with
the loss of SFT; several processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from distill.config.recipe import StudentConfig
from distill.config.train import LogitsConfig
from distill.models.folder import read_base
from distill.models.tokens import CLOSED_BY_PROMPT
from distill.runs.stage import Reporter
from distill.train.batches import training_order
from distill.train.distillation import (
    open_student,
    require_trl,
    resume_point,
    step_trainer,
    token_weighted_trainer,
)
from distill.train.distillkit import OTHER_TEXT, DistillKitRows
from distill.train.environment import require_modules, training_environment
from distill.train.result import TrainResult, end_losses, logged_steps
from distill.train.weights import save_trained, training_dtype
from licensing.errors import InputError

_LOGGED = {name: name for name in ("step", "loss", "learning_rate", "grad_norm")}
_TEMPLATE_SHARE = 0.5
"""Of the traces that nothing else leaves out. Where the student's template writes more of them otherwise than the
teacher did, it is the template's fault: what is left is a choice by form."""


def require_aligned(rows: int, left_out: Mapping[str, int], batch_size: int) -> None:
    """Raises InputError where fewer traces than a batch have the teacher's distribution token by token, or the
    student's template is the reason for which too many have none. ``rows``: traces that do; ``left_out``: others by
    the reason."""
    count = rows + sum(left_out.values())
    by_template = left_out.get(OTHER_TEXT, 0) + left_out.get(CLOSED_BY_PROMPT, 0)
    if rows >= batch_size and by_template <= _TEMPLATE_SHARE * (rows + by_template):
        return
    reasons = ", ".join(f"{number:,}: {reason}" for reason, number in left_out.items())
    raise InputError(
        f"{rows:,} of {count:,} selected traces have the teacher's log-probabilities token by token"
        + (f" ({reasons})" if reasons else "")
        + (f", fewer than a batch of {batch_size}" if rows < batch_size else ""),
        where="train.stages",
        hint="give the student the teacher's template (student.chat_template), lower train.logits.batch_size, or leave "
        "logits out: nothing is sampled again; stages/logprobs/*/rows.jsonl names the reason of each trace",
    )


def train_logits(
    student: StudentConfig,
    config: LogitsConfig,
    start: Path,
    trained: Path,
    captured: DistillKitRows,
    k: int,
    out: Path,
    checkpoints: Path,
    progress: Reporter,
    *,
    inputs_digest: str,
    metrics: Path,
) -> TrainResult:
    """Train the student on ``captured``, with ``k`` log-probabilities a token; ``out`` becomes a folder as SFT writes
    it.

    ``start`` is the prepared model, ``trained`` the folder that SFT left: an adapter for ``start``, or whole weights.
    ``checkpoints`` is a private folder: a call after a crash continues from the newest whole one and ends with the
    bytes of a call left alone.

    Args:
        inputs_digest: Identity of everything that is read; checkpoints of another one are not used.
        metrics: A file of JSON lines that gets one line a step.

    Raises:
        Refused: The gradient of a step is not finite.
        MissingDependency: torch, transformers, peft, trl or datasets, memory or disk.
    """
    require_modules("distillation", "train.logits", "datasets", "torch")
    require_trl("train.logits")
    import datasets

    steps = max(1, round(config.num_train_epochs * len(captured) / config.batch_size))
    order = training_order(len(captured), steps * config.batch_size, student.seed)
    dtype = training_dtype(student.dtype)
    fingerprint, resume = resume_point(student, config, dtype, inputs_digest, checkpoints)
    with training_environment(checkpoints, "train.logits.micro_batch_size", "student.max_length"):
        model, _ = open_student(student, start, trained, dtype)
        kind, settings = _captured_trainer(captured, k, read_base(start).stop_ids[0], student.max_length)
        data = datasets.Dataset.from_dict({"prompt": order})
        trainer = step_trainer(
            kind, settings, student, config, "train.logits", model, start, data, dtype, checkpoints, fingerprint,
            metrics, progress,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        save_trained(trainer, student, start, out)
    lengths = captured.lengths()
    history = logged_steps(trainer, _LOGGED)
    facts = {
        "rows_out": len(set(order)),
        "steps": trainer.state.global_step,
        "tokens": sum(sum(lengths[row]) for row in order),
        "trained_tokens": sum(lengths[row][1] for row in order),
        "dtype": dtype,
        "trained_parameters": sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad),
        **end_losses(history),
    }
    return TrainResult.written(facts, history, resume, out)


def _captured_trainer(captured: DistillKitRows, k: int, stop_id: int, max_length: int) -> tuple[Any, Any]:
    """TRL's trainer with kept answers and scores in place of generated ones, and its configuration. A prompt of its
    data is the place of a row; ``stop_id`` stands for the teacher's stop token, of which the loss takes the place
    alone.

    TRL pads prompts on the left and answers on the right, each to the longest of a step. What is padding in a whole
    micro batch is cut off, and where a micro batch is still longer than ``max_length``, its rows run one by one.
    """
    import torch
    from torch.nn.functional import pad
    from trl import DistillationConfig
    from trl.experimental.server_distillation import ServerDistillationTrainer

    class CapturedTrainer(token_weighted_trainer()):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super(ServerDistillationTrainer, self).__init__(**settings)  # its own looks for a server
            self.loss_add_tail = True

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            self._rows = [captured[one["prompt"]] for one in inputs]
            output = super()._generate_and_score_completions(inputs)
            shape = (*output["completion_ids"].shape, k)
            ids, logprobs = torch.zeros(shape, dtype=torch.int64), torch.full(shape, float("-inf"))
            for place, row in enumerate(self._rows):
                ids[place, : len(row.top_ids)] = torch.from_numpy(row.top_ids)
                logprobs[place, : len(row.top_ids)] = torch.from_numpy(row.top_logprobs)
            return output | {"top_ids": ids, "top_logprobs": logprobs}

        def _generate(self, prompts: Any) -> Any:
            answers = [[*row.answer_ids, stop_id] for row in self._rows]
            self._metrics["train"]["completions/mean_length"].append(sum(map(len, answers)) / len(answers))
            return [row.prompt_ids for row in self._rows], answers, None, None, []

        def _get_teacher_token_logprobs_from_server(self, inputs: Any, aligned_prompt_length: int) -> Any:
            before = (0, 0, inputs["prompt_ids"].shape[1] - aligned_prompt_length, 0)
            device = inputs["completion_ids"].device
            ids = pad(inputs["top_ids"], before).to(device)
            logprobs = pad(inputs["top_logprobs"], before, value=float("-inf")).to(device)
            return {"topk_token_ids": ids, "topk_logprobs": logprobs, "actual_logprobs": logprobs[..., 0]}

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            loss, count = super().compute_loss, len(inputs["prompt_ids"])
            together = _unpadded(inputs, slice(count))
            if together["prompt_ids"].shape[1] + together["completion_ids"].shape[1] <= max_length:
                return loss(model, together)
            return sum(loss(model, _unpadded(inputs, slice(row, row + 1))) for row in range(count))

    return CapturedTrainer, partial(DistillationConfig, beta=0.0, temperature=1.0)


def _unpadded(inputs: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """Some rows of a micro batch, without the columns that are padding in all of them."""
    prompt, answer = (inputs[name][rows].any(0) for name in ("prompt_mask", "completion_mask"))
    columns = {"prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": answer, "completion_mask": answer}
    columns |= dict.fromkeys(("top_ids", "top_logprobs"), answer.cpu())
    return {**inputs, **{name: inputs[name][rows][:, mask] for name, mask in columns.items()}}
