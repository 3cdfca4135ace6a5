"""Context parallelism: the processes of a group hold parts of the same packed rows, and attention covers whole rows.

As Llama 3 was trained (Grattafiori et al. 2024, section 3.3.2): keys and values of the whole sequence are gathered from
the group, and each process computes attention for its own queries; the gradients of keys and values are summed over the
group. A row is cut into twice as many chunks as there are processes, and each holds one from the front and one from the
back: so all hold as many tokens, and as much of the causal attention.

Layers other than attention compute on the part alone. So a layer that carries a state along the row (Mamba, gated delta
net, convolutions) and a window shorter than the rows are refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.train.attention import QUERIES_BY_PLACE, scales_queries_by_place
from licensing.errors import InputError

_CONTEXT_ATTENTION = "distill_context_sdpa"

_LARGEST_FLASH_HEAD = 256

_WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
_LENGTH_DEPENDENT = {"dynamic": "max_position_embeddings", "longrope": "original_max_position_embeddings"}
"""Types of RoPE that look at the largest position of a forward pass, which differs from part to part: the field of the
length from which on they do."""


@dataclass(frozen=True)
class ContextGroup:
    """The ``size`` processes that hold parts of the same rows; this one holds part ``rank``.

    ``gather``: (tensor, dimension) -> the tensors of all, one behind another. Its backward pass sums the gradients.
    """

    size: int
    rank: int
    gather: Callable[[Any, int], Any]

    def register_attention(self) -> str:
        """Make the group's attention known to transformers; returns its name, for ``model.set_attn_implementation``."""
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(_CONTEXT_ATTENTION, functools.partial(_attention, self.gather))
        AttentionMaskInterface.register(_CONTEXT_ATTENTION, lambda **_: None)  # the attention knows the rows
        return _CONTEXT_ATTENTION


def check_context_layers(base: Path, longest: int) -> None:
    """Raise InputError where layers of the model in folder ``base`` need more of a row of ``longest`` tokens than
    attention gathers, as its config.json says. ``distill.train.layout_check`` refuses what that does not say."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # each configuration checks its fields in its own way
        what = f"transformers cannot read config.json: {' '.join(str(error).split())}"
        raise InputError(what, where=str(base)) from error
    text = config.get_text_config()
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    faults = []
    if getattr(model, "_is_stateful", False):
        faults.append("its layers carry a state along the row")
    if not getattr(model, "_supports_sdpa", True):
        faults.append("its attention is not PyTorch's")
    if scales_queries_by_place(config):
        faults.append(QUERIES_BY_PLACE)
    rope = getattr(text, "rope_parameters", None) or {}
    scalings = [rope, *(of_type for of_type in rope.values() if isinstance(of_type, dict))]
    for scaling in scalings:
        name = _LENGTH_DEPENDENT.get(scaling.get("rope_type", ""))
        if name and longest > (scaling.get(name) or getattr(text, name, None) or 0):
            faults.append(f"its position embeddings ({scaling['rope_type']}) change with the longest row")
    # Models without the types of their layers (Mistral) have the window in each.
    for kind in sorted(set(getattr(text, "layer_types", None) or ["sliding_attention"]) - {"full_attention"}):
        if kind not in _WINDOWS:
            faults.append(f"it has layers of type {kind}")
        elif (window := getattr(text, _WINDOWS[kind], None)) and window < longest:
            faults.append(f"its attention covers {window:,} tokens, and rows have up to {longest:,}")
    if faults:
        raise InputError(
            f"rows of a {text.model_type} model cannot be divided among processes: {faults[0]}",
            where="student.parallel.context_parallel_size",
            hint="set it to 1",
        )


def part_of(batch: dict[str, Any], part: int, parts: int, pad_id: int) -> dict[str, Any]:
    """The part of a packed micro batch (``distill.train.batches``) that one of ``parts`` processes computes.

    ``input_ids``, ``labels`` and ``position_ids`` of shape (1, width). The width is that of the longest part; at the
    end of a shorter one are a few pad tokens without loss. For the attention: ``context_order``, the place of each
    token of the batch among the gathered ones; ``context_rows``, the length of each row; and ``context_chunks``: (row,
    first token, end) of each chunk of the part, in tokens of the row. A part may have none where all rows are short.
    """
    import torch

    bounds = batch["cu_seq_lens_q"]
    rows = bounds.diff().tolist()
    chunks = [_chunks(rows, one, parts) for one in range(parts)]
    places = [
        torch.cat([torch.arange(0), *(bounds[row] + torch.arange(first, end) for row, first, end in of_part)])
        for of_part in chunks
    ]
    width = max(len(one) for one in places)
    order = torch.empty(sum(rows), dtype=torch.long)
    for one, tokens in enumerate(places):
        order[tokens] = torch.arange(len(tokens)) + one * width
    missing = width - len(places[part])
    fill = {"input_ids": pad_id, "labels": -100, "position_ids": 0}
    return {
        **{
            name: torch.nn.functional.pad(batch[name][:, places[part]], (0, missing), value=value)
            for name, value in fill.items()
        },
        "context_order": order,
        "context_rows": rows,
        "context_chunks": chunks[part],
    }


def _chunks(rows: Sequence[int], part: int, parts: int) -> list[tuple[int, int, int]]:
    chunks = []
    for row, length in enumerate(rows):
        for number in (part, 2 * parts - 1 - part):
            first, end = (length * at // (2 * parts) for at in (number, number + 1))
            if end > first:
                chunks.append((row, first, end))
    return chunks


def attended(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """PyTorch's attention, ``options`` as it takes them; ``key`` and ``value`` may have fewer heads than ``query``.

    The kernel for what FlashAttention does not take (float32, heads of over 256) knows no shared keys: without a copy
    of them for each head PyTorch would write out the scores of the whole row.
    """
    import torch

    groups = query.shape[1] // key.shape[1]
    if groups > 1 and (value.dtype == torch.float32 or query.shape[3] > _LARGEST_FLASH_HEAD):
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    grouped = query.shape[1] != key.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=grouped, **options)


def _attention(
    gather: Callable[[Any, int], Any],
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    context_order: Any,
    context_rows: Sequence[int],
    context_chunks: Sequence[tuple[int, int, int]],
    **_: Any,
) -> tuple[Any, None]:
    """``query``: (1, heads, width, size); ``key`` and ``value``: (1, key heads, width, size), of the part."""
    import torch
    from torch.nn.attention.bias import causal_lower_right

    if attention_mask is not None:
        raise ValueError("the model masks attention on its own")
    # Rotation leaves queries and keys in float32 where autocast computes values in bfloat16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    both = gather(torch.cat([key, value], dim=-1), 2).index_select(2, context_order)
    rows = both.split(list(context_rows), dim=2)  # once: the backward pass of a slice takes all that it is a slice of
    lengths = [end - first for _, first, end in context_chunks]
    *queries, padding = query.split([*lengths, query.shape[2] - sum(lengths)], dim=2)

    def attend(queries: Any, row: int, end: int, **causal: Any) -> Any:
        keys, values = rows[row][:, :, :end].split([key.shape[-1], value.shape[-1]], dim=-1)
        return attended(queries, keys, values, dropout_p=dropout, scale=scaling, **causal)

    outputs = [
        attend(q, row, end, attn_mask=causal_lower_right(end - first, end))
        for q, (row, first, end) in zip(queries, context_chunks, strict=True)
    ]
    if padding.shape[2]:  # over any token: all of the group have to go backward through what they gathered
        outputs.append(attend(padding, 0, 1))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None
