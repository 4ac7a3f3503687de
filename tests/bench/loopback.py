"""A Messages API that costs next to nothing: canned bytes over asyncio, so that what is measured is the engine.

Each of the first turns calls `time__now`; the last one answers. `python -m tests.bench.loopback --turns 10 --delay 0.5`
prints its port. The delay stands for a model that thinks; it is the time between request and first byte.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from functools import lru_cache
from typing import Any

ASSISTANT = (b'"role":"assistant"', b'"role": "assistant"')


def event(kind: str, **body: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body}, separators=(',', ':'))}\n\n".encode()


def answer(turn: int, turns: int) -> bytes:
    """The event stream of one turn: some text, then a tool call or the end."""
    usage = {"input_tokens": 40, "cache_read_input_tokens": 900 + 120 * turn, "cache_creation_input_tokens": 80}
    message: dict[str, Any] = {
        "id": f"msg_{turn}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": 1},
    }
    last = turn >= turns - 1
    said = "The time was read as often as asked." if last else f"I read the time, for the {turn + 1}th time."
    parts = [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": said}),
        event("content_block_stop", index=0),
    ]
    if not last:
        block = {"type": "tool_use", "id": f"toolu_{turn:024d}", "name": "time__now", "input": {}}
        # A zone of its own each time: the same call again and again is what a loop guard stops.
        asked = {"timezone": f"Etc/GMT+{turn % 12 + 1}", "reasoning": "The task asks for the time.", "confidence": 0.95}
        parts += [
            event("content_block_start", index=1, content_block=block),
            event(
                "content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": json.dumps(asked)}
            ),
            event("content_block_stop", index=1),
        ]
    stop = "end_turn" if last else "tool_use"
    parts.append(event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 60}))
    parts.append(event("message_stop"))
    return b"".join(parts)


class Loopback:
    def __init__(self, turns: int, delay_s: float) -> None:
        self.delay_s = delay_s
        self.answer = lru_cache(lambda turn: response(answer(turn, turns)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                turn = max(body.count(mark) for mark in ASSISTANT)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(self.answer(turn))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def response(body: bytes) -> bytes:
    head = ["HTTP/1.1 200 OK", "content-type: text/event-stream", f"content-length: {len(body)}", "request-id: req_1"]
    return "\r\n".join([*head, "", ""]).encode() + body


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    model = Loopback(options.turns, options.delay)
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
