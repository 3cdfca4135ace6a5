"""The endpoint that requests go to: one that somebody else runs is there; one of our own has to be started first."""

from __future__ import annotations

import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from licensing.errors import MissingDependency
from synth.teachers.config import OpenAITeacher
from synth.teachers.teacher import Request

_REST_S, _DOWN_S = 1.0, 30.0  # before an address that failed a request, or is down, gets another one
_MOST_OF_MEAN = 1.25  # of requests in flight, at one of several addresses


@dataclass(frozen=True)
class Endpoint:
    """A resolved endpoint. ``generation`` increases each time that a server of our own is restarted.

    ``engine_info``: what runs there (as in ``Teacher.engine_info``), or None where that is unknown.
    """

    base_url: str
    key: str | None = field(repr=False)
    generation: int = 0
    engine_info: dict[str, Any] | None = None


class EndpointProvider(ABC):
    """Resolves the endpoint, and starts it where it is our own. Its methods run in the teacher's event loop."""

    @abstractmethod
    async def open(self, request: Request) -> Endpoint:
        """The endpoint, ready for requests. Raises a DistillError where it will not become ready."""

    def leave(self, endpoint: Endpoint, *, answered: bool) -> None:
        """An attempt at an endpoint that ``open`` returned is over. ``answered``: an answer or a refusal came back."""
        return None

    @abstractmethod
    async def is_lost(self, endpoint: Endpoint) -> bool:
        """After a failed request: whether it failed because this generation of the endpoint has ended, or this one of
        several addresses, so that another attempt goes elsewhere."""

    async def close(self) -> None:
        """Stop a server of our own. A later ``open`` starts it again."""
        return None


@dataclass
class _Address:
    """One of the addresses of a model. No request goes to it before ``down_until`` (monotonic), if another is up."""

    endpoint: Endpoint
    in_flight: int = 0
    down_until: float = 0.0


class RemoteEndpoint(EndpointProvider):
    """An endpoint that somebody else runs, at one address or at several.

    Of several, a problem's requests go to the same one, whose prefix cache knows the prompt (rendezvous hashing),
    unless it has a quarter more in flight than the mean: then to the one with the fewest. One that fails a request
    rests for ``_REST_S``; one that does not answer ``probe`` either, for ``_DOWN_S``, and its requests go to the
    others.
    """

    def __init__(self, config: OpenAITeacher, probe: Callable[[Endpoint], Awaitable[bool]]) -> None:
        self._addresses = {endpoint.base_url: _Address(endpoint) for endpoint in endpoints_of(config)}
        self._probe = probe

    async def open(self, request: Request) -> Endpoint:
        up = self._up() or list(self._addresses.values())
        address = up[0]
        if len(up) > 1:
            url = rendezvous_target(request, [one.endpoint.base_url for one in up])
            address = self._addresses[url]
        if address.in_flight > _MOST_OF_MEAN * sum(one.in_flight for one in up) / len(up) + 1:
            address = min(up, key=lambda one: one.in_flight)
        address.in_flight += 1
        return address.endpoint

    def leave(self, endpoint: Endpoint, *, answered: bool) -> None:
        address = self._addresses[endpoint.base_url]
        address.in_flight -= 1
        address.down_until = 0.0 if answered else max(address.down_until, time.monotonic() + _REST_S)

    async def is_lost(self, endpoint: Endpoint) -> bool:
        if len(self._addresses) == 1 or await self._probe(endpoint):
            return False
        self._addresses[endpoint.base_url].down_until = time.monotonic() + _DOWN_S
        return bool(self._up())

    def _up(self) -> list[_Address]:
        now = time.monotonic()
        return [one for one in self._addresses.values() if one.down_until <= now]


def rendezvous_target(request: Request, targets: Sequence[str]) -> str:
    """The target among several that a problem's requests go to, so that a prefix cache knows the prompt: by
    rendezvous hashing, so that a target that comes or goes moves its own problems alone."""
    prompt = request.prompt.content_hash
    return max(targets, key=lambda target: hashlib.sha256(f"{prompt}{target}".encode()).digest())


def endpoints_of(config: OpenAITeacher) -> list[Endpoint]:
    """All addresses of a teacher. Raises MissingDependency where the environment has no key."""
    key = _api_key(config.api_key_env)
    return [Endpoint(address, key) for address in config.addresses]


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise MissingDependency(
        f"the environment variable {variable} is not set",
        where="teacher.api_key_env",
        hint=f"export {variable}=... and run again",
    )
