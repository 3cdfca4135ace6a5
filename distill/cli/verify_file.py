"""``distill verify``: a jsonl file of responses in, the same rows with verdicts out, streaming and resumable."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from licensing.errors import InputError
from licensing.files import write_text
from synth.verify.config import VerifyConfig
from synth.verify.majority import named


def verify_file(rows: Path, out: Path, config: VerifyConfig) -> dict[str, int]:
    """Verify every row of ``rows`` into ``out``, in order; returns how often each verdict was given.

    Rows are appended to ``OUT.partial`` as they come and the file is renamed at the end, so a killed run goes on where
    it stopped: finished rows are counted, a torn last line is done again. ``OUT.partial.json`` says which input (its
    sha256) and which settings the rows are of; the number of workers may change.

    With ``config.majority`` the file is read twice: first for the votes of problems without an answer, of which only
    counts are kept, so that rows of one problem may stand anywhere.

    A line that is no JSON object in UTF-8 becomes a row with verdict ``error`` and its reason. A blank line is no row.

    Raises:
        InputError: the input is not there, or ``OUT.partial`` is of another input or of other settings.
    """
    from synth.verify.majority import elect, verify_by_vote
    from synth.verify.verifier import verify_rows

    if not rows.is_file():
        raise InputError("no such file", where=str(rows), hint="name a jsonl file of problem rows with a `response`")
    if out.exists() and out.samefile(rows):
        raise InputError("the input would be written over", where=str(out), hint="name another file with --out")
    partial, stamp = out.with_name(out.name + ".partial"), out.with_name(out.name + ".partial.json")
    _claim(partial, stamp, rows, config)
    done, counts = _resume(partial)
    checked = verify_rows(_rows(rows, done), config)
    if config.majority is not None:
        checked = verify_by_vote(_rows(rows, done), elect(_rows(rows, 0), config), config)
    with partial.open("a", encoding="utf-8", errors="backslashreplace") as sink:
        for row in checked:
            sink.write(json.dumps(row, ensure_ascii=False) + "\n")
            sink.flush()
            counts[named(row)] += 1
    partial.replace(out)
    stamp.unlink()
    return dict(sorted(counts.items()))


def _claim(partial: Path, stamp: Path, rows: Path, config: VerifyConfig) -> None:
    """Begin a partial output, or make sure that the one that is there was begun for the same work."""
    with rows.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    work = {"input": digest, "settings": config.model_dump(mode="json", exclude={"workers"})}
    if partial.exists() and partial.stat().st_size:
        try:
            begun = json.loads(stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = {}
        if begun != work:
            what = "another input" if begun.get("input") != digest else "other settings"
            raise InputError(
                f"holds rows of {what}", where=str(partial), hint="remove it to begin anew, or name another --out"
            )
        return
    write_text(stamp, json.dumps(work))


def _resume(partial: Path) -> tuple[int, collections.Counter[str]]:
    counts: collections.Counter[str] = collections.Counter()
    if not partial.exists():
        return 0, counts
    whole = 0
    with partial.open("rb+") as stream:
        for line in stream:
            try:
                verdict = named(json.loads(line))
            except (ValueError, KeyError):
                break
            if not line.endswith(b"\n"):
                break
            counts[verdict] += 1
            whole += len(line)
        stream.truncate(whole)
    return counts.total(), counts


def _rows(path: Path, done: int) -> Iterator[dict[str, Any]]:
    """The rows behind the first ``done``, which are not even parsed."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if done:
                done -= 1
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_no_number)
                if not isinstance(row, dict):
                    raise TypeError("a row is a JSON object")
            except (ValueError, TypeError, RecursionError) as error:
                row = {"id": f"line {number}", "unreadable": f"{path.name}:{number}: {error}"[:500]}
            yield row


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
