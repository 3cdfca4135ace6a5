"""Weights in blocks of FP8 (e4m3), each block with a scale, as DeepSeek-V3 and Qwen3 are released.

``X.weight`` is dequantized by ``X.weight_scale_inv``, merged in the model's type, and quantized again: a scale is the
largest absolute value of its block divided by 448. The arithmetic is transformers' own (``Fp8Dequantize`` and
``Fp8Quantize`` of ``transformers.integrations.finegrained_fp8``), which takes whole blocks only; a weight whose last
blocks are cut is filled up with zeros, as DeepSeek's kernels mask them.

Not covered: scales that are powers of two (``scale_fmt: ue8m0``), one scale a tensor, experts that transformers fuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from publish.shards import TensorSpec

_WEIGHT, _SCALE = ".weight", ".weight_scale_inv"


class Fp8Blocks:
    """The blocks of a base. ``size``: rows and columns of a block."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Fp8Blocks | None:
        """Of a model's configuration; None where it is not quantized in this form."""
        match config.get("quantization_config"):
            case {"quant_method": "fp8", "weight_block_size": [int(rows), int(columns)], **others} if (
                rows > 0 and columns > 0 and others.get("scale_fmt", "float") == "float"
            ):
                return cls((rows, columns))
        return None

    @staticmethod
    def holds(spec: TensorSpec) -> bool:
        """Whether a tensor is a weight in this form: a matrix. Experts in one parameter have scales by other rules."""
        return spec.dtype == "F8_E4M3" and spec.name.endswith(_WEIGHT) and len(spec.shape) == 2

    @staticmethod
    def scale_name(weight: str) -> str:
        """The tensor that holds the scales of ``weight``."""
        return weight.removesuffix(_WEIGHT) + _SCALE

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of a matrix of this shape: a scale for each block, cut ones included."""
        return tuple(-(-length // block) for length, block in zip(shape, self.size, strict=True))

    def dequantize(self, weight: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The weight, shape (rows, columns), in ``dtype``; ``scales`` has ``scale_shape``."""
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize

        full = Fp8Dequantize(self._quantizer())._dequantize_one(self._filled(weight), scales, output_dtype=dtype)
        return full[: weight.shape[0], : weight.shape[1]].contiguous()

    def quantize(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight in e4m3, and its scales in fp32."""
        from transformers.integrations.finegrained_fp8 import Fp8Quantize

        made = Fp8Quantize(self._quantizer()).convert({"x.weight": self._filled(weight)})
        return made["x.weight"][: weight.shape[0], : weight.shape[1]].contiguous(), made["x" + _SCALE]

    def _filled(self, weight: torch.Tensor) -> torch.Tensor:
        import torch

        rows, columns = (count * block for count, block in zip(self.scale_shape(weight.shape), self.size, strict=True))
        if (rows, columns) == tuple(weight.shape):
            return weight
        filled = torch.zeros((rows, columns), dtype=weight.dtype)
        filled[: weight.shape[0], : weight.shape[1]] = weight
        return filled

    def _quantizer(self) -> Any:
        """What transformers' operations read the form from."""
        from transformers import FineGrainedFP8Config
        from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

        return FineGrainedFP8HfQuantizer(FineGrainedFP8Config(weight_block_size=self.size))
