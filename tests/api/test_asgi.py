"""How requests get to their threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from agentsite.asgi import IDLE_THREADS, Pages

SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "server": ("localhost", 80),
}


def pages(view: Callable[[], Any]) -> Pages:
    class Same(Pages):
        def get_response(self, request: HttpRequest) -> HttpResponse:
            view()
            return HttpResponse("seen")

    return Same()


async def ask(app: Pages) -> bytes:
    caller: Any = ApplicationCommunicator(app, SCOPE)  # type: ignore[no-untyped-call]
    await caller.send_input({"type": "http.request", "body": b"", "more_body": False})
    begun = await caller.receive_output(5)
    body = await caller.receive_output(5)
    await caller.wait(5)
    assert begun["status"] == 200
    return bytes(body["body"])


def test_one_after_another_they_have_the_same_thread_and_so_the_same_connections() -> None:
    threads = []

    async def both() -> None:
        app = pages(lambda: threads.append(threading.get_ident()))
        assert await ask(app) == b"seen"
        assert await ask(app) == b"seen"

    asyncio.run(both())
    assert len(threads) == 2
    assert len(set(threads)) == 1


def test_at_once_each_has_its_own() -> None:
    """As many as there are: one that is slow keeps nobody waiting."""
    together = threading.Barrier(IDLE_THREADS + 2, timeout=5)

    async def all_of_them() -> int:
        app = pages(together.wait)
        assert await asyncio.gather(*(ask(app) for _ in range(IDLE_THREADS + 2))) == [b"seen"] * (IDLE_THREADS + 2)
        return len(app.idle)

    assert asyncio.run(all_of_them()) == IDLE_THREADS


def test_a_long_answer_is_made_piece_by_piece_in_the_thread_of_its_request() -> None:
    threads = [threading.get_ident()]
    made = []

    def pieces() -> Iterator[bytes]:
        for piece in (b"one", b"two"):
            threads.append(threading.get_ident())
            made.append(piece)
            yield piece

    class Long(Pages):
        def get_response(self, request: HttpRequest) -> StreamingHttpResponse:
            threads.append(threading.get_ident())
            return StreamingHttpResponse(pieces())

    async def read() -> None:
        sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1)  # a reader who takes one thing at a time
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            for message in asked:
                return message
            await asyncio.Event().wait()  # stays connected
            return {}

        answering = asyncio.create_task(Long()(SCOPE, receive, sent.put))
        assert (await sent.get())["status"] == 200
        assert (await sent.get())["body"] == b"one"
        assert made[:1] == [b"one"]
        bodies = [await sent.get() for _ in range(2)]
        assert [body.get("body", b"") for body in bodies] == [b"two", b""]
        await answering

    asyncio.run(read())
    assert len(set(threads[1:])) == 1
    assert threads[0] != threads[1]
