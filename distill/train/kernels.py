"""Liger's Triton kernels for norms and gated MLPs in place of the model's own modules, compared with them before use.

Gradients are compared besides losses: a kernel may be right forwards and wrong backwards (Liger's RMSNorm writes its
gradient over the one that it was given, which a residual may still need), and such a training looks sound.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from distill.train import parallel
from distill.train.weights import without_adapter
from licensing.errors import InputError

INSTALL = "pip install 'distill-release[liger]'"
_WHERE = "student.liger"
# Losses come from the head on labelled positions (loss.py). The kernel for RoPE replaces a function of all models of a
# type, which cannot be compared with its own in one process.
_LEFT_OUT = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
_LAYERS = 2  # of the stand-in
_LOSS = 1e-4  # nats, of a token, in float32
_GRADIENTS = {"float32": 1e-3, "bfloat16": 0.05}  # norm of the difference over the norm, of all weights together


def require_kernels(model: Any) -> None:
    """Raise InputError where Liger has no kernels for ``model``, which may be on torch's ``meta`` device, or it has
    experts: their kernels take the place of modules and weights that adapters and the export know by name."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = without_adapter(model).config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise InputError(f"Liger has no kernels for models of type {kind}", where=_WHERE, hint="leave it out")
    if any(path.endswith(".experts") for path, _ in model.named_modules()):
        what = f"models with experts ({kind}) are trained without Liger's kernels"
        raise InputError(what, where=_WHERE, hint="leave it out")


def use_kernels(model: Any, texts: Sequence[Any], dtype: str, device: str) -> str | None:
    """Replace norms and gated MLPs of ``model``, in place, where the kernels compute the same. Returns what they
    compute otherwise, or why nobody knows; None where they are in use. Every rank calls it, and all decide alike.

    Compared on a stand-in on ``device``: embeddings, head and the first two layers of ``model`` with their weights, in
    float32, and as trained under autocast to ``dtype``. So it fits on a GPU where the model is divided among several.
    ``texts``: token ids of rows.
    """
    import torch

    base = without_adapter(model)
    fault = None
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        fault = "Triton runs them on GPUs alone"
    else:
        try:
            fault = _fault(base, texts, dtype, device)
        except Exception as error:  # configurations, Triton's compiler, its driver and Liger raise what they like
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if parallel.sum_of_ranks(torch.tensor(float(fault is not None), device=device)):
        return fault or "they differ in another process"
    _replace(base)
    return None


def _replace(base: Any) -> None:
    """In ``base`` and in no other model."""
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    names = vars(sys.modules[type(base).__module__])
    before = dict(names)
    _apply_liger_kernel_to_instance(base, **_LEFT_OUT)
    names.update(before)  # it replaces the classes there, too


def _fault(base: Any, texts: Sequence[Any], dtype: str, device: str) -> str | None:
    from distill.train.batches import batch_of, on_device

    small = _first_layers(base, device)
    batches = [on_device(device, batch_of([text], [1], "single", 0)) for text in texts]
    kinds = {"float32": small.dtype} | ({} if dtype == "float32" else {dtype: base.dtype})
    own = {kind: _losses_and_gradients(small.to(weights), batches, kind) for kind, weights in kinds.items()}
    before = {module.forward for module in small.modules()}
    _replace(small)
    if before == {module.forward for module in small.modules()}:
        return "Liger replaces no module of this model"
    for kind, weights in kinds.items():
        losses, gradients = own[kind]
        new_losses, new_gradients = _losses_and_gradients(small.to(weights), batches, kind)
        worst = float((new_losses - losses).abs().max())
        if kind == "float32" and not worst <= _LOSS:
            return f"a token's loss differs by {worst:.2g}"
        share = float(_norm(new - old for new, old in zip(new_gradients, gradients, strict=True)) / _norm(gradients))
        if not share <= _GRADIENTS[kind]:
            return f"gradients in {kind} differ by {share:.2g} of their norm"
    return None


def _first_layers(base: Any, device: str) -> Any:
    """A float32 model of the first layers of ``base``. Adapters are left out; what is trained there, or has one, is
    trained here: kernels do not compute the gradients of frozen weights."""
    import torch

    config = copy.deepcopy(base.config)
    config._attn_implementation = "eager"
    text = config.get_text_config()
    text.num_hidden_layers = min(_LAYERS, text.num_hidden_layers)
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[: text.num_hidden_layers]
    with torch.device(device):
        small = type(base)(config).float().eval()
    part_of_peft = re.compile(r"[.](base_layer|original_module|modules_to_save[.]default)[.]")
    weights = {part_of_peft.sub(".", name): weight for name, weight in base.state_dict().items()}
    trained = {
        part_of_peft.sub(".", name)
        for name, weight in base.named_parameters()
        if weight.requires_grad or ".base_layer." in name
    }
    missing = set(small.load_state_dict(weights, strict=False).missing_keys) - set(small.all_tied_weights_keys)
    if missing:
        raise RuntimeError(f"the stand-in for {type(base).__name__} has weights of its own: {sorted(missing)[:3]}")
    for name, weight in small.named_parameters():
        weight.requires_grad_(name in trained)
    return small


def _losses_and_gradients(model: Any, batches: Sequence[dict[str, Any]], dtype: str) -> tuple[Any, list[Any]]:
    """Losses of the labelled tokens, and the gradients of their sum by the weights that are trained."""
    import torch

    from distill.train.loss import own_losses

    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        losses = torch.cat([own_losses(model, one)[0] for one in batches])
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(losses.sum(), trained, allow_unused=True, materialize_grads=True)
    return losses.detach(), list(gradients)


def _norm(tensors: Any) -> Any:
    return sum(tensor.float().square().sum() for tensor in tensors) ** 0.5
