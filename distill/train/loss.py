"""The loss: cross-entropy of the labelled tokens, the same on every device.

The head runs on the positions that carry loss and on no other. Where its logits would take too much memory it runs in
chunks, which the backward pass computes again; a training whose logits fit computes nothing twice.
"""

from __future__ import annotations

from typing import Any

from distill.train.weights import without_adapter

MOST_LOGITS = 2**28
"""Logits (positions x vocabulary) of one chunk of the head: 1 GiB in float32."""


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    """A micro batch as the model takes it: without labels, and without a cache."""
    return {key: value for key, value in batch.items() if key != "labels"} | {"use_cache": False}


def own_losses(model: Any, batch: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """As ``LabelledHead.losses``, by the model's own forward pass, which scores every position."""
    import torch

    labels = batch["labels"]
    output = model(**inputs_of(batch), **more)
    logits, targets = output.logits[labels != -100], labels[labels != -100]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none"), output


class LabelledHead:
    """Lets a model's head compute the losses itself, inside the model's forward pass.

    There, because FSDP has the head's weights only there. The head's forward is replaced while ``losses``
    runs, and untouched for everybody else. It may be a plain layer or one that PEFT wraps.

    Raises AttributeError where the model has no output embeddings. What a model does to its logits behind the head
    (soft caps, scales) is not covered: ``distill.train.layout_check`` compares with ``own_losses`` before this is used.
    """

    def __init__(self, model: Any) -> None:
        base = without_adapter(model)
        self._head = base.get_output_embeddings()
        self._project = self._head.forward
        self._chunk = max(1, MOST_LOGITS // base.config.get_text_config().vocab_size)

    def losses(self, model: Any, batch: dict[str, Any], **more: Any) -> tuple[Any, Any]:
        """Loss of each labelled token, (labelled,) float32, and the model's output; ``more`` goes to the model.

        ``model`` may be a wrapper (DDP, FSDP) around the model that the head is of.
        """
        labelled = batch["labels"] != -100
        targets = batch["labels"][labelled]

        def forward(hidden: Any) -> Any:
            return self._losses(hidden[labelled], targets)[:, None]

        self._head.forward = forward
        try:
            output = model(**inputs_of(batch), **more)
        finally:
            self._head.forward = self._project
        return output.logits[:, 0], output

    def _losses(self, hidden: Any, targets: Any) -> Any:
        import torch
        from torch.utils.checkpoint import checkpoint

        def losses(some: Any, of: Any) -> Any:
            return torch.nn.functional.cross_entropy(self._project(some).float(), of, reduction="none")

        if len(targets) <= self._chunk:
            return losses(hidden, targets)
        chunks = zip(hidden.split(self._chunk), targets.split(self._chunk), strict=True)
        return torch.cat([checkpoint(losses, some, of, use_reentrant=False) for some, of in chunks])
