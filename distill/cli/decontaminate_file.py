"""``distill decontaminate``: the rows of a file with the overlap of each with test sets."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from licensing.files import disk_errors, json_line, write_lines

if TYPE_CHECKING:
    from distill.runs.stage import Reporter

HOSTS = 200
"""Rows into whose text known positives are planted, to measure recall."""


def decontaminate_file(
    rows: Path, against: Sequence[Path], out: Path, progress: Reporter | None = None
) -> dict[str, Any]:
    """Write every row of ``rows`` to ``out``, in order, with three keys added; returns counts and measured recall.

        contaminated    bool
        match           {"set", "item", "how": "exact" | "n-gram" | "digit-blind"}, or null
        overlap         largest share of a test item that the row contains, 0 to 1

    Searches all texts of a row, at any depth. A line that is not JSON is searched as text, and comes out as
    ``{"unreadable": reason, "raw": its first 2,000 characters, ...}``. Streams; the file is renamed into place at the
    end, so a killed run leaves no output behind. Input formats: ``synth/problems/row_files.py``.

    The returned ``recall`` and ``false_positive_rate`` are measured on planted items: see
    ``synth/decontamination_recall.py``.

    Raises:
        InputError: a file cannot be read or written, or a row of a test set cannot be used.
    """
    from synth.benchmarks import file_items
    from synth.decontaminate import Finder, texts_of
    from synth.decontamination_recall import measure_recall
    from synth.problems.loaders import RAW_CHARACTERS, jsonl_rows

    if out.resolve() in {path.resolve() for path in (rows, *against)}:
        raise InputError("the output would overwrite an input", where=str(out), hint="give another file with --out")
    source = jsonl_rows(str(rows), "IN.jsonl")
    finder = Finder([item for path in against for item in file_items(path)])
    how: collections.Counter[str] = collections.Counter()
    count = 0
    hosts: list[str] = []

    def marked() -> Iterator[bytes]:
        nonlocal count
        for raw in source:
            row = raw.row if raw.row is not None else {"unreadable": raw.reason, "raw": raw.raw[:RAW_CHARACTERS]}
            text = "\n".join(texts_of(row))
            match, overlap = finder.find(text)
            if match is not None:
                how[match.how] += 1
            elif len(hosts) < HOSTS:
                hosts.append(text)
            count += 1
            if progress is not None:
                progress(count)
            yield json_line(
                row
                | {
                    "contaminated": match is not None,
                    "match": match.as_dict() if match else None,
                    "overlap": overlap,
                }
            )

    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_lines(out, marked())
    return {
        "rows": count,
        "contaminated": how.total(),
        "share": round(how.total() / count, 6) if count else 0.0,
        "how": dict(sorted(how.items())),
        "items": len(finder.items),
        "items_not_told_without_their_digits": finder.indistinct,
        **measure_recall(finder, hosts),
        "out": str(out.resolve()),
    }
