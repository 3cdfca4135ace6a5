"""Check layouts before use: on the first rows, each must give the losses of the model's own forward, a row at a time.

Computed in float32, whatever the training computes in: bfloat16 rounds by more than what a row that sees its neighbour
may change. Measured with SmolLM2-135M: the largest difference of a token is 2e-5 in float32, and 0.2 in bfloat16, for
padding as well as for packing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.train.attention import QUERIES_BY_PLACE, register_packed_attention, scales_queries_by_place
from distill.train.batches import LAYOUTS, Layout, batch_of, on_device
from distill.train.context import ContextGroup, part_of
from distill.train.loss import LabelledHead, own_losses
from distill.train.rows import TokenRows
from licensing.errors import InputError

# Layout, and whether the head runs on labelled positions alone; the fastest first.
_CANDIDATES = [(layout, labelled_head) for layout in LAYOUTS for labelled_head in (True, False)][:-1]
_TOLERANCE = 1e-4
_MOST_TOKENS = 320  # of a row: enough for both kinds of attention on a CPU, and for no more than a second there


@dataclass(frozen=True)
class CheckedLayout:
    """The fastest way that gives the right losses: the layout, and whether the head runs on labelled positions alone.

    ``refused``: what was tried before, each with the reason.
    """

    layout: Layout
    labelled_head: bool
    refused: tuple[str, ...]


def check_layouts(
    model: Any, rows: TokenRows, step: Sequence[int], pad_id: int, context: ContextGroup | None = None
) -> CheckedLayout:
    """Choose the layout on the longest and the shortest row of the first step; sets the model's attention for it.

    With ``context`` rows are packed and divided among the group, whose processes call it together. Raises InputError
    where that gives other losses.
    """
    import torch

    texts = short_texts(rows, step)
    refused: list[str] = []
    attention = model.config._attn_implementation
    model.eval()
    with torch.no_grad(), _in_float32(model):
        singles = [_batch([text], "single", pad_id, model.device) for text in texts]
        reference = torch.cat([own_losses(model, one)[0] for one in singles])

        def difference(layout: Layout, labelled_head: bool) -> float:
            losses = LabelledHead(model).losses if labelled_head else own_losses
            if context is not None:
                return float((_gathered(losses, model, texts, pad_id, context) - reference).abs().max())
            batches = singles if layout == "single" else [_batch(texts, layout, pad_id, model.device)]
            return float((torch.cat([losses(model, one)[0] for one in batches]) - reference).abs().max())

        for layout, labelled_head in _CANDIDATES if context is None else _CANDIDATES[:2]:
            fault = None
            try:
                if layout == "packed":
                    if attention != "sdpa":
                        raise ValueError(f"the model's attention is {attention}")
                    if scales_queries_by_place(model.config):
                        raise ValueError(QUERIES_BY_PLACE)
                    packed = register_packed_attention if context is None else context.register_attention
                    model.set_attn_implementation(packed())
                worst = difference(layout, labelled_head)
            except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                if context is not None and isinstance(error, torch.OutOfMemoryError):
                    raise  # of this process alone, perhaps: the others wait for it
                worst, fault = math.inf, f"{type(error).__name__}: {error}"
            if context is not None:  # one decision of all
                worst = float(context.gather(torch.tensor([worst], device=model.device), 0).max())
            if worst <= _TOLERANCE:
                return CheckedLayout(layout, labelled_head, tuple(refused))
            fault = fault or f"a token's loss differs by {worst:.2g}"
            refused.append(f"{layout}, {'labelled positions' if labelled_head else 'every position'}: {fault}")
            model.set_attn_implementation(attention)
    if context is not None:
        raise InputError(
            f"rows of this model cannot be divided among processes: {'; '.join(refused)}",
            where="student.parallel.context_parallel_size",
            hint="set it to 1",
        )
    return CheckedLayout("single", False, tuple(refused))


def short_texts(rows: TokenRows, step: Sequence[int]) -> list[Any]:
    """Token ids that begin the longest and the shortest row of ``step``."""
    by_length = sorted(step, key=lambda row: (-rows.lengths[row], row))
    return [rows.input_ids(row)[:_MOST_TOKENS] for row in dict.fromkeys((by_length[0], by_length[-1]))]


def _gathered(losses: Any, model: Any, texts: Sequence[Any], pad_id: int, context: ContextGroup) -> Any:
    """The losses of packed ``texts``, each from the process that holds its position."""
    import torch

    whole = batch_of(texts, [1] * len(texts), "packed", pad_id)
    part = on_device(model.device, part_of(whole, context.rank, context.size, pad_id))
    places = part["labels"][0] != -100
    own = torch.zeros(places.shape, device=model.device)
    own[places] = losses(model, part)[0]
    return context.gather(own, 0)[part["context_order"]][whole["labels"][0].to(model.device) != -100]


def _batch(texts: Sequence[Any], layout: Layout, pad_id: int, device: Any) -> dict[str, Any]:
    return on_device(device, batch_of(texts, [1] * len(texts), layout, pad_id))


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
