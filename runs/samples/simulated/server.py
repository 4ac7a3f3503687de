"""A loopback server that speaks the Messages API of anthropic 2.x, and answers whatever `respond` tells it to.

with FakeMessagesServer(lambda body: Reply(text="hello")) as server:
    client = Anthropic(base_url=server.url, api_key="any")
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from runs.samples.simulated import wire
from runs.samples.simulated.billing import PrefixCache, output_tokens
from runs.samples.simulated.handler import Exchange, MessagesHandler
from runs.samples.simulated.reply import JsonObject, Reply

Respond = Callable[[JsonObject], Reply]
WORDS_AT_ONCE = 8


@dataclass(slots=True)
class Call:
    """One request to POST /v1/messages and what became of it.

    `usage` is what the request is billed: None when it was refused, what was streamed so far when it broke off.
    """

    body: JsonObject
    headers: dict[str, str]
    reply: Reply | None = None
    status: int = 0
    usage: JsonObject | None = None
    finished: bool = False
    started_at: float = field(default_factory=time.monotonic)


class _HttpServer(ThreadingHTTPServer):
    """One daemon thread a connection; `fake` is how a handler reaches the server it serves."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, fake: FakeMessagesServer, port: int) -> None:
        self.fake = fake
        self._connections: set[Any] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), MessagesHandler)

    def server_bind(self) -> None:
        # HTTPServer's own asks DNS for this machine's name, which takes seconds where there is none.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            traceback.print_exc()

    def hang_up(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the other side was faster


class FakeMessagesServer:
    """`pace` is tokens a second (0: as fast as it goes), `first_token_s` the wait before the first.

    `calls` lists every request, the newest last (the newest `keep_calls` when that is given); `failures` what
    `respond` raised. Both may be read from any thread. `respond` may be replaced while the server runs.
    """

    def __init__(
        self,
        respond: Respond,
        *,
        port: int = 0,
        pace: float = 0.0,
        first_token_s: float = 0.0,
        echo_model: bool = False,
        api_key: str | None = None,
        models: Sequence[str] = ("simulated",),
        keep_calls: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.respond = respond
        self.pace = pace
        self.first_token_s = first_token_s
        self.echo_model = echo_model
        self.api_key = api_key
        self.models = tuple(models)
        self.cache = PrefixCache(clock)
        self.closing = threading.Event()
        self.failures: list[Exception] = []
        self._calls: deque[Call] = deque(maxlen=keep_calls)
        self._count = 0
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._http = _HttpServer(self, port)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self._http.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Call]:
        with self._changed:
            return list(self._calls)

    def wait_for_calls(self, count: int, timeout_s: float = 10.0) -> list[Call]:
        """The calls once at least `count` have arrived; TimeoutError when they do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count >= count, timeout_s):
                raise TimeoutError(f"{self._count} of {count} calls arrived within {timeout_s} s")
            return list(self._calls)

    def wait_until_finished(self, call: Call, timeout_s: float = 10.0) -> bool:
        """Whether the answer to a call ended, one way or another, in that time."""
        with self._changed:
            return self._changed.wait_for(lambda: call.finished, timeout_s)

    def start(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="simulated", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends what is still streaming or stalling, then frees the port."""
        self.closing.set()
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
        self._http.hang_up()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pause(self, seconds: float) -> None:
        """Sleeps, but not past the end of the server."""
        if seconds > 0:
            self.closing.wait(seconds)

    def next_number(self) -> int:
        return next(self._numbers)

    def record(self, body: JsonObject, headers: dict[str, str]) -> Call:
        call = Call(body=body, headers=headers)
        with self._changed:
            self._calls.append(call)
            self._count += 1
            self._changed.notify_all()
        return call

    def finish(self, call: Call) -> None:
        with self._changed:
            call.finished = True
            self._changed.notify_all()

    def answer(self, call: Call) -> Reply:
        """What `respond` says; a `respond` that raises is a 500 that names the error, kept in `failures`."""
        if call.body.get("max_tokens") == 0:
            return Reply(stop_reason="max_tokens", usage={"output_tokens": 0})
        try:
            reply = self.respond(call.body)
        except Exception as error:  # noqa: BLE001 - whatever a test's function raises has to show on the wire
            self.failures.append(error)
            traceback.print_exc()
            return Reply.error(500, message=f"respond raised {type(error).__name__}: {error}")
        if not isinstance(reply, Reply):
            self.failures.append(TypeError(f"respond returned {type(reply).__name__}, not Reply"))
            return Reply.error(500, message=str(self.failures[-1]))
        return reply

    def exchange(self, call: Call, reply: Reply) -> Exchange:
        """The reply made concrete: its content cut to max_tokens, and its bill."""
        content, cut = wire.fit(wire.content_of(reply), int(call.body["max_tokens"]))
        usage = self.cache.bill(call.body)
        usage |= {"output_tokens": output_tokens(content), "service_tier": "standard", **reply.usage}
        model = reply.model or (str(call.body["model"]) if self.echo_model else "simulated")
        return Exchange(
            identifier=f"msg_sim_{self.next_number():06d}",
            model=model,
            content=content,
            stop_reason=wire.stop_reason_of(reply, content, cut),
            usage=usage,
            words=1 if self.pace else WORDS_AT_ONCE,
        )
