"""Problems from jsonl files, from data sets that `datasets` opens, and from reasoning-gym tasks.

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
from synth.section import OnBadRow, ProblemKind

__all__ = [
    "BadRow",
    "Prompt",
    "PromptSet",
    "UniqueProblems",
    "canonical_json",
    "conversation_text",
    "load_prompts",
    "no_usable_row",
    "problem_of_row",
    "raw_excerpt",
    "stop_on_bad_row",
    "text_of",
]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_VERIFIED_KEYS = ("tests", "entry_point", "code", "choices", "task", "entry")
"""Keys beside those of ``Prompt`` that a verifier reads; every other one is the user's, and goes into `extra`."""


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
    """One problem. Unknown keys of its row are kept and come out again in ``row()``, below `extra`.

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
        if isinstance(row.get("extra"), Mapping):  # as ``row`` writes it
            row = {**row.pop("extra"), **row}
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
        """The problem row, in the ``messages`` form. The user's own columns stand below `extra`, so that none of them
        is ever taken for something that was measured."""
        row: dict[str, Any] = {
            "id": self.id,
            "messages": [dict(message) for message in self.messages],
            "answer": self.answer,
            "kind": self.kind,
            "source": self.source,
            "license": self.license,
        }
        columns = self.model_extra or {}
        row |= {key: columns[key] for key in _VERIFIED_KEYS if key in columns}
        extra = {key: value for key, value in columns.items() if key not in _VERIFIED_KEYS}
        return row | ({"extra": extra} if extra else {})


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
    problems = UniqueProblems()
    bad: list[BadRow] = []
    duplicates = 0
    for raw in rows:
        prompt = problem_of_row(raw, {**defaults, "license": config.license}, bad, answerless)
        if prompt is None:
            continue
        outcome = problems.add(prompt)
        if outcome == "copy":
            duplicates += 1
        elif outcome is not None:
            bad.append(BadRow(raw.where, outcome, raw_excerpt(raw)))
        if config.limit is not None and len(problems.prompts) >= config.limit:
            break
    stop_on_bad_row(bad, config.on_bad_row, "prompts")
    if not problems.prompts:
        no_usable_row(name, bad, "prompts")
    return PromptSet(tuple(problems.prompts), tuple(bad), duplicates)


# --- from rows to problems ---------------------------------------------------------------------------------------


@dataclass
class UniqueProblems:
    """The problems of a source so far, unique by content and by id."""

    prompts: list[Prompt] = field(default_factory=list)
    _by_content: dict[str, str] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)

    def add(self, prompt: Prompt) -> str | None:
        """None where the problem is new, "copy" where its content is there already, else why it cannot be added."""
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
        """The id under which a problem, or the first copy of it, was added."""
        return self._by_content[prompt.content_hash]


def problem_of_row(
    raw: RawRow, defaults: Mapping[str, Any], bad: list[BadRow], answerless: bool = False
) -> Prompt | None:
    """The problem of a row, or None with the reason appended to ``bad``."""
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
        bad.append(BadRow(raw.where, _why(error), raw_excerpt(raw)))
        return None
    except (ValueError, TypeError, RecursionError) as error:
        bad.append(BadRow(raw.where, f"it cannot be written as JSON in UTF-8: {error}", raw_excerpt(raw)))
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


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message}" if place else message


def raw_excerpt(raw: RawRow) -> str:
    """The row as a ``BadRow`` quotes it."""
    return (raw.raw or repr(raw.row))[:RAW_SHOWN]


def stop_on_bad_row(bad: list[BadRow], policy: OnBadRow, section: str) -> None:
    """Raise InputError for the first bad row where ``on_bad_row`` says stop."""
    if policy == "skip" or not bad:
        return
    more = f" ({len(bad) - 1} more bad rows after it)" if len(bad) > 1 else ""
    raise InputError(
        f"{bad[0].reason}{more}",
        where=bad[0].where,
        hint=f"mend the row, or leave bad rows out with --set {section}.on_bad_row=skip",
    )


def no_usable_row(name: str, bad: list[BadRow], section: str) -> NoReturn:
    """Raise InputError for a source without a usable row."""
    what = f"none of {len(bad)} rows is usable, the first because: {bad[0].reason}" if bad else "there is no row in it"
    raise InputError(what, where=bad[0].where if bad else name, hint=f"look at `{section}` in the recipe")
