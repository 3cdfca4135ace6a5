"""A model hub on the loopback: the read side of the protocol, with errors on demand.

Two origins: a file whose text begins with `ELSEWHERE` is redirected to the second, as large files of a real hub are.
Both record every request with its headers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ELSEWHERE = "ELSEWHERE "


class LoopbackHub:
    """``add(id, {"README.md": ...})``; ``trouble[path] = [status, ...]``: answers before the right one."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, str]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.gated: set[str] = set()
        self.trouble: dict[str, list[int]] = {}
        self.endless: set[str] = set()
        self.moved: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler(name)) for name in ("hub", "cdn")]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        # the other origin by another host name, so that a cookie or a token kept by host would not tell them apart
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.cdn = f"http://localhost:{self._servers[1].server_port}"

    def add(self, name: str, files: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
        self.repositories[name] = files
        self.metadata[name] = metadata or {}

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def paths(self, server: str = "hub") -> list[str]:
        return [path for at, path, _ in self.seen if at == server]

    def _handler(hub, server: str) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
                hub.seen.append((server, path, dict(self.headers)))
                try:
                    self._answer(path)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _answer(self, path: str) -> None:
                if hub.trouble.get(path):
                    return self._say(hub.trouble[path].pop(0), b"trouble")
                if path in hub.moved:
                    return self._say(307, b"", {"Location": hub.moved[path]})
                if server == "cdn":
                    return self._say(200, b"from elsewhere\n")
                if path.startswith("/api/"):
                    kind, _, name = path.removeprefix("/api/").partition("/")
                    return self._info(name if kind == "models" else f"datasets/{name}")
                name, _, rest = path.lstrip("/").partition("/resolve/")
                return self._file(name, rest.partition("/")[2])

            def _info(self, name: str) -> None:
                files = hub.repositories.get(name)
                if files is None:
                    return self._say(401, b"{}", {"X-Error-Code": "RepoNotFound"})
                said = {
                    "id": name.removeprefix("datasets/"),
                    "sha": hashlib.sha1(name.encode()).hexdigest(),
                    "gated": name in hub.gated,
                    "siblings": [{"rfilename": file} for file in files],
                    "cardData": hub.metadata[name],
                }
                return self._say(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

            def _file(self, name: str, file: str) -> None:
                if name in hub.gated:
                    return self._say(403, b"", {"X-Error-Code": "GatedRepo"})
                if f"{name}/{file}" in hub.endless:
                    return self._endless()
                text = hub.repositories.get(name, {}).get(file)
                if text is None:
                    return self._say(404, b"", {"X-Error-Code": "EntryNotFound"})
                if text.startswith(ELSEWHERE):
                    return self._say(302, b"", {"Location": f"{hub.cdn}/{file}"})
                return self._say(200, text.encode())

            def _endless(self) -> None:
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                until = time.monotonic() + 30  # whatever the client does, this server ends
                while time.monotonic() < until:
                    self.wfile.write(b"x" * 65536)

            def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    hub = LoopbackHub()
    try:
        yield hub
    finally:
        hub.close()
