"""Problems, and traces brought along: jsonl files, data sets that `datasets` opens, reasoning-gym tasks.

Every row that comes in leaves as a ``Prompt``, as a duplicate that was counted, or as a ``BadRow`` with a place and a
reason. Nothing else happens to a row, and no row vanishes.

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
from synth.problems.config import HubPrompts, JsonlPrompts, PromptsConfig
from synth.problems.loaders import RAW_SHOWN, RawRow, hub_rows, jsonl_rows, reasoning_gym_rows
from synth.sampling.config import ImportedTraces
from synth.section import OnBadRow, ProblemKind
from synth.teachers.config import TeacherConfig

__all__ = [
    "BadRow",
    "Prompt",
    "PromptSet",
    "TraceSet",
    "canonical_json",
    "conversation_text",
    "load_prompts",
    "load_traces",
    "text_of",
]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_FINISH_REASONS = frozenset({"stop", "length", "error"})
_TRACE_KEYS = ("response", "finish_reason", "prompt_tokens", "completion_tokens", "model")


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no blanks, UTF-8 as it is. What digests are made of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def text_of(content: Any) -> str:
    """The text of a message's ``content``: a string, or a list of parts of which the text parts count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, Mapping) and "text" in part)
    return ""


def conversation_text(messages: Iterable[Any]) -> str:
    """The text of every message of a problem: all that a student reads before it answers."""
    return "\n".join(text_of(turn.get("content")) for turn in messages if isinstance(turn, Mapping))


def _folded(value: Any) -> Any:
    """NFC and single blanks in every string, so that a copy with other line ends is the same problem."""
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
    """One problem. Unknown keys of its row are kept and come out again in ``row()``.

    Given either ``prompt`` (a string: one user turn; or a list of messages) or ``messages``, never both. ``id`` is
    made from the content where a row has none. Without an answer only ``open``, ``code`` with ``tests`` and
    ``reasoning_gym`` (whose scorer reads ``entry``) are problems; math and choice with `answerless` in the context.
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
    def _one_form(cls, data: Any) -> Any:
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
        gold = row.pop("gold", None)  # the verify contract accepts either name
        if row.get("answer") is None:
            row["answer"] = gold
        if row.get("id") is None:
            row["id"] = _content_hash(row["messages"])[:16]
        elif not isinstance(row["id"], str):
            row["id"] = str(row["id"])
        return row

    @model_validator(mode="after")
    def _can_be_verified(self, info: ValidationInfo) -> Prompt:
        extra = self.model_extra or {}
        if self.messages[-1]["role"] == "assistant":
            raise ValueError("the messages end with the assistant: a problem ends with a question")
        if self.kind == "reasoning_gym" and not (extra.get("task") and extra.get("entry")):
            raise ValueError("kind reasoning_gym needs `task` and `entry`")
        missing = self.answer is None or self.answer == ""
        if missing and self.is_answerless and not (info.context or {}).get("answerless"):
            raise ValueError(f"kind {self.kind} needs an `answer`")
        if missing and self.kind == "code" and not extra.get("tests"):
            raise ValueError("kind code needs `tests` or an `answer`")
        return self

    @property
    def is_answerless(self) -> bool:
        """Whether nothing but the agreement of its samples can say what is right."""
        return self.kind in ("math", "choice") and (self.answer is None or self.answer == "")

    @property
    def content_hash(self) -> str:
        """sha256 (64 hex) of the messages after NFC and white-space folding: equal for copies of one problem."""
        return _content_hash(self.messages)

    @property
    def question(self) -> str:
        """The text of the last user message; empty where there is none."""
        return next((text_of(m.get("content")) for m in reversed(self.messages) if m["role"] == "user"), "")

    def row(self) -> dict[str, Any]:
        """The problem row, in the ``messages`` form, unknown keys last."""
        row: dict[str, Any] = {
            "id": self.id,
            "messages": [dict(message) for message in self.messages],
            "answer": self.answer,
            "kind": self.kind,
            "source": self.source,
            "license": self.license,
        }
        return {**row, **(self.model_extra or {})}


@dataclass(frozen=True)
class BadRow:
    """A row that is no problem. ``where`` is "file:line" or "data set[index]"; ``raw`` is cut at 2,000 characters."""

    where: str
    reason: str
    raw: str


@dataclass(frozen=True)
class PromptSet:
    """What a source gave. ``duplicates`` counts rows whose content an earlier row had."""

    prompts: tuple[Prompt, ...]
    bad: tuple[BadRow, ...]
    duplicates: int


@dataclass(frozen=True)
class TraceSet:
    """Traces brought along. ``samples`` are sample rows in file order; ``duplicates`` counts repeated traces."""

    prompts: tuple[Prompt, ...]
    samples: tuple[dict[str, Any], ...]
    bad: tuple[BadRow, ...]
    duplicates: int


# --- the two doors -----------------------------------------------------------------------------------------------


def load_prompts(config: PromptsConfig, *, answerless: bool = False) -> PromptSet:
    """Read the problems of one source, in its order; the first of several copies is taken.

    ``answerless``: problems of kind math and choice may lack an answer, which is for votes (``verify.majority``).
    Raises InputError: the source is not there, no good row in it, or (``on_bad_row: stop``) a bad row, named by file
    and line. Raises MissingDependency where `datasets` or `reasoning-gym` is needed and not installed.
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
    kept = _Kept()
    bad: list[BadRow] = []
    duplicates = 0
    for raw in rows:
        prompt = _prompt_of(raw, {**defaults, "license": config.license}, bad, answerless)
        if prompt is None:
            continue
        outcome = kept.add(prompt)
        if outcome == "copy":
            duplicates += 1
        elif outcome is not None:
            bad.append(BadRow(raw.where, outcome, _shown(raw)))
        if config.limit is not None and len(kept.prompts) >= config.limit:
            break
    _stop_on(bad, config.on_bad_row, "prompts")
    if not kept.prompts:
        _nothing_in(name, bad, "prompts")
    return PromptSet(tuple(kept.prompts), tuple(bad), duplicates)


def load_traces(config: ImportedTraces, teacher: TeacherConfig | None = None, *, answerless: bool = False) -> TraceSet:
    """Read traces brought along: a problem row plus ``response``, or messages that end with the assistant.

    A final assistant message that holds its thinking apart (``reasoning_content`` or ``reasoning``) gets it back as
    a think block. ``model`` comes from the row, else from the teacher's public id; token counts are null where the
    row has none. Several traces of one problem (by content) become samples 0, 1, ... of it; a trace that repeats
    another letter for letter is counted and left out. Unknown keys of a problem are those of its first trace.

    Everything is held in memory: about the size of the file. Raises InputError as ``load_prompts`` does.
    """
    kept = _Kept()
    samples: list[dict[str, Any]] = []
    bad: list[BadRow] = []
    asked: dict[str, int] = {}
    seen: set[str] = set()
    duplicates = 0
    model = teacher.public_id if teacher else None
    for raw in jsonl_rows(config.path, "sample.path"):
        try:
            trace = _split_trace(raw.row, model) if raw.row is not None else {}
        except ValueError as error:
            bad.append(BadRow(raw.where, str(error), _shown(raw)))
            continue
        problem = RawRow(raw.where, trace.pop("problem", None), raw.reason, raw.raw)
        defaults = {"source": Path(config.path).name, "license": config.license}
        prompt = _prompt_of(problem, defaults, bad, answerless)
        if prompt is None:
            continue
        outcome = kept.add(prompt)
        if outcome is not None and outcome != "copy":
            bad.append(BadRow(raw.where, outcome, _shown(raw)))
            continue
        content = prompt.content_hash
        identity = canonical_json([content, trace["response"], trace["model"]])
        request_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
        if request_id in seen:
            duplicates += 1
            continue
        seen.add(request_id)
        index = asked.get(content, 0)
        asked[content] = index + 1
        samples.append(
            {
                "request_id": request_id,
                "prompt_id": kept.id_of(prompt),
                "sample_index": index,
                "text": trace["response"],
                "finish_reason": trace["finish_reason"],
                "error": None,
                "prompt_tokens": trace["prompt_tokens"],
                "completion_tokens": trace["completion_tokens"],
                "model": trace["model"],
                "engine": "recorded",
            }
        )
    _stop_on(bad, config.on_bad_row, "sample")
    if not samples:
        _nothing_in(config.path, bad, "sample")
    return TraceSet(tuple(kept.prompts), tuple(samples), tuple(bad), duplicates)


# --- from rows to problems ---------------------------------------------------------------------------------------


@dataclass
class _Kept:
    """The problems taken so far, unique by content and by id."""

    prompts: list[Prompt] = field(default_factory=list)
    _by_content: dict[str, str] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)

    def add(self, prompt: Prompt) -> str | None:
        """None where it was taken, "copy" where its content is there already, else why it cannot be."""
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
        # What cannot be written again (a lone surrogate, bytes) has to be found before a teacher is asked.
        canonical_json(prompt.row()).encode()
    except ValidationError as error:
        bad.append(BadRow(raw.where, _why(error), _shown(raw)))
        return None
    except (ValueError, TypeError, RecursionError) as error:
        bad.append(BadRow(raw.where, f"it cannot be written as JSON in UTF-8: {error}", _shown(raw)))
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
    problem = {key: value for key, value in row.items() if key not in _TRACE_KEYS}
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
    if not isinstance(response, str) or not response.strip():
        raise ValueError("a trace needs a `response` with text, or messages that end with the assistant")
    named = row.get("model") or model
    if not isinstance(named, str):
        raise ValueError("nobody says which model wrote this: give the row a `model`, or the recipe a teacher")
    finish_reason = row.get("finish_reason") or "stop"
    if finish_reason not in _FINISH_REASONS:
        raise ValueError(f"finish_reason {finish_reason!r} is not stop, length or error")
    counts = {key: row.get(key) for key in ("prompt_tokens", "completion_tokens")}
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"`{key}` is not a count: {value!r}")
    return {"problem": problem, "response": response, "model": named, "finish_reason": finish_reason, **counts}


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message}" if place else message


def _shown(raw: RawRow) -> str:
    return (raw.raw or repr(raw.row))[:RAW_SHOWN]


def _stop_on(bad: list[BadRow], policy: OnBadRow, section: str) -> None:
    if policy == "skip" or not bad:
        return
    more = f" ({len(bad) - 1} more bad rows after it)" if len(bad) > 1 else ""
    raise InputError(
        f"{bad[0].reason}{more}",
        where=bad[0].where,
        hint=f"mend the row, or leave bad rows out with --set {section}.on_bad_row=skip",
    )


def _nothing_in(name: str, bad: list[BadRow], section: str) -> NoReturn:
    what = f"none of {len(bad)} rows is usable, the first because: {bad[0].reason}" if bad else "there is no row in it"
    raise InputError(what, where=bad[0].where if bad else name, hint=f"look at `{section}` in the recipe")
