"""Weights in NVFP4 as compressed-tensors stores them: values of four bits (e2m1) in groups of 16 along a row.

``X.weight_packed`` holds two values a byte, ``X.weight_scale`` a scale in e4m3 for each group, and
``X.weight_global_scale`` one number: value = e2m1 x scale / global scale. A global scale is 6 x 448 divided by the
largest absolute value of the weights that it is for. llmcompressor gives layers that an engine fuses (q, k and v; gate
and up) the same one, and vLLM uses one for all of them.

The arithmetic is compressed-tensors' own (``NVFP4PackedCompressor``, ``calculate_qparams``, ``generate_gparam``), for
some rows at a time, which depend on no others.

Not covered: ModelOpt's layout (``weight_scale_2``), transforms, other formats beside NVFP4 in one base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from publish.shards import TensorSpec

if TYPE_CHECKING:
    import torch

_PACKED = ".weight_packed"
_GROUP = 16
_LARGEST = 6 * 448
"""A value that the largest scale and the largest value of four bits make, times the global scale."""
_PIECE = 2**22
"""Values that are packed or unpacked at a time: compressed-tensors takes some 40 bytes for each."""


class Nvfp4:
    """The weights of a base in NVFP4, by the names that they have in its model (``X.weight``).

    ``packed``: name -> tensor that holds the values.
    """

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self.packed = {
            name.removesuffix(_PACKED) + ".weight": spec
            for name, spec in specs.items()
            if name.endswith(_PACKED) and spec.dtype == "U8" and len(spec.shape) == 2
        }

    @staticmethod
    def is_form(config: Mapping[str, Any]) -> bool:
        """Whether a model's configuration says that its linear layers are in this form, and in no other."""
        match config.get("quantization_config"):
            case {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": dict(groups),
                  **others}:  # fmt: skip
                form = {"num_bits": 4, "type": "float", "group_size": _GROUP, "symmetric": True}
                weights = [(group.get("weights") or {}).items() for group in groups.values()]
                return not others.get("transform_config") and all(form.items() <= items for items in weights)
        return False

    @staticmethod
    def scale_names(weight: str) -> tuple[str, str]:
        """The tensors that hold the scales of the groups of ``weight``, and its global scale."""
        return f"{weight}_scale", f"{weight}_global_scale"

    def model_specs(self, specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """The base's tensors with the weights as its model has them, in the place and order of the packed ones."""
        names = {spec.name: name for name, spec in self.packed.items()}
        return {
            names.get(name, name): TensorSpec(names[name], "BF16", (spec.shape[0], 2 * spec.shape[1]))
            if name in names
            else spec
            for name, spec in specs.items()
        }

    def missing_scale(self, weight: str, specs: Mapping[str, TensorSpec]) -> TensorSpec | None:
        """The first tensor of scales that ``weight`` should have and the base has not."""
        rows, half = self.packed[weight].shape
        scale, global_scale = self.scale_names(weight)
        expected = (TensorSpec(scale, "F8_E4M3", (rows, 2 * half // _GROUP)), TensorSpec(global_scale, "F32", (1,)))
        return next((spec for spec in expected if specs.get(spec.name) != spec), None)

    def dequantize(self, packed: torch.Tensor, scales: torch.Tensor, global_scale: torch.Tensor) -> torch.Tensor:
        """The weight in bfloat16, shape (rows, columns), from ``packed`` (rows, columns / 2) and ``scales``
        (rows, columns / 16)."""
        from compressed_tensors.compressors import NVFP4PackedCompressor

        def unpack(packed: torch.Tensor, scales: torch.Tensor) -> tuple[torch.Tensor]:
            state = {"weight_packed": packed, "weight_scale": scales, "weight_global_scale": global_scale}
            return (NVFP4PackedCompressor.decompress(state, _scheme())["weight"],)

        [weight] = _by_rows(unpack, packed, scales)
        return weight

    def quantize(self, weight: torch.Tensor, global_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The reverse of ``dequantize``: values and scales."""
        import torch
        from compressed_tensors.compressors import NVFP4PackedCompressor
        from compressed_tensors.quantization.utils import calculate_qparams

        scheme = _scheme()

        def pack(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            groups = weight.unflatten(1, (-1, _GROUP))
            scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights, global_scale)
            state = {"weight": weight, "weight_scale": scales, "weight_global_scale": global_scale}
            with torch.compiler.set_stance("force_eager"):  # compressed-tensors compiles its rounding
                made = NVFP4PackedCompressor.compress(state, scheme)
            return made["weight_packed"], made["weight_scale"]

        values, scales = _by_rows(pack, weight)
        return values, scales

    @staticmethod
    def holds(weight: torch.Tensor, global_scale: torch.Tensor) -> bool:
        """Whether a scale in e4m3 under ``global_scale`` holds the largest value of ``weight``, but for its rounding to
        bfloat16."""
        return bool(weight.abs().amax() * global_scale <= _LARGEST * (1 + 2**-8))

    @staticmethod
    def global_scale(weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """One that holds all ``weights``."""
        import torch
        from compressed_tensors.quantization.utils import generate_gparam

        least, most = (torch.stack([edge(weight) for weight in weights]) for edge in (torch.amin, torch.amax))
        scale: torch.Tensor = generate_gparam(least.min(), most.max())
        return scale


def _scheme() -> Any:
    from compressed_tensors.quantization import preset_name_to_scheme

    return preset_name_to_scheme("NVFP4A16", ["Linear"])


def _by_rows(
    function: Callable[..., tuple[torch.Tensor, ...]], first: torch.Tensor, *others: torch.Tensor
) -> list[torch.Tensor]:
    """What ``function`` makes of matrices, some of their rows at a time."""
    import torch

    rows = max(1, _PIECE // first.shape[1])
    pieces = [function(*parts) for parts in zip(*(matrix.split(rows) for matrix in (first, *others)), strict=True)]
    return [torch.cat(made) for made in zip(*pieces, strict=True)]
