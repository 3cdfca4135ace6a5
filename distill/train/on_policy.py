"""On-policy distillation (TRL's ``DistillationTrainer``): the student answers, and learns the teacher's distribution.

Answers, divergence and their kernels are TRL's. What is added:

- models whose embeddings are padded to different sizes, which TRL refuses: both are cropped to the tokens that they
  share (``distill.models.vocabulary``), and full weights get their cut rows back when they are saved;
- what every training on a teacher's distribution has (``distill.train.distillation``);
- prompts in an order of our own;
- every answer is kept as a row (``distill.train.rollouts``).

The teacher stands beside the student, or behind a server (``distill.train.teacher_server``), or several do, each with
problems of its own: then the loss is over its likeliest tokens or the student's, and its scores are floating-point sums
in an order that the server chooses. Or it has a tokenizer of its own (``distill.train.across_tokenizers``), or is the
student, with worked examples in its prompt (``distill.train.self_teacher``).

Not covered: several processes; vLLM for the answers; an adapter on the head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.config.recipe import StudentConfig
from distill.config.train import OnPolicyConfig
from distill.models.folder import BaseFolder, read_base
from distill.models.vocabulary import crop_vocabulary, require_shared, same_texts, tokenizer_of, vocabulary_size
from distill.runs.stage import Reporter
from distill.train.across_tokenizers import across_tokenizers_trainer, prompt_row, teacher_prompt
from distill.train.batches import training_order
from distill.train.distillation import (
    open_student,
    positions_from_mask,
    require_trl,
    resume_point,
    step_trainer,
)  # fmt: skip
from distill.train.environment import require_modules, training_environment
from distill.train.result import TrainResult, end_losses, logged_steps
from distill.train.rollouts import RolloutLog
from distill.train.self_teacher import check_examples_fit, privileged_context, self_teacher_trainer
from distill.train.teacher_server import require_server, scoring_trainer
from distill.train.weights import save_trained, training_dtype
from licensing.errors import InputError

_LOGGED = {
    "step": "step",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "completions/mean_length": "mean_length",
    "completions/clipped_ratio": "cut",
    "compared": "compared",
}
"""TRL's names -> ours. ``entropy``: of the student, in nats a token. ``cut``: share of answers that reach the limit.
``compared``: of an answer's tokens, those that a teacher with another tokenizer cuts alike."""


def train_on_policy(
    student: StudentConfig,
    config: OnPolicyConfig,
    start: Path,
    trained: Path,
    prompts: Mapping[str, Sequence[Mapping[str, Any]]],
    out: Path,
    checkpoints: Path,
    progress: Reporter,
    *,
    inputs_digest: str,
    metrics: Path,
    rollouts: Path,
    routes: Mapping[str, int] = MappingProxyType({}),
) -> TrainResult:
    """Train the student on its own answers to ``prompts`` (problem id -> messages); ``out`` becomes a folder as SFT
    writes it.

    ``start`` is the prepared model, ``trained`` the folder that SFT left: an adapter for ``start``, or whole weights.
    ``checkpoints`` is a private folder: a call after a crash continues from the newest whole one and ends with the
    bytes of a call left alone, where the scores of a served teacher are the same again.

    Args:
        inputs_digest: Identity of everything that is read; checkpoints of another one are not used.
        metrics: A file of JSON lines that gets one line a step.
        rollouts: The Parquet file of all answers (``distill.train.rollouts``).
        routes: Of several teachers, problem id -> number of the one that scores its answers.

    Raises:
        InputError: The models share no vocabulary, no prompt leaves room for an answer, or the teacher's server cannot
            score.
        Refused: The gradient of a step is not finite.
        MissingDependency: torch, transformers, peft, trl or datasets, the teacher's server, memory or disk.
    """
    require_modules("on-policy distillation", "train.on_policy", "datasets", "torch", "transformers")
    require_trl("train.on_policy")
    import datasets
    from transformers import GenerationConfig

    base = read_base(start)
    teachers = config.logits_teachers
    folders = {where: Path(one.model).expanduser() for where, one in teachers.items()} or {"student.base": start}
    teacher = next(iter(folders.values()))
    reader = read_base(teacher) if config.across_tokenizers else None
    if reader is None:
        shared = [require_shared(start, folder, f"{where}.model").size for where, folder in folders.items()]
        rows = compared = min(shared)
    else:
        rows, compared = vocabulary_size(start), len(same_texts(base, reader))
    if config.examples:
        check_examples_fit(base, config, student.max_length)
    room = student.max_length - config.max_new_tokens
    tokenizer = tokenizer_of(start)
    texts = [base.render(one, True) for one in prompts.values()]
    ids = [tokenizer.encode(one, add_special_tokens=False).ids for one in texts]
    if max((max(one) for one in ids), default=0) >= rows or base.stop_ids[0] >= rows:
        raise InputError(
            "the student's template has tokens that the teacher lacks",
            where="train.on_policy",
            hint="see `distill pair STUDENT TEACHER`",
        )
    fitting = [name for name, encoded in zip(prompts, ids, strict=True) if len(encoded) <= room]
    if not fitting:
        raise InputError(
            f"no prompt leaves room for {config.max_new_tokens} new tokens in student.max_length {student.max_length}",
            where="train.on_policy.max_new_tokens",
            hint="lower it, or raise student.max_length",
        )
    servers = [
        require_server(
            read_base(folders[where], served=True), one, student.max_length, where, named=config.scores_students_tokens
        )
        for where, one in teachers.items() if config.is_served
    ]  # fmt: skip
    order = training_order(len(fitting), config.steps * config.batch_size, student.seed)
    problem_ids = [fitting[number] for number in order]
    more = {"privileged_context": privileged_context(config.examples)} if config.examples else {}
    columns: dict[str, dict[str, Any]] = {
        name: {"prompt": [dict(turn) for turn in prompts[name]], **more} for name in fitting
    }
    own_route = {name: routes[name] if config.teachers else 0 for name in fitting}
    if servers:
        columns = {name: columns[name] | {"route": own_route[name]} for name in fitting}
    # As JSON a turn has its own keys; in a table of structs it has those of all turns, and a template sees them.
    types = {"prompt": datasets.List(datasets.Json()), **dict.fromkeys(more, datasets.Value("string"))}
    features = datasets.Features(types | ({"route": datasets.Value("int64")} if servers else {}))
    if reader is not None:
        encoded = dict(zip(prompts, zip(texts, ids, strict=True), strict=True))
        columns = {name: prompt_row(*encoded[name], teacher_prompt(reader, prompts[name])) for name in fitting}
        features = None
    data = datasets.Dataset.from_list([columns[name] for name in problem_ids], features=features)

    dtype = training_dtype(student.dtype)
    fingerprint, resume = resume_point(student, config, dtype, inputs_digest, checkpoints)
    names = [one.public_id for one in teachers.values()]
    teacher_names = {name: names[own_route[name]] for name in fitting} if names else {}
    answers = RolloutLog(
        checkpoints / "rollouts.jsonl", inputs_digest, problem_ids, teacher_names, tokenizer, base.stop_ids
    )
    with (
        contextlib.closing(answers),
        training_environment(checkpoints, "train.on_policy.micro_batch_size", "train.on_policy.max_new_tokens"),
    ):
        model, cut_off = open_student(student, start, trained, dtype, rows)
        # Answers are drawn from the student's distribution: what TRL leaves open, a penalty or min_p of the base fills.
        model.generation_config = GenerationConfig(eos_token_id=list(base.stop_ids))
        kind, settings, models = _teacher_side(student, config, base, teacher, dtype, rows, answers)
        trainer = step_trainer(
            kind, settings, student, config, "train.on_policy", model, start, data, dtype, checkpoints, fingerprint,
            metrics, progress, answers.sync, **models,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        save_trained(trainer, student, start, out, cut_off)
        answers.write_table(rollouts)
    history = logged_steps(trainer, _LOGGED)
    own_routes = [*own_route.values()]
    routed = [
        {
            "teacher": one.public_id,
            "revision": one.revision,
            "engine": server.engine,
            "problems": own_routes.count(number),
        }
        for number, (one, server) in enumerate(zip(config.teachers, servers, strict=False))
    ]
    facts = {
        "rows_in": len(prompts),
        "rows_out": len(fitting),
        "steps": trainer.state.global_step,
        "answers": len(order),
        "tokens": round(sum(entry["mean_length"] for entry in history) * config.batch_size),
        "vocabulary": compared,
        "dtype": dtype,
        "trained_parameters": sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad),
        **({"teacher_engine": servers[0].engine} if len(servers) == 1 else {}),
        **({"routes": routed} if routed else {}),
        **end_losses(history),
        "first_mean_length": history[0].get("mean_length"),
        "last_mean_length": history[-1].get("mean_length"),
    }
    return TrainResult.written(facts, history, resume, out)


def _teacher(folder: Path, dtype: str, size: int | None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    if size is not None:
        crop_vocabulary(model, size)
    positions_from_mask(model)
    return model.eval().requires_grad_(False)


def _teacher_side(
    student: StudentConfig,
    config: OnPolicyConfig,
    base: BaseFolder,
    teacher: Path,
    dtype: str,
    vocabulary: int,
    answers: RolloutLog,
) -> tuple[Any, Any, dict[str, Any]]:
    """TRL's trainer that keeps what it generates, its configuration with the loss set, and the models that it takes."""
    from trl import DistillationConfig, DistillationTrainer

    class BesideTrainer(DistillationTrainer):
        def _compute_loss(self, *inputs: Any) -> Any:
            """TRL goes to the models around their forward passes, which accelerate has put under autocast."""
            with self.accelerator.autocast():
                return super()._compute_loss(*inputs)

    kind: Any
    models = {}
    if config.examples:
        kind, settings = self_teacher_trainer(config)
    elif config.is_served:
        kind, settings = scoring_trainer(config, vocabulary)
    elif config.across_tokenizers:
        kind, settings = across_tokenizers_trainer(config, base, read_base(teacher), student.max_length, answers)
        models["teacher_model"] = _teacher(teacher, dtype, None)
        models["teacher_model"].config.use_cache = False  # TRL does not say so, and keys and values of all layers stay
    else:
        kind, settings = BesideTrainer, partial(DistillationConfig, beta=config.beta)
        models["teacher_model"] = _teacher(teacher, dtype, vocabulary)

    class KeepingTrainer(kind):
        """Of the trainer across tokenizers nothing: it does not call ``_generate``, and keeps its answers itself."""

        def _generate(self, prompts: Any) -> Any:
            generated = super()._generate(prompts)
            answers.add(self.state.global_step + 1, generated[1])
            return generated

    settings = partial(settings, temperature=config.temperature, max_completion_length=config.max_new_tokens)
    return KeepingTrainer, settings, models
