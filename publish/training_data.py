"""A data set of traces as Parquet: shards of bounded size under one schema that `datasets.load_dataset` opens.

The schema is fixed here and never inferred, so that an empty shard, or one whose rows lack a value, has the same
columns as every other. Each row carries its own lineage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licensing.files import commit

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_BYTES = 400 << 20
"""Of text in one shard, before compression; what the hub's viewer reads in one go."""

_BATCH = 1000
_BATCH_BYTES = 16 << 20

COLUMNS = {
    "id": "the sample",
    "prompt_id": "the problem: rows with the same one answer the same prompt",
    "messages": "prompt and answer in chat form, role and content",
    "messages_json": "the original messages, where they hold more than role and text; else null",
    "answer": "the reference answer, as text or JSON",
    "kind": "math, code, choice, reasoning_gym or open",
    "source": "source of the prompt",
    "license": "license of the prompt",
    "verdict": "verdict of the verifier; null for kind open",
    "pass_rate": "share of the problem's samples that were correct",
    "language": "ISO 639-1, of the answer",
    "prompt_tokens": "by the teacher's tokenizer",
    "completion_tokens": "by the teacher's tokenizer",
    "sample_index": "which sample of its problem",
    "teacher": "the model that wrote the answer",
    "teacher_revision": "its revision",
    "engine": "the inference engine and its version",
    "sampling": "temperature, top_p and so on, JSON",
    "verifier": "the libraries that verified the answer, with their versions",
}
"""Column -> its meaning, in order; the card lists them."""

OPTIONAL_COLUMNS = {
    "format_verdict": "ok or bad: whether the answer has the required format",
    "judge_verdict": "verdict of a judge model beside the verifier; null without a judgement",
    "counts_as": "the verdict that selected the row",
    "pass_rate_teacher": "the teacher whose samples of the problem pass_rate counts: the first of those asked in turn",
    "rewritten": "JSON; what the teacher said of itself before the student's name took its place; null elsewhere",
    "majority": "JSON; for a problem without a reference answer: the majority answer of its samples, which replaces it",
    "not_trained": "why training left the row out; null for rows that the model was trained on",
}
"""Columns of data sets whose recipe or training asks for them; they follow the others, in this order."""

_NUMBERS = {"pass_rate": "float64", "prompt_tokens": "int64", "completion_tokens": "int64", "sample_index": "int64"}


def schema(optional: Sequence[str] = ()) -> pa.Schema:
    """Of every shard, now and later: columns may be added at the end, never changed.

    ``optional``: names out of ``OPTIONAL_COLUMNS``.
    """
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    special = {"messages": pa.list_(turn)}
    kinds = {name: special.get(name) or pa.type_for_alias(_NUMBERS.get(name, "string")) for name in _columns(optional)}
    return pa.schema(list(kinds.items()))


def _columns(optional: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in optional)]


def write_shards(
    rows: Iterable[Mapping[str, Any]],
    shared: Mapping[str, Mapping[str, str | None]],
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    optional: Sequence[str] = (),
) -> list[str]:
    """Write ``train-00000-of-0000N.parquet`` into the folder ``out`` and return the names, in order.

    ``rows``: training rows (id, prompt_id, messages, model, ...); keys without a column are dropped. ``shared``:
    teacher -> its teacher_revision, sampling and verifier. A lone surrogate becomes its escape. Equal rows give
    equal files. A shard ends at the row with which it reaches ``shard_bytes``, so one row may be larger than that.
    Without rows one empty shard is written. ``optional``: further columns, as in ``schema``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, optional_names = schema(optional), _columns(optional)[len(COLUMNS) :]
    out.mkdir(parents=True, exist_ok=True)
    pending: list[Path] = []
    writer: pq.ParquetWriter | None = None
    batch: list[dict[str, Any]] = []
    batch_bytes = shard = 0

    def flush() -> None:
        nonlocal batch, batch_bytes, writer
        if writer is None:
            pending.append(out / f".shard-{len(pending):05}.tmp")
            writer = pq.ParquetWriter(pending[-1], columns, compression="zstd")
        writer.write_table(pa.Table.from_pylist(batch, schema=columns))
        batch, batch_bytes = [], 0

    try:
        for row in rows:
            record = _row(row, shared.get(str(row.get("model")), {}))
            record |= {name: _plain(row.get(name)) for name in optional_names}
            size = sum(len(value) for value in record.values() if isinstance(value, str))
            size += sum(len(turn["content"]) for turn in record["messages"])
            batch.append(record)
            batch_bytes, shard = batch_bytes + size, shard + size
            if len(batch) >= _BATCH or batch_bytes >= min(_BATCH_BYTES, shard_bytes):
                flush()
            if shard >= shard_bytes:
                if batch:
                    flush()
                if writer is not None:
                    writer.close()
                writer, shard = None, 0
        if batch or not pending:
            flush()
    finally:
        if writer is not None:
            writer.close()
    names = [f"train-{number:05}-of-{len(pending):05}.parquet" for number in range(len(pending))]
    for path, name in zip(pending, names, strict=True):
        commit(path, out / name)
    return names


def _row(row: Mapping[str, Any], shared: Mapping[str, str | None]) -> dict[str, Any]:
    messages: Sequence[Mapping[str, Any]] = row["messages"]
    plain = [{"role": _text(turn.get("role")), "content": _content(turn.get("content"))} for turn in messages]
    role_and_text = [{"role": turn.get("role"), "content": turn.get("content")} for turn in messages]
    values: dict[str, Any] = {name: row.get(name) for name in COLUMNS}
    values |= {
        "messages": plain,
        "messages_json": None if role_and_text == plain == list(messages) else _json(messages),
        "teacher": row.get("model"),
        "answer": row.get("answer") if isinstance(row.get("answer"), str | None) else _json(row["answer"]),
        **shared,
    }
    numbers = {name: _number(values[name], kind) for name, kind in _NUMBERS.items()}
    texts = {name: _text(values[name]) for name in COLUMNS if name not in _NUMBERS and name != "messages"}
    return {**texts, **numbers, "messages": plain}


def _content(content: Any) -> str:
    """The text of a message; of a list of parts the text parts."""
    if isinstance(content, list):
        return (
            _text("\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part))
            or ""
        )
    return _text(content) or ""


def _text(value: Any) -> str | None:
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def _number(value: Any, kind: str) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if kind == "float64" else int(value)


def _plain(value: Any) -> str | None:
    return _text(value if value is None or isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
