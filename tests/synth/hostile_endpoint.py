"""An endpoint of ours on loopback that behaves as badly as it is told: real sockets, one thread a connection."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Call"], None]


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "x", "object": "chat.completion.chunk", "choices": choices, **more}


def usage(prompt: Any = 5, completion: Any = 7, **details: Any) -> dict[str, Any]:
    told = {"prompt_tokens": prompt, "completion_tokens": completion}
    return told | ({"completion_tokens_details": details} if details else {})


class Call:
    """One request: what was asked (``body``, ``headers``), which one of this question it is, and ways to answer."""

    def __init__(self, handler: Any, body: dict[str, Any], attempt: int) -> None:
        self._handler = handler
        self.body, self.attempt, self.headers = body, attempt, handler.headers
        self.question: str = body["messages"][-1]["content"]

    def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()

    def raw(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def wait_for_hang_up(self) -> None:
        """Until the client closes the connection."""
        self._handler.connection.settimeout(200)
        self._handler.connection.recv(1)

    def send(self, *events: dict[str, Any]) -> None:
        for told in events:
            self.raw(b"data: " + json.dumps(told).encode() + b"\n\n")

    def refuse(self, status: int, message: str = "no", **headers: str) -> None:
        self.head(status, "application/json", **headers)
        self.raw(json.dumps({"error": {"message": message, "code": None}}).encode())

    def answer(self, text: str = "four", finish: str = "stop", thinking: str | None = None) -> None:
        self.head()
        if thinking is not None:
            self.send(event({"reasoning": thinking}))
        self.send(event({"content": text}), event({}, finish), event(usage=usage()))
        self.raw(b"data: [DONE]\n\n")


class Endpoint:
    def __init__(self, act: Act) -> None:
        self.act = act
        self.attempts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.at: list[float] = []
        self.authorization: set[str | None] = set()
        self.running = self.most = 0
        self.up = True
        self.back_after: int | None = None  # up again once so many looks at /models were refused
        self.status, self.models = 200, list[str]()
        self.lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                status = endpoint.status if endpoint.up else 500
                if not endpoint.up and endpoint.back_after is not None:
                    endpoint.back_after -= 1
                    endpoint.up = endpoint.back_after <= 0  # before the answer, so that nobody asks in between
                self.send_response(status)
                models = [{"id": name, "object": "model"} for name in endpoint.models]
                data = json.dumps({"object": "list", "data": models}).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = body["messages"][-1]["content"]
                with endpoint.lock:
                    endpoint.attempts[question] += 1
                    endpoint.bodies.append(body)
                    endpoint.at.append(time.monotonic())
                    endpoint.authorization.add(self.headers["Authorization"])
                    endpoint.running += 1
                    endpoint.most = max(endpoint.most, endpoint.running)
                    call = Call(self, body, endpoint.attempts[question])
                try:
                    endpoint.act(call)
                except OSError:
                    pass  # the client has hung up, as it should
                finally:
                    self.close_connection = True
                    with endpoint.lock:
                        endpoint.running -= 1

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextmanager
def serving(act: Act) -> Iterator[Endpoint]:
    endpoint = Endpoint(act)
    thread = threading.Thread(target=endpoint.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
