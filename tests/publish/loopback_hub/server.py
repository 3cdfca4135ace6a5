"""The two origins: requests are matched with a route, faults come in between, replies are sent; and the origin of the
contents of large files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

from loopback_hub.messages import Reply, Request
from loopback_hub.repository import HubError

if TYPE_CHECKING:
    from loopback_hub.hub import Hub

Routes = list[tuple[str, re.Pattern[str], str, bool]]
"""Method, path, name of the route (as faults name it), whether it changes anything."""

STORAGE_ROUTES: Routes = [
    ("PUT", re.compile(r"/upload/.+"), "storage-put", True),
    ("GET", re.compile(r"/download/.+"), "storage-get", False),
]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub, port: int, handler: type[Handler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the hub; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Cut(Exception):
    """End the connection without an answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server
    routes: ClassVar[Routes] = []

    def log_message(self, *_: Any) -> None:
        """``Hub.requests`` is the log."""

    def _serve(self) -> None:
        self.hub = self.server.hub
        self.raw_path = urlsplit(self.path).path
        method = self.command.replace("HEAD", "GET")
        match, self.route, writes = next(
            (
                (found, name, writes)
                for verb, pattern, name, writes in self.routes
                if verb == method and (found := pattern.fullmatch(self.raw_path))
            ),
            (None, "unknown", False),
        )
        request = Request(self.command, self.path, self.route, writes)
        self.hub.requests.append(request)
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.active_fault = self.hub.fault(self.route)
        try:
            reply = self._reply(match)
            request.status = reply.status
            self._send(reply)
        except _Cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _reply(self, match: re.Match[str] | None) -> Reply:
        fault = self.active_fault
        try:
            if match is None:
                self.hub.unknown.append(f"{self.command} {self.path}")
                raise HubError(404, f"no route for {self.command} {self.raw_path}")
            if self.headers.get("Transfer-Encoding"):
                self.close_connection = True
                raise HubError(411, "Content-Length is needed")
            if fault and fault.sleep:
                time.sleep(fault.sleep)
            if fault and fault.status:
                echoed = f" {self.headers.get('Authorization')}" if fault.echo else ""
                raise HubError(fault.status, (fault.message or f"fault {fault.status}") + echoed)
            values = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
            reply = self.answer(values)
            if fault and fault.then:
                fault.then()
        except HubError as error:
            headers = {"X-Error-Message": error.message}
            headers |= {"X-Error-Code": error.code} if error.code else {}
            headers |= dict(fault.headers) if fault else {}
            reply = Reply(error.status, {"error": error.message}, headers)
        if fault and fault.lose_reply:
            raise _Cut
        return reply

    def answer(self, values: dict[str, str]) -> Reply:
        raise NotImplementedError

    def read_body(self) -> bytes:
        body = self.rfile.read(self.unread)
        self.unread -= len(body)
        if self.unread:
            raise _Cut
        return body

    def _send(self, reply: Reply) -> None:
        if self.unread:  # answered before the body was read: what follows on this connection is not a request
            self.close_connection = True
        content = reply.content
        if content is None:
            content = b"" if reply.value is None else json.dumps(reply.value).encode()
            reply.headers.setdefault("Content-Type", "application/json")
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        first, last = 0, size - 1
        if reply.content is not None and (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            reply.status = 206
            reply.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.send_response(reply.status)
        headers = {"X-Request-Id": secrets.token_hex(8), "Content-Length": str(last - first + 1), **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.active_fault.cut_after if self.active_fault and self.command == "GET" else None
        left = last - first + 1 if cut is None else cut
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            file.seek(first)
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                self.wfile.write(block)
                left -= len(block)
        if cut is not None:
            self.wfile.flush()
            raise _Cut


class StorageHandler(Handler):
    """Contents of large files, at addresses that are signed; a token has no business here."""

    routes = STORAGE_ROUTES

    def answer(self, values: dict[str, str]) -> Reply:
        if self.headers.get("Authorization"):
            raise HubError(400, "Only one auth mechanism allowed")
        signed = self.hub.signer.check(self.command, self.path)
        if self.command != "PUT":
            return Reply(
                content=self.hub.folder / signed["file"],
                headers={"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"},
            )
        target = self.hub.folder / signed["file"]
        cut = self.active_fault.cut_after if self.active_fault else None
        digest = hashlib.md5(usedforsecurity=False)
        with tempfile.NamedTemporaryFile(dir=self.hub.folder / "parts", delete=False) as file:
            while self.unread:
                block = self.rfile.read(min(self.unread, 64 * 1024 if cut is None else max(cut, 1)))
                self.unread -= len(block)
                with self.hub.lock:
                    self.hub.received += len(block)
                if not block or (cut is not None and (cut := cut - len(block)) <= 0):
                    raise _Cut
                file.write(block)
                digest.update(block)
        shutil.move(file.name, target)
        return Reply(headers={"ETag": f'"{digest.hexdigest()}"'})
