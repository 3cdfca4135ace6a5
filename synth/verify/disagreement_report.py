"""The disagreement report: rows in which two verdicts disagree, for a person to read.

`disagreements.jsonl` is for programs and `disagreements.md` has the same rows for reading. The rows with the lowest
hashes of their ids are listed, so that equal runs have equal reports whatever the length and order of the file. The
counts of each kind are at the head of the Markdown and in the stage's facts.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.files import write_text
from synth.problems.problem import question_of
from synth.verify.judge import sanitize

SHEET = "disagreements"
MOST = 100  # rows of each kind of disagreement
_SHOWN = 1500  # characters of a text in the Markdown


class DisagreementReport:
    """Takes rows as they come and keeps at most 100 of each kind of disagreement."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
        self.seen: Counter[str] = Counter()

    def offer(self, kind: str, row: Mapping[str, Any], verdicts: Mapping[str, Any]) -> None:
        """``kind``: who disagrees, such as "rules wrong, judge correct". ``verdicts``: both verdicts and extracts."""
        self.seen[kind] += 1
        name = str(row.get("request_id") or row.get("id"))
        rank = -int.from_bytes(hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
        entries = self._entries.setdefault(kind, [])
        if len(entries) == self._most and (rank, name) <= (entries[0][0], entries[0][1]):
            return
        entry = {
            "disagreement": kind,
            "request_id": row.get("request_id"),
            "prompt_id": row.get("prompt_id"),
            "sample_index": row.get("sample_index"),
            "kind": row.get("kind"),
            "question": sanitize(question_of(row), _SHOWN),
            **verdicts,
            "end_of_response": sanitize(str(row.get("response") or ""), 600, tail=True),
        }
        item = (rank, f"{name}\0{self.seen[kind]}", entry)
        if len(entries) < self._most:
            heapq.heappush(entries, item)
        else:
            heapq.heapreplace(entries, item)

    def write(self, out: Path) -> None:
        """Write both files into the folder ``out``, empty ones where nothing disagreed."""
        rows = [entry for kind in sorted(self._entries) for *_, entry in sorted(self._entries[kind], key=_order)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(out / f"{SHEET}.jsonl", lines)
        write_text(out / f"{SHEET}.md", self._markdown(rows))

    def _markdown(self, rows: list[dict[str, Any]]) -> str:
        counts = [
            f"- {kind}: {count:,} rows, {len(self._entries[kind]):,} of them here"
            for kind, count in sorted(self.seen.items())
        ]
        parts = ["# Where verdicts disagree", "\n".join(counts) or "No two verdicts disagree."]
        for number, row in enumerate(rows, 1):
            parts.append(f"## {number}. {row['disagreement']}")
            for key, value in row.items():
                if key != "disagreement" and value is not None:
                    text = sanitize(value if isinstance(value, str) else json.dumps(value), _SHOWN)
                    parts.append(
                        f"{key.replace('_', ' ')}:\n\n" + "\n".join(f"    {line}" for line in text.split("\n"))
                    )
        return "\n\n".join(parts) + "\n"


def _order(item: tuple[int, str, dict[str, Any]]) -> tuple[int, str]:
    return -item[0], item[1]
