"""Messages on a stream socket: the length in eight bytes, then the body."""

from __future__ import annotations

import socket
import time

__all__ = ["receive", "send"]


def send(sock: socket.socket, body: bytes) -> None:
    """One message, whole."""
    sock.sendall(len(body).to_bytes(8, "big") + body)


def receive(sock: socket.socket, deadline: float | None) -> bytes | None:
    """One message, or None at the end of the stream. Raises TimeoutError at `deadline` (time.monotonic)."""
    head = _read(sock, 8, deadline)
    return None if head is None else _read(sock, int.from_bytes(head, "big"), deadline)


def _read(sock: socket.socket, size: int, deadline: float | None) -> bytes | None:
    buffer = bytearray()
    while len(buffer) < size:
        if deadline is not None:
            sock.settimeout(max(1e-3, deadline - time.monotonic()))
        chunk = sock.recv(min(size - len(buffer), 1 << 20))
        if not chunk:
            return None
        buffer += chunk
    return bytes(buffer)
