"""The lineage file: a release, what went into it, and the part each input played.

    release: acme/Llama-Tiny-Reasoner
    kind: model
    declared: {license: llama3.2, text: null}
    inputs:
      - {id: meta-llama/Llama-3.2-1B, role: base, licence: llama3.2, revision: 4e20de3}
      - {id: deepseek-ai/DeepSeek-R1, role: generator, licence: deepseek-r1-mit, ran_by: third-party}

YAML or JSON. Unknown keys are refused with the nearest known name; ``note`` is allowed everywhere and ignored.
Not covered: the same id given twice is two edges, and nothing here looks a licence up by model id.
"""

from __future__ import annotations

import datetime as dt
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from licensing.errors import InputError
from licensing.safe_yaml import Lines, read_plain, shown

MAX_PROSE = 100_000  # characters
Role = Literal["base", "generator", "logits", "reformatter", "judge", "data", "seed"]


def _plain(text: str) -> str:
    """Names end up in terminals and in NOTICE files: no control characters, no line breaks, no novel."""
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > 500:
        raise ValueError(f"is {len(text)} characters long; 500 are allowed")
    if not text.isprintable():
        raise ValueError("holds control or other unprintable characters")
    return text


def _line(text: str) -> str:
    """What a message may quote: the same, and a block of YAML may end in a line break. Empty is not given."""
    return _plain(text.strip()) if text.strip() else ""


def _prose(text: str) -> str:
    if len(text) > MAX_PROSE:
        raise ValueError(
            f"is {len(text):,} characters long; {MAX_PROSE:,} are allowed, enough for what bears on the licence"
        )
    return text


def _date(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else str(value) if isinstance(value, int) else value


Name = Annotated[str, AfterValidator(_plain)]
Line = Annotated[str, AfterValidator(_line)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for key in given:
            if key != "note" and key not in cls.model_fields:
                near = difflib.get_close_matches(shown(key), [*cls.model_fields, "note"], n=1, cutoff=0.5)
                hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "unknown key `{key}`{hint}", {"key": shown(key), "hint": hint})
        return {key: value for key, value in given.items() if key != "note"}


class Declared(_Part):
    """What the release says of itself: the tag of its card, and the prose that bears on the licence."""

    license: Line | None = None
    license_name: Line | None = None
    text: Annotated[str, AfterValidator(_prose)] | None = None


class Input(_Part):
    """One edge. ``licence`` as known at acquisition; a list means that any of them may govern."""

    id: Name
    role: Role
    licence: Line | tuple[Line, ...] | None = None
    revision: Line | None = None
    ran_by: Literal["releaser", "third-party"] | None = Field(
        default=None, description="Who accepted the terms, if known."
    )
    endpoint: Line | None = None
    date: Annotated[Line | None, BeforeValidator(_date)] = None

    @property
    def licences(self) -> tuple[str, ...]:
        given = (self.licence,) if isinstance(self.licence, str) else self.licence or ()
        return tuple(text for text in given if text.strip())


class Releaser(_Part):
    domicile: Line | None = Field(default=None, description="Country of domicile, two letters.")


class Lineage(_Part):
    release: Name
    kind: Literal["model", "dataset"]
    declared: Declared = Declared()
    inputs: tuple[Input, ...] = ()
    files: tuple[Name, ...] | None = Field(default=None, description="What the release folder holds; None: not known.")
    releaser: Releaser | None = None

    @model_validator(mode="after")
    def _no_cycle(self) -> Lineage:
        own = self.release.casefold()
        if any(item.role == "base" and item.id.casefold() == own for item in self.inputs):
            raise ValueError(f"{self.release} is given as its own base: a cycle")
        return self


def load_lineage(path: Path) -> Lineage:
    """Read and check a lineage file.

    Raises InputError, naming file and line, for a file that is missing, too large (16 MiB), not UTF-8, not YAML or
    JSON, that uses YAML aliases (a small file could then stand for an endless one), or that is not a lineage.
    """
    raw, lines = read_plain(path, "a lineage file", "start with `release: owner/name`")
    return parse_lineage(raw, str(path), lines)


def parse_lineage(raw: Any, where: str, lines: Lines | None = None) -> Lineage:
    """Check plain data. ``lines`` gives the line of each path, for the error message."""
    try:
        return Lineage.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        loc = tuple(first["loc"])
        key = first.get("ctx", {}).get("key")
        spot = loc if key is None else (*loc, key)
        at = next((lines[spot[:n]] for n in range(len(spot), -1, -1) if lines and spot[:n] in lines), None)
        names = ".".join(str(part) for part in loc if part not in ("str", "tuple[str, ...]")) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(
            f"{names}: {first['msg'].removeprefix('Value error, ')}{more}",
            where=where if at is None else f"{where}:{at}",
            hint="a lineage file has release, kind, declared, inputs, and optionally files and releaser",
        ) from error
