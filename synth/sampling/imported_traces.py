"""Imported traces: problem rows that bring their own response, and go into the sample store as samples do."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from licensing.errors import InputError
from synth.parquet_files import write_parquet
from synth.problems.config import ImportedTraces
from synth.problems.loaders import RawRow, source_rows
from synth.problems.mapping import Value, value_of
from synth.problems.problem import (
    BadRow,
    Prompt,
    UniqueProblems,
    canonical_json,
    problem_of_row,
    raise_bad_row,
    raise_empty,
    text_of,
)
from synth.reasoning import THINK_CLOSE, THINK_OPEN
from synth.sampling.selection import SampleSummary, write_samples
from synth.sampling.store import FINISH_REASONS, SampleStore
from synth.teachers.config import TeacherConfig

_TRACE_COLUMNS = ("response", "finish_reason", "error", "prompt_tokens", "completion_tokens", "model")
_STORED_KEYS = ("request_id", "text", "finish_reason", "error", "prompt_tokens", "completion_tokens", "engine")
_ENGINE = "imported"
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_THINKING_PARTS = ("thinking", "reasoning")
SOURCE_CLAIMS = "source_claims.parquet"
"""Columns `request_id` and `claims`, a JSON object of the further keys of ``ImportedTraces.traces``, such as the
source's own verdict."""


class TraceKey(NamedTuple):
    """What is kept of a trace while its text stays in the file. ``teacher``: the model that wrote it."""

    request_id: str
    problem_id: str
    sample_index: int
    teacher: str


@dataclass(frozen=True)
class ImportedTraceSet:
    """What a file or data set of traces holds, without the texts: ``samples`` reads them again.

    ``index`` is in file order; ``duplicates`` counts repeated traces, ``left_out`` rows and traces by the condition
    that they do not meet.
    """

    prompts: tuple[Prompt, ...]
    index: tuple[TraceKey, ...]
    bad: tuple[BadRow, ...]
    duplicates: int
    left_out: dict[str, int]
    reader: _Reader

    def samples(self) -> Iterator[dict[str, Any]]:
        """The sample rows of the index, with `text` and `claims` (what the data set says of the trace).

        Raises InputError where the source has changed since the index was made.
        """
        keys = iter(self.index)
        key = next(keys, None)
        for _, prompt, traces in self.reader.rows([], Counter()):
            for trace in traces:
                if key is not None and key.request_id == _request_id(prompt, trace):
                    yield {**trace, **key._asdict()}
                    key = next(keys, None)
        if key is not None:
            raise InputError(
                "the traces changed while they were read", where=self.reader.name, hint="run the same command again"
            )

    def check_models(self, teacher: str) -> None:
        """Raise InputError where traces name another model than the recipe's teacher: it would be missing from the
        lineage."""
        models = Counter(key.teacher for key in self.index if key.teacher != teacher)
        if models:
            named = ", ".join(f"{model} ({count:,})" for model, count in models.most_common(5))
            raise InputError(
                f"there are traces of other models than teacher.model {teacher}: {named}",
                where="teacher.model",
                hint="name the model that wrote them, or take one model's traces with sample.trace_where.model",
            )


def load_traces(
    config: ImportedTraces, teacher: TeacherConfig | None = None, *, allow_missing_gold: bool = False
) -> ImportedTraceSet:
    """Read imported traces: a problem row plus ``response``, or messages that end with the assistant, or what
    ``config.traces`` says.

    Thinking that a row holds apart (`thinking`; ``reasoning_content`` or ``reasoning`` of the final message; a part of
    its content of type thinking) gets it back as a block in the teacher's tags. ``model`` comes from the row, else from
    the teacher's public id; token counts are null where the row has none. A row with ``finish_reason: error`` is a
    failed request: it needs no response, and has an ``error``. Several traces of one problem (by content) become
    samples 0, 1, ... of it; a trace that repeats another letter for letter is counted and left out. The user's own
    columns of a problem are those of its first trace.

    Holds the problems in memory, and some 300 bytes a trace. Raises InputError as ``load_prompts`` does.
    """
    reader = _Reader(config, teacher, allow_missing_gold)
    problems = UniqueProblems()
    index: dict[str, TraceKey] = {}
    bad: list[BadRow] = []
    left_out: Counter[str] = Counter()
    counts: Counter[str] = Counter()  # samples by problem
    duplicates = 0
    for where, prompt, traces in reader.rows(bad, left_out):
        outcome = problems.add(prompt)
        if outcome is not None and outcome != "copy":
            bad.append(BadRow(where, outcome))
            continue
        problem_id = problems.id_of(prompt)
        for trace in traces:
            request_id = _request_id(prompt, trace)
            if request_id in index:
                duplicates += 1
                continue
            index[request_id] = TraceKey(request_id, problem_id, counts[problem_id], trace["teacher"])
            counts[problem_id] += 1
    raise_bad_row(bad, config.on_bad_row, "sample")
    if not index:
        raise_empty(reader.name, bad, "sample", left_out)
    return ImportedTraceSet(
        tuple(problems.prompts), tuple(index.values()), tuple(bad), duplicates, dict(left_out), reader
    )


def import_traces(traces: ImportedTraceSet, problem_ids: Iterable[str], out: Path, store: Path) -> SampleSummary:
    """Commit the traces of some problems to the store, each once, and write samples.parquet into the folder ``out``,
    in the order of the file; also ``SOURCE_CLAIMS``, what the data set says of each trace, where it says anything."""
    selected = set(problem_ids)
    think_open, think_close = traces.reader.tags
    claims: list[dict[str, str]] = []
    with SampleStore(store) as samples:

        def rows() -> Iterator[dict[str, Any]]:
            for trace in traces.samples():
                if trace["problem_id"] not in selected:
                    continue
                if trace["request_id"] not in samples:
                    samples.append({key: trace[key] for key in _STORED_KEYS})
                if trace["claims"]:
                    claims.append({"request_id": trace["request_id"], "claims": canonical_json(trace["claims"])})
                yield {**trace, "think_open": think_open, "think_close": think_close, "escalated": False}

        summary = write_samples(out, rows())
    if claims:
        import pyarrow as pa

        write_parquet(out / SOURCE_CLAIMS, pa.schema([("request_id", pa.string()), ("claims", pa.string())]), claims)
    return summary


class _Reader:
    """Reads the traces of a section, with the same result every time."""

    def __init__(self, config: ImportedTraces, teacher: TeacherConfig | None, allow_missing_gold: bool) -> None:
        self.name = config.path or config.dataset
        self.tags = (teacher.think_open, teacher.think_close) if teacher else (THINK_OPEN, THINK_CLOSE)
        self._config = config
        self._model = teacher.public_id if teacher else None
        self._allow_missing_gold = allow_missing_gold

    def rows(self, bad: list[BadRow], left_out: Counter[str]) -> Iterator[tuple[str, Prompt, list[dict[str, Any]]]]:
        """(place, problem, sample fields of its traces) of the good rows; the others go into ``bad`` and
        ``left_out``."""
        config = self._config
        defaults = {"source": config.data_source, "license": config.license, "kind": config.row_kind}
        for raw in source_rows(config, "sample"):
            try:
                if raw.row is None:
                    raise ValueError(raw.reason)
                if (condition := config.failed_condition(raw.row)) is not None:
                    left_out[condition] += 1
                    continue
                problem, traces = _traces(raw.row, config, left_out)
                stored = [_stored(trace, self._model, *self.tags) for trace in traces]
            except ValueError as error:
                bad.append(BadRow(raw.where, str(error)))
                continue
            if stored:
                prompt = problem_of_row(RawRow(raw.where, problem), defaults, bad, self._allow_missing_gold)
                if prompt is not None:
                    yield raw.where, prompt, stored


def _request_id(prompt: Prompt, trace: Mapping[str, Any]) -> str:
    identity = canonical_json([prompt.content_hash, trace["text"], trace["teacher"]])
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _traces(
    row: Mapping[str, Any], config: ImportedTraces, left_out: Counter[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The problem row, and its traces as dicts of `response` and what else is known of each."""
    problem = config.mapped(row) if config.maps() else dict(row)
    if not config.traces:
        trace = {key: problem.pop(key) for key in _TRACE_COLUMNS if key in problem}
        thinking = problem.pop("thinking", None), problem.pop("reasoning_content", None)
        trace["thinking"] = next((one for one in thinking if isinstance(one, str)), None)
        messages = problem.get("messages")
        if trace.get("response") is None and isinstance(messages, list) and messages:
            last = messages[-1]
            if isinstance(last, Mapping) and last.get("role") == "assistant":
                problem["messages"] = messages[:-1]
                trace["response"] = last
        return problem, [trace]
    traces = [trace for entry in config.traces for trace in _aligned(entry, row) if trace["response"] not in (None, "")]
    if not traces:
        raise ValueError("the row has no trace: `traces` gives no response")
    taken = []
    for trace in traces:
        conditions = config.trace_where.items()
        failed = next((key for key, one in conditions if one is not None and not one.holds(trace.get(key))), None)
        if failed is None:
            taken.append(trace)
        else:
            left_out[f"trace {failed}"] += 1
    return problem, taken


def _aligned(entry: Mapping[str, Value], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The traces of one entry of ``traces``: one, or as many as the list of responses is long."""
    values = {"response": None} | {key: value_of(spec, row) for key, spec in entry.items()}
    responses = values["response"]
    if not isinstance(responses, list) or not all(isinstance(one, str | None) for one in responses):
        return [values]
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    for key, value in lists.items():
        if len(value) != len(responses):
            raise ValueError(f"the row has {len(responses)} responses but {len(value)} values of `{key}`")
    return [values | {key: value[index] for key, value in lists.items()} for index in range(len(responses))]


def _split_message(response: Any) -> tuple[Any, str | None]:
    """(text, thinking) of a response that is a text, a message, or the content of one as a list of parts."""
    if isinstance(response, Mapping):
        thinking = response.get("reasoning_content") or response.get("reasoning") or response.get("thinking")
        text, inside = _split_message(response.get("content"))
        return text, thinking if isinstance(thinking, str) else inside
    if not isinstance(response, list):
        return response, None
    thoughts = [part for part in response if isinstance(part, Mapping) and part.get("type") in _THINKING_PARTS]
    inside = "\n".join(filter(None, (_thought(part) for part in thoughts)))
    return text_of([part for part in response if part not in thoughts]), inside or None


def _thought(part: Mapping[str, Any]) -> str:
    """The text of a part of type thinking: a string, or parts again (Mistral)."""
    value = next((part[key] for key in ("thinking", "reasoning", "text") if part.get(key)), "")
    return text_of(value)


def _stored(trace: Mapping[str, Any], model: str | None, think_open: str, think_close: str) -> dict[str, Any]:
    """The sample fields of a trace. Raises ValueError with the reason for a bad one."""
    response, thinking = _split_message(trace.get("response"))
    thinking = trace.get("thinking") or thinking
    if isinstance(thinking, str) and isinstance(response, str):
        block = (think_open.strip(), thinking.strip(), think_close.strip())
        response = "\n".join(filter(None, block)) + f"\n\n{response}"
    finish_reason = trace.get("finish_reason") or "stop"
    if finish_reason not in FINISH_REASONS:
        raise ValueError(f"finish_reason {finish_reason!r} is not stop, length or error")
    error = None
    if finish_reason == "error":
        error = str(trace.get("error") or "the imported trace is a failed request")
        response = response if isinstance(response, str) else ""
    elif not isinstance(response, str) or not response.strip():
        raise ValueError("a trace needs a `response` with text, or messages that end with the assistant")
    teacher = trace.get("model") or model
    if not isinstance(teacher, str):
        raise ValueError("no model is named for this trace: give the row a `model`, or the recipe a teacher")
    if _HALF_PAIR.search(response):
        raise ValueError("the text has an unpaired surrogate, which no tokenizer accepts")
    counts = {key: trace.get(key) for key in ("prompt_tokens", "completion_tokens")}
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"`{key}` is not a count: {value!r}")
    return {
        "text": response,
        "finish_reason": finish_reason,
        "error": error,
        "teacher": teacher,
        "engine": _ENGINE,
        "reasoning_tokens": None,
        "claims": {key: value for key, value in trace.items() if key not in (*_TRACE_COLUMNS, "thinking")},
        **counts,
    }
