"""The HTTP side of the fake: requests in, JSON or server-sent events out, and every way to break off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runs.samples.simulated import validation, wire
from runs.samples.simulated.billing import prompt_tokens
from runs.samples.simulated.reply import JsonObject, Reply, error_body

if TYPE_CHECKING:
    from runs.samples.simulated.server import Call, FakeMessagesServer

MAX_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    identifier: str
    model: str
    content: list[JsonObject]
    stop_reason: str
    usage: JsonObject
    words: int


class _BrokenOff(Exception):
    """The reply wants the connection closed here, without an ending."""


class MessagesHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "simulated"
    # Without it every reply waits for the other side's delayed acknowledgement, about 40 ms.
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024

    @property
    def fake(self) -> FakeMessagesServer:
        fake: FakeMessagesServer = self.server.fake  # type: ignore[attr-defined]
        return fake

    def log_message(self, *args: Any) -> None:
        """Requests are kept in `calls`; a line each on stderr would bury what matters."""

    def do_GET(self) -> None:
        path = self._path()
        if not self._authorised():
            return
        models = [_model(name) for name in self.fake.models]
        if path == "/v1/models":
            listing = {"data": models, "has_more": False, "first_id": None, "last_id": None}
            if models:
                listing |= {"first_id": models[0]["id"], "last_id": models[-1]["id"]}
            self._json(200, listing)
            return
        for model in models:
            if path == f"/v1/models/{model['id']}":
                self._json(200, model)
                return
        self._error(404, f"Not found: {path}")

    def do_POST(self) -> None:
        path = self._path()
        body = self._body()
        if body is None or not self._authorised():
            return
        if path not in ("/v1/messages", "/v1/messages/count_tokens"):
            self._error(404, f"Not found: {path}")
            return
        counting = path.endswith("/count_tokens")
        try:
            checked = validation.check(_parsed(body), counting=counting)
        except validation.BadRequest as problem:
            self._error(400, str(problem))
            return
        if counting:
            self._json(200, {"input_tokens": prompt_tokens(checked)})
            return
        call = self.fake.record(checked, {name.lower(): value for name, value in self.headers.items()})
        try:
            self._answer(call)
        finally:
            self.fake.finish(call)

    def _answer(self, call: Call) -> None:
        reply = self.fake.answer(call)
        call.reply, call.status = reply, reply.status
        self.fake.pause(reply.delay_s)
        if reply.drop:
            call.status = 0
            self.close_connection = True
        elif reply.raw_body is not None:
            self._send(reply.status, reply.raw_body.encode(), reply.content_type, _headers(reply))
        elif reply.is_error:
            self._error(reply.status, reply.error_message, reply.error_type, _headers(reply))
        else:
            self.fake.pause(self.fake.first_token_s)
            exchange = self.fake.exchange(call, reply)
            send = self._stream if call.body.get("stream") else self._whole
            try:
                send(call, reply, exchange)
            except (_BrokenOff, ConnectionError):
                self.close_connection = True

    def _whole(self, call: Call, reply: Reply, exchange: Exchange) -> None:
        call.usage = exchange.usage
        if self.fake.pace:
            self.fake.pause(exchange.usage["output_tokens"] / self.fake.pace)
        if reply.stall_after is not None:
            self.fake.pause(reply.stall_s)
        if reply.cut_after is not None:
            self._start(200, "application/json", {"Content-Length": "4096", **_headers(reply)})
            self.wfile.write(b'{"id":')
            self.wfile.flush()
            raise _BrokenOff
        stop = None if reply.omit_stop else exchange.stop_reason
        self._json(
            200,
            wire.message(exchange.identifier, exchange.model, exchange.content, stop, reply, exchange.usage),
            _headers(reply),
        )

    def _stream(self, call: Call, reply: Reply, exchange: Exchange) -> None:
        begun = {**exchange.usage, "output_tokens": 1 if exchange.content else 0}
        call.usage = dict(begun)
        start = wire.message(exchange.identifier, exchange.model, [], None, Reply(), begun)
        self._start(200, "text/event-stream; charset=utf-8", {"Transfer-Encoding": "chunked", **_headers(reply)})
        pace = _Pace(self, reply)
        spent = 0.0
        for frame in wire.frames(start, exchange.content, exchange.words):
            pace.before(frame)
            self._event(frame)
            spent += frame.tokens
            if frame.tokens:
                call.usage["output_tokens"] = min(exchange.usage["output_tokens"], max(1, round(spent)))
        pace.finish()
        if not reply.omit_stop:
            call.usage = exchange.usage
            for frame in wire.closing(exchange.stop_reason, reply, exchange.usage):
                self._event(frame)
        self.end_stream()

    def _event(self, frame: wire.Frame) -> None:
        data = frame.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def fail_stream(self, reply: Reply) -> None:
        """The API's own way to give up mid-stream: an error event, then a clean end of the body."""
        kind = reply.error_type or "overloaded_error"
        body = error_body(529, kind, reply.error_message, self._request_id)
        data = f"event: error\ndata: {json.dumps(body)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.end_stream()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _path(self) -> str:
        """The path from /v1 on: a gateway's prefix before it does not matter."""
        self._request_id = f"req_sim_{self.fake.next_number():06d}"
        path = urlsplit(self.path).path.rstrip("/")
        return path[path.index("/v1/") :] if "/v1/" in path else path

    def _body(self) -> bytes | None:
        """None when it was refused, which then has been answered."""
        length = self.headers.get("content-length") or ""
        if not length.isdigit():
            self.close_connection = True
            self._error(411, "a Content-Length is required", "invalid_request_error")
            return None
        if int(length) > MAX_BODY:
            self.close_connection = True
            self._error(413, "Request exceeds the maximum size")
            return None
        return self.rfile.read(int(length))

    def _authorised(self) -> bool:
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ").strip()
        given = bearer or (self.headers.get("x-api-key") or "").strip()
        expected = self.fake.api_key
        if given and (expected is None or given == expected):
            return True
        self._error(401, "invalid bearer token" if given else "authentication header missing")
        return False

    def _start(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("request-id", self._request_id)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, data: bytes, content_type: str, headers: dict[str, str]) -> None:
        self._start(status, content_type, {"Content-Length": str(len(data)), **headers})
        self.wfile.write(data)
        self.wfile.flush()

    def _json(self, status: int, value: JsonObject, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json", headers or {})

    def _error(self, status: int, message: str, kind: str | None = None, headers: dict[str, str] | None = None) -> None:
        self._json(status, error_body(status, kind, message, self._request_id), headers)


class _Pace:
    """When the next event of a stream is due, and the place where the reply wants it to break."""

    def __init__(self, handler: MessagesHandler, reply: Reply) -> None:
        self._handler = handler
        self._reply = reply
        self._deltas = 0
        self._due = time.monotonic()
        self._pending: Iterator[str] = iter(_faults(reply))
        self._next = next(self._pending, None)

    def before(self, frame: wire.Frame) -> None:
        if frame.event in ("message_start", "ping"):
            return
        if frame.tokens or frame.event == "content_block_start":
            self._break(self._deltas)
        if frame.tokens:
            self._deltas += 1
            self._wait(frame)

    def finish(self) -> None:
        """A count past the last delta means here."""
        self._break(None)

    def _wait(self, frame: wire.Frame) -> None:
        pace = self._handler.fake.pace
        if not pace:
            return
        fast = frame.fast or self._reply.data is not None
        self._due += frame.tokens / (pace * wire.JSON_SPEED if fast else pace)
        late = self._due - time.monotonic()
        if late > 0:
            self._handler.wfile.flush()
            self._handler.fake.pause(late)

    def _break(self, sent: int | None) -> None:
        while self._next is not None:
            limit: int = getattr(self._reply, f"{self._next}_after")
            if sent is not None and sent < limit:
                return
            fault, self._next = self._next, next(self._pending, None)
            if fault == "stall":
                self._handler.wfile.flush()
                self._handler.fake.pause(self._reply.stall_s)
                self._due = time.monotonic()
                continue
            if fault == "error":
                self._handler.fail_stream(self._reply)
            self._handler.wfile.flush()
            raise _BrokenOff


def _faults(reply: Reply) -> list[str]:
    named = {"stall": reply.stall_after, "error": reply.error_after, "cut": reply.cut_after}
    return sorted((name for name, after in named.items() if after is not None), key=lambda name: named[name] or 0)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _headers(reply: Reply) -> dict[str, str]:
    extra = dict(reply.headers)
    if reply.retry_after is not None:
        extra["retry-after"] = f"{reply.retry_after:g}"
    return extra


def _model(name: str) -> JsonObject:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").capitalize(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }
