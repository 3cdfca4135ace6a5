"""The problem schema; problems and imported traces from rows (``loaders.py`` reads the rows).

Every row becomes a ``Prompt``, a duplicate that is counted, or a ``BadRow`` with its place and a reason. No row
vanishes.

Not covered: compressed jsonl, images and other bytes in a row (a ``BadRow`` says so), near duplicates.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from licensing.errors import InputError
from synth.problems.config import HubPrompts, ImportedTraces, JsonlPrompts, PromptsConfig
from synth.problems.loaders import RAW_CHARACTERS, RawRow, hub_rows, jsonl_rows, reasoning_gym_rows
from synth.section import OnBadRow, ProblemKind

__all__ = ["BadRow", "Prompt", "PromptSet", "TraceSet", "canonical_json", "load_prompts", "load_traces", "text_of"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_FINISH_REASONS = frozenset({"stop", "length", "error"})
_TRACE_COLUMNS = ("response", "finish_reason", "error", "prompt_tokens", "completion_tokens", "model")

PROBLEM_COLUMNS = (
    "id", "messages", "answer", "kind", "source", "license",
    "tests", "entry_point", "code", "choices", "task", "entry",
)  # fmt: skip
"""The columns of a problem row that have a meaning here: for all kinds, then for single ones. All others are the user's
own (``Prompt.extra``)."""


def canonical_json(value: Any) -> str:
    """One spelling for one value, for digests: sorted keys, no blanks, non-ASCII characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def text_of(content: Any) -> str:
    """The text of a message's ``content``: a string, or the text parts of a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, Mapping) and "text" in part)
    return ""


def _folded(value: Any) -> Any:
    """NFC and single blanks in every string, so that a copy with other line breaks is the same problem."""
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, Mapping):
        return {key: _folded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(item) for item in value]
    return value


def _content_hash(messages: Iterable[Mapping[str, Any]]) -> str:
    return hashlib.sha256(canonical_json([_folded(message) for message in messages]).encode()).hexdigest()


class Prompt(BaseModel):
    """One problem. Unknown columns of its row are preserved: see ``extra``.

    A row has either ``prompt`` (a string: one user turn; or a list of messages) or ``messages``, never both. ``id`` is
    a digest of the content where a row has none. An answer may be missing for ``open``, ``code`` with ``tests`` and
    ``reasoning_gym`` (whose scorer reads ``entry``); for math and choice only with `answerless` in the context.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    messages: tuple[dict[str, Any], ...]
    answer: Any | None = None
    kind: ProblemKind
    source: str
    license: str | None = None

    @model_validator(mode="before")
    @classmethod
    def normalise_row(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        row = dict(data)
        prompt, messages = row.pop("prompt", None), row.pop("messages", None)
        if (prompt is None) == (messages is None):
            raise ValueError("give exactly one of `prompt` and `messages`")
        if isinstance(prompt, str):
            if not prompt.strip():
                raise ValueError("`prompt` is empty")
            messages = [{"role": "user", "content": prompt}]
        elif prompt is not None:
            messages = prompt
        row["messages"] = _checked_messages(messages)
        gold = row.pop("gold", None)  # the other name of `answer` in verify input
        if row.get("answer") is None:
            row["answer"] = gold
        if row.get("id") is None:
            row["id"] = _content_hash(row["messages"])[:16]
        elif not isinstance(row["id"], str):
            row["id"] = str(row["id"])
        return row

    @model_validator(mode="after")
    def check_verifiable(self, info: ValidationInfo) -> Prompt:
        columns = self.model_extra or {}
        if self.messages[-1]["role"] == "assistant":
            raise ValueError("the messages end with the assistant: a problem ends with a question")
        if self.kind == "reasoning_gym" and not (columns.get("task") and columns.get("entry")):
            raise ValueError("kind reasoning_gym needs `task` and `entry`")
        missing = self.answer is None or self.answer == ""
        if missing and self.is_answerless and not (info.context or {}).get("answerless"):
            raise ValueError(f"kind {self.kind} needs an `answer`")
        if missing and self.kind == "code" and not columns.get("tests"):
            raise ValueError("kind code needs `tests` or an `answer`")
        return self

    @property
    def is_answerless(self) -> bool:
        """Whether it lacks a gold answer, so that only a vote of its samples can give one."""
        return self.kind in ("math", "choice") and (self.answer is None or self.answer == "")

    @property
    def content_hash(self) -> str:
        """sha256 (64 hex) of the messages after NFC and white-space folding: equal for copies of one problem."""
        return _content_hash(self.messages)

    @property
    def question(self) -> str:
        """The text of the last user message; empty where there is none."""
        return next((text_of(m.get("content")) for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def extra(self) -> dict[str, Any]:
        """The user's own columns: those that are not in ``PROBLEM_COLUMNS``."""
        return {name: value for name, value in (self.model_extra or {}).items() if name not in PROBLEM_COLUMNS}

    def row(self) -> dict[str, Any]:
        """The problem row, in the ``messages`` form, the user's own columns under their own names."""
        row: dict[str, Any] = {
            "id": self.id,
            "messages": [dict(message) for message in self.messages],
            "answer": self.answer,
            "kind": self.kind,
            "source": self.source,
            "license": self.license,
        }
        return {**row, **(self.model_extra or {})}

    def trace_columns(self) -> dict[str, Any]:
        """As ``row``, with the user's own columns under the key ``extra``: what a run's traces hold of a problem.

        So no column of a data set that is called like a measured one (``pass_rate``, ``labels``, ``verdict``) can
        replace it.
        """
        return separate_extra(self.row())


def separate_extra(row: Mapping[str, Any]) -> dict[str, Any]:
    """A problem row with the user's own columns under the key ``extra``, which is absent where there are none."""
    extra = {name: value for name, value in row.items() if name not in PROBLEM_COLUMNS}
    columns = {name: value for name, value in row.items() if name in PROBLEM_COLUMNS}
    return columns | ({"extra": extra} if extra else {})


@dataclass(frozen=True)
class BadRow:
    """A row that is no problem. ``where`` is "file:line" or "data set[index]"; ``raw`` is cut at 2,000 characters."""

    where: str
    reason: str
    raw: str


@dataclass(frozen=True)
class PromptSet:
    """The problems of a source. ``duplicates`` counts rows with the content of an earlier row."""

    prompts: tuple[Prompt, ...]
    bad: tuple[BadRow, ...]
    duplicates: int


@dataclass(frozen=True)
class TraceSet:
    """Imported traces. ``samples`` are sample rows in file order; ``duplicates`` counts repeated traces."""

    prompts: tuple[Prompt, ...]
    samples: tuple[dict[str, Any], ...]
    bad: tuple[BadRow, ...]
    duplicates: int


# --- loading -----------------------------------------------------------------------------------------------------


def load_prompts(config: PromptsConfig, *, answerless: bool = False) -> PromptSet:
    """Read the problems of one source, in its order, without the later copies of a problem.

    ``answerless``: problems of kind math and choice may lack an answer, for ``verify.majority``. Raises InputError: the
    source is missing, has no good row, or (``on_bad_row: stop``) has a bad row, named by file and line. Raises
    MissingDependency where `datasets` or `reasoning-gym` is needed and not installed.
    """
    if isinstance(config, JsonlPrompts):
        name, rows = config.path, jsonl_rows(config.path, "prompts.path")
        defaults: dict[str, Any] = {"source": config.source or Path(config.path).name}
    elif isinstance(config, HubPrompts):
        name, rows = config.dataset, hub_rows(config)
        defaults = {"source": config.dataset, "kind": config.row_kind}
    else:
        name, rows = config.task, reasoning_gym_rows(config)
        defaults = {}
    unique = _UniqueProblems()
    bad: list[BadRow] = []
    duplicates = 0
    for raw in rows:
        prompt = _prompt_of(raw, {**defaults, "license": config.license}, bad, answerless)
        if prompt is None:
            continue
        outcome = unique.add(prompt)
        if outcome == "copy":
            duplicates += 1
        elif outcome is not None:
            bad.append(BadRow(raw.where, outcome, _raw_text(raw)))
        if config.limit is not None and len(unique.prompts) >= config.limit:
            break
    _stop_on(bad, config.on_bad_row, "prompts")
    if not unique.prompts:
        _raise_empty(name, bad, "prompts")
    return PromptSet(tuple(unique.prompts), tuple(bad), duplicates)


def load_traces(config: ImportedTraces, model: str | None = None, *, answerless: bool = False) -> TraceSet:
    """Read imported traces: problem rows with ``response``, or with messages that end with the assistant.

    Thinking in a field of its own (``reasoning_content`` or ``reasoning``) of the final assistant message becomes a
    think block. ``model`` is the public id of the teacher, for rows without ``model``. Token counts are null where the
    row has none. A row with ``finish_reason: error`` is a failed request: it needs no response, and its sample row has
    an ``error``, as one that a teacher failed on. Traces of one problem (by content) become its samples 0, 1, ...; a
    trace that repeats another letter for letter is counted and left out. The user's own columns of a problem are those
    of its first trace.

    Everything is held in memory: about the size of the file. Raises InputError as ``load_prompts`` does.
    """
    unique = _UniqueProblems()
    samples: list[dict[str, Any]] = []
    bad: list[BadRow] = []
    counts: dict[str, int] = {}
    seen: set[str] = set()
    duplicates = 0
    for raw in jsonl_rows(config.path, "sample.path"):
        try:
            trace = _split_trace(raw.row, model) if raw.row is not None else {}
        except ValueError as error:
            bad.append(BadRow(raw.where, str(error), _raw_text(raw)))
            continue
        problem = RawRow(raw.where, trace.pop("problem", None), raw.reason, raw.raw)
        defaults = {"source": Path(config.path).name, "license": config.license}
        prompt = _prompt_of(problem, defaults, bad, answerless)
        if prompt is None:
            continue
        outcome = unique.add(prompt)
        if outcome is not None and outcome != "copy":
            bad.append(BadRow(raw.where, outcome, _raw_text(raw)))
            continue
        content = prompt.content_hash
        identity = canonical_json([content, trace["response"], trace["model"]])
        request_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if request_id in seen:
            duplicates += 1
            continue
        seen.add(request_id)
        index = counts.get(content, 0)
        counts[content] = index + 1
        samples.append(
            {
                "request_id": request_id,
                "prompt_id": unique.id_of(prompt),
                "sample_index": index,
                "text": trace["response"],
                "finish_reason": trace["finish_reason"],
                "error": trace["error"],
                "prompt_tokens": trace["prompt_tokens"],
                "completion_tokens": trace["completion_tokens"],
                "model": trace["model"],
                "engine": "imported",
            }
        )
    _stop_on(bad, config.on_bad_row, "sample")
    if not samples:
        _raise_empty(config.path, bad, "sample")
    return TraceSet(tuple(unique.prompts), tuple(samples), tuple(bad), duplicates)


# --- from rows to problems ---------------------------------------------------------------------------------------


@dataclass
class _UniqueProblems:
    """The problems so far, unique by content and by id."""

    prompts: list[Prompt] = field(default_factory=list)
    _by_content: dict[str, str] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)

    def add(self, prompt: Prompt) -> str | None:
        """None where it was added, "copy" where its content is there already, else why it cannot be added."""
        content = prompt.content_hash
        if content in self._by_content:
            return "copy"
        if prompt.id in self._ids:
            return f"id {prompt.id!r} names another problem further up"
        self._by_content[content] = prompt.id
        self._ids.add(prompt.id)
        self.prompts.append(prompt)
        return None

    def id_of(self, prompt: Prompt) -> str:
        return self._by_content[prompt.content_hash]


def _prompt_of(raw: RawRow, defaults: Mapping[str, Any], bad: list[BadRow], answerless: bool = False) -> Prompt | None:
    if raw.row is None:
        bad.append(BadRow(raw.where, raw.reason, raw.raw))
        return None
    row = dict(raw.row)
    for key, value in defaults.items():
        if row.get(key) is None and value is not None:
            row[key] = value
    try:
        prompt = Prompt.model_validate(row, context={"answerless": answerless})
        # Values that cannot be written (a lone surrogate, bytes) are found here, before a teacher is used.
        canonical_json(prompt.row()).encode()
    except ValidationError as error:
        bad.append(BadRow(raw.where, _why(error), _raw_text(raw)))
        return None
    except (ValueError, TypeError, RecursionError) as error:
        bad.append(BadRow(raw.where, f"it cannot be written as JSON in UTF-8: {error}", _raw_text(raw)))
        return None
    return prompt


def _checked_messages(messages: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError("`messages` has to be a list that is not empty")
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise ValueError(f"a message needs a `role` out of {', '.join(sorted(_ROLES))}")
        if not isinstance(message.get("content"), str | list | None):
            raise ValueError("the `content` of a message is a string, a list of parts, or null")
    if not any(text_of(m.get("content")).strip() for m in messages if m["role"] != "system"):
        raise ValueError("the messages hold no text")
    return tuple(dict(message) for message in messages)


def _split_trace(row: Mapping[str, Any], model: str | None) -> dict[str, Any]:
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
                response = f"<think>\n{thinking.strip()}\n</think>\n\n{response}"
    finish_reason = row.get("finish_reason") or "stop"
    if finish_reason not in _FINISH_REASONS:
        raise ValueError(f"finish_reason {finish_reason!r} is not stop, length or error")
    error = None
    if finish_reason == "error":
        error = str(row.get("error") or "the imported trace is a failed request")
        response = response if isinstance(response, str) else ""
    elif not isinstance(response, str) or not response.strip():
        raise ValueError("a trace needs a `response` with text, or messages that end with the assistant")
    model = row.get("model") or model
    if not isinstance(model, str):
        raise ValueError("nobody says which model wrote this: give the row a `model`, or the recipe a teacher")
    counts = {key: row.get(key) for key in ("prompt_tokens", "completion_tokens")}
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"`{key}` is not a count: {value!r}")
    return {
        "problem": problem,
        "response": response,
        "model": model,
        "finish_reason": finish_reason,
        "error": error,
        **counts,
    }


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message}" if place else message


def _raw_text(raw: RawRow) -> str:
    return (raw.raw or repr(raw.row))[:RAW_CHARACTERS]


def _stop_on(bad: list[BadRow], policy: OnBadRow, section: str) -> None:
    if policy == "skip" or not bad:
        return
    more = f" ({len(bad) - 1} more bad rows after it)" if len(bad) > 1 else ""
    raise InputError(
        f"{bad[0].reason}{more}",
        where=bad[0].where,
        hint=f"correct the row, or leave bad rows out with --set {section}.on_bad_row=skip",
    )


def _raise_empty(name: str, bad: list[BadRow], section: str) -> NoReturn:
    what = f"none of {len(bad)} rows is usable, the first because: {bad[0].reason}" if bad else "there is no row in it"
    raise InputError(what, where=bad[0].where if bad else name, hint=f"look at `{section}` in the recipe")
