"""The way to an endpoint: one that somebody else runs is simply there, one of our own may have to be started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from licensing.errors import MissingDependency
from synth.teachers.served_config import OpenAITeacher
from synth.teachers.teacher import Request

__all__ = ["Door", "Home", "Outside"]


@dataclass(frozen=True)
class Home:
    """Where the endpoint is, in which of its lives (one of our own may have several), and what runs there (as in
    ``Described``), if that is known."""

    base_url: str
    key: str | None = field(repr=False)
    life: int = 0
    facts: dict[str, Any] | None = None


class Door(Protocol):
    """The way to an endpoint that may have to be started. Its methods run in the engine's loop."""

    async def open(self, request: Request) -> Home:
        """The endpoint, ready; raises a DistillError where it will not be."""
        ...

    async def is_lost(self, home: Home) -> bool:
        """A request failed: is that because this life of the endpoint is over?"""
        ...

    async def close(self) -> None:
        """Nothing is asked any more."""
        ...


class Outside:
    """An endpoint that somebody else runs."""

    def __init__(self, config: OpenAITeacher) -> None:
        self.home = Home(config.base_url, _key(config.api_key_env))

    async def open(self, request: Request) -> Home:
        return self.home

    async def is_lost(self, home: Home) -> bool:
        return False

    async def close(self) -> None:
        return None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise MissingDependency(
        f"the environment has no {variable}", where="teacher.api_key_env", hint=f"export {variable}=... and run again"
    )
