"""Append-only files of JSON lines, and the index that finds a line by its key.

**Commit**: a line is written in one piece, so a kill loses what was in flight and no more. **Durability**: a thread of
its own calls fsync every second, so a power cut loses at most about a second. A torn last line is cut off when the
file is next opened for writing. One process writes at a time: the lock of the run directory sees to that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from licensing.files import disk_errors, sync_folder

KEY_BYTES = 16
_FSYNC_SECONDS = 1.0
_READ_BYTES = 16_384  # of a line at first; a longer one is read again, eight times as far


class AppendLog:
    """An append-only file of lines, known by their byte offsets. Threads may append and read at the same time.

    Read-only, a file that does not exist is an empty one. Raises MissingDependency where the disk is full, with every
    whole line kept.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._size = 0
        self._lock = threading.Lock()
        self._syncer: threading.Thread | None = None
        self._failure: OSError | None = None
        self._dirty, self._closing = threading.Event(), threading.Event()
        if read_only:
            self._fd = os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            return
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            sync_folder(path.parent)
        self._syncer = threading.Thread(target=self._sync, name=f"fsync {path.name}", daemon=True)

    def scan(self) -> Iterator[tuple[int, bytes]]:
        """(offset, line) of every line, a torn last one included; has to be used up once before the first append."""
        offset = end = 0
        with open(os.dup(self._fd), "rb", buffering=1 << 20) as lines:
            for line in lines:
                yield offset, line
                offset += len(line)
                if line.endswith(b"\n"):
                    end = offset
        self._begin(end)

    def rows(self, *fields: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """(offset, row) of the lines that hold a row with ``fields``, as ``scan``; a line that a crash has torn, or a
        block that a power cut has left blank, is none."""
        for offset, line in self.scan():
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                continue
            if isinstance(row, dict) and row.keys() >= set(fields):
                yield offset, row

    def skip(self) -> None:
        """In place of ``scan``, for a file of records that are found by their offsets: appends go behind all of it."""
        self._begin(os.fstat(self._fd).st_size)

    def _begin(self, end: int) -> None:
        self._size = end
        if self._syncer is not None:
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)
            self._syncer.start()

    def append(self, line: bytes) -> int:
        """Write one line, or record; returns its offset. On a full disk the file is cut back to its last whole one
        first."""
        with self._lock, disk_errors(self.path):
            if self._failure is not None:
                raise self._failure
            try:
                written = os.write(self._fd, line)
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError:
                with contextlib.suppress(OSError):  # the next start cuts it off otherwise
                    os.ftruncate(self._fd, self._size)
                    os.lseek(self._fd, self._size, os.SEEK_SET)
                raise
            offset, self._size = self._size, self._size + len(line)
        self._dirty.set()
        return offset

    def line(self, offset: int) -> bytes:
        """The line at an offset, read from the disk."""
        size = _READ_BYTES
        while not (chunk := os.pread(self._fd, size, offset)).count(b"\n") and len(chunk) == size:
            size *= 8
        return chunk[: chunk.index(b"\n") + 1]

    def record(self, offset: int, size: int) -> bytes:
        """``size`` bytes at an offset, fewer where the file ends before."""
        return os.pread(self._fd, size, offset)

    def sync(self) -> None:
        """Return once all lines are on the disk. Raises what an fsync raised that no append has raised yet."""
        with disk_errors(self.path):
            if self._failure is not None:  # a second fsync would say nothing of what the first one lost
                raise self._failure
            os.fsync(self._fd)

    def close(self) -> None:
        """fsync and close. Raises what an fsync raised that no append has raised yet."""
        try:
            if self._syncer is not None and self._syncer.is_alive():
                self._closing.set()
                self._syncer.join()
                self.sync()
        finally:
            os.close(self._fd)

    def _sync(self) -> None:
        while not self._closing.wait(_FSYNC_SECONDS):
            if self._dirty.is_set():
                self._dirty.clear()
                try:
                    os.fsync(self._fd)
                except OSError as error:  # raised from the next append or from close, in a thread that can act on it
                    self._failure = error
                    self._closing.wait()
                    return


class KeyIndex:
    """16-byte keys numbered in order of appearance, 0 first. 22 bytes a key: the keys, and an open-addressing table
    of their numbers that is at most two thirds full."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._table = array("I", bytes(4 * 1024))  # number + 1, or 0

    def __len__(self) -> int:
        return len(self._keys) // KEY_BYTES

    def find(self, key: bytes) -> int | None:
        """The number of a key, or None."""
        number = self._table[self._cell(key)]
        return number - 1 if number else None

    def add(self, key: bytes) -> int:
        """The number of a key, a new one where it is not there yet."""
        cell = self._cell(key)
        if self._table[cell]:
            return self._table[cell] - 1
        self._keys += key
        count = len(self)
        self._table[cell] = count
        if 3 * count > 2 * len(self._table):
            self._grow(count)
        return count - 1

    def _cell(self, key: bytes) -> int:
        """Where the key is in the table, or where it would go."""
        table, keys = self._table, self._keys
        mask = len(table) - 1
        cell = int.from_bytes(key[:8], "little") & mask
        while (number := table[cell]) and keys[KEY_BYTES * (number - 1) : KEY_BYTES * number] != key:
            cell = (cell + 1) & mask
        return cell

    def _grow(self, count: int) -> None:
        size = 2 * len(self._table)
        table, keys, mask = array("I", bytes(4 * size)), self._keys, size - 1
        for number in range(1, count + 1):
            start = KEY_BYTES * (number - 1)
            cell = int.from_bytes(keys[start : start + 8], "little") & mask
            while table[cell]:
                cell = (cell + 1) & mask
            table[cell] = number
        self._table = table


def key_of(text: str) -> bytes:
    """The key of a name: its bytes where it is 32 hex characters, else a digest."""
    if len(text) == 2 * KEY_BYTES:
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(text)
            if len(key) == KEY_BYTES:
                return key
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
