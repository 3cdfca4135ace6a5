"""Runtime `tcp://HOST:PORT`: containers elsewhere that run the image of runner/Dockerfile.

A container takes one job at a time and cleans up after each; for more at once, start more of them behind one address.
The channel has neither encryption nor a password: keep it on a private network, or in a tunnel.
"""

from __future__ import annotations

import socket
import urllib.parse

from synth.sandbox.runtime import Connection

CONNECT_TIMEOUT_S = 30.0


class Remote:
    """``url``: tcp://HOST:PORT."""

    isolates = True
    packages: tuple[str, ...] = ()

    def __init__(self, url: str) -> None:
        self.name = url
        parts = urllib.parse.urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 0))
        self.hint = (
            f"start the runner's image there (synth/sandbox/runner/Dockerfile) and see that {url} can be reached"
        )

    def connect(self) -> Connection:
        return Connection(socket.create_connection(self._address, CONNECT_TIMEOUT_S))
