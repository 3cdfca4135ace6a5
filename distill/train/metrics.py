"""Metrics of each optimiser step, as JSON lines: loss, rate, gradient norm, tokens a second, FLOPs, MFU.

FLOPs are those that the model needs, not those that are spent: padding and recomputed activations do not count
(Chowdhery et al. 2022, PaLM, appendix B, with causal attention at half of it). Not covered: attention over windows and
linear attention, which cost less.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.train.rows import TokenRows
from distill.train.weights import without_adapter
from licensing.files import json_line

# Dense bfloat16, from the makers' data sheets; longer names first.
_PEAK_FLOPS = {
    "B200": 2250e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "MI300X": 1307e12,
}  # fmt: skip


def peak_flops(device: str) -> float | None:
    """FLOPs a second of a device of this name, dense in bfloat16; None where they are not known."""
    return next((peak for name, peak in _PEAK_FLOPS.items() if name in device), None)


class ModelFlops:
    """FLOPs of training a model on rows of given lengths.

    ``full``: all weights are trained. Otherwise the frozen weights have no gradient of their own, and a backward pass
    costs as much as a forward pass, not twice as much; the adapters' own gradients are left out.
    """

    def __init__(self, model: Any, full: bool) -> None:
        base = without_adapter(model)
        config = base.config.get_text_config()
        head = base.get_output_embeddings()
        outside = {id(base.get_input_embeddings().weight)} | ({id(head.weight)} if head is not None else set())
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
        active = getattr(config, "num_experts_per_tok", None)
        weights = 0.0
        for name, weight in base.named_parameters():
            if weight.dim() >= 2 and id(weight) not in outside:
                weights += weight.numel() * (active / experts if experts and active and ".experts." in name else 1)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        types = getattr(config, "layer_types", None) or []
        layers = sum("attention" in kind for kind in types) or config.num_hidden_layers
        passes = 3 if full else 2
        self._per_token = 2 * weights * passes
        self._per_loss_token = 2 * config.vocab_size * config.hidden_size * passes
        self._per_square = 2 * config.num_attention_heads * width * layers * passes

    def of(self, lengths: Any, trained_tokens: int) -> float:
        """Of one pass over rows of ``lengths`` tokens, ``trained_tokens`` of which carry loss."""
        import numpy as np

        squares = float(np.square(lengths, dtype=np.float64).sum())
        tokens = int(np.sum(lengths))
        return float(self._per_token * tokens + self._per_loss_token * trained_tokens + self._per_square * squares)


class StepLog:
    """The file: one line a step. A resume drops the lines of steps that it repeats."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before = time.monotonic()

    def start(self, step: int) -> None:
        """Begin behind ``step``."""
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        earlier_lines = [line for line in lines if json.loads(line)["step"] <= step]
        self._file.write_text("".join(f"{line}\n" for line in earlier_lines), encoding="utf-8")
        self._before = time.monotonic()

    def seconds(self) -> float:
        """Since the last step."""
        now = time.monotonic()
        seconds, self._before = now - self._before, now
        return seconds

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append a line. Numbers that are not finite, which JSON has not, are left out."""
        with self._file.open("ab") as file:
            file.write(json_line({key: value for key, value in metrics.items() if is_json(value)}))


class MetricsLog(StepLog):
    """With tokens and FLOPs of rows. ``peak``: FLOPs a second of all devices together, where known."""

    def __init__(self, file: Path, rows: TokenRows, flops: ModelFlops, peak: float | None) -> None:
        super().__init__(file)
        self._rows, self._flops, self._peak = rows, flops, peak

    def of_step(self, rows: list[int]) -> dict[str, float]:
        """Tokens, seconds since the last step, rates and FLOPs of a step on these rows."""
        lengths = self._rows.lengths[rows]
        tokens = int(lengths.sum())
        trained = tokens - int(self._rows.prompt_lengths[rows].sum())
        seconds = self.seconds()
        flops = self._flops.of(lengths, trained)
        metrics = {
            "tokens": tokens,
            "trained_tokens": trained,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "flops": flops,
        }
        return metrics | ({"mfu": flops / seconds / self._peak} if self._peak else {})


def is_json(value: Any) -> bool:
    """Whether a value is none of the numbers that JSON has not."""
    return not isinstance(value, float) or math.isfinite(value)
