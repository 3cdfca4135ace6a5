"""``distill verify``: the rows of a file with a verdict for each response; streaming and resumable."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from licensing.files import disk_errors, json_line, sync_folder, write_json
from synth.problems.row_files import RowFile
from synth.verify.config import VerifyConfig
from synth.verify.majority import named

if TYPE_CHECKING:
    from distill.runs.stage import Reporter


def verify_file(rows: Path, out: Path, config: VerifyConfig, progress: Reporter | None = None) -> dict[str, int]:
    """Verify every row of ``rows`` into ``out``, in order; returns how often each verdict was given.

    Rows are appended to ``OUT.partial`` as they come and the file is renamed at the end, so a killed run resumes where
    it stopped: finished rows are counted, a torn last line is done again. ``OUT.partial.json`` says which input (its
    sha256) and which settings the rows belong to; the number of workers may change.

    With ``config.majority`` the file is read twice: first for the votes of problems without a gold answer, of which
    only counts are kept, so that rows of one problem may stand anywhere.

    A line that is not a JSON object in UTF-8 becomes a row with verdict ``error`` and its reason. A blank line is no
    row. Input formats: ``synth/problems/row_files.py``.

    Raises:
        InputError: the input cannot be read, is no file of rows, or ``OUT.partial`` belongs to another input or to
            other settings.
    """
    from synth.verify.majority import elect, verify_by_vote
    from synth.verify.verifier import verify_rows

    if out.exists() and rows.exists() and out.samefile(rows):
        raise InputError("the output would overwrite the input", where=str(out), hint="give another file with --out")
    if out.is_dir():
        raise InputError("this is a folder", where=str(out), hint="give a file with --out")
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        with RowFile(rows, name=rows.name, spool=out.parent) as source:
            total = sum(1 for _ in source.rows())  # a damaged file ends here, before anything is written
            partial, stamp = out.with_name(out.name + ".partial"), out.with_name(out.name + ".partial.json")
            _claim(partial, stamp, source.sha256(), config)
            done, counts = _resume(partial)
            if config.majority is not None:
                checked = verify_by_vote(_rows(source, done), elect(_rows(source, 0), config), config)
            else:
                checked = verify_rows(_rows(source, done), config)
            with partial.open("ab") as sink:
                for row in checked:
                    sink.write(json_line(row))
                    sink.flush()
                    counts[named(row)] += 1
                    if progress is not None:
                        progress(counts.total(), total)
                os.fsync(sink.fileno())
        partial.replace(out)
        stamp.unlink()
        sync_folder(out.parent)
    return dict(sorted(counts.items()))


def _claim(partial: Path, stamp: Path, digest: str, config: VerifyConfig) -> None:
    """Begin a partial output, or make sure that the existing one was begun with the same input and settings."""
    work = {"input": digest, "settings": config.model_dump(mode="json", exclude={"workers"})}
    if partial.exists() and partial.stat().st_size:
        try:
            begun = json.loads(stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = {}
        if begun != work:
            what = "another input" if begun.get("input") != digest else "other settings"
            raise InputError(
                f"it holds rows of {what}", where=str(partial), hint="remove it to start again, or give another --out"
            )
        return
    write_json(stamp, work)


def _resume(partial: Path) -> tuple[int, collections.Counter[str]]:
    """(rows that are done, how often each verdict was given); cuts a torn last line off."""
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


def _rows(source: RowFile, done: int) -> Iterator[dict[str, Any]]:
    """The rows behind the first ``done``, which are not even parsed."""
    for number, text in enumerate(source.rows()):
        if number < done:
            continue
        try:
            yield text.parse()
        except ValueError as error:
            yield {"id": text.position, "unreadable": f"{text.where}: {error}"[:500]}
