"""``distill decontaminate``: a jsonl file of rows in, the same rows with what they share with test sets out."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from licensing.errors import InputError

HOSTS = 200
"""Rows into whose text known positives are planted."""


def decontaminate_file(rows: Path, against: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write every row of ``rows`` to ``out``, in order, with three keys added; returns counts and how well it works.

        contaminated    bool
        match           {"set", "item", "how": "exact" | "n-gram" | "digit-blind"}, or null
        overlap         largest share of a test item that was found in the row, 0 to 1

    All texts of a row are searched, at any depth. A line that is no JSON is searched as text, and comes out as
    ``{"unreadable": reason, "raw": its first 2,000 characters, ...}``. Streams; the file is renamed into place at the
    end, so a killed run leaves none behind.

    The returned ``recall`` and ``false_positive_rate`` are measured on plants: see ``synth.decontamination_recall``.

    Raises:
        InputError: a file is not there, or a row of a test set cannot be used.
    """
    from synth.benchmarks import file_items
    from synth.decontaminate import Finder, texts_of
    from synth.decontamination_recall import plant_report
    from synth.problems.loaders import RAW_CHARACTERS, jsonl_rows

    if not rows.is_file():
        raise InputError("no such file", where=str(rows), hint="name a jsonl file")
    if out.resolve() in {path.resolve() for path in (rows, *against)}:
        raise InputError("this file is read", where=str(out), hint="write to another one with -o")
    finder = Finder([item for path in against for item in file_items(path)])
    how: collections.Counter[str] = collections.Counter()
    count = 0
    hosts: list[str] = []
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as sink:
            for raw in jsonl_rows(str(rows), "IN.jsonl"):
                row = raw.row if raw.row is not None else {"unreadable": raw.reason, "raw": raw.raw[:RAW_CHARACTERS]}
                text = "\n".join(texts_of(row))
                match, overlap = finder.find(text)
                if match is not None:
                    how[match.how] += 1
                elif len(hosts) < HOSTS:
                    hosts.append(text)
                count += 1
                added = {
                    "contaminated": match is not None,
                    "match": match.as_dict() if match else None,
                    "overlap": overlap,
                }
                sink.write(json.dumps({**row, **added}, ensure_ascii=False) + "\n")
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return {
        "rows": count,
        "contaminated": how.total(),
        "share": round(how.total() / count, 6) if count else 0.0,
        "how": dict(sorted(how.items())),
        "items": len(finder.items),
        "items_not_told_without_their_digits": finder.indistinct,
        **plant_report(finder, hosts),
        "out": str(out.resolve()),
    }
