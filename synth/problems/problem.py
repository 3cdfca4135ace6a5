"""The problem schema, and problems from rows (``loaders.py`` reads the rows).

Every row becomes a ``Prompt``, a duplicate that is counted, or a ``BadRow`` with its place and a reason. No row
vanishes.

Not covered: images and other bytes in a row (a ``BadRow`` says so), near duplicates.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from licensing.errors import InputError
from synth.problems.config import HubPrompts, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.problems.loaders import RawRow, problem_rows
from synth.section import OnBadRow, ProblemKind

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

PROBLEM_COLUMNS = (
    "id", "messages", "answer", "kind", "source", "license",
    "tests", "entry_point", "code", "preamble", "checker", "code_language", "choices", "task", "entry", "constraints",
    "instruction_id_list", "kwargs",
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


def question_of(row: Mapping[str, Any]) -> str:
    """The question of a problem row: the text of its last user message, else its `prompt`, else empty."""
    messages = row.get("messages")
    turns = [turn for turn in messages if isinstance(turn, Mapping)] if isinstance(messages, list | tuple) else []
    users = [turn for turn in turns if turn.get("role") == "user"]
    return text_of(users[-1].get("content")) if users else str(row.get("prompt") or "")


def conversation_text(messages: Iterable[Any]) -> str:
    """The text of every message of a problem: all that a student reads before it answers."""
    return "\n".join(text_of(turn.get("content")) for turn in messages if isinstance(turn, Mapping))


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
    a digest of the content where a row has none. An answer may be missing for ``open``, ``constraints``, ``code`` with
    ``tests`` and ``reasoning_gym`` (whose scorer reads ``entry``); for math and choice only with `allow_missing_gold`
    in the context.
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
        if self.kind == "constraints" and not (columns.get("constraints") or columns.get("instruction_id_list")):
            raise ValueError("kind constraints needs `constraints`, or `instruction_id_list` and `kwargs`")
        missing = self.answer is None or self.answer == ""
        if missing and self.lacks_gold and not (info.context or {}).get("allow_missing_gold"):
            raise ValueError(f"kind {self.kind} needs an `answer`")
        if missing and self.kind == "code" and not columns.get("tests"):
            raise ValueError("kind code needs `tests` or an `answer`")
        return self

    @property
    def lacks_gold(self) -> bool:
        """Whether it lacks a gold answer, so that only a vote of its samples can give one."""
        return self.kind in ("math", "choice") and (self.answer is None or self.answer == "")

    @cached_property
    def content_hash(self) -> str:
        """sha256 (64 hex) of the messages after NFC and white-space folding: equal for copies of one problem."""
        return _content_hash(self.messages)

    @property
    def question(self) -> str:
        """The text of the last user message; empty where there is none."""
        return question_of({"messages": self.messages})

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
        """As ``row``, with the user's own columns, if any, under the key ``extra``: what a run's traces hold of it.

        So no column of a data set that is called like a measured one (``pass_rate``, ``labels``, ``verdict``) can
        replace it.
        """
        columns = {name: value for name, value in self.row().items() if name in PROBLEM_COLUMNS}
        return columns | ({"extra": self.extra} if self.extra else {})


@dataclass(frozen=True)
class BadRow:
    """A row that is no problem. ``where`` is "file:line" or "data set[index]"."""

    where: str
    reason: str


@dataclass(frozen=True)
class PromptSet:
    """The problems of a source. ``duplicates`` counts rows with the content of an earlier row; with a random choice
    only problems that were chosen are compared. ``left_out`` counts rows by the condition that they do not meet."""

    prompts: tuple[Prompt, ...]
    bad: tuple[BadRow, ...]
    duplicates: int
    left_out: dict[str, int] = field(default_factory=dict)


# --- loading -----------------------------------------------------------------------------------------------------


def load_prompts(config: PromptsConfig, *, allow_missing_gold: bool = False, section: str = "prompts") -> PromptSet:
    """Read the problems of one source, in its order, without the later copies of a problem.

    ``allow_missing_gold``: problems of kind math and choice may lack an answer, for ``verify.majority``. ``section``:
    where the recipe has them, for hints. With ``seed`` and
    ``limit`` N problems chosen at random: those whose content has the smallest digests, so that the order of rows and
    the number of copies do not matter. Raises InputError: the source is missing, has no good row, or (``on_bad_row:
    stop``) has a bad row, named by file and line. Raises MissingDependency where `datasets` is needed and
    not installed.

    All problems are held in memory, of rows that are not chosen only the counts.
    """
    name, defaults = _defaults(config)
    bad: list[BadRow] = []
    left_out: Counter[str] = Counter()
    unique = UniqueProblems()
    duplicates = 0
    good = _good_rows(problem_rows(config), defaults, bad, left_out, allow_missing_gold)
    if not isinstance(config, ReasoningGymPrompts) and config.seed is not None and config.limit is not None:
        good = _random_choice(good, config.limit, config.seed)
    for where, prompt in good:
        outcome = unique.add(prompt)
        if outcome == "copy":
            duplicates += 1
        elif outcome is not None:
            bad.append(BadRow(where, outcome))
        if config.limit is not None and len(unique.prompts) >= config.limit:
            break
    raise_bad_row(bad, config.on_bad_row, section)
    if not unique.prompts:
        raise_empty(name, bad, section, left_out)
    return PromptSet(tuple(unique.prompts), tuple(bad), duplicates, dict(left_out))


def _defaults(config: PromptsConfig) -> tuple[str, dict[str, Any]]:
    """The source's name, and the values of rows that do not carry their own."""
    match config:
        case JsonlPrompts():
            defaults = {"source": config.data_source, "kind": config.row_kind, "license": config.license}
            return config.path, defaults
        case HubPrompts():
            defaults = {"source": config.data_source, "kind": config.row_kind or "math", "license": config.license}
            return config.dataset, defaults
        case ReasoningGymPrompts():
            return config.task, {"license": config.license}


def _good_rows(
    rows: Iterable[RawRow],
    defaults: Mapping[str, Any],
    bad: list[BadRow],
    left_out: Counter[str],
    allow_missing_gold: bool,
) -> Iterator[tuple[str, Prompt]]:
    """(place, problem) of the good rows; the others go into ``bad`` and ``left_out``."""
    for raw in rows:
        if raw.condition:
            left_out[raw.condition] += 1
        elif (prompt := problem_of_row(raw, defaults, bad, allow_missing_gold)) is not None:
            yield raw.where, prompt


def _random_choice(good: Iterable[tuple[str, Prompt]], limit: int, seed: int) -> Iterator[tuple[str, Prompt]]:
    """``limit`` of the problems, in their order: the least digests of seed and content."""
    heap: list[tuple[int, int]] = []  # (digest, negative: the largest comes first; position)
    chosen: dict[int, tuple[str, Prompt]] = {}
    for position, (where, prompt) in enumerate(good):
        digest = -int.from_bytes(hashlib.sha256(f"{seed}:{prompt.content_hash}".encode()).digest())
        if digest in chosen or (len(heap) == limit and digest < heap[0][0]):
            continue
        chosen[digest] = (where, prompt)
        if len(heap) < limit:
            heapq.heappush(heap, (digest, position))
        else:
            del chosen[heapq.heappushpop(heap, (digest, position))[0]]
    for digest, _ in sorted(heap, key=lambda entry: entry[1]):
        yield chosen[digest]


# --- from rows to problems ---------------------------------------------------------------------------------------


@dataclass
class UniqueProblems:
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
        """The id under which a problem, or the first copy of it, was added."""
        return self._by_content[prompt.content_hash]


def problem_of_row(
    raw: RawRow, defaults: Mapping[str, Any], bad: list[BadRow], allow_missing_gold: bool = False
) -> Prompt | None:
    """The problem of a row, or None with the reason appended to ``bad``."""
    if raw.row is None:
        bad.append(BadRow(raw.where, raw.reason))
        return None
    row = dict(raw.row)
    for key, value in defaults.items():
        if row.get(key) is None and value is not None:
            row[key] = value
    try:
        prompt = Prompt.model_validate(row, context={"allow_missing_gold": allow_missing_gold})
        # Values that cannot be written (a lone surrogate, bytes) are found here, before a teacher is used.
        canonical_json(prompt.row()).encode()
    except ValidationError as error:
        bad.append(BadRow(raw.where, _why(error)))
        return None
    except (ValueError, TypeError, RecursionError) as error:
        bad.append(BadRow(raw.where, f"it cannot be written as JSON in UTF-8: {error}"))
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


def reason_counts(bad: Iterable[BadRow]) -> dict[str, int]:
    """How many rows are bad for the same reason, the most frequent first: values of single rows are left out."""
    return dict(Counter(re.sub(r"'[^']*'|\d+", "…", row.reason) for row in bad).most_common())


def raise_bad_row(bad: list[BadRow], policy: OnBadRow, section: str) -> None:
    """Raise InputError for the first bad row where ``on_bad_row`` says stop."""
    if policy == "skip" or not bad:
        return
    more = f" ({len(bad) - 1} more bad rows after it)" if len(bad) > 1 else ""
    raise InputError(
        f"{bad[0].reason}{more}",
        where=bad[0].where,
        hint=f"correct the row, or leave bad rows out with --set {section}.on_bad_row=skip",
    )


def raise_empty(name: str, bad: list[BadRow], section: str, left_out: Mapping[str, int] | None = None) -> NoReturn:
    """Raise InputError for a source without a usable row."""
    what = f"none of {len(bad)} rows is usable, the first because: {bad[0].reason}" if bad else "there is no row in it"
    if left_out and not bad:
        counts = ", ".join(f"{path}: {count:,}" for path, count in left_out.items())
        what = f"no row meets the conditions (rows left out by {counts})"
    raise InputError(what, where=bad[0].where if bad else name, hint=f"look at `{section}` in the recipe")
