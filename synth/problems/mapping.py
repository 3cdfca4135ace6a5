r"""The row of a data set as a problem row: which value stands where, and which rows are taken.

`columns` names for each key of the problem row where its value comes from::

    columns:
      prompt: problem                                      # a path
      answer: reward_model.ground_truth                    # into nested values, and into JSON inside text
      answer: {path: answer, pattern: '####\s*(.+)'}       # a part of a text
      prompt: {template: "{question}\n\n{choices}"}        # several values; {choices}: the options, lettered
      tests: {all: [public_tests, private_tests]}          # lists, joined
      kind: {path: type, values: {mcq: choice, qa: math}}  # translated
      license: {value: cc-by-4.0}                          # the same for all rows

A path is keys and list indices joined by dots; ``conversations.-1.value`` is the last turn's text. Nothing here runs
code of a data set: no expressions, no pickle.

Not covered: joins of several data sets; values that need arithmetic.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import string
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from synth.problems.pickled_text import pickled_text
from synth.section import Section


def _regex(pattern: str) -> str:
    _compiled(pattern)
    return pattern


Scalar = bool | int | float | str
Regex = Annotated[str, AfterValidator(_regex)]
_CHAT_KEYS = ("role", "content", "reasoning_content", "reasoning", "thinking", "tool_calls", "tool_call_id", "name")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_LONGEST_LITERAL = 1 << 20  # characters of Python's own notation; its parser needs some hundred bytes for each
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_OPTION = re.compile(r"(?:^|(?<=\s))[(\[]?([A-Z])[).\]:](?=\s)")


class Column(Section):
    """One value of the row. Steps in this order: parse, pattern, replace, values."""

    path: str | tuple[str, ...] = Field(
        description="Path of a value in the row, such as `meta.answer`; of several paths the first with a value counts."
    )
    parse: Literal["json", "options", "pickled_text"] | None = Field(
        None,
        description="json: a text that holds JSON or a Python literal. options: the lettered options in a question. "
        "pickled_text: JSON as base64 of zlib of one pickled string (LiveCodeBench), read without unpickling.",
    )
    pattern: Regex | None = Field(None, description="Regular expression; its first group is the value.")
    replace: dict[Regex, str] = Field(default_factory=dict, description="Regular expression -> text in its place.")
    values: dict[str, Any] | None = Field(
        None,
        description="Value of the row -> value that is taken; `*`: any other value. A value that is not in it makes a"
        " bad row.",
    )
    question_only: bool = Field(False, description="Leave out the assistant's turns at the end of a chat.")

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        if pattern is not None and not _compiled(pattern).groups:
            raise ValueError(f"the pattern has no group: put what is wanted into brackets: {pattern}")
        return pattern


class Template(Section):
    """A text with values of the row: ``{path}``. Paths without a value leave nothing."""

    template: str = Field(description="The text, with ``{path}`` for values.")


class Constant(Section):
    """The same value for every row."""

    value: Any = Field(description="The value.")


def _form(value: Any) -> str:
    """Which form of a value it is, so that an error is about that form alone."""
    if isinstance(value, Section):
        return type(value).__name__
    keys = value if isinstance(value, Mapping) else ()
    forms = {"template": "Template", "value": "Constant", "all": "JoinedLists"}
    return "str" if isinstance(value, str) else next((forms[key] for key in forms if key in keys), "Column")


_Path = Annotated[str, Tag("str")]
_Column = Annotated[Column, Tag("Column")]
_Template = Annotated[Template, Tag("Template")]
_Constant = Annotated[Constant, Tag("Constant")]


class JoinedLists(Section):
    """Values as one list: lists are joined; a mapping of lists of one length counts as a list of rows."""

    all: tuple[Annotated[_Path | _Column | _Template | _Constant, Discriminator(_form)], ...]
    shuffle: int | None = Field(None, description="Seed of an order that depends on the values alone.")


_Joined = Annotated[JoinedLists, Tag("JoinedLists")]
Value = Annotated[_Path | _Column | _Template | _Constant | _Joined, Discriminator(_form)]


class Condition(Section):
    """What a value has to be for a row to be taken."""

    any_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] = ()
    min: float | None = None
    max: float | None = None
    pattern: Regex | None = Field(None, description="Regular expression that occurs in the text.")
    present: bool | None = Field(None, description="true: there is a value; false: there is none.")

    @model_validator(mode="before")
    @classmethod
    def _from_values(cls, data: Any) -> Any:
        """A value or a list of values is `any_of`."""
        if isinstance(data, list | tuple):
            return {"any_of": data}
        return {"any_of": [data]} if isinstance(data, bool | int | float | str) else data

    def holds(self, value: Any) -> bool:
        """Whether the value is as it has to be. A value that is no number lies within no limits."""
        if self.present is not None and self.present == (value in (None, "", [], {})):
            return False
        if self.any_of is not None and not _among(value, self.any_of):
            return False
        if _among(value, self.none_of) or (self.pattern is not None and not _compiled(self.pattern).search(str(value))):
            return False
        if self.min is None and self.max is None:
            return True
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return False
        return (self.min is None or number >= self.min) and (self.max is None or number <= self.max)


class RowMapping(Section):
    """Fields of a section that reads rows of a data set."""

    columns: dict[str, Value] = Field(
        default_factory=dict,
        description="Problem-row key -> path in the data set's row, or {path, parse, pattern, replace, values}, "
        "{template}, {all}, {value}.",
    )
    where: dict[str, Condition | None] = Field(
        default_factory=dict,
        description="Path -> value, list of values, or {any_of, none_of, min, max, pattern, present} of the rows to "
        "take; the others are counted. null: no condition.",
    )
    keep: tuple[str, ...] | None = Field(
        None, description="The data set's other columns that problems keep; absent: all. Others are not even read."
    )

    def maps(self) -> bool:
        """Whether rows are not taken as they are."""
        return bool(self.columns or self.where or self.keep is not None)

    def failed_condition(self, row: Mapping[str, Any]) -> str | None:
        """The path of the first condition that does not hold; None for a row that is taken."""
        for path, condition in self.where.items():
            if condition is not None and not condition.holds(_at(row, path)):
                return path
        return None

    def mapped(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The problem row. Raises ValueError with the reason where a value is not as declared."""
        out: dict[str, Any] = {}
        for key in sorted(self.columns, key=lambda key: key != "choices"):  # templates show the choices
            value = value_of(self.columns[key], row, out.get("choices"))
            if value is not None:
                out[key] = _turns(value) if key == "messages" else value
        if self.keep is not None:
            rest = {name: row[name] for name in self.keep if name in row}
        else:
            used = {spec for spec in self.columns.values() if isinstance(spec, str)}
            if "prompt" in self.columns or "messages" in self.columns:
                used |= {"prompt", "messages"}
            rest = {name: value for name, value in row.items() if name not in used}
        return {**{name: value for name, value in rest.items() if name not in self.columns}, **out}

    def required_columns(self) -> tuple[str, ...] | None:
        """The columns of the data set that have to be read; None for all."""
        if self.keep is None:
            return None
        roots = [root for spec in self.columns.values() for root in named_columns(spec)]
        roots += [_root(path) for path, condition in self.where.items() if condition is not None]
        return tuple(dict.fromkeys([*roots, *self.keep]))


# --- values ----------------------------------------------------------------------------------------------------------


def value_of(spec: Value, row: Mapping[str, Any], choices: Any = None) -> Any:
    """The value that ``spec`` names in a row; None where there is none. ``choices``: for ``{choices}`` of a template.

    Raises ValueError with the reason where a value is not as declared.
    """
    match spec:
        case str():
            return _at(row, spec)
        case Constant():
            return spec.value
        case Template():
            return _filled(spec.template, row, choices)
        case JoinedLists():
            return _joined(spec, row, choices)
        case Column():
            return _column(spec, row)


def named_columns(spec: Value) -> Iterator[str]:
    """The columns of the data set that ``spec`` reads."""
    match spec:
        case str():
            yield _root(spec)
        case Template():
            yield from (_root(path) for path in _PLACEHOLDER.findall(spec.template) if path != "choices")
        case JoinedLists():
            for one in spec.all:
                yield from named_columns(one)
        case Column():
            yield from (_root(path) for path in ((spec.path,) if isinstance(spec.path, str) else spec.path))


def _lettered(choices: Any) -> str:
    """Options as lines "A. ...", for a question that lacks them."""
    named = choices if isinstance(choices, Mapping) else dict(zip(string.ascii_uppercase, choices, strict=False))
    return "\n".join(f"{letter}. {text}" for letter, text in named.items())


def _column(spec: Column, row: Mapping[str, Any]) -> Any:
    paths = (spec.path,) if isinstance(spec.path, str) else spec.path
    path, value = next(
        ((path, one) for path in paths if (one := _at(row, path)) not in (None, "", [])), (paths[0], None)
    )
    if value is None:
        return None
    if spec.parse is not None:
        value = _parsed(spec.parse, value, path)
    if spec.pattern is not None:
        match = _compiled(spec.pattern).search(_text(value, path))
        if match is None:
            raise ValueError(f"`{path}` does not match {spec.pattern}")
        value = match[1]
    for pattern, text in spec.replace.items():
        value = _compiled(pattern).sub(text.replace("\\", r"\\"), _text(value, path))
    if spec.values is not None:
        key = str(value) if str(value) in spec.values else "*"
        if key not in spec.values:
            raise ValueError(f"`{path}` is {str(value)[:60]!r}, which the recipe does not translate")
        value = spec.values[key]
    if spec.question_only and isinstance(value, list | tuple):
        value = [*_turns(value)]
        while value and isinstance(value[-1], Mapping) and value[-1].get("role") == "assistant":
            value.pop()
    return value


def _parsed(how: str, value: Any, path: str) -> Any:
    if how == "options":
        return _options(_text(value, path), path)
    if not isinstance(value, str):  # some files of a data set hold the value, others its text
        return value
    if how == "json":
        return _loaded(value, path)
    try:
        return json.loads(value)  # small ones are not packed
    except ValueError:
        return _loaded(pickled_text(value), path)


def _joined(spec: JoinedLists, row: Mapping[str, Any], choices: Any) -> list[Any] | None:
    values: list[Any] = []
    for one in spec.all:
        value = value_of(one, row, choices)
        if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
            lengths = {len(column) for column in value.values()}
            if len(lengths) > 1:
                raise ValueError(f"the lists of {one if isinstance(one, str) else 'a value'} differ in length")
            values += [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
        elif isinstance(value, list | tuple):
            values += value
        elif value is not None:
            values.append(value)
    if spec.shuffle is not None:
        salt = f"{spec.shuffle}\0{sorted(map(str, values))}"
        values.sort(key=lambda value: hashlib.sha256(f"{salt}\0{value}".encode("utf-8", "surrogatepass")).digest())
    return values or None


def _filled(template: str, row: Mapping[str, Any], choices: Any) -> str | None:
    def fill(match: re.Match[str]) -> str:
        if match[1] == "choices" and choices is not None:
            return _lettered(choices)
        value = _at(row, match[1])
        return "\n".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)

    return _PLACEHOLDER.sub(fill, template).strip() or None


def _options(text: str, path: str) -> dict[str, str]:
    """The options of a question by letter: the last run "A ... B ... C" in it."""
    starts: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if match[1] == "A":
            starts = []
        if match[1] == string.ascii_uppercase[len(starts) : len(starts) + 1]:
            starts.append(match)
    if len(starts) < 2:
        raise ValueError(f"`{path}` has no lettered options in it")
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return {match[1]: text[match.end() : end].strip() for match, end in zip(starts, ends, strict=True)}


def _turns(value: Any) -> Any:
    """Chat turns in the form role and content; ``from`` and ``value`` (ShareGPT) are renamed."""
    if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        return value
    turns = []
    for turn in value:
        if "from" in turn and "value" in turn:
            turn = {"role": _ROLES.get(str(turn["from"]), turn["from"]), "content": turn["value"]}
        turns.append({key: turn[key] for key in _CHAT_KEYS if turn.get(key) is not None})
    return turns


# --- paths -----------------------------------------------------------------------------------------------------------


def _at(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where a step leads nowhere. A text on the way is read as JSON."""
    if path in row:
        return row[path]
    here: Any = row
    for step in _steps(path):
        if isinstance(here, str):
            here = _loaded(here, path)
        if isinstance(here, Mapping):
            here = here.get(step)
        elif isinstance(here, list | tuple) and step.lstrip("-").isdecimal():
            index = int(step)
            here = here[index] if -len(here) <= index < len(here) else None
        else:
            return None
    return here


def _loaded(text: str, path: str) -> Any:
    """The value of a text that holds JSON, or what Python prints of a dict or list."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] not in ("{", "[") or len(text) > _LONGEST_LITERAL:
            raise ValueError(f"`{path}` is not JSON: {error}") from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"`{path}` is neither JSON nor a Python literal") from None


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _root(path: str) -> str:
    return path.partition(".")[0]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ValueError(f"no regular expression: {pattern}: {error}") from None


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{path}` is no text but {type(value).__name__}")
    return value


def _among(value: Any, values: tuple[Scalar, ...]) -> bool:
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)
