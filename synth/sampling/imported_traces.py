"""Imported traces: problem rows that bring their own response, and go into the sample store as samples do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.problems.config import ImportedTraces
from synth.problems.loaders import RawRow, jsonl_rows
from synth.problems.problem import (
    BadRow,
    Prompt,
    UniqueProblems,
    canonical_json,
    problem_of_row,
    raise_bad_row,
    raise_empty,
    raw_text,
    text_of,
)
from synth.reasoning import THINK_CLOSE, THINK_OPEN
from synth.sampling.selection import SampleSummary, write_samples
from synth.sampling.store import FINISH_REASONS, SampleStore
from synth.teachers.config import TeacherConfig

__all__ = ["ImportedTraceSet", "import_traces", "load_traces"]

_TRACE_COLUMNS = ("response", "finish_reason", "error", "prompt_tokens", "completion_tokens", "model")
_STORED_KEYS = ("request_id", "text", "finish_reason", "error", "prompt_tokens", "completion_tokens", "engine")
_ENGINE = "imported"


@dataclass(frozen=True)
class ImportedTraceSet:
    """What a file of traces holds. ``samples`` are sample rows with `problem_id`, `sample_index` and `teacher`, in
    file order; ``duplicates`` counts repeated traces."""

    prompts: tuple[Prompt, ...]
    samples: tuple[dict[str, Any], ...]
    bad: tuple[BadRow, ...]
    duplicates: int
    think_open: str
    think_close: str


def load_traces(
    config: ImportedTraces, teacher: TeacherConfig | None = None, *, answerless: bool = False
) -> ImportedTraceSet:
    """Read imported traces: a problem row plus ``response``, or messages that end with the assistant.

    A final assistant message that holds its thinking apart (``reasoning_content`` or ``reasoning``) gets it back as
    a block in the teacher's tags. ``model`` comes from the row, else from the teacher's public id; token counts are
    null where the row has none. A row with ``finish_reason: error`` is a failed request: it needs no response, and has
    an ``error``. Several traces of one problem (by content) become samples 0, 1, ... of it; a trace that repeats
    another letter for letter is counted and left out. The user's own columns of a problem are those of its first trace.

    Everything is held in memory: about the size of the file. Raises InputError as ``load_prompts`` does.
    """
    tags = (teacher.think_open, teacher.think_close) if teacher else (THINK_OPEN, THINK_CLOSE)
    problems = UniqueProblems()
    samples: list[dict[str, Any]] = []
    bad: list[BadRow] = []
    counts: dict[str, int] = {}  # samples by content
    request_ids: set[str] = set()
    duplicates = 0
    for raw in jsonl_rows(config.path, "sample.path"):
        try:
            trace = _parse(raw.row, teacher.public_id if teacher else None, *tags) if raw.row is not None else {}
        except ValueError as error:
            bad.append(BadRow(raw.where, str(error), raw_text(raw)))
            continue
        problem_row = RawRow(raw.where, trace.pop("problem", None), raw.reason, raw.raw)
        defaults = {"source": Path(config.path).name, "license": config.license}
        prompt = problem_of_row(problem_row, defaults, bad, answerless)
        if prompt is None:
            continue
        outcome = problems.add(prompt)
        if outcome is not None and outcome != "copy":
            bad.append(BadRow(raw.where, outcome, raw_text(raw)))
            continue
        content = prompt.content_hash
        identity = canonical_json([content, trace["text"], trace["teacher"]])
        request_id = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if request_id in request_ids:
            duplicates += 1
            continue
        request_ids.add(request_id)
        index = counts.get(content, 0)
        counts[content] = index + 1
        samples.append({"request_id": request_id, "problem_id": problems.id_of(prompt), "sample_index": index, **trace})
    raise_bad_row(bad, config.on_bad_row, "sample")
    if not samples:
        raise_empty(config.path, bad, "sample")
    return ImportedTraceSet(tuple(problems.prompts), tuple(samples), tuple(bad), duplicates, *tags)


def import_traces(traces: ImportedTraceSet, problem_ids: Iterable[str], out: Path, store: Path) -> SampleSummary:
    """Commit the traces of some problems to the store, each once, and write samples.parquet into the folder ``out``,
    in the order of the file."""
    selected = set(problem_ids)
    with SampleStore(store) as samples:

        def rows() -> Iterator[dict[str, Any]]:
            for trace in traces.samples:
                if trace["problem_id"] not in selected:
                    continue
                if trace["request_id"] not in samples:
                    samples.append({key: trace[key] for key in _STORED_KEYS})
                yield {**trace, "think_open": traces.think_open, "think_close": traces.think_close, "escalated": False}

        return write_samples(out, rows())


def _parse(row: Mapping[str, Any], model: str | None, think_open: str, think_close: str) -> dict[str, Any]:
    """The problem row and the sample fields of a trace. Raises ValueError with the reason for a bad one."""
    problem = {key: value for key, value in row.items() if key not in _TRACE_COLUMNS}
    response = row.get("response")
    messages = problem.get("messages")
    if response is None and isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        last = messages[-1]
        if last.get("role") == "assistant":
            problem["messages"] = messages[:-1]
            response = text_of(last.get("content"))
            thinking = last.get("reasoning_content") or last.get("reasoning")
            if isinstance(thinking, str):
                block = (think_open.strip(), thinking.strip(), think_close.strip())
                response = "\n".join(filter(None, block)) + f"\n\n{response}"
    finish_reason = row.get("finish_reason") or "stop"
    if finish_reason not in FINISH_REASONS:
        raise ValueError(f"finish_reason {finish_reason!r} is not stop, length or error")
    error = None
    if finish_reason == "error":
        error = str(row.get("error") or "the imported trace is a failed request")
        response = response if isinstance(response, str) else ""
    elif not isinstance(response, str) or not response.strip():
        raise ValueError("a trace needs a `response` with text, or messages that end with the assistant")
    teacher = row.get("model") or model
    if not isinstance(teacher, str):
        raise ValueError("no model is named for this trace: give the row a `model`, or the recipe a teacher")
    counts = {key: row.get(key) for key in ("prompt_tokens", "completion_tokens")}
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"`{key}` is not a count: {value!r}")
    return {
        "problem": problem,
        "text": response,
        "finish_reason": finish_reason,
        "error": error,
        "teacher": teacher,
        "engine": _ENGINE,
        "reasoning_tokens": None,
        **counts,
    }
