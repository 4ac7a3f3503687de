"""A loopback HTTP server that answers each POST with the next part of a script, byte for byte as a test wants it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Says whether the client still listens.
Write = Callable[[bytes], bool]
JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`body` may be a function that writes as it likes; the connection closes when it returns."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Callable[[Write], None] = b""
    before: Callable[[], object] | None = None


class ScriptedHttp:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[JsonObject] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                script.requests.append(json.loads(body))
                script.headers.append({name.lower(): value for name, value in self.headers.items()})
                script.paths.append(self.path)
                answer = script.answers.pop(0)
                if answer.before is not None:
                    answer.before()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                if callable(answer.body):
                    answer.body(self._write)
                else:
                    self._write(answer.body)

            def _write(self, data: bytes) -> bool:
                try:
                    self.wfile.write(data)
                    self.wfile.flush()
                except OSError:
                    return False
                return True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 named by the base class
                del format, args

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A handler thread that a test left waiting must not hold up the end of the test.
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        del request, client_address  # a client that hangs up is part of the tests


@contextmanager
def scripted_http() -> Iterator[ScriptedHttp]:
    script = ScriptedHttp()
    server = _Server(("127.0.0.1", 0), script.handler())
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sse(*events: JsonObject) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
