"""Memory that a training needs on each GPU, and on the disk, by the training's own model on fake tensors.

The base's configuration is built without weights (``FakeTensorMode``: shapes and types, no data), adapted as the recipe
says, and run forward once over a micro batch, while every tensor that autograd keeps for the backward pass is counted.
The rest is arithmetic:

- weights, gradients and optimizer: bytes of each parameter, divided among the GPUs by fsdp2 and zero3, which keeps
  trained weights twice; with ``cpu_offload`` these are in the host's memory, and gradients there twice;
- with ``context_parallel_size`` the tokens of a micro batch are divided, and keys and values are those of all;
- activations: what autograd keeps; with checkpointing the inputs of all layers and what the largest layer keeps;
- backward: the gradient of the largest tensor that the backward pass holds beside its input;
- head: logits of one chunk, their float32 copy and its gradient (``distill.train.loss``).

A stage of distillation behind SFT is a training of its own: ``teacher`` are the weights of the model beside the
student, ``head`` the logits that TRL's loss holds (tiles of both models, or all of a micro batch), and ``rollouts`` the
keys and values of the answers of a step, which are gone before the backward pass.

Not covered: the CUDA context, buffers of NCCL, fragmentation of the allocator (together one to three GiB a GPU), and
kernels that keep other tensors than PyTorch's own attention does. Rollouts take less than forecast where a layer does
not keep the keys of all tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from distill.check.finding import Finding
from distill.check.preview import final_base
from distill.config.recipe import LoraMethod, Recipe, StudentConfig
from distill.config.train import LogitsConfig, OnPolicyConfig
from distill.train.context import attended, check_context_layers
from distill.train.environment import require_modules
from distill.train.loss import MOST_LOGITS
from distill.train.weights import adapted, built, without_adapter
from distill.train.zero import LIVE_PARAMETERS, REDUCED_PARAMETERS
from licensing.errors import InputError, MissingDependency

_OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0, "adafactor": 0.01}
"""Bytes of optimizer state a trained parameter; Adafactor's are a row and a column of each matrix."""
_FULL = 0.9
"""Above this share of a GPU's memory, what the forecast does not cover may not fit."""
_LOGIT_BYTES = 12
"""A logit and its gradient in the compute type, the float32 copy and its gradient."""
_TILE = 4096 * 32768
"""Most logits of each model that TRL's divergence of a teacher beside the student holds at once."""
_WHOLE_LOGIT_BYTES = 16
_SELF_LOGIT_BYTES, _MIXTURE_LOGIT_BYTES = 28, 56
"""A logit of TRL's losses over whole logits: of the teacher's likeliest tokens, and of the student and itself as its
teacher, with a KL or with Jensen-Shannon. Peaks of resident memory in float32 on a CPU; 10, 28 and 42 in bfloat16."""
_KEPT_LOGIT_BYTES, _PASSING_LOGIT_BYTES = 29, 43
"""Beside whole logits, what TRL's loss across tokenizers keeps of each logit of an answer until the backward pass, and
takes for one answer at a time. Measured as above; in bfloat16 a quarter less."""
CHECKPOINTS = 2
"""As many are on the disk while a third is written over the older one."""


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes on each GPU, by purpose; ``disk`` for checkpoints, ``host`` of each process with ``cpu_offload``.

    ``parameters`` and ``trained`` are counts, ``tokens`` those of a micro batch on a GPU. ``gathered``: weights that
    fsdp2 or zero3 puts together for the layers at work, and the buffer in which zero3 collects gradients.
    """

    parameters: int
    trained: int
    tokens: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    backward: int
    head: int
    disk: int
    teacher: int = 0
    rollouts: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on each GPU at the peak."""
        backward = self.gradients + self.activations + self.backward + self.head
        return self.weights + self.optimizer + self.gathered + self.teacher + max(backward, self.rollouts)

    def __str__(self) -> str:
        names = (
            "weights", "teacher", "gradients", "optimizer", "gathered", "activations", "backward", "head", "rollouts",
        )  # fmt: skip
        parts = ", ".join(f"{name} {getattr(self, name) / 2**30:.1f}" for name in names if getattr(self, name) >= 2**26)
        host = f"{self.host / 2**30:.1f} GiB of the host's memory a process, " if self.host else ""
        return (
            f"{self.total / 2**30:.1f} GiB a GPU for a micro batch of {self.tokens:,} tokens ({parts}), {host}"
            f"{self.disk / 2**30:.1f} GiB of disk for checkpoints"
        )


def check_memory(recipe: Recipe, gpu_memory: float) -> Iterator[Finding]:
    """Whether each stage of training fits GPUs of so many GiB each. Not covered: a base that the run fetches."""
    student, parallel = recipe.student, recipe.student.parallel
    world = (parallel.processes or 1) * parallel.nodes
    again = parallel.activation_checkpointing is not False
    with final_base(recipe) as base:
        if base is None:
            yield Finding(
                "note", "memory", f"{student.public_id} is fetched by the run: there is no forecast before it"
            )
            return
        dtype = "bfloat16" if student.dtype == "auto" else student.dtype
        strategy = "fsdp2" if parallel.strategy == "ddp" else parallel.strategy
        more = [f"train in more processes with student.parallel.strategy: {strategy}"]
        try:
            needed = forecast(student, base.folder, dtype, world, again)
        except InputError:
            return  # the check of the export says it, or that of the student
        if needed.activations > needed.weights and strategy != "zero3":
            with contextlib.suppress(InputError):  # not of every model
                check_context_layers(base.folder, student.max_length)
                more.append("divide rows with student.parallel.context_parallel_size")
        yield _fits(needed, f"{world} {'processes' if world > 1 else 'process'}", gpu_memory, "student", again, more)
        for stage in recipe.train.stages[1:]:
            config = recipe.train.logits if stage == "logits" else recipe.train.on_policy
            assert config is not None
            served = ["serve the teacher (train.on_policy.teacher.url)"] if _beside(config) else []
            served.append(f"leave {stage} out of train.stages: it takes one process")
            needed = forecast_distillation(student, config, base.folder, dtype, again)
            yield _fits(needed, f"{stage}, in one process", gpu_memory, f"train.{stage}", again, served)


def _fits(needed: MemoryForecast, what: str, gpu_memory: float, section: str, again: bool, more: list[str]) -> Finding:
    """``section``: where the recipe has ``micro_batch_size``. ``more``: hints."""
    summary = f"{needed}; {what}, {gpu_memory:g} GiB each"
    if needed.total <= _FULL * gpu_memory * 2**30:
        return Finding("ok", "memory", summary)
    fits = needed.total <= gpu_memory * 2**30
    hints = [*more]
    if needed.activations + needed.backward + needed.head > needed.weights:
        hints.insert(0, f"lower {section}.micro_batch_size or student.max_length")
    if needed.rollouts > needed.weights:
        hints.insert(0, f"lower {section}.batch_size")
    if not again:
        hints.append("set student.parallel.activation_checkpointing")
    return Finding(
        "note" if fits else "error", "memory", f"{summary}: {'little room is left' if fits else 'it does not fit'}",
        "student.parallel" if section == "student" else section, "; ".join(hints),
        MissingDependency.exit_code,
    )  # fmt: skip


def forecast(student: StudentConfig, config: Path, dtype: str, world: int, checkpointing: bool) -> MemoryForecast:
    """What a training of the base with ``config`` (its config.json) takes in each of ``world`` processes.

    ``dtype`` is that of the computation: "bfloat16" or "float32". Takes about a second a billion parameters.
    Raises InputError where transformers cannot build the model, MissingDependency without torch, transformers or peft.
    """
    parallel = student.parallel
    tokens = -(-student.micro_batch_size * student.max_length // parallel.context_parallel_size)
    saved = _run_forward(student, config, dtype, tokens)
    divided = world > 1 and parallel.strategy != "ddp"
    share = world if divided else 1
    weights, gradients, optimizer = saved.weights / share, 4 * saved.trained / share, saved.optimizer / share
    layers = saved.layers
    if checkpointing:
        activations = sum(layer.input for layer in layers) + max((layer.saved for layer in layers), default=0)
    else:
        activations = sum(layer.saved for layer in layers)
    activations += saved.elsewhere
    largest = max((layer.parameters for layer in layers), default=0)
    zero3 = divided and parallel.strategy == "zero3"
    if zero3:
        weights += 4 * saved.trained / share
        live = min(saved.parameters, LIVE_PARAMETERS + largest + saved.outside)
        gathered = live * saved.weights / saved.parameters + 4 * min(saved.trained, REDUCED_PARAMETERS)
    else:
        gathered = (2 if dtype == "bfloat16" else 4) * (2 * largest + saved.outside) if divided else 0
    host = 0.0
    if zero3 and parallel.cpu_offload:
        host = max(weights + 2 * gradients + optimizer, saved.weights)  # each process opens the base whole, first
        weights = gradients = optimizer = 0.0
    return MemoryForecast(
        parameters=saved.parameters,
        trained=saved.trained,
        tokens=tokens,
        weights=int(weights),
        gradients=int(gradients),
        optimizer=int(optimizer),
        gathered=int(gathered),
        activations=int(activations),
        backward=int(max(saved.largest_gradient if not divided else 0, 2 * saved.largest_saved)),
        head=min(tokens * saved.vocabulary, MOST_LOGITS) * _LOGIT_BYTES,
        disk=int(CHECKPOINTS * ((8 if zero3 else 4) * saved.trained + saved.optimizer)),
        host=int(host),
    )


def _beside(config: LogitsConfig | OnPolicyConfig) -> bool:
    """Whether a teacher is loaded beside the student."""
    return isinstance(config, OnPolicyConfig) and config.teacher is not None and not config.is_served


def forecast_distillation(
    student: StudentConfig, config: LogitsConfig | OnPolicyConfig, folder: Path, dtype: str, checkpointing: bool
) -> MemoryForecast:
    """What a stage of distillation behind SFT takes in its one process; arguments and errors as of ``forecast``."""
    from transformers import AutoConfig

    needed = forecast(
        student.model_copy(update={"micro_batch_size": config.in_one_pass}), folder, dtype, 1, checkpointing
    )
    text = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    rows = text.vocab_size
    whole = needed.tokens * rows
    if isinstance(config, LogitsConfig):
        return replace(needed, head=whole * _WHOLE_LOGIT_BYTES)
    teacher = 0
    if config.is_served:
        head = whole * _WHOLE_LOGIT_BYTES
    elif config.teacher is None:
        answers = config.in_one_pass * config.max_new_tokens * rows
        head = answers * (_SELF_LOGIT_BYTES if config.beta in (0, 1) else _MIXTURE_LOGIT_BYTES)
    else:
        beside = Path(config.teacher.model).expanduser()
        teacher = _weights(beside, dtype)
        head = 2 * min(whole, _TILE) * _LOGIT_BYTES
        if config.across_tokenizers:
            other = AutoConfig.from_pretrained(beside, trust_remote_code=False).get_text_config().vocab_size
            answer = config.max_new_tokens * max(rows, other)
            head = max(rows, other) * needed.tokens * _WHOLE_LOGIT_BYTES
            head += answer * (config.in_one_pass * _KEPT_LOGIT_BYTES + _PASSING_LOGIT_BYTES)
    heads = text.num_attention_heads
    values = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads)
    values *= getattr(text, "head_dim", None) or text.hidden_size // heads
    width = 2 if dtype == "bfloat16" else 4
    at_once = config.in_one_pass if config.across_tokenizers else config.batch_size
    rollouts = at_once * student.max_length * values * width
    return replace(needed, head=head, teacher=teacher, rollouts=rollouts)


def _weights(folder: Path, dtype: str) -> int:
    """Bytes of a model's weights in ``dtype``."""
    model = built(folder, dtype)
    return sum(one.numel() * one.element_size() for one in model.parameters())


@dataclass
class _Layer:
    parameters: int = 0
    input: int = 0
    saved: int = 0


@dataclass
class _ForwardSizes:
    """What one forward pass over fake tensors tells: counts of parameters, and bytes of the rest."""

    parameters: int
    trained: int
    weights: int
    optimizer: float
    vocabulary: int
    largest_gradient: int
    outside: int
    layers: list[_Layer]
    elsewhere: int = 0
    largest_saved: int = 0


def _run_forward(student: StudentConfig, config: Path, dtype: str, tokens: int) -> _ForwardSizes:
    require_modules("the memory forecast", "memory", "peft", "torch", "transformers")
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.integrations import moe

    with torch.device("meta"):
        model = _model(student, config, dtype)
    grouped: Any = getattr(moe, "_can_use_grouped_mm", None)

    def takes_fakes(rows: Any, weights: Any, ends: Any) -> bool:
        """Whether torch's product over experts does; transformers' own keeps as much."""
        return bool(weights.dtype == torch.bfloat16 and grouped(rows, weights, ends))

    with FakeTensorMode(), mock.patch.object(moe, "_can_use_grouped_mm", takes_fakes, create=True):
        _onto_cpu(model)
        blocks = _blocks(model)
        parameters = list(model.parameters())
        trained = [one for one in parameters if one.requires_grad]
        inside = sum(one.numel() for block in blocks for one in block.parameters())
        saved = _ForwardSizes(
            parameters=sum(one.numel() for one in parameters),
            trained=sum(one.numel() for one in trained),
            weights=sum(one.numel() * one.element_size() for one in parameters),
            optimizer=_OPTIMIZER_BYTES[student.optimizer] * sum(one.numel() for one in trained),
            vocabulary=model.config.get_text_config().vocab_size,
            largest_gradient=max(4 * one.numel() for one in trained),
            outside=sum(one.numel() for one in parameters) - inside,
            layers=[_Layer(sum(one.numel() for one in block.parameters())) for block in blocks],
        )
        with _counting(saved, blocks, {one.untyped_storage()._cdata for one in parameters}):
            inner = without_adapter(model)
            body = getattr(inner, inner.base_model_prefix, None) or inner.model  # Llama 4 names one that it has not
            inputs = torch.zeros((1, tokens), dtype=torch.long)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                body(input_ids=inputs, use_cache=False)
    return saved


def _model(student: StudentConfig, config: Path, dtype: str) -> Any:
    """The model of the training without its data, as ``distill.train.sft`` opens it."""
    from distill.train.attention import register_packed_attention

    lora = isinstance(student.method, LoraMethod)
    model = built(config, "bfloat16" if lora and dtype == "bfloat16" else "float32")
    parts = student.parallel.context_parallel_size
    if model.config._attn_implementation == "sdpa":  # without a mask, as packed rows are trained
        model.set_attn_implementation(_register_gathered(parts) if parts > 1 else register_packed_attention())
    model.train()
    return adapted(model, student.method) if isinstance(student.method, LoraMethod) else model


def _register_gathered(parts: int) -> str:
    """Attention of the queries of a part over the keys and values of all ``parts``, as in ``distill.train.context``."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        query, key = query.to(value.dtype), key.to(value.dtype)
        keys, values = (torch.cat([one] * parts, dim=2) for one in (key, value))
        return attended(query, keys, values).transpose(1, 2).contiguous(), None

    name = "distill_gathered"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, lambda **_: None)
    return name


def _onto_cpu(model: Any) -> None:
    """Meta tensors as fake ones of a CPU, whose attention is fused as that of a GPU is; shared ones stay shared."""
    import torch

    fakes: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in fakes:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    parameter = isinstance(tensor, torch.nn.Parameter)
                    fakes[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if parameter else fake
                tensors[name] = fakes[id(tensor)]


def _blocks(model: Any) -> list[Any]:
    """The layers that checkpointing computes again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextlib.contextmanager
def _counting(saved: _ForwardSizes, blocks: list[Any], parameters: set[int]) -> Iterator[None]:
    """Count each storage that autograd keeps, once, in the layer that keeps it first."""
    import torch

    seen = set(parameters)
    alive: list[Any] = []  # so that no storage takes the id of one that is gone
    current: list[_Layer] = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            alive.append(storage)
            saved.largest_saved = max(saved.largest_saved, storage.nbytes())
            if current:
                current[-1].saved += storage.nbytes()
            else:
                saved.elsewhere += storage.nbytes()
        return tensor

    def enter(layer: _Layer, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else named["hidden_states"]
        layer.input = hidden.numel() * hidden.element_size()
        current.append(layer)

    handles = []
    for block, layer in zip(blocks, saved.layers, strict=True):
        handles += [
            block.register_forward_pre_hook(
                lambda _, arguments, named, layer=layer: enter(layer, arguments, named), with_kwargs=True
            ),
            block.register_forward_hook(lambda *_: current.pop() and None),
        ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
    finally:
        for handle in handles:
            handle.remove()
