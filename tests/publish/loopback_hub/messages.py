"""What the parts of the hub pass each other: requests, replies, faults, accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Request:
    """One request as it was answered. ``status`` 0: the connection was cut."""

    method: str
    path: str
    route: str
    writes: bool
    status: int = 0


@dataclass
class Fault:
    """What goes wrong with the ``nth`` to ``nth + times - 1``-th request to a route from now on."""

    route: str
    nth: int = 1
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    echo: bool = False  # the error repeats the request's Authorization header
    lose_reply: bool = False  # the request is carried out, and the connection cut
    cut_after: int | None = None  # bytes of the body, received or sent, before the connection is cut
    sleep: float = 0.0
    then: Callable[[], object] | None = None  # is called once the request is carried out
    seen: int = 0


@dataclass
class Account:
    """Who a token stands for. ``resource``: the one repository that a token of a CI job is for."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"
    resource: str | None = None

    def is_member(self, kind: str, name: str) -> bool:
        """Of the owner of a repository; for a CI job's token: whether it is the token's."""
        if self.resource is not None:
            return self.resource == ("datasets/" if kind == "datasets" else "") + name
        return name.split("/")[0] in (self.name, *self.orgs)


@dataclass
class Reply:
    status: int = 200
    value: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
