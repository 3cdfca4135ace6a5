"""The traces of a report: packed into chunks that a browser unpacks on demand, and an index small enough for filters.

One pass over the rows measures them, and one packs them. Memory: some dozen bytes a trace and the distinct values of
what is indexed; texts go through a chunk at a time. A chunk is gzip in base64, so that nothing in it can end the script
element that holds it.

Where not all traces fit, problems are drawn by a hash of their id, so that all samples of a problem come along and a
part looks like the whole; the last problem drawn may lose samples. Counts and histograms are always of all traces.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from licensing.files import json_line
from synth.verify.verdict import judged

MOST_TRACES = 50_000
MOST_BYTES = 256 * 2**20  # of text in one page: what a browser tab holds in comfort
CHUNK_BYTES = 192 * 2**10
EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_MOST_TAGS = 400  # distinct values of labels that make a filter; further ones are shown with the trace only


@dataclass
class TraceCounts:
    """What was counted while the traces went by."""

    total: int = 0
    shown: int = 0
    problems: int = 0
    shown_problems: int = 0
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """By verdict, rows a bin: ``EDGES[i] <= completion tokens < EDGES[i + 1]``, the last bin open."""
    without_length: int = 0

    @property
    def not_shown(self) -> int:
        return self.total - self.shown


class _Names:
    """Numbers for texts, in the order in which they came."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.codes = array("i")

    def add(self, text: str) -> None:
        self.codes.append(self.number(text))

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def packed(self) -> dict[str, Any]:
        return {"names": list(self.numbers), "codes": self.codes.tolist()}


Rows = Callable[[], Iterator[Mapping[str, Any]]]
"""Begins the rows anew each time that it is called."""


def pack_traces(trace_rows: Rows, out: IO[str], most: int = MOST_TRACES) -> tuple[TraceCounts, str]:
    """Write the chunks, one a line, to ``out``; return the counts and the packed index.

    The index, JSON in gzip in base64: ``chunks`` (rows of each), ``verdict`` ``source`` ``drop_reason`` ``problem``
    (``names`` and a code a row), ``sample`` and ``tokens`` (numbers; -1 unknown), ``rates`` (correct and judged samples
    of each problem, by its code), ``tags`` (``names`` of labels, ``rows``: the codes of each row).
    """
    drawn = _draw(trace_rows, most)
    counted = TraceCounts()
    columns = {name: _Names() for name in ("verdict", "source", "drop_reason", "problem")}
    rates: dict[str, list[int]] = {}
    sample, tokens, tags, tag_rows = array("i"), array("i"), _Names(), []
    chunk: list[bytes] = []
    sizes: list[int] = []
    used = buffered_bytes = 0

    def flush() -> None:
        nonlocal buffered_bytes
        if chunk:
            sizes.append(len(chunk))
            out.write(_pack(b"\n".join(chunk)) + "\n")
            chunk.clear()
            buffered_bytes = 0

    for line, row in _lines(trace_rows):
        problem = row["prompt_id"]
        rate = rates.setdefault(problem, [0, 0])
        counts_as = row.get("counts_as") or row.get("verdict")
        if measured := (row.get("labels") or {}).get("pass_rate"):  # in a cascade not of all samples
            rate[:] = measured["n_correct"], measured["n_judged"]
        elif judged(counts_as, row.get("finish_reason")):  # before labels there are counts of what is verified
            rate[1] += 1
            rate[0] += counts_as == "correct"
        _count(counted, row)
        if (drawn is not None and problem not in drawn) or counted.shown >= most or used + len(line) > MOST_BYTES:
            continue
        counted.shown += 1
        used += len(line)
        buffered_bytes += len(line)
        chunk.append(line)
        columns["verdict"].add(row.get("verdict") or "none")
        columns["source"].add(row.get("source") or "unknown")
        columns["problem"].add(problem)
        columns["drop_reason"].add(_fate(row))
        sample.append(_number(row.get("sample_index")))
        tokens.append(_number(row.get("completion_tokens")))
        tag_rows.append(_tags(row.get("labels") or {}, tags))
        if buffered_bytes >= CHUNK_BYTES:
            flush()
    flush()
    counted.problems, counted.shown_problems = len(rates), len(columns["problem"].numbers)
    index = {name: column.packed() for name, column in columns.items()} | {
        "chunks": sizes,
        "sample": sample.tolist(),
        "tokens": tokens.tolist(),
        "rates": [rates[problem] for problem in columns["problem"].numbers],
        "tags": {"names": list(tags.numbers), "rows": tag_rows},
    }
    return counted, _pack(json.dumps(index, separators=(",", ":")).encode())


def _lines(trace_rows: Rows) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """Each row as the line that the browser reads, and as it is. NaN and infinity, which JSON has not, become null."""
    for row in trace_rows():
        try:
            line = json_line(row)
        except ValueError:
            line = json_line(json.loads(json.dumps(row), parse_constant=lambda _: None))
        yield line.rstrip(b"\n"), row


def _draw(trace_rows: Rows, most: int) -> set[str] | None:
    """The problems whose traces are shown; None where all are."""
    sizes: dict[str, list[int]] = {}
    for line, row in _lines(trace_rows):
        size = sizes.setdefault(row["prompt_id"], [0, 0])
        size[0] += 1
        size[1] += len(line)
    if sum(size[0] for size in sizes.values()) <= most and sum(size[1] for size in sizes.values()) <= MOST_BYTES:
        return None
    drawn: set[str] = set()
    used = [0, 0]
    for problem in sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest()):
        if used[0] >= most or used[1] >= MOST_BYTES:
            break
        drawn.add(problem)
        used = [used[0] + sizes[problem][0], used[1] + sizes[problem][1]]
    return drawn


def _count(counted: TraceCounts, row: Mapping[str, Any]) -> None:
    counted.total += 1
    length = _number(row.get("completion_tokens"))
    if length < 0:
        counted.without_length += 1
        return
    bins = counted.lengths.setdefault(row["verdict"] or "none", [0] * len(EDGES))
    bins[max(at for at, edge in enumerate(EDGES) if edge <= length)] += 1


def _fate(row: Mapping[str, Any]) -> str:
    """ "kept", the step that dropped the trace, or "not selected yet"."""
    if row.get("kept"):
        return "kept"
    if row.get("drop_reason"):
        return f"dropped at {row['drop_reason'].partition(':')[0]}"
    return "dropped" if "kept" in row else "not selected yet"


def _tags(labels: Mapping[str, Mapping[str, Any]], tags: _Names) -> list[int]:
    """What of a trace's labels can be filtered: what is true, and short texts. Numbers are shown with the trace."""
    names: list[str] = []
    for name, label in labels.items():
        value = label["value"]
        if value is True:
            names.append(name)
        elif isinstance(value, str) and 0 < len(value) <= 60:
            names.append(f"{name}: {value}")
        elif isinstance(value, dict):  # the language of prompt, think block and answer
            parts = ((part, item) for part, item in value.items() if isinstance(item, str) and len(item) <= 60)
            names += [f"{name} of {part}: {item}" for part, item in parts]
    return [tags.number(name) for name in names if name in tags.numbers or len(tags.numbers) < _MOST_TAGS]


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else -1


def _pack(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")
