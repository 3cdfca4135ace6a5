"""Labels of a file of traces, part by part: each part is so many bytes of the file, done by one process and written as
two Parquet files, `traces-00000.parquet` (a row a trace) and `prompts-00000.parquet` (a row a problem met in the part).

A part that is written is not done again, so a killed run goes on. Memory: that of a few thousand rows, whatever the
size of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.errors import InputError
from synth.decontaminate import Finder
from synth.dedup import signature
from synth.labels.config import LabelConfig
from synth.labels.limits import mark, within
from synth.labels.trace import FLAGS, Label, PromptLabels, label_prompt, label_trace, no_labels, prompt_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PART_BYTES", "label_part", "part_name", "ranges"]

PART_BYTES = 8 << 20
ROWS = 2000  # of one row group, held in memory


def ranges(path: Path) -> list[tuple[int, int]]:
    """(start, end) of the parts of a file, in bytes, each ending with a whole line."""
    size, found, start = path.stat().st_size, [], 0
    with path.open("rb") as file:
        while start < size:
            file.seek(min(size, start + PART_BYTES))
            file.readline()
            found.append((start, file.tell()))
            start = file.tell()
    return found


def part_name(kind: str, number: int) -> str:
    return f"{kind}-{number:05}.parquet"


def label_part(
    source: Path, start: int, end: int, number: int, config: LabelConfig, finder: Finder | None, out: Path, *,
    progress: Path, unlabelled: Mapping[int, str],
) -> None:  # fmt: skip
    """Label the traces in bytes ``start`` to ``end`` of ``source``. Raises InputError for a line that is no trace.

    A row in ``unlabelled`` (by its offset) gets no labels but a reason, as does one whose labels need more than
    ``config.timeout_s`` or the memory of this process. ``progress`` keeps the offset of the row under way.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts: dict[str, tuple[PromptLabels, str | None]] = {}
    # The traces' file comes last into its place: where it is, both are.
    targets = {kind: out / part_name(kind, number) for kind in ("prompts", "traces")}
    temporary = {kind: path.with_name(f".{path.name}.tmp") for kind, path in targets.items()}
    schemas = {"traces": _trace_schema(config), "prompts": _prompt_schema(config)}
    writers = {kind: pq.ParquetWriter(path, schemas[kind], compression="zstd") for kind, path in temporary.items()}
    rows: dict[str, list[dict[str, Any]]] = {"traces": [], "prompts": []}

    def flush(least: int) -> None:
        for kind, held in rows.items():
            if len(held) >= least:
                writers[kind].write_table(pa.Table.from_pylist(held, schema=schemas[kind]))
                held.clear()

    marks = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for offset, length, row in _traces(source, start, end):
            mark(marks, offset)
            if row["prompt_id"] not in prompts:
                if len(prompts) >= ROWS:  # samples of one problem stand together: those behind are done
                    prompts.clear()
                prompts[row["prompt_id"]] = _prompt_labels(row, config, finder, unlabelled.get(offset))
                rows["prompts"].append(_prompt_row(row, prompts[row["prompt_id"]][0], config))
            prompt, why = prompts[row["prompt_id"]]
            labels = _trace_labels(row, prompt, config, finder, unlabelled.get(offset, why))
            rows["traces"].append(_trace_row(row, labels, offset, length, config))
            flush(ROWS)
        flush(1)
    finally:
        os.close(marks)
        for writer in writers.values():
            writer.close()
    for kind, path in temporary.items():
        with path.open("rb") as written:
            os.fsync(written.fileno())  # a name must not come to be before what it names
        os.replace(path, targets[kind])


def _prompt_labels(
    row: Mapping[str, Any], config: LabelConfig, finder: Finder | None, why: str | None
) -> tuple[PromptLabels, str | None]:
    """The labels that the traces of a problem share, and why there are none: then its traces have none either."""
    if why is None:
        prompt, why = within(config.timeout_s, lambda: label_prompt(row, config, finder))
        if prompt is not None:
            return prompt, None
    return PromptLabels(prompt_text(row), None, None, None), why


def _trace_labels(
    row: Mapping[str, Any], prompt: PromptLabels, config: LabelConfig, finder: Finder | None, why: str | None
) -> dict[str, Label]:
    if why is None:
        labels, why = within(config.timeout_s, lambda: label_trace(row, prompt, config, finder))
        if labels is not None:
            return labels
    return no_labels(row, config, finder, why)


# --- rows --------------------------------------------------------------------------------------------------------


def _traces(source: Path, start: int, end: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    with source.open("rb") as file:
        file.seek(start)
        offset = start
        while offset < end:
            line = file.readline()
            if line.strip():
                yield offset, len(line), _checked(line, source, offset)
            offset += len(line)


def _checked(line: bytes, source: Path, offset: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("the line is no JSON object")
        for key in ("request_id", "prompt_id", "response"):
            if not isinstance(row.get(key), str):
                raise ValueError(f"the trace has no {key}, or it is not text")
        if not isinstance(row.get("sample_index") or 0, int):
            raise ValueError("sample_index is not an integer")
        messages = row.get("messages")
        if not (isinstance(messages, list) and messages) and not isinstance(row.get("prompt"), str):
            raise ValueError("the trace has neither messages nor a prompt")
    except (ValueError, RecursionError) as err:
        place = f"{source}:{_line_number(source, offset)}"
        raise InputError(f"not a trace: {err}", where=place, hint="labels are for the rows that verify wrote") from err
    return row


def _line_number(source: Path, offset: int) -> int:
    with source.open("rb") as file:
        number = 1
        while file.tell() < offset:
            file.readline()
            number += 1
    return number


def _trace_row(
    row: Mapping[str, Any], labels: Mapping[str, Label], offset: int, length: int, config: LabelConfig
) -> dict[str, Any]:
    folded = " ".join(unicodedata.normalize("NFC", row["response"]).split())
    language = (labels["language"]["value"] if "language" in labels else None) or {}
    found: dict[str, Any] = {
        "offset": offset,
        "length": length,
        "request_id": _text(row["request_id"]),
        "prompt_id": _text(row["prompt_id"]),
        "sample_index": row.get("sample_index") or 0,
        "digest": hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest(),
        "tokens": _count(row.get("completion_tokens")),
        "characters": len(row["response"]),
        "finish_reason": _text(row.get("finish_reason") or "unknown"),
        "verdict": _text(row.get("counts_as", row.get("verdict"))),
        "kind": _text(row.get("kind") or ""),
        "source": _text(row.get("source")),
        "model": _text(row.get("model")),
        "license": _text(row.get("license")),
        "judge": _number(row.get("judge_score")),
        "given_rate": _number(row.get("pass_rate")),
        "language": language.get("answer") or language.get("think"),
        "labels": json.dumps(labels),
        **{name: _text(_applies(labels.get(name))) for name in (*FLAGS, "contaminated")},
    }
    if config.near_duplicates:
        found["signature"] = signature(row["response"], config.near_duplicates.num_perm)
    return found


def _prompt_row(row: Mapping[str, Any], prompt: PromptLabels, config: LabelConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prompt_id": _text(row["prompt_id"]),
        "language": prompt.language,
        "set": _text(prompt.match.item.set) if prompt.match else None,
        "item": _text(prompt.match.item.id) if prompt.match else None,
        "how": prompt.match.how if prompt.match else None,
        "overlap": prompt.overlap,
        "text": _text(prompt.text),
    }
    if config.near_duplicates:
        found["signature"] = signature(prompt.text, config.near_duplicates.num_perm)
    return found


def _applies(label: Label | None) -> str | None:
    """The reason of a label that can leave a trace out; None where it does not apply. One that could not be computed in
    time (value null, with a reason) applies: nobody looked."""
    if label is None or label["value"] in (False, "ok"):
        return None
    return label["reason"] if label["value"] is None else label["reason"] or str(label["value"])


def _text(value: Any) -> str | None:
    """As UTF-8 can hold it: half a surrogate pair becomes its escape."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _trace_schema(config: LabelConfig) -> pa.Schema:
    import pyarrow as pa

    fields = [
        ("offset", pa.int64()), ("length", pa.int64()), ("request_id", pa.string()), ("prompt_id", pa.string()),
        ("sample_index", pa.int64()), ("digest", pa.binary()), ("tokens", pa.int64()), ("characters", pa.int64()),
        *((name, pa.string()) for name in ("finish_reason", "verdict", "kind", "source", "model", "license")),
        ("judge", pa.float64()), ("given_rate", pa.float64()), ("language", pa.string()), ("labels", pa.string()),
        *((name, pa.string()) for name in (*FLAGS, "contaminated")),
    ]  # fmt: skip
    return pa.schema(fields + ([("signature", pa.binary())] if config.near_duplicates else []))


def _prompt_schema(config: LabelConfig) -> pa.Schema:
    import pyarrow as pa

    names = ("prompt_id", "language", "set", "item", "how")
    fields = [*((name, pa.string()) for name in names), ("overlap", pa.float64()), ("text", pa.string())]
    return pa.schema(fields + ([("signature", pa.binary())] if config.near_duplicates else []))
