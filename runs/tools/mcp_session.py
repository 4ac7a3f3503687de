"""The life of one connection to one MCP server: opened when needed, watched, opened again, closed. Asynchronous."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from types import TracebackType
from typing import IO, Any, Self, cast

import anyio
import anyio.lowlevel
import httpx2
import mcp_types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, PARSE_ERROR

from runs.engine.ports import ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import JsonObject
from runs.schemas import ServerConfig
from runs.tools.egress import LOST, NOT_SENT, REFUSED, GuardedTransport

# What the SDK itself says with that code. Servers use the code too, as the first that JSON-RPC leaves to them, with
# words of their own: that is an answer.
CLOSED = "Connection closed"
# Prints a traceback for every line of a child that is not MCP; what is wrong with a server is told by our own errors.
logging.getLogger("mcp.client.stdio").setLevel(logging.CRITICAL)

CLIENT = mcp_types.Implementation(name="agentsite", version="1")
MAX_PAGES = 50
# A program may greet on stdout before it speaks MCP; one that says only such things is none of ours.
MAX_GARBAGE_LINES = 100
# A server may be replaced behind an open connection: what it says of its tools is asked again when older than this.
LISTING_AGE_S = 60.0
# A child's death shows after a few turns of the loop; a call that starts right then should see it and start a new one.
TURNS = 20
STDERR_CHARACTERS = 300

# Why a call of the tool, as the server describes it now, may not be made; None when it may.
Refuses = Callable[[mcp_types.Tool | None], str | None]
Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class NotSent(Exception):
    """The call did not reach the server. `again` says whether a new connection may help."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class Connection:
    """One opened client. `run` holds it open in a task of its own: only the task that opened it may close it."""

    def __init__(self, config: ServerConfig, *, allow_private: bool, keep_stderr: bool = False) -> None:
        self.listed: dict[str, mcp_types.Tool] = {}
        self.closed = False
        self._config = config
        self._allow_private = allow_private
        self._keep_stderr = keep_stderr
        self._client: Client | None = None
        self._listed_at = 0.0
        self._in_flight = 0
        self._retired = False
        self._ready = anyio.Event()
        self._end = anyio.Event()
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope()
        self._failure = ""
        self._garbage_lines = 0

    async def run(self) -> None:
        """Never raises: what went wrong is told by `opened` and by the calls."""
        try:
            with self._scope:
                await self._hold()
        except Exception as error:  # noqa: BLE001 a server can fail in any way, and must not end the others with it
            self._failure = self._failure or _words(error)
        finally:
            self.closed = True
            self._ended.set()
            self._ready.set()

    async def _hold(self) -> None:
        with ExitStack() as files:
            kept = files.enter_context(tempfile.TemporaryFile("w+", errors="replace")) if self._keep_stderr else None
            try:
                async with Client(self._transport(kept or _own_stderr()), cache=None, client_info=CLIENT) as client:
                    self._client = client
                    await self._list()
                    self._ready.set()
                    await self._end.wait()
                    self.closed = True
            finally:
                if kept is not None and not self._ready.is_set():
                    self._failure = _last_line(kept)

    async def _list(self) -> None:
        client, cursor, found = self.client(), None, dict[str, mcp_types.Tool]()
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found.update({tool.name: tool for tool in page.tools})
            cursor = page.next_cursor
            if cursor is None:
                break
        self.listed, self._listed_at = found, anyio.current_time()

    def client(self) -> Client:
        """Raises `NotSent` once the connection is known to be closed."""
        if self.closed or self._client is None:
            raise NotSent("the connection was closed")
        return self._client

    async def tool(self, name: str, *, max_age_s: float, timeout_s: float) -> mcp_types.Tool | None:
        """The tool as the server described it at most `max_age_s` ago. Raises `NotSent`."""
        await _let_news_in()
        self.client()
        if anyio.current_time() - self._listed_at > max_age_s:
            try:
                with anyio.fail_after(timeout_s):
                    await self._list()
            except (MCPError, TimeoutError, ValueError) as error:
                raise NotSent(f"the server does not say what tools it has: {_words(error)}") from error
        return self.listed.get(name)

    async def opened(self, timeout_s: float) -> None:
        """Raises `NotSent` with what a person should know."""
        with anyio.move_on_after(timeout_s):
            await self._ready.wait()
        if self._ready.is_set() and not self.closed:
            return
        timed_out = not self._ended.is_set()
        self._scope.cancel()
        await self._ended.wait()
        raise NotSent(self._why(timeout_s if timed_out else None))

    def _why(self, timeout_s: float | None) -> str:
        """Names the command or the host only: arguments and URLs may hold secrets."""
        reason = self._failure or (
            f"no answer within {timeout_s:g} s" if timeout_s is not None else "it closed at once"
        )
        if self._config.transport == "http":
            return f"no MCP server at {httpx2.URL(self._config.url).host}: {reason}"
        command = self._config.command[0]
        if self._garbage_lines:
            return f"{command} printed something that is not MCP"
        return f"{command} did not start as an MCP server: {reason}"

    def end(self) -> None:
        """Asks the connection to close, its child with it; a connection still opening is broken off."""
        self.closed = True
        self._end.set()
        if not self._ready.is_set():
            self._scope.cancel()

    def retire(self) -> None:
        """Takes no new calls, and ends with the last call in flight."""
        self.closed = self._retired = True
        if not self._in_flight:
            self.end()

    async def ended(self) -> None:
        await self._ended.wait()

    async def call(
        self, name: str, args: JsonObject, *, meta: JsonObject, timeout_s: float
    ) -> mcp_types.CallToolResult:
        client = self.client()
        self._in_flight += 1
        try:
            with anyio.fail_after(timeout_s):
                return await client.call_tool(name, args, meta=cast("mcp_types.RequestParamsMeta", meta) or None)
        except TimeoutError:
            raise ToolTimeout(f"no answer within {timeout_s:g} s") from None
        except MCPError as error:
            return self._answer(error)
        except Exception as error:
            # A result that can't be read or breaks the tool's own output schema: it answered, so it may have acted.
            raise ToolConnectionLost(f"the answer could not be read: {_words(error)}") from error
        finally:
            self._in_flight -= 1
            if self._retired:
                self.retire()

    def _answer(self, error: MCPError) -> mcp_types.CallToolResult:
        """An error that the server itself sent is its answer; one of the connection is raised."""
        if error.code == CONNECTION_CLOSED and error.message == CLOSED:
            raise ToolConnectionLost("the server closed the connection during the call") from error
        if error.code in (NOT_SENT, REFUSED):
            raise NotSent(error.message, again=error.code == NOT_SENT) from error
        if error.code in (LOST, PARSE_ERROR):
            raise ToolConnectionLost(error.message) from error
        return mcp_types.CallToolResult(content=[mcp_types.TextContent(text=error.message)], is_error=True)

    def _transport(self, errors: IO[str] | int) -> AbstractAsyncContextManager[Any]:
        return self._stdio(errors) if self._config.transport == "stdio" else self._http()

    @asynccontextmanager
    async def _stdio(self, errors: IO[str] | int) -> AsyncIterator[Any]:
        command, *arguments = self._config.command
        parameters = StdioServerParameters(
            command=command,
            args=arguments,
            env={"LANG": os.environ.get("LANG", "C.UTF-8"), **self._config.env},
            encoding_error_handler="replace",
        )
        async with stdio_client(parameters, errlog=errors) as (incoming, outgoing):  # type: ignore[arg-type]
            yield _Watched(incoming, self), outgoing

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[Any]:
        client = httpx2.AsyncClient(
            transport=GuardedTransport(allow_private=self._allow_private),
            headers=self._config.headers,
            timeout=httpx2.Timeout(30.0, read=300.0),
            follow_redirects=False,
            trust_env=False,
        )
        async with client, streamable_http_client(self._config.url, http_client=client) as streams:
            yield streams

    def note(self, item: object) -> None:
        """Told of everything that a child prints, and of the end of it (None)."""
        if item is None:
            self.closed = True
            self._end.set()
        elif isinstance(item, Exception):
            self._garbage_lines += 1
            if self._garbage_lines == MAX_GARBAGE_LINES:
                self.end()


class _Watched:
    """A read stream that tells of garbage and of its end as soon as they are read."""

    def __init__(self, inner: Any, connection: Connection) -> None:
        self._inner = inner
        self._connection = connection

    async def receive(self) -> Any:
        try:
            item = await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._connection.note(None)
            raise
        self._connection.note(item)
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Session:
    """The connection to one server, opened again after it was lost. All its coroutines run on one loop."""

    def __init__(self, config: ServerConfig, spawn: Spawn, *, allow_private: bool, connect_timeout_s: float) -> None:
        self.config = config
        self._spawn = spawn
        self._allow_private = allow_private
        self._connect_timeout_s = connect_timeout_s
        self._connection: Connection | None = None
        self._opening: anyio.Lock | None = None
        self._retired = False
        self._failed_at = float("-inf")
        self._failure = ""

    async def call(
        self, name: str, args: JsonObject, *, meta: JsonObject, timeout_s: float, refuses: Refuses
    ) -> mcp_types.CallToolResult:
        """Raises `ToolTimeout`, `ToolUnavailable` or `ToolConnectionLost`."""
        try:
            try:
                return await self._call_once(name, args, meta=meta, timeout_s=timeout_s, refuses=refuses)
            except NotSent as error:
                if not error.again:
                    raise
            return await self._call_once(name, args, meta=meta, timeout_s=timeout_s, refuses=refuses)
        except NotSent as error:
            raise ToolUnavailable(str(error)) from error

    async def _call_once(
        self, name: str, args: JsonObject, *, meta: JsonObject, timeout_s: float, refuses: Refuses
    ) -> mcp_types.CallToolResult:
        connection = await self.connected()
        try:
            await self._admit(connection, name, refuses)
            return await connection.call(name, args, meta=meta, timeout_s=timeout_s)
        except NotSent as error:
            if error.again:
                connection.retire()
            raise
        finally:
            if self._retired:
                connection.retire()

    async def _admit(self, connection: Connection, name: str, refuses: Refuses) -> None:
        reason = refuses(await connection.tool(name, max_age_s=LISTING_AGE_S, timeout_s=self._connect_timeout_s))
        if reason is not None:  # perhaps it is what we know of the server that is old
            reason = refuses(await connection.tool(name, max_age_s=0, timeout_s=self._connect_timeout_s))
        if reason is not None:
            raise NotSent(reason, again=False)

    async def connected(self) -> Connection:
        """Raises `NotSent`. Callers that waited while an attempt failed are told so and make none of their own."""
        asked_at = anyio.current_time()
        if self._opening is None:
            self._opening = anyio.Lock()
        async with self._opening:
            await _let_news_in()
            if self._connection is not None and not self._connection.closed:
                return self._connection
            if self._failed_at >= asked_at:
                raise NotSent(self._failure, again=False)
            connection = Connection(self.config, allow_private=self._allow_private)
            self._spawn(connection.run)
            try:
                await connection.opened(self._connect_timeout_s)
            except NotSent as error:
                self._failed_at, self._failure = anyio.current_time(), str(error)
                raise NotSent(str(error), again=False) from error
            self._connection = connection
            return connection

    async def retire(self) -> None:
        """Closes when no call is in flight; a later call opens a connection for itself alone."""
        self._retired = True
        if self._connection is not None:
            self._connection.retire()

    async def close(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.end()
            await connection.ended()


async def _let_news_in() -> None:
    for _ in range(TURNS):
        await anyio.lowlevel.checkpoint()


def _own_stderr() -> IO[str] | int:
    """The process's real stderr: a worker may have put an object without a file in its place."""
    stream = sys.__stderr__
    try:
        return stream if stream is not None and stream.fileno() >= 0 else subprocess.DEVNULL
    except (OSError, ValueError):
        return subprocess.DEVNULL


def _last_line(kept: IO[str]) -> str:
    kept.seek(0, os.SEEK_END)
    kept.seek(max(0, kept.tell() - 4096))
    lines = [line.strip() for line in kept.read().splitlines() if line.strip()]
    return lines[-1][:STDERR_CHARACTERS] if lines else ""


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _words(error.exceptions[0])
    if isinstance(error, FileNotFoundError):
        return f"the command {error.filename!r} was not found"
    if isinstance(error, MCPError):
        return error.message
    return str(error) or type(error).__name__
