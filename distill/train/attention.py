"""Attention over packed rows: each row attends to itself alone, at no cost for what lies between rows.

transformers hands the bounds of the rows to the attention, where its FlashAttention kernels read them. This is the same
for PyTorch's own attention: one call a row, causal, without a mask. Where a local window (sliding or chunked) is
shorter than the sequence, the layer gets the whole mask instead, as transformers builds it from the position ids.
"""

from __future__ import annotations

from typing import Any

PACKED_ATTENTION = "distill_packed_sdpa"

QUERIES_BY_PLACE = "it scales queries by their place among the tokens of a forward pass"

# On a CPU, rows so short that attention written out beats PyTorch's fused one, forward and backward.
_WRITTEN_OUT_UP_TO = 256


def register_packed_attention() -> str:
    """Make the attention known to transformers; returns its name, for ``model.set_attn_implementation``.

    A batch without row bounds gets transformers' own ``sdpa``, with its mask.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED_ATTENTION, _attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, _mask)
    return PACKED_ATTENTION


def scales_queries_by_place(config: Any) -> bool:
    """Whether the model of a transformers configuration does (Llama 4): not by position ids, and only from the
    thousandth token or so, which no short row shows."""
    return bool(getattr(config.get_text_config(), "attn_temperature_tuning", False))


def _mask(
    *, batch_size: int, q_length: int, local_size: int | None = None, attention_mask: Any = None, **more: Any
) -> Any:
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and batch_size == 1 and (local_size is None or q_length <= local_size):
        return None  # causal inside each row: the attention knows the bounds
    return sdpa_mask(
        batch_size=batch_size, q_length=q_length, local_size=local_size, attention_mask=attention_mask, **more
    )


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Any = None,
    **more: Any,
) -> tuple[Any, None]:
    """``query``: (1, heads, tokens, size); ``key`` and ``value``: (1, key heads, tokens, size)."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None or cu_seq_lens_q is None:
        result, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return result, None
    lengths = cu_seq_lens_q.diff().tolist()
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for q, k, v in zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True):
        if query.device.type == "cpu" and q.shape[2] <= _WRITTEN_OUT_UP_TO and not dropout:
            outputs.append(_written_out(q, k, v, scaling))
        else:
            outputs.append(
                torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, dropout_p=dropout, scale=scaling, is_causal=True
                )
            )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _written_out(query: Any, key: Any, value: Any, scaling: float | None) -> Any:
    import torch

    length = query.shape[2]
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value
