"""``distill verify``: a jsonl file of responses in, the same rows with verdicts out, streaming and resumable."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from licensing.errors import InputError
from synth.config import VerifyConfig


def verify_file(rows: Path, out: Path, config: VerifyConfig) -> dict[str, int]:
    """Verify every row of ``rows`` into ``out``, in order; returns how often each verdict was given.

    Rows are appended to ``OUT.partial`` as they come and the file is renamed at the end, so a killed run goes on where
    it stopped: finished rows are counted, a torn last line is done again. A line that is no JSON object becomes a row
    with verdict ``error`` and its reason.

    Raises:
        InputError: the input is not there, or ``OUT.partial`` belongs to another input (it holds more rows).
    """
    from synth.verify import verify_rows

    if not rows.is_file():
        raise InputError("no such file", where=str(rows), hint="name a jsonl file of problem rows with a `response`")
    partial = out.with_name(out.name + ".partial")
    done, counts = _resume(partial)
    with partial.open("a", encoding="utf-8", errors="backslashreplace") as sink:
        seen = 0

        def owed() -> Iterator[dict[str, Any]]:
            nonlocal seen
            for row in _rows(rows):
                seen += 1
                if seen > done:
                    yield row

        for row in verify_rows(owed(), config):
            sink.write(json.dumps(row, ensure_ascii=False) + "\n")
            sink.flush()
            counts[str(row["verdict"])] += 1
    if seen < done:
        raise InputError(
            f"holds {done} rows, the input only {seen}", where=str(partial), hint="remove it: it is of another input"
        )
    partial.replace(out)
    return dict(sorted(counts.items()))


def _resume(partial: Path) -> tuple[int, collections.Counter[str]]:
    counts: collections.Counter[str] = collections.Counter()
    if not partial.exists():
        return 0, counts
    whole = 0
    with partial.open("rb+") as stream:
        for line in stream:
            try:
                verdict = json.loads(line)["verdict"]
            except (ValueError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            counts[str(verdict)] += 1
            whole += len(line)
        stream.truncate(whole)
    return counts.total(), counts


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError("a row is a JSON object")
            except (ValueError, TypeError, RecursionError) as error:
                row = {"id": f"line {number}", "unreadable": f"{path.name}:{number}: {error}"}
            yield row
