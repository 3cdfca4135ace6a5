"""Triton's interpreter runs Liger's kernels on a CPU, once it has what version 3.9 leaves out: floats as arguments,
which compiled kernels get as float32, and CUDA's rsqrt. What it computes in bfloat16 is wrong: it multiplies the bits.

TRITON_INTERPRET=1 has to be in the environment before Triton is imported.
"""

from __future__ import annotations

from typing import Any


def complete() -> None:
    import numpy
    from liger_kernel.ops import rms_norm
    from triton import language
    from triton.runtime import interpreter

    converted = interpreter._implicit_cvt

    def with_floats(value: Any) -> Any:
        if not isinstance(value, float):
            return converted(value)
        return language.tensor(interpreter.TensorHandle(numpy.float32([value]), language.float32), language.float32)

    interpreter._implicit_cvt = with_floats
    rms_norm.rsqrt = lambda value: language.rsqrt(value)  # found in `language`, where it is replaced in a kernel
