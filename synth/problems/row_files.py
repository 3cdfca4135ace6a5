"""Files of rows as users bring them, opened as a sequence of JSON texts.

Accepted: JSON lines or one JSON array; UTF-8 with or without a byte-order mark, UTF-16 with one; plain or gzip; a
path, a pipe, or ``-`` for standard input. The content decides, never the file's name. JSON lines stream; an array is
read into memory whole.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from licensing.closing import Closing
from licensing.errors import InputError

_SNIFFED_BYTES = 1 << 16
"""A line that begins an object or an array has to come within so many bytes."""
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {
    codecs.BOM_UTF32_LE: "UTF-32 text",
    codecs.BOM_UTF32_BE: "UTF-32 text",
    b"{\0": "UTF-16 text without a byte-order mark",
    b"\0{": "UTF-16 text without a byte-order mark",
    b"[\0": "UTF-16 text without a byte-order mark",
    b"\0[": "UTF-16 text without a byte-order mark",
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"\xfd7zXZ": "an xz file",
    b"BZh": "a bzip2 file",
}
_HINT = "give JSON lines or a JSON array: UTF-8, or UTF-16 with a byte-order mark; gzip is fine"


class RowText(NamedTuple):
    """One row before it is parsed. ``position`` is "line 3" or "element 2"; ``where`` is "FILE:3" or "FILE[2]"."""

    position: str
    where: str
    text: bytes

    def parse(self, *, arrays: bool = False) -> dict[str, Any]:
        """The JSON object; with ``arrays`` also an array, as an object with the keys "0", "1", ...

        Raises ValueError with the reason why the text is none.
        """
        try:
            row = json.loads(self.text.decode("utf-8"), parse_constant=_not_json, parse_float=_finite)
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start} of the line") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error or type(error).__name__}") from None
        if arrays and isinstance(row, list) and row and all(isinstance(part, dict) for part in row):
            return {str(index): part for index, part in enumerate(row)}
        if not isinstance(row, dict):
            raise ValueError(f"a row is an object, this is a {type(row).__name__}")
        return row


class RowFile(Closing):
    """An open file of rows. Can be read several times, one pass at a time. A context manager."""

    def __init__(self, path: str | Path, *, name: str | None = None, spool: Path | None = None) -> None:
        """Open ``path``; a pipe is first copied into a temporary file in the folder ``spool``.

        ``name`` stands in the rows' ``where`` and in errors; default: the path.

        Raises InputError where the file cannot be opened or copied.
        """
        stdin = str(path) == "-"
        self.name = "standard input" if stdin else name or str(path)
        try:
            opened = os.fdopen(os.dup(sys.stdin.fileno()), "rb") if stdin else open(path, "rb")  # noqa: SIM115
            self._file: BinaryIO = opened if opened.seekable() else _spooled(opened, spool)
        except OSError as error:
            hint = f"a relative path starts at the working folder, now {os.getcwd()}"
            raise InputError(f"cannot read it: {error.strerror or error}", where=self.name, hint=hint) from error

    def close(self) -> None:
        self._file.close()

    def sha256(self) -> str:
        """sha256 hex of the file's bytes as they are, packed or not."""
        with self._reopened() as raw:
            return hashlib.file_digest(raw, "sha256").hexdigest()

    def rows(self) -> Iterator[RowText]:
        """Every row, in order; blank lines are none.

        Raises InputError for a format that is not among the accepted ones, damaged gzip, and a malformed array.
        """
        with self._reopened() as raw:
            try:
                yield from self._rows(_utf8_lines(raw, self.name))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise InputError(f"damaged gzip: {error}", where=self.name, hint="copy the file again") from error
            except UnicodeDecodeError as error:
                raise InputError(f"damaged UTF-16: {error.reason}", where=self.name, hint=_HINT) from error

    def _reopened(self) -> io.BufferedReader:
        raw = os.fdopen(os.dup(self._file.fileno()), "rb")
        raw.seek(0)
        return raw

    def _rows(self, lines: Iterator[bytes]) -> Iterator[RowText]:
        head: list[bytes] = []
        start = b""
        for line in lines:
            head.append(line)
            start = line.lstrip()[:1]
            if start in (b"{", b"[") or sum(map(len, head)) > _SNIFFED_BYTES:
                break
        if start not in (b"{", b"[") and any(line.strip() for line in head):
            raise InputError("no line of its beginning is a JSON object", where=self.name, hint=_HINT)
        every: Iterable[bytes] = itertools.chain(head, lines)
        if start == b"[" and not any(line.strip() for line in head[:-1]):
            every = list(every)
            elements = self._array(b"".join(every))
            if elements is not None:
                for number, element in enumerate(elements):
                    text = json.dumps(element).encode()
                    yield RowText(f"element {number}", f"{self.name}[{number}]", text)
                return
        for number, line in enumerate(every, 1):
            if line.strip():
                yield RowText(f"line {number}", f"{self.name}:{number}", line)

    def _array(self, text: bytes) -> list[Any] | None:
        """The elements; None where the text is JSON lines of which the first is an array."""
        try:
            elements = json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Extra data"):
                return None
            where = f"{self.name}:{error.lineno}"
            raise InputError(
                f"malformed JSON array: {error.msg}", where=where, hint="mend it, or give JSON lines"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"malformed JSON array: {error}", where=self.name, hint="give JSON lines") from None
        return elements if isinstance(elements, list) else None


def _spooled(pipe: BinaryIO, folder: Path | None) -> BinaryIO:
    """The whole of a pipe in a temporary file without a name, which can be read again."""
    copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the RowFile
    with pipe:
        shutil.copyfileobj(pipe, copy, 1 << 20)
    copy.flush()
    return copy


def _utf8_lines(raw: BinaryIO, name: str) -> Iterator[bytes]:
    """Lines as UTF-8, without a byte-order mark."""
    with contextlib.ExitStack() as stack:
        plain: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if _head(raw).startswith(_GZIP) else raw
        head = _head(plain)
        for magic, what in _OTHER_FORMATS.items():
            if head.startswith(magic):
                raise InputError(f"this is {what}", where=name, hint=_HINT)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = io.TextIOWrapper(plain, encoding="utf-16", errors="surrogatepass", newline="\n")
            yield from (line.encode("utf-8", "surrogatepass") for line in text)
            return
        if head.startswith(codecs.BOM_UTF8):
            plain.seek(len(codecs.BOM_UTF8))
        yield from plain


def _head(stream: Any) -> bytes:
    head: bytes = stream.read(8)
    stream.seek(0)
    return head


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
