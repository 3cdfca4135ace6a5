"""A stage: its fields are its key, its facts are typed, and it can run in a process of its own.

    @dataclass(frozen=True)
    class Train(Stage[TrainFacts]):
        student: StudentConfig
        prepared: Artefact[PrepareFacts]
        data: Artefact[CurateFacts]
        def run(self, ctx: StageContext) -> TrainFacts: ...

A field is a section of the recipe (without its operational fields, ``synth.section.key_dump``), an artefact (its
digest counts), or a plain JSON value, such as the digest of a file. A field in ``not_keyed`` decides nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter

from distill.runs.artefact import Artefact, read_artefact
from distill.runs.facts import Facts
from synth.section import key_dump

F = TypeVar("F", bound=Facts, covariant=True)


class Reporter(Protocol):
    """Takes the progress of a stage: units done, units in all where known, and a note such as tokens a second."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


class Watcher:
    """Sees stages begin and end; this one shows nothing of it."""

    def stage_begins(self, stage: str) -> Reporter:
        return lambda done, total=None, note="": None

    def stage_ends(self, stage: str, artefact: Artefact[Any], *, reused: bool) -> None:
        """After the stage, or where it was done before."""

    def note(self, stage: str, text: str) -> None:
        """What else there is to say of a finished stage."""


def in_megabytes(report: Reporter) -> Callable[[int, int], None]:
    """A callback for bytes (done, total) that reports whole megabytes of 10^6 bytes."""
    return lambda done, total: report(done // 10**6, total // 10**6, "MB")


@dataclass
class RequestTimes:
    """When a stage sent its first and its last request to a model (seconds since the epoch), and the seconds that each
    of several models took; for the manifest."""

    first: float | None = None
    last: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """Where a stage works.

    ``out`` becomes the artefact. ``scratch`` outlives a crash and is removed once the stage is finished. ``store`` is
    the run's store of samples and verdicts, which all keys of all stages share. ``logs`` is for engines and workers.
    """

    out: Path
    scratch: Path
    logs: Path
    store: Path
    progress: Reporter
    requests: RequestTimes = field(default_factory=RequestTimes)


class Stage(Generic[F]):
    """Base of every stage; subclasses are frozen dataclasses with ``name`` and ``run``.

    ``version`` is part of the key: raise it when the meaning of the work changes. A field in ``keyed_if_set`` counts
    where it is not None, so that a stage without it has the key that it had before the field came. ``appends``: files
    of ``ctx.store`` whose present bytes the artefact refers to.
    """

    version: ClassVar[int] = 1
    not_keyed: ClassVar[frozenset[str]] = frozenset()
    keyed_if_set: ClassVar[frozenset[str]] = frozenset()
    appends: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The stage's name in the run directory and for ``--until``."""
        return type(self).__name__.lower()

    @property
    def takes_accelerator(self) -> bool:
        """Whether it runs in a process of its own, so that the accelerator's memory is free when it ends."""
        return False

    @property
    def interrupt_s(self) -> float:
        """Seconds that its work takes to end after an interrupt."""
        return 0.0

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that are slow to import (``distill.runs.process``)."""
        return ()

    def run(self, ctx: StageContext) -> F:
        """Do the work in ``ctx.out`` and return the facts. Must give equal files and facts for equal fields."""
        raise TypeError(f"{type(self).__name__} does not define run")

    @functools.cached_property
    def key(self) -> str:
        """16 hex characters of sha256 over name, version and keyed fields."""
        parts = [self.name, self.version, self.keyed_fields()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]

    def keyed_fields(self) -> dict[str, Any]:
        """What the key is made of, as JSON; artefacts by their digests."""
        return {
            name: _keyed(value)
            for name, value in self._values()
            if name not in self.not_keyed and not (value is None and name in self.keyed_if_set)
        }

    def inputs(self) -> dict[str, str]:
        """Digests of the artefacts that the stage reads, by stage."""
        return {value.stage: value.digest for _, value in self._values() if isinstance(value, Artefact)}

    def runs_again(self, facts: Facts) -> bool:
        """Whether a finished stage with these facts runs again with the next command and replaces its artefact."""
        return False

    @classmethod
    def facts_type(cls) -> type[Facts]:
        """The type of the facts, from ``Stage[...]``."""
        for base in getattr(cls, "__orig_bases__", ()):
            if typing.get_origin(base) is Stage:
                facts: type[Facts] = typing.get_args(base)[0]
                return facts
        raise TypeError(f"{cls.__name__} does not say Stage[its facts]")

    def _values(self) -> list[tuple[str, Any]]:
        return [(item.name, getattr(self, item.name)) for item in dataclasses.fields(self)]  # type: ignore[arg-type]


def _keyed(value: Any) -> Any:
    if isinstance(value, Artefact):
        return {"artefact": value.stage, "digest": value.digest}
    if isinstance(value, BaseModel):
        return key_dump(value)
    if isinstance(value, list | tuple):
        return [_keyed(item) for item in value]
    return value


# --- from one process to another ---------------------------------------------------------------------------------


def encode(stage: Stage[Any]) -> dict[str, Any]:
    """A stage as JSON: artefacts by their folders, sections as they are."""
    kind = type(stage)
    fields: dict[str, Any] = {}
    for name, value in stage._values():
        if isinstance(value, Artefact):
            fields[name] = str(value.path)
        elif isinstance(value, BaseModel):
            fields[name] = value.model_dump(mode="json")
        else:
            fields[name] = value
    return {"module": kind.__module__, "stage": kind.__qualname__, "fields": fields}


def decode(data: dict[str, Any]) -> Stage[Any]:
    """The stage that ``encode`` described. Only classes of this project's own stages are looked up."""
    if not data["module"].startswith("distill."):
        raise ValueError(f"{data['module']} holds no stage of ours")
    kind = getattr(importlib.import_module(data["module"]), data["stage"])
    hints = typing.get_type_hints(kind)
    return typing.cast(
        "Stage[Any]", kind(**{name: _decoded(hints[name], value) for name, value in data["fields"].items()})
    )


def _decoded(hint: Any, value: Any) -> Any:
    facts = _artefact_facts(hint)
    if facts is None:
        return TypeAdapter(hint).validate_python(value)
    if value is None:
        return None
    artefact = read_artefact(Path(value), facts)
    if artefact is None:
        raise FileNotFoundError(f"no manifest in {value}")
    return artefact


def _artefact_facts(hint: Any) -> type[Facts] | None:
    """The facts of `Artefact[X]` or `Artefact[X] | None`; None for another type."""
    for kind in (hint, *typing.get_args(hint)):
        if typing.get_origin(kind) is Artefact:
            facts: type[Facts] = typing.get_args(kind)[0]
            return facts
    return None
