"""One text out of base64 of zlib of a pickled string, without unpickling: LiveCodeBench packs its tests so.

A pickle is a program, and running it runs whatever its author wants. ``pickletools`` only lists its instructions; a
pickle of anything but one string is refused.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib

LARGEST = 1 << 29  # bytes unpacked; the largest set of tests that is known has some 10^8
_ALLOWED = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"})
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})


def pickled_text(packed: str) -> str:
    """The string. Raises ValueError where the text is packed in another way, or holds anything else."""
    unpacker = zlib.decompressobj()
    try:
        pickled = unpacker.decompress(base64.b64decode(packed, validate=True), LARGEST)
        if not unpacker.eof:
            raise ValueError(f"the packed text is cut off, or larger than {LARGEST:,} bytes")
        instructions = [(opcode.name, value) for opcode, value, _ in pickletools.genops(pickled)]
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"no base64 of zlib: {error}") from None
    texts = [value for name, value in instructions if name in _STRINGS]
    if len(texts) != 1 or any(name not in _ALLOWED | _STRINGS for name, _ in instructions):
        raise ValueError("a pickle of something other than one string: it is not read, since that could run code")
    return str(texts[0])
