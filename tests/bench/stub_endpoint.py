"""An endpoint that always takes as long and says the same, as cheaply as asyncio can: for measuring clients.

    python tests/bench/stub_endpoint.py LATENCY_S EVENTS [TOKENS]

prints its port, and ends when its standard input is closed.

It speaks as much HTTP/1.1 as the clients do here: keep-alive, a Content-Length on requests, chunks on streams. The
events of a stream have 8 tokens and come together, when the latency is over; with TOKENS they have so many and come one
by one, as a model generates them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

WORD = "word "


def answers(events: int, tokens: int) -> tuple[list[bytes], bytes]:
    """(a stream, piece by piece; the same in one message), whole HTTP responses."""
    usage = {"prompt_tokens": 9, "completion_tokens": tokens * events, "total_tokens": 9 + tokens * events}
    base = {"id": "x", "created": 1, "model": "m"}
    told = [
        base | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": WORD * tokens}}]}
        for _ in range(events)
    ]
    told.append(
        base | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    )
    told.append(base | {"object": "chat.completion.chunk", "choices": [], "usage": usage})
    lines = (f"data: {text}\n\n".encode() for text in [*map(json.dumps, told), "[DONE]"])
    stream = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"]
    stream += [b"%x\r\n%s\r\n" % (len(line), line) for line in lines] + [b"0\r\n\r\n"]
    message = {"role": "assistant", "content": WORD * tokens * events}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    whole = json.dumps(base | {"object": "chat.completion", "choices": choices, "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(whole)
    return stream, head + whole


async def serve(latency_s: float, events: int, tokens: int | None) -> None:
    pieces, whole = answers(events, tokens or 8)
    stream = b"".join(pieces)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"
                )
                body = await reader.readexactly(length)
                streams = json.loads(body).get("stream")
                if streams and tokens is not None:
                    for piece in pieces:
                        writer.write(piece)
                        await asyncio.sleep(latency_s / len(pieces))
                else:
                    await asyncio.sleep(latency_s)
                    writer.write(stream if streams else whole)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else None))
