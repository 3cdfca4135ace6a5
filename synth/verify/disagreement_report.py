"""The disagreement sheet: rows in which two verdicts disagree, for a person to read.

`disagreements.jsonl` is for programs and `disagreements.md` the same for reading. Which rows are on it follows from
their ids alone: those with the lowest hashes, so that equal runs have equal sheets and neither length nor order of the
file has a part in it. How many there were of each kind is in the head of the Markdown and in the stage's facts.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.verify.judge import inert

__all__ = ["SHEET", "DisagreementReport"]

SHEET = "disagreements"
MOST = 100  # rows of each kind of disagreement
_SHOWN = 1500  # characters of a text in the Markdown


class DisagreementReport:
    """Rows are offered as they come; at most 100 of each kind are kept."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
        self.seen: Counter[str] = Counter()

    def offer(self, kind: str, row: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """``kind``: who disagrees, such as "rules wrong, judge correct". ``found``: both verdicts and extracts."""
        self.seen[kind] += 1
        name = str(row.get("request_id") or row.get("id"))
        rank = -int.from_bytes(hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
        held = self._kept.setdefault(kind, [])
        if len(held) == self._most and (rank, name) <= (held[0][0], held[0][1]):
            return
        entry = {
            "disagreement": kind,
            "request_id": row.get("request_id"),
            "prompt_id": row.get("prompt_id"),
            "sample_index": row.get("sample_index"),
            "kind": row.get("kind"),
            "question": inert(_question(row), _SHOWN),
            **found,
            "end_of_response": inert(str(row.get("response") or ""), 600, tail=True),
        }
        item = (rank, f"{name}\0{self.seen[kind]}", entry)
        if len(held) < self._most:
            heapq.heappush(held, item)
        else:
            heapq.heapreplace(held, item)

    def write(self, out: Path) -> None:
        """Both files, in the folder ``out``; empty ones say that nothing disagreed."""
        rows = [entry for kind in sorted(self._kept) for *_, entry in sorted(self._kept[kind], key=_order)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        for path, text in ((out / f"{SHEET}.jsonl", lines), (out / f"{SHEET}.md", self._markdown(rows))):
            with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())

    def _markdown(self, rows: list[dict[str, Any]]) -> str:
        told = [
            f"- {kind}: {count:,} rows, {len(self._kept[kind]):,} of them here"
            for kind, count in sorted(self.seen.items())
        ]
        parts = ["# Where verdicts disagree", "\n".join(told) or "No two verdicts disagree."]
        for number, row in enumerate(rows, 1):
            parts.append(f"## {number}. {row['disagreement']}")
            for key, value in row.items():
                if key != "disagreement" and value is not None:
                    text = inert(value if isinstance(value, str) else json.dumps(value), _SHOWN)
                    parts.append(
                        f"{key.replace('_', ' ')}:\n\n" + "\n".join(f"    {line}" for line in text.split("\n"))
                    )
        return "\n\n".join(parts) + "\n"


def _order(item: tuple[int, str, dict[str, Any]]) -> tuple[int, str]:
    return -item[0], item[1]


def _question(row: Mapping[str, Any]) -> str:
    from synth.problems.problem import text_of

    messages = row.get("messages")
    if isinstance(messages, list | tuple) and messages and isinstance(messages[-1], Mapping):
        return text_of(messages[-1].get("content"))
    return str(row.get("prompt") or "")
