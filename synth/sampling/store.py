"""The commit log: one line a sample, appended the moment its engine is done with it.

**Commit**: a line is written in one piece, so a kill loses what was in flight and no more. **Durability**: a thread of
its own calls fsync every second, so a power cut loses at most about a second. **Identity**: a line belongs to its
``request_id``; a torn last line is cut off and owed again, and of two lines with one id the first one counts.

Held in memory is an index and no text, about 45 bytes a sample: the 16 bytes of the id in order of appearance, an
open-addressing table of places (at most two thirds full), and offset, token counts and finish reason in flat arrays.
One writer at a time: the ledger sees to that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import threading
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from licensing.errors import MissingDependency

__all__ = ["FINISH_REASONS", "SampleStore", "disk_error", "parsed", "replace_lines", "row_line"]

FINISH_REASONS = ("stop", "length", "error")
_FSYNC_SECONDS = 1.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KEY = 16  # bytes
_QUOTE = ord('"')
_HEAD = b'{"request_id": "'
_TAIL = re.compile(
    rb'", "finish_reason": "(stop|length|error)", "error": (?:null|"(?:[^"\\]|\\.)*"), '
    rb'"prompt_tokens": (\d+|null), "completion_tokens": (\d+|null), "model": "'
)
_REASON_CODES = {reason.encode(): code for code, reason in enumerate(FINISH_REASONS)}
_UNKNOWN = 0xFFFFFFFF  # a row without a token count
_Figures = tuple[bytes, int, int, int]  # key, place of the finish reason, prompt tokens, completion tokens


class SampleStore:
    """An append-only file of sample rows. A context manager.

    A row is known by its place: 0 for the first row read or appended, and so on. ``damaged`` counts lines that could
    not be read. Raises MissingDependency where the disk is full, with every whole line kept.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.damaged = 0
        self._keys = bytearray()
        self._offsets = array("Q")
        self._tokens = array("I")
        self._prompt_tokens = array("I")
        self._reasons = bytearray()
        self._table = array("I", bytes(4 * 1024))  # place + 1, or 0
        self._syncer: threading.Thread | None = None
        self._failure: OSError | None = None
        self._dirty, self._closing = threading.Event(), threading.Event()
        if read_only:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._size = self._scan()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _sync_folder(path.parent)
        self._size = self._scan()
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, self._size, os.SEEK_SET)
        self._syncer = threading.Thread(target=self._sync, name="sample-log-fsync", daemon=True)
        self._syncer.start()

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._syncer is not None:
                self._closing.set()
                self._syncer.join()
                os.fsync(self._fd)
        except OSError as error:
            disk_error(error, self.path)
        finally:
            os.close(self._fd)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, request_id: str) -> bool:
        return self.find(request_id) is not None

    def find(self, request_id: str) -> int | None:
        """The place of the row with this id, or None."""
        key = _key(request_id)
        place = self._table[self._cell(key)]
        return place - 1 if place else None

    def finish_reason(self, place: int) -> str:
        return FINISH_REASONS[self._reasons[place]]

    def counted(self, place: int) -> bool:
        """Whether the engine said how many tokens it generated for a row."""
        return self._tokens[place] != _UNKNOWN

    def completion_tokens(self, place: int) -> int:
        """Tokens generated for a row; 0 where the engine gave no count."""
        count = self._tokens[place]
        return 0 if count == _UNKNOWN else count

    def prompt_tokens(self, place: int) -> int:
        count = self._prompt_tokens[place]
        return 0 if count == _UNKNOWN else count

    def row(self, place: int) -> dict[str, Any]:
        """A row, read from the disk."""
        offset = self._offsets[place]
        size = 4096
        while not (chunk := os.pread(self._fd, size, offset)).count(b"\n") and len(chunk) == size:
            size *= 8
        row: dict[str, Any] = json.loads(chunk[: chunk.index(b"\n")])
        return row

    def append(self, row: Mapping[str, Any]) -> int:
        """Write one line; returns its place. On a full disk the file is cut back to its last whole line first."""
        if self._failure is not None:
            disk_error(self._failure, self.path)
        line = row_line(row)
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):  # the next start cuts it off otherwise
                os.ftruncate(self._fd, self._size)
            disk_error(error, self.path)
        place = self._enter(_of_row(row), self._size)
        self._size += len(line)
        self._dirty.set()
        return place

    def _scan(self) -> int:
        """Index the lines that can be read; returns the length without a torn end."""
        at = end = 0
        with open(os.dup(self._fd), "rb", buffering=1 << 20) as lines:
            for line in lines:
                figures = _figures(line)
                if figures is None:
                    self.damaged += 1
                else:
                    self._enter(figures, at)
                at += len(line)
                if line.endswith(b"\n"):
                    end = at
        return end

    def _enter(self, figures: _Figures, offset: int) -> int:
        key, reason, prompt_tokens, tokens = figures
        cell = self._cell(key)
        if self._table[cell]:
            return self._table[cell] - 1  # the first one counts
        self._keys += key
        self._offsets.append(offset)
        self._prompt_tokens.append(prompt_tokens)
        self._tokens.append(tokens)
        self._reasons.append(reason)
        place = len(self._offsets)
        self._table[cell] = place
        if 3 * place > 2 * len(self._table):
            self._grow()
        return place - 1

    def _cell(self, key: bytes) -> int:
        """Where the key is in the table, or where it would go."""
        table, keys = self._table, self._keys
        mask = len(table) - 1
        cell = int.from_bytes(key[:8], "little") & mask
        while (place := table[cell]) and keys[_KEY * (place - 1) : _KEY * place] != key:
            cell = (cell + 1) & mask
        return cell

    def _grow(self) -> None:
        size = 2 * len(self._table)
        table, keys, mask = array("I", bytes(4 * size)), self._keys, size - 1
        for place in range(1, len(self._offsets) + 1):
            at = _KEY * (place - 1)
            cell = int.from_bytes(keys[at : at + 8], "little") & mask
            while table[cell]:
                cell = (cell + 1) & mask
            table[cell] = place
        self._table = table

    def _sync(self) -> None:
        while not self._closing.wait(_FSYNC_SECONDS):
            if self._dirty.is_set():
                self._dirty.clear()
                try:
                    os.fsync(self._fd)
                except OSError as error:  # raised from the next append, in the thread that can act on it
                    self._failure = error
                    return


def _key(request_id: str) -> bytes:
    if len(request_id) == 2 * _KEY:
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(request_id)
            if len(key) == _KEY:
                return key
    return hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and 0 <= tokens < _UNKNOWN else _UNKNOWN


def _number(digits: bytes) -> int:
    return _UNKNOWN if digits == b"null" else _count(int(digits))


def _figures(line: bytes) -> _Figures | None:
    """What the index keeps of a line, or None for one that is torn or no sample row.

    A line as this file writes it is read from its two ends, four times as fast as by parsing it: quotes inside a JSON
    text carry a backslash, so no sample's text can look like the keys searched for. A block that a power cut left
    blank is zeros.
    """
    if line.startswith(_HEAD) and line.endswith(b"}\n") and b"\0" not in line and (tail := _TAIL.search(line[-1000:])):
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(line[len(_HEAD) : len(_HEAD) + 2 * _KEY].decode("ascii"))
            reason, prompt_tokens, tokens = tail.groups()
            if len(key) == _KEY and line[len(_HEAD) + 2 * _KEY] == _QUOTE:
                return key, _REASON_CODES[reason], _number(prompt_tokens), _number(tokens)
    row = parsed(line)
    return None if row is None else _of_row(row)


def _of_row(row: Mapping[str, Any]) -> _Figures:
    reason = FINISH_REASONS.index(row["finish_reason"]) if row["finish_reason"] in FINISH_REASONS else 2
    return _key(row["request_id"]), reason, _count(row.get("prompt_tokens")), _count(row.get("completion_tokens"))


def row_line(row: Mapping[str, Any]) -> bytes:
    """A row as its line. Half a surrogate pair, which a served model can produce, is written as its escape."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def parsed(line: bytes) -> dict[str, Any] | None:
    """A sample row, or None for a line that is torn or is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("request_id"), str) or "finish_reason" not in row:
        return None
    return row


def replace_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write ``lines`` beside ``path``, then put them in its place in one step. Raises as SampleStore does."""
    beside = path.with_name(f".{path.name}.sorted")
    try:
        with open(beside, "wb") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        disk_error(error, path)


def _sync_folder(folder: Path) -> None:
    """A file's name is durable only when its folder is."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def disk_error(error: OSError, path: Path) -> NoReturn:
    """Raise MissingDependency for a full disk, and any other error as it is."""
    if error.errno not in _FULL:
        raise error
    raise MissingDependency(
        "the disk is full", where=str(path), hint="free some space and run again: the samples so far are kept"
    ) from error
