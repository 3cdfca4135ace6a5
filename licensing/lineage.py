"""The lineage file: a release, its inputs, and the role of each input.

    release: acme/Llama-Tiny-Reasoner
    kind: model
    declared: {license: llama3.2, text: null}
    inputs:
      - {id: meta-llama/Llama-3.2-1B, role: base, licence: llama3.2, revision: 4e20de3}
      - {id: deepseek-ai/DeepSeek-R1, role: generator, licence: deepseek-r1-mit, ran_by: third-party}
    releaser: {domicile: Germany}

YAML or JSON. Both spellings, `licence` and `license`, are read. Other unknown keys are refused with the nearest known
name; ``note`` is allowed everywhere and ignored. Not covered: two inputs with the same id are two inputs, and nothing
here looks a license up by model id.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from licensing.card import tag_that_counts
from licensing.countries import country_code, similar_countries
from licensing.errors import InputError
from licensing.safe_yaml import Lines, printable, read_yaml

MAX_PROSE = 100_000  # characters
Role = Literal["base", "generator", "logits", "reformatter", "judge", "data", "seed"]


Change = Literal["finetune", "adapter", "merge", "quantized", "pruned", "abliterated"]
"""What was done to the weights of a base: a hub's words (`base_model_relation`), and two that it does not have."""

_CHANGE_NAMES: dict[Change, str] = {
    "quantized": r"gguf|awq|gptq|exl[23]|bnb|[nm]x?fp4|nvfp4|fp8|int[48]|[48]bit|w\da\d+|i?q\d(?=[_-]|$)|mlx|quantized",
    "merge": r"merged?|slerp|dare|ties|frankenmerge",
    "pruned": r"pruned|reap\d*",
    "abliterated": r"abliterat\w*|uncensored|decensored|derestricted|heretic",
}


def changes_by_name(release: str) -> tuple[Change, ...]:
    """What the words of a release's name tell of its weights: "Acme-8B-abliterated-GGUF"."""
    name = re.sub(r"(?<=[48])[-_]?bits?\b", "bit", release.rsplit("/", 1)[-1].casefold())
    return tuple(
        change for change, words in _CHANGE_NAMES.items() if re.search(rf"(?:^|[-_. ])(?:{words})(?=[-_. ]|$)", name)
    )


def _check_name(text: str) -> str:
    """Names end up in terminals and NOTICE files: 1 to 500 printable characters on one line."""
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > 500:
        raise ValueError(f"is {len(text)} characters long; 500 are allowed")
    if not text.isprintable():
        raise ValueError("holds control or other unprintable characters")
    return text


def _check_line(text: str) -> str:
    """A name that may be blank. Surrounding white space goes: a YAML block ends with a line break."""
    return _check_name(text.strip()) if text.strip() else ""


def _check_prose(text: str) -> str:
    if len(text) > MAX_PROSE:
        raise ValueError(f"is {len(text):,} characters long; {MAX_PROSE:,} are allowed: keep the passages on licensing")
    return text


def _date(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else str(value) if isinstance(value, int) else value


def _country(text: str | None) -> str | None:
    if not text:
        return None
    code = country_code(text)
    if code is None:
        similar = similar_countries(text)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        hint += "write the two letters of ISO 3166-1, such as DE, or the country's English name"
        raise PydanticCustomError("country", '"{text}" is not a country', {"text": printable(text), "hint": hint})
    return code


Name = Annotated[str, AfterValidator(_check_name)]
Line = Annotated[str, AfterValidator(_check_line)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    other_spellings: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, raw: Any) -> Any:
        """Drop ``note``, translate the other spelling of a key, and refuse keys that are not fields."""
        if not isinstance(raw, dict):
            return raw
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key == "note":
                continue
            name = cls.other_spellings.get(key, key)
            if name in values:
                message = "`{key}` is the other spelling of a key that is there already; keep one"
                raise PydanticCustomError("unknown_key", message, {"key": printable(key)})
            if name not in cls.model_fields:
                near = difflib.get_close_matches(printable(key), [*cls.model_fields, "note"], n=1, cutoff=0.5)
                hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(cls.model_fields)}"
                error = {"key": printable(key), "nearest": hint}
                raise PydanticCustomError("unknown_key", "unknown key `{key}`{nearest}", error)
            values[name] = value
        return values


class Declaration(_Section):
    """The license metadata of the release's card, and the card's prose on licensing."""

    other_spellings = {"licence": "license", "licence_name": "license_name"}

    license: Line | None = None
    license_name: Line | None = None
    text: Annotated[str, AfterValidator(_check_prose)] | None = None

    @property
    def tag(self) -> str | None:
        return tag_that_counts(self.license, self.license_name)


class Input(_Section):
    """One input of the release.

    ``licence`` is the license at the time of acquisition: an id, an SPDX expression, or a list where it is not certain
    which of several applies.
    """

    other_spellings = {"license": "licence"}

    id: Name
    role: Role
    licence: Line | tuple[Line, ...] | None = None
    revision: Line | None = None
    ran_by: Literal["releaser", "third-party"] | None = Field(
        default=None, description="Who accepted the terms, if known."
    )
    changes: tuple[Change, ...] | None = Field(default=None, description="What was done to the weights of a base.")
    endpoint: Line | None = None
    date: Annotated[Line | None, BeforeValidator(_date)] = None

    @property
    def licenses(self) -> tuple[str, ...]:
        """``licence`` as a tuple, without blank values."""
        values = (self.licence,) if isinstance(self.licence, str) else self.licence or ()
        return tuple(text for text in values if text.strip())


class Releaser(_Section):
    domicile: Annotated[Line | None, AfterValidator(_country)] = Field(
        default=None, description="Country of domicile: ISO 3166-1 code or English name. Stored as two letters."
    )


class Lineage(_Section):
    release: Name
    kind: Literal["model", "dataset"]
    declared: Declaration = Declaration()
    inputs: tuple[Input, ...] = ()
    from_scratch: bool = Field(default=False, description="Nothing that others made is in it: no weights, no rows.")
    files: tuple[Name, ...] | None = Field(default=None, description="Files in the release folder; None: unknown.")
    releaser: Releaser | None = None

    @model_validator(mode="after")
    def _check_cycle(self) -> Lineage:
        own = self.release.casefold()
        if any(item.role == "base" and item.id.casefold() == own for item in self.inputs):
            raise ValueError(f"{self.release} is given as its own base: a cycle")
        if self.from_scratch and any(item.role == "base" for item in self.inputs):
            raise ValueError("`from_scratch: true` contradicts an input with the role base")
        return self


def load_lineage(path: Path) -> Lineage:
    """Read and validate a lineage file.

    Raises InputError, naming file and line, for a file that is missing, larger than 16 MiB, not UTF-8, not YAML or
    JSON, that uses YAML aliases (a small file could expand without end), or that is not a lineage.
    """
    raw, lines = read_yaml(path, "a lineage file", "start with `release: owner/name`")
    return parse_lineage(raw, str(path), lines)


def parse_lineage(raw: Any, where: str, lines: Lines | None = None) -> Lineage:
    """Validate parsed data. ``lines`` maps each path into the data to its line, for error messages."""
    try:
        return Lineage.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        loc = tuple(first["loc"])
        context = first.get("ctx", {})
        spot = (*loc, context["key"]) if "key" in context else loc
        line = next((lines[spot[:n]] for n in range(len(spot), -1, -1) if lines and spot[:n] in lines), None)
        field = ".".join(str(part) for part in loc if part not in ("str", "tuple[str, ...]")) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        hint = "a lineage file has release, kind, declared, inputs, and optionally from_scratch, files and releaser"
        raise InputError(
            f"{field}: {first['msg'].removeprefix('Value error, ')}{more}",
            where=where if line is None else f"{where}:{line}",
            hint=context.get("hint", hint),
        ) from error
