"""Proof before use: on the first rows, each layout must give the losses of the model's own forward, a row at a time.

Computed in float32, whatever the training computes in: bfloat16 rounds by more than what a row that sees its neighbour
may change. Measured with SmolLM2-135M: the largest difference of a token is 2e-5 in float32, and 0.2 in bfloat16, for
padding as well as for packing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.train.attention import register_packed_attention
from distill.train.batches import LAYOUTS, Layout, batch_of
from distill.train.loss import LabelledHead, own_losses
from distill.train.rows import TokenRows

__all__ = ["Proof", "prove"]

_TOLERANCE = 1e-4
_MOST_TOKENS = 320  # of a row: enough for both kinds of attention on a CPU, and for no more than a second there


@dataclass(frozen=True)
class Proof:
    """The fastest layout that gives the right losses, and whether the head may run on labelled positions alone.

    ``difference``: largest difference of a token's loss, in nats, of what is used. ``refused``: what was tried before,
    each with the reason.
    """

    layout: Layout
    labelled_head: bool
    difference: float
    refused: tuple[str, ...] = ()


def prove(model: Any, rows: TokenRows, step: Sequence[int], pad_id: int) -> Proof:
    """Choose the layout on the longest and the shortest row of the first step; sets the model's attention for it."""
    import torch

    by_length = sorted(step, key=lambda row: (-rows.lengths[row], row))
    texts = [rows.input_ids(row)[:_MOST_TOKENS] for row in dict.fromkeys((by_length[0], by_length[-1]))]
    refused = []
    attention = model.config._attn_implementation
    model.eval()
    with torch.no_grad(), _in_float32(model):
        singles = [_batch([text], "single", pad_id, model.device) for text in texts]
        reference = torch.cat([own_losses(model, one)[0] for one in singles])

        def difference(layout: Layout) -> float:
            head = LabelledHead(model)
            batches = singles if layout == "single" else [_batch(texts, layout, pad_id, model.device)]
            losses = torch.cat([head.losses(model, one)[0] for one in batches])
            return float((losses - reference).abs().max())

        for layout in LAYOUTS:
            try:
                if layout == "packed":
                    if attention != "sdpa":
                        raise ValueError(f"the model's attention is {attention}")
                    model.set_attn_implementation(register_packed_attention())
                worst = difference(layout)
            except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                refused.append(f"{layout}: {type(error).__name__}: {error}")
            else:
                if worst <= _TOLERANCE:
                    return Proof(layout, True, worst, tuple(refused))
                refused.append(f"{layout}: a token's loss differs by {worst:.2g}")
            if layout == "packed":
                model.set_attn_implementation(attention)
    return Proof("single", False, 0.0, tuple(refused))


def _batch(texts: Sequence[Any], layout: Layout, pad_id: int, device: Any) -> dict[str, Any]:
    batch = batch_of(texts, [1] * len(texts), layout, pad_id)
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


@contextlib.contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    """Every layer casts its own bfloat16 weights while it runs, so that no second copy of the model is held."""
    import torch

    handles = []
    for module in model.modules():
        weights = [weight for weight in module.parameters(recurse=False) if weight.dtype == torch.bfloat16]
        if not weights:
            continue

        def cast(_: Any, __: Any, weights: list[Any] = weights) -> None:
            for weight in weights:
                weight.data = weight.data.float()

        def restore(_: Any, __: Any, ___: Any, weights: list[Any] = weights) -> None:
            for weight in weights:
                weight.data = weight.data.bfloat16()

        handles += [module.register_forward_pre_hook(cast), module.register_forward_hook(restore, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
