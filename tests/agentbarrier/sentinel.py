"""The world outside: an MCP server over HTTP whose one effect is AgentBarrier's probe.

It runs on a loop of its own in a thread. The probe belongs to the suite's loop, where each of its calls is made; a call
that the product gives up reaches the probe as a cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import mcp_types as types
import uvicorn
from agentbarrier import ActionRequest, ReconciliationEvidence, ReconciliationStatus
from agentbarrier.errors import AmbiguousEffectError
from agentbarrier.probe import EffectProbe
from mcp.server.lowlevel import Server

from runs.schemas import ServerConfig
from tests.adapters.workbench import free_port, until

KEY_META = "agentsite/idempotency-key"
FREE, GATED, OUTCOME = "write", "gated_write", "outcome"
TOOL_NAME = "sentinel_write"
WRITE: dict[str, Any] = {
    "type": "object",
    "properties": {"operation": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["operation", "arguments"],
    "additionalProperties": False,
}
KEY: dict[str, Any] = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
WORDS = {
    ReconciliationStatus.COMMITTED: "happened",
    ReconciliationStatus.NOT_COMMITTED: "did_not_happen",
}
T = TypeVar("T")


def request_of(args: dict[str, Any]) -> ActionRequest:
    """What was really called, whatever the suite asked for."""
    return ActionRequest(args["operation"], TOOL_NAME, args["arguments"])


@dataclass(slots=True)
class Sentinel:
    """`is_out`: a gateway in front answers 502 to everything, the answer of a call in flight included."""

    port: int = field(default_factory=free_port)
    is_out: bool = False
    evidence: dict[str, ReconciliationEvidence] = field(default_factory=dict)
    _probes: dict[str, EffectProbe] = field(default_factory=dict)
    _calls: dict[str, ActionRequest] = field(default_factory=dict)
    _suite: asyncio.AbstractEventLoop | None = None
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def config(self) -> ServerConfig:
        return ServerConfig(transport="http", url=f"http://127.0.0.1:{self.port}/mcp")

    def start(self) -> None:
        app = _Gateway(self, self._mcp().streamable_http_app())
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="sentinel", daemon=True)
        self._thread.start()
        until(lambda: self._server and self._server.started)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)

    def expect(self, actions: tuple[ActionRequest, ...], probe: EffectProbe) -> None:
        self._suite, self.is_out = asyncio.get_running_loop(), False
        self._probes.update({action.action_id: probe for action in actions})

    def _mcp(self) -> Server[Any]:
        def tool(name: str, schema: dict[str, Any], **more: Any) -> types.Tool:
            return types.Tool(name=name, description=f"The sentinel's {name}.", input_schema=schema, **more)

        twins = {"agentsite/reconcile": OUTCOME}
        reads = types.ToolAnnotations(read_only_hint=True)
        listed = [
            tool(FREE, WRITE, _meta=twins),
            tool(GATED, WRITE, _meta=twins),
            tool(OUTCOME, KEY, annotations=reads),
        ]

        async def list_tools(_context: Any, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
            return types.ListToolsResult(tools=listed)

        async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
            given = params.arguments or {}
            if params.name == OUTCOME:
                return _says({"result": await self._outcome(given["key"])})
            return _says({"said": await self._write(given, str((params.meta or {}).get(KEY_META)))})

        return Server("sentinel", version="1", on_list_tools=list_tools, on_call_tool=call_tool)

    async def _write(self, given: dict[str, Any], key: str) -> str:
        action = request_of(given)
        self._calls[key] = action
        try:
            return await self._there(self._probes[action.action_id](action))
        except AmbiguousEffectError:
            self.is_out = True
            return "never said"

    async def _outcome(self, key: str) -> str:
        action = self._calls[key]
        found = await self._there(self._probes[action.action_id].reconcile(action))
        self.evidence[action.action_id] = found
        return WORDS.get(found.status, "unknown")

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._suite is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._suite))


@dataclass(frozen=True, slots=True)
class _Gateway:
    sentinel: Sentinel
    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = False

        async def guarded(message: Any) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and self.sentinel.is_out:
                refused = True
                plain = [(b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 502, "headers": plain})
                await send({"type": "http.response.body", "body": b"Bad gateway"})
            if not refused:
                await send(message)

        with contextlib.suppress(RuntimeError) if self.sentinel.is_out else contextlib.nullcontext():
            await self.app(scope, receive, guarded)


def _says(content: dict[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=json.dumps(content))], structured_content=content)
