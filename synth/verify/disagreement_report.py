"""The disagreement report: rows in which two verdicts disagree, for a person to read.

`disagreements.jsonl` is for programs and `disagreements.md` has the same rows for reading. The rows with the lowest
hashes of their ids are listed, so that equal runs have equal reports whatever the length and order of the file. The
counts of each kind are at the head of the Markdown and in the stage's facts.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licensing.files import write_text
from synth.problems.problem import question_of
from synth.trace import Trace
from synth.verify.judge import sanitize

REPORT = "disagreements"
MOST = 100  # rows of each kind of disagreement
_SHOWN = 1500  # characters of a text in the Markdown


class DisagreementReport:
    """Takes rows as they come and keeps at most 100 of each kind of disagreement."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: dict[str, list[tuple[bytes, int, dict[str, Any]]]] = {}  # lowest hashes first
        self.seen: Counter[str] = Counter()

    def offer(self, kind: str, trace: Trace, verdicts: Mapping[str, Any]) -> None:
        """``kind``: who disagrees, such as "rules wrong, judge correct". ``verdicts``: both verdicts and extracts."""
        self.seen[kind] += 1
        rank = hashlib.sha256(f"{kind}\0{trace.request_id}".encode("utf-8", "surrogatepass")).digest()
        entries = self._entries.setdefault(kind, [])
        if len(entries) == self._most and rank >= entries[-1][0]:
            return
        entry = {
            "disagreement": kind,
            "request_id": trace.request_id,
            "prompt_id": trace.problem_id,
            "sample_index": trace.sample_index,
            "kind": trace.problem["kind"],
            "question": sanitize(question_of(trace.problem), _SHOWN),
            **verdicts,
            "end_of_response": sanitize(trace.text, 600, tail=True),
        }
        bisect.insort(entries, (rank, self.seen[kind], entry))
        del entries[self._most :]

    def write(self, out: Path) -> None:
        """Write both files into the folder ``out``, empty ones where nothing disagreed."""
        rows = [entry for _, entries in sorted(self._entries.items()) for *_, entry in entries]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(out / f"{REPORT}.jsonl", lines)
        write_text(out / f"{REPORT}.md", self._markdown(rows))

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
