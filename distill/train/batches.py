"""Optimiser steps and their micro batches: which rows, in which order, in which layout.

The rows of a step are decided first, by the seed alone; then they are distributed over micro batches, so that the
layout changes neither the batch nor its mean loss. Three layouts:

- ``packed``: rows one behind another in one sequence, without padding. Position ids begin again in each row, and
  attention stays inside it (``distill.train.attention``).
- ``padded``: rows of similar length in one batch, the shorter ones padded on the right.
- ``single``: one row in a forward pass.

A step is one item of the data set: a list of micro batches, each a dictionary of tensors as the model takes them, with
``labels`` of the same shape as ``input_ids``: the next token of the row, -100 where there is no loss. They are shifted
here, so that a part of a sequence (``distill.train.context``) has the label of its last token, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

from distill.train.context import part_of
from distill.train.rows import TokenRows

Layout = Literal["packed", "padded", "single"]
LAYOUTS: tuple[Layout, ...] = ("packed", "padded", "single")


def training_order(rows: int, samples: int, seed: int) -> list[int]:
    """Row numbers in the order they are trained on: a pure function, so that a resume cannot differ.

    Every pass over the ``rows`` is a fresh permutation; there are ``samples`` numbers in all.
    """
    order: list[int] = []
    epoch = 0
    while len(order) < samples:
        permutation = list(range(rows))
        random.Random(f"{seed}/{epoch}").shuffle(permutation)
        order += permutation
        epoch += 1
    return order[:samples]


def micro_batches(
    rows: Sequence[int], lengths: Sequence[int], most_tokens: int, layout: Layout, ranks: int = 1
) -> list[list[int]]:
    """The rows of one step as micro batches of at most ``most_tokens`` tokens, padding included; a longer row is alone.

    Their number is a multiple of ``ranks``, where rows do not suffice by empty lists. Packed, it is as small as it can
    be, and their tokens differ little (longest processing time first).
    """
    by_length = sorted(rows, key=lambda row: (-lengths[row], row))
    if layout != "packed":
        batches: list[list[int]] = []
        for row in by_length:
            fits = batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most_tokens
            if layout == "padded" and fits:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches + [[] for _ in range(-len(batches) % ranks)]
    total = sum(int(lengths[row]) for row in rows)
    count = max(1, -(-total // (most_tokens * ranks))) * ranks
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for row in by_length:
            lightest = min(range(count), key=lambda place: (loads[place], place))
            bins[lightest].append(row)
            loads[lightest] += int(lengths[row])
        if all(load <= most_tokens or len(one) == 1 for load, one in zip(loads, bins, strict=True)):
            return bins
        count += ranks


def collate(rows: TokenRows, batch: Sequence[int], layout: Layout, pad_id: int) -> dict[str, Any]:
    """The tensors of a micro batch of ``rows`` (``batch_of``)."""
    return batch_of(
        [rows.input_ids(row) for row in batch], [int(rows.prompt_lengths[row]) for row in batch], layout, pad_id
    )


def batch_of(texts: Sequence[Any], prompt_lengths: Sequence[int], layout: Layout, pad_id: int) -> dict[str, Any]:
    """The tensors of a micro batch; ``texts`` are arrays of token ids.

    Packed: ``input_ids``, ``labels`` and ``position_ids`` of shape (1, tokens), and the rows' bounds as transformers
    names them (``cu_seq_lens_q``, ``max_length_q``, and the same for k). Else: ``input_ids``, ``labels`` and
    ``attention_mask`` of shape (rows, longest row).
    """
    import numpy as np
    import torch

    texts = [text.astype(np.int64) for text in texts]
    labels = []
    for text, prompt_length in zip(texts, prompt_lengths, strict=True):
        label = np.append(text, -100)
        label[:prompt_length] = -100
        labels.append(label[1:])
    lengths = [len(text) for text in texts]
    if layout == "packed":
        bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
        return {
            "input_ids": torch.from_numpy(np.concatenate(texts))[None],
            "labels": torch.from_numpy(np.concatenate(labels))[None],
            "position_ids": torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }
    shape = (len(texts), max(lengths))
    ids, targets, mask = np.full(shape, pad_id), np.full(shape, -100), np.zeros(shape, np.int64)
    for place, length in enumerate(lengths):
        ids[place, :length], targets[place, :length], mask[place, :length] = texts[place], labels[place], 1
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(targets),
        "attention_mask": torch.from_numpy(mask),
    }


def on_device(device: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """``batch`` with its tensors on ``device``."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


class Steps:
    """The optimiser steps of a training, for a ``torch.utils.data.DataLoader``: item ``n`` is step ``n``.

    With several ranks item ``step * ranks + rank`` is the share of a rank, so that a loader which deals items in turn
    gives each rank its own; all ranks have as many micro batches. Each ``context`` ranks in succession have parts of
    the same ones, which are packed.
    """

    def __init__(
        self,
        rows: TokenRows,
        order: Sequence[int],
        batch_size: int,
        most_tokens: int,
        pad_id: int,
        layout: Layout,
        ranks: int = 1,
        context: int = 1,
    ) -> None:
        self._rows, self._order, self._batch_size = rows, order, batch_size
        self._most_tokens, self._pad_id = most_tokens, pad_id
        self._layout: Layout = layout
        self._ranks, self._context = ranks, context

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size) * self._ranks

    def __getitem__(self, item: int) -> list[dict[str, Any]]:
        step, rank = divmod(item, self._ranks)
        share, part = divmod(rank, self._context)
        batches = [self._collate(batch) for batch in self.micro_batches(step)[share :: self._ranks // self._context]]
        if self._context == 1:
            return batches
        return [part_of(batch, part, self._context, self._pad_id) for batch in batches]

    def _collate(self, batch: Sequence[int]) -> dict[str, Any]:
        """The tensors of a micro batch. An empty one is a row without loss: ranks go forward and backward together."""
        if batch:
            return collate(self._rows, batch, self._layout, self._pad_id)
        tensors = collate(self._rows, [int(self._rows.lengths.argmin())], self._layout, self._pad_id)
        return tensors | {"labels": tensors["labels"].fill_(-100)}

    def rows(self, step: int) -> list[int]:
        """The rows of a step, 0 for the first."""
        return list(self._order[step * self._batch_size : (step + 1) * self._batch_size])

    def micro_batches(self, step: int) -> list[list[int]]:
        """The micro batches of a step, over all ranks."""
        shares = self._ranks // self._context
        return micro_batches(self.rows(step), self._rows.lengths, self._most_tokens, self._layout, shares)
