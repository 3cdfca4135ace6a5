"""llama.cpp's quantizer as a program: ``python llama_quantize.py LIBRARY SOURCE OUT FILE_TYPE``.

What llama.cpp's own program llama-quantize calls (``llama_model_quantize`` of its include/llama.h), in a shared library
of llama.cpp. FILE_TYPE is a number of the enum llama_ftype. A fault of llama.cpp ends the process with a message of its
own, which is why this is no function of the package.
"""

from __future__ import annotations

import ctypes
import sys


class _Parameters(ctypes.Structure):
    """llama_model_quantize_params: the fields set here; the others keep llama.cpp's defaults, and there is room for
    more of them than any release has had."""

    _fields_ = (("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("others", ctypes.c_byte * 1016))


def main(library: str, source: str, out: str, file_type: str) -> None:
    """Write OUT; exit code 1 where llama.cpp says no."""
    llama = ctypes.CDLL(library)
    llama.llama_model_quantize_default_params.restype = _Parameters
    llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters))
    llama.llama_model_quantize.restype = ctypes.c_uint32
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = int(file_type)
    if llama.llama_model_quantize(source.encode(), out.encode(), parameters) != 0:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
