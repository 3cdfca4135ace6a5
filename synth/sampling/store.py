"""The sample store of a run: the only copy of every trace's text, appended the moment its engine is done with it.

    <store>/samples.jsonl    one row a sample: request_id, text, finish_reason, error, prompt_tokens,
                             completion_tokens, engine, completed_at; optional: token_ids, reasoning_tokens,
                             escalated_from, continued, provenance, logprobs
    <store>/logprobs.bin     the log-probabilities of tokens, where the recipe asks for them: records one behind
                             another (``synth.teachers.logprobs``). `logprobs` of a row is the offset, size and CRC-32
                             of its record, which is written first: a row never waits for it, but after a power cut

The file is never rewritten, sorted or copied: which samples a stage uses is listed in its samples.parquet
(``synth.trace_set``). ``synth.sampling.append_log`` says how a line is committed. A row belongs to its ``request_id``;
of two rows with one id the first counts, unless it is of a request that failed: then the later one replaces it, and the
tokens of the failed one still count (``lost``).

Held in memory is an index and no text, about 45 bytes a sample.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.closing import Closing
from licensing.errors import InputError
from licensing.files import json_line
from synth.sampling.append_log import KEY_BYTES, AppendLog, KeyIndex, key_of

SAMPLE_LOG = "samples.jsonl"
LOGPROBS = "logprobs.bin"
FINISH_REASONS = ("stop", "length", "error")
_ERROR = FINISH_REASONS.index("error")
_UNKNOWN = 0xFFFFFFFF  # a row without a token count
_QUOTE = ord('"')
_HEAD = b'{"request_id": "'
_TAIL = re.compile(
    rb'", "finish_reason": "(stop|length|error)", "error": (?:null|"(?:[^"\\]|\\.)*"), '
    rb'"prompt_tokens": (\d+|null), "completion_tokens": (\d+|null), "engine": "'
)
_REASON_CODES = {reason.encode(): code for code, reason in enumerate(FINISH_REASONS)}
_Entry = tuple[bytes, int, int, int]  # key, code of the finish reason, prompt tokens, completion tokens


class SampleStore(Closing):
    """The sample rows below the folder ``store``, or of a log by any name. A context manager.

    A row is known by its row id: 0 for the first one, and so on. ``damaged`` counts lines that are no sample rows.
    Raises MissingDependency where the disk is full, with every whole line kept.
    """

    def __init__(self, store: Path, *, read_only: bool = False) -> None:
        self.damaged = 0
        self._index = KeyIndex()
        self._offsets = array("Q")
        self._tokens = array("I")
        self._prompt_tokens = array("I")
        self._reasons = bytearray()
        self._lost: dict[int, tuple[int, int]] = {}
        self._log = AppendLog(store if store.is_file() else store / SAMPLE_LOG, read_only=read_only)
        self._read_only = read_only
        self._records: AppendLog | None = None  # opened once it is needed
        for offset, line in self._log.scan():
            entry = _entry_of_line(line)
            if entry is None:
                self.damaged += 1
            else:
                self._enter(entry, offset)

    def close(self) -> None:
        """fsync and close; see ``AppendLog.close``."""
        try:
            if self._records is not None:
                self._records.close()
        finally:
            self._log.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, request_id: str) -> bool:
        return self.find(request_id) is not None

    def find(self, request_id: str) -> int | None:
        """The row id of a request, or None."""
        return self._index.find(key_of(request_id))

    def finish_reason(self, row_id: int) -> str:
        return FINISH_REASONS[self._reasons[row_id]]

    def counted(self, row_id: int) -> bool:
        """Whether the engine said how many tokens it generated for a row."""
        return self._tokens[row_id] != _UNKNOWN

    def completion_tokens(self, row_id: int) -> int:
        """Tokens generated for a row; 0 where the engine gave no count."""
        count = self._tokens[row_id]
        return 0 if count == _UNKNOWN else count

    def prompt_tokens(self, row_id: int) -> int:
        count = self._prompt_tokens[row_id]
        return 0 if count == _UNKNOWN else count

    def lost(self, row_id: int) -> tuple[int, int]:
        """Prompt and completion tokens of the failed rows that a row has replaced."""
        return self._lost.get(row_id, (0, 0))

    def failed(self) -> set[int]:
        """The row ids of requests that failed."""
        return {row_id for row_id, reason in enumerate(self._reasons) if reason == _ERROR}

    def row(self, row_id: int) -> dict[str, Any]:
        """A row, read from the disk."""
        row: dict[str, Any] = json.loads(self._log.line(self._offsets[row_id]))
        return row

    def logprobs(self, row: Mapping[str, Any]) -> bytes | None:
        """The record of a row's log-probabilities, read from the disk; None where it has none, or a damaged one."""
        return record_of_row(row, self._open_records())

    def append(self, row: Mapping[str, Any], line: bytes | None = None, logprobs: bytes | None = None) -> int:
        """Commit one row; returns its row id.

        ``line``: the row as another log holds it, which is copied. ``logprobs``: the record of its log-probabilities.
        """
        if "logprobs" in row:  # where another store has its record
            row, line = {name: value for name, value in row.items() if name != "logprobs"}, None
        if logprobs is not None:
            offset = self._open_records().append(logprobs)
            row, line = {**row, "logprobs": [offset, len(logprobs), zlib.crc32(logprobs)]}, None
        return self._enter(_entry_of_row(row), self._log.append(line or json_line(row)))

    def _open_records(self) -> AppendLog:
        if self._records is None:
            self._records = AppendLog(self._log.path.with_name(LOGPROBS), read_only=self._read_only)
            self._records.skip()
        return self._records

    def _enter(self, entry: _Entry, offset: int) -> int:
        key, reason, prompt_tokens, tokens = entry
        row_id = self._index.add(key)
        if row_id == len(self._offsets):
            self._offsets.append(offset)
            self._prompt_tokens.append(prompt_tokens)
            self._tokens.append(tokens)
            self._reasons.append(reason)
        elif self._reasons[row_id] == _ERROR:
            before, now = self.lost(row_id), (self.prompt_tokens(row_id), self.completion_tokens(row_id))
            if any(now):
                self._lost[row_id] = (before[0] + now[0], before[1] + now[1])
            self._offsets[row_id] = offset
            self._prompt_tokens[row_id], self._tokens[row_id] = prompt_tokens, tokens
            self._reasons[row_id] = reason
        return row_id


def _entry_of_line(line: bytes) -> _Entry | None:
    """What the index holds of a line, or None for one that is torn or no sample row.

    A line as this file writes it is read from its two ends, four times as fast as by parsing it: quotes inside a JSON
    text carry a backslash, so no sample's text can look like the keys searched for. A block that a power cut left
    blank is zeros.
    """
    if line.startswith(_HEAD) and line.endswith(b"}\n") and b"\0" not in line and (tail := _TAIL.search(line[-1000:])):
        with contextlib.suppress(ValueError):
            key = bytes.fromhex(line[len(_HEAD) : len(_HEAD) + 2 * KEY_BYTES].decode("ascii"))
            reason, prompt_tokens, tokens = tail.groups()
            if len(key) == KEY_BYTES and line[len(_HEAD) + 2 * KEY_BYTES] == _QUOTE:
                return key, _REASON_CODES[reason], _number(prompt_tokens), _number(tokens)
    row = row_of_line(line)
    return None if row is None else _entry_of_row(row)


def row_of_line(line: bytes) -> dict[str, Any] | None:
    """The row in a line of a sample log, or None for a line that is torn or no sample row."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or "finish_reason" not in row:
        return None
    return row if isinstance(row.get("request_id"), str) and isinstance(row.get("text"), str) else None


def record_of_row(row: Mapping[str, Any], records: AppendLog) -> bytes | None:
    """What ``SampleStore.logprobs`` returns, from the file that holds it."""
    if "logprobs" not in row:
        return None
    offset, size, checksum = row["logprobs"]
    record = records.record(offset, size)
    return record if zlib.crc32(record) == checksum else None


def sample_log(path: Path) -> Path:
    """The sample log that ``path`` is, or that of a run directory or of a folder of ``distill samples merge``.

    Raises InputError where there is none.
    """
    for log in (path, path / "store" / SAMPLE_LOG, path / SAMPLE_LOG):
        if log.is_file():
            return log
    raise InputError("there is no sample log", where=str(path), hint=f"give a run (runs/NAME-HASH) or a {SAMPLE_LOG}")


def _entry_of_row(row: Mapping[str, Any]) -> _Entry:
    reason = FINISH_REASONS.index(row["finish_reason"]) if row["finish_reason"] in FINISH_REASONS else _ERROR
    return key_of(row["request_id"]), reason, _count(row.get("prompt_tokens")), _count(row.get("completion_tokens"))


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and 0 <= tokens < _UNKNOWN else _UNKNOWN


def _number(digits: bytes) -> int:
    return _UNKNOWN if digits == b"null" else _count(int(digits))
