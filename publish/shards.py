"""Safetensors files read by tensor, and written one tensor at a time: the header first, then each tensor at its place.

``safetensors.save_file`` takes all tensors of a shard at once, so memory holds a shard; this writer holds none of it.
The format is the library's: an eight-byte length, a JSON header padded with blanks to a multiple of eight bytes, the
tensors without gaps, those with larger elements first so that each is aligned
(https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError, MissingDependency
from publish.weights import INDEX, WEIGHTS, write_object

if TYPE_CHECKING:
    import torch

_DTYPES = {
    "BOOL": (1, "bool"), "U8": (1, "uint8"), "I8": (1, "int8"),
    "F8_E4M3": (1, "float8_e4m3fn"), "F8_E5M2": (1, "float8_e5m2"), "F8_E8M0": (1, "float8_e8m0fnu"),
    "BF16": (2, "bfloat16"), "F16": (2, "float16"), "I16": (2, "int16"), "U16": (2, "uint16"),
    "F32": (4, "float32"), "I32": (4, "int32"), "U32": (4, "uint32"),
    "F64": (8, "float64"), "I64": (8, "int64"), "U64": (8, "uint64"),
}  # fmt: skip
"""The format's word for a type -> bytes of an element, torch's name."""
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""The types that models are trained and released in: torch's name -> the format's word."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class TensorSpec:
    """``dtype`` in the words of safetensors, such as ``BF16``. Raises InputError for a dtype without whole bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise InputError(f"tensors of type {self.dtype} are not supported ({self.name})")

    @property
    def element_bytes(self) -> int:
        return _DTYPES[self.dtype][0]

    @property
    def torch_name(self) -> str:
        """The type in the words of torch, such as ``bfloat16``."""
        return _DTYPES[self.dtype][1]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.element_bytes


def cast_spec(spec: TensorSpec, dtype: str | None) -> TensorSpec:
    """``spec`` with the type ``dtype`` (a key of ``DTYPES``), where its type is a floating one."""
    if dtype is None or spec.dtype not in ("F64", *DTYPES.values()):
        return spec
    return TensorSpec(spec.name, DTYPES[dtype], spec.shape)


def meta_tensor(spec: TensorSpec) -> torch.Tensor:
    """A tensor without memory."""
    import torch

    return torch.empty(spec.shape, dtype=getattr(torch, spec.torch_name), device="meta")


def check_finite(what: str, tensor: torch.Tensor) -> None:
    """Raise InputError where a tensor of a floating type holds an infinity or no number."""
    import torch

    if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.numel():
        low, high = torch.aminmax(tensor)  # each is no number where the tensor holds one
        if not (low.isfinite() and high.isfinite()):
            hint = "the training diverged: lower the learning rate"
            raise InputError(f"{what} holds values that are not finite", hint=hint)


def size_in_bytes(text: str) -> int:
    """Bytes of ``5GB``, ``500MB``, ``10KB`` or ``4096`` (decimal, as in transformers). Raises InputError."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)B?", text.strip().upper())
    if match is None or int(match[1]) == 0:
        raise InputError(f"not a size: {text!r}", hint="write 5GB or 500MB")
    return int(match[1]) * _UNITS[match[2]]


class TensorFiles:
    """The tensors of several safetensors files, by name: ``files[name]`` is a torch.Tensor mapped from the disk.

    ``specs``: in the order of the files, and within a file in that of the disk. Raises InputError for a damaged file
    and for a name that two files hold, MissingDependency for a file that this machine cannot map. Closed with
    ``stack``.
    """

    def __init__(self, stack: contextlib.ExitStack, files: Sequence[Path]) -> None:
        from safetensors import SafetensorError, safe_open

        self.specs: dict[str, TensorSpec] = {}
        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened = stack.enter_context(safe_open(file, framework="pt"))
                for name in opened.offset_keys():
                    if name in self.specs:
                        raise InputError(f"two files hold {name}", where=str(file), hint="download the model again")
                    part = opened.get_slice(name)
                    self.specs[name] = TensorSpec(name, str(part.get_dtype()), tuple(part.get_shape()))
                    self._files[name] = opened
            except (SafetensorError, OSError) as error:
                raise InputError(f"not a safetensors file, or damaged: {error}", where=str(file)) from error
            except RuntimeError as error:  # of torch, which maps the file as if it were to be written to memory
                what = f"a file of {file.stat().st_size / 1e9:,.1f} GB cannot be mapped into memory: {error}"
                hint = "take a machine with more memory, or allow more of it to be promised: vm.overcommit_memory=1"
                raise MissingDependency(what, where=str(file), hint=hint) from error

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    def read(self, spec: TensorSpec, *, copy: bool = False) -> torch.Tensor:
        """The tensor of that name as the type of ``spec``; with ``copy`` in memory of its own, to be written to."""
        import torch

        return self[spec.name].to(getattr(torch, spec.torch_name), copy=copy)


class ShardWriter:
    """Writes ``tensors`` to ``out``: ``model.safetensors``, or shards of at most ``shard_bytes`` and their index.

    A tensor larger than that has a shard of its own. Shards take the tensors in order; ``write`` may be called in any
    order, once for each tensor. Leaving the context without an exception flushes the files to the disk and writes the
    index. Needs no memory for tensors.
    """

    def __init__(self, out: Path, tensors: Sequence[TensorSpec], shard_bytes: int) -> None:
        shards: list[list[TensorSpec]] = []
        filled = 0
        for spec in tensors:
            if not shards or (filled + spec.nbytes > shard_bytes and filled > 0):
                shards.append([])
                filled = 0
            shards[-1].append(spec)
            filled += spec.nbytes
        self.files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
        if len(shards) == 1:
            self.files = [WEIGHTS]
        self.total = sum(spec.nbytes for spec in tensors)
        self._out = out
        self._shards = shards
        self._places: dict[str, tuple[int, int, int]] = {}
        """Tensor -> (descriptor, offset in the file, bytes), until it is written."""
        self._descriptors: list[int] = []

    def __enter__(self) -> ShardWriter:
        for name, shard in zip(self.files, self._shards, strict=True):
            descriptor = os.open(self._out / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self._descriptors.append(descriptor)
            os.fchmod(descriptor, 0o644)  # whatever the umask: a release is for others to read
            header: dict[str, object] = {"__metadata__": {"format": "pt"}}
            offsets: dict[str, int] = {}
            end = 0
            for spec in sorted(shard, key=lambda spec: -spec.element_bytes):  # stable: in order of writing otherwise
                offsets[spec.name] = end
                end += spec.nbytes
                header[spec.name] = {
                    "dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offsets[spec.name], end],
                }  # fmt: skip
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            _write_at(descriptor, struct.pack("<Q", len(text)) + text, 0)
            for spec in shard:
                if spec.name in self._places:
                    raise ValueError(f"{spec.name} is listed twice")
                self._places[spec.name] = (descriptor, 8 + len(text) + offsets[spec.name], spec.nbytes)
        return self

    def write(self, name: str, data: memoryview) -> None:
        """Write one tensor, row-major and little-endian. Raises ValueError for a wrong size or name, OSError."""
        descriptor, offset, size = self._places.pop(name)
        if data.nbytes != size:
            raise ValueError(f"{name} has {data.nbytes} bytes, not {size}")
        _write_at(descriptor, data, offset)

    def leave_empty(self) -> None:
        """In place of ``write``, for all tensors: they read as zeros and take no disk."""
        for descriptor, offset, size in self._places.values():
            os.truncate(descriptor, max(os.fstat(descriptor).st_size, offset + size))
        self._places.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._places:
                    raise ValueError(f"{len(self._places)} tensors not written, such as {next(iter(self._places))}")
                for descriptor in self._descriptors:
                    os.fsync(descriptor)
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)
        if error is None and len(self.files) > 1:
            weight_map = {
                spec.name: file for file, shard in zip(self.files, self._shards, strict=True) for spec in shard
            }
            write_object(self._out / INDEX, {"metadata": {"total_size": self.total}, "weight_map": weight_map})


def _write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view.nbytes:  # one call writes at most 2 GiB
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
