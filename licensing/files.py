"""JSON, JSON lines and text on the disk: written whole (temporary name, fsync, one rename), read row by row.

In this package because every other one may import it. Text is UTF-8; half a surrogate pair, which a served model can
produce and UTF-8 has no place for, is written as its JSON escape.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a write that found no space."""

_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


def commit(temporary: Path, path: Path) -> None:
    """fsync the file ``temporary``, rename it to ``path`` in the same folder, fsync the folder. Raises OSError."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())  # the name must not become durable before the content
    os.replace(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """The path of a temporary file beside ``path``, to be written and closed; it becomes ``path`` at the end.

    A reader sees the old file or the new one. On an exception the temporary file is removed, and ``path`` is as it was.
    Two processes that may write one ``path`` at the same time name a ``temporary`` of their own. Raises OSError.
    """
    temporary = temporary or path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        commit(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_lines(path: Path, chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` to a temporary file beside ``path`` and rename it: a reader sees the old file or the new one.

    Raises OSError; the temporary file is removed then, and ``path`` is as it was.
    """
    with atomic(path) as temporary, temporary.open("wb") as out:
        out.writelines(chunks)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see ``write_lines``."""
    write_lines(path, [text.encode("utf-8", "backslashreplace")])


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value whole, indented by one blank, non-ASCII characters as they are."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, hint: str | None = None) -> Any:
    """The JSON value in a file. Raises InputError naming the file where it is no JSON; FileNotFoundError as it is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"damaged JSON: {error}", where=str(path), hint=hint) from None


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of a JSON lines file. Raises ValueError for NaN and infinities, which JSON has not."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON lines file whole; see ``write_lines``."""
    write_lines(path, map(json_line, rows))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file that this project wrote, one at a time."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy of the content where a link cannot be: another device, links unsupported, too many, or not
    allowed."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)


def sync_folder(folder: Path) -> None:
    """fsync a folder: a new name is durable only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(root: Path, hint: str = "choose another folder") -> Iterator[None]:
    """Turn a full disk into MissingDependency and a path below ``root`` that cannot be written into InputError."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or root)
        if error.errno in DISK_FULL:
            raise MissingDependency(
                "no space left on the disk", where=where, hint="free some, and run again"
            ) from error
        unwritable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
        if error.errno in unwritable and str(root) in where:
            raise InputError(f"cannot be written: {error.strerror}", where=where, hint=hint) from error
        raise
