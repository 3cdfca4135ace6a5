"""The endpoint that requests go to: one that somebody else runs is there; one of our own has to be started first."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from licensing.errors import MissingDependency
from synth.teachers.config import OpenAITeacher
from synth.teachers.teacher import Request

__all__ = ["Endpoint", "EndpointProvider", "RemoteEndpoint"]


@dataclass(frozen=True)
class Endpoint:
    """A resolved endpoint. ``generation`` increases each time that a server of our own is restarted.

    ``engine_info``: what runs there (as in ``Teacher.engine_info``), or None where that is unknown.
    """

    base_url: str
    key: str | None = field(repr=False)
    generation: int = 0
    engine_info: dict[str, Any] | None = None


class EndpointProvider(Protocol):
    """Resolves the endpoint, and starts it where it is our own. Its methods run in the teacher's event loop."""

    async def open(self, request: Request) -> Endpoint:
        """The endpoint, ready for requests. Raises a DistillError where it will not become ready."""
        ...

    async def is_lost(self, endpoint: Endpoint) -> bool:
        """After a failed request: whether it failed because this generation of the endpoint has ended."""
        ...

    async def close(self) -> None:
        """Stop a server of our own. A later ``open`` starts it again."""
        ...


class RemoteEndpoint:
    """An endpoint that somebody else runs."""

    def __init__(self, config: OpenAITeacher) -> None:
        self.endpoint = Endpoint(config.base_url, _api_key(config.api_key_env))

    async def open(self, request: Request) -> Endpoint:
        return self.endpoint

    async def is_lost(self, endpoint: Endpoint) -> bool:
        return False

    async def close(self) -> None:
        return None


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise MissingDependency(
        f"the environment has no {variable}", where="teacher.api_key_env", hint=f"export {variable}=... and run again"
    )
