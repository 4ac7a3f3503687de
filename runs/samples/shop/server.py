"""The shop's tools over MCP on stdin and stdout. The low-level server, for the `_meta` of tools and of calls."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from runs.samples.shop import tools
from runs.samples.shop.arguments import JsonObject, input_schema
from runs.samples.shop.store import ShopError, Store

INSTRUCTIONS = "The sample shop Harbor & Pine: tickets, orders, customers, policy, suppliers and stale records."


def build_server(store: Store) -> Server[Any]:
    listed = types.ListToolsResult(tools=[describe(tool) for tool in tools.TOOLS.values()])

    async def list_tools(
        _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return listed

    async def call_tool(
        _context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        key = (params.meta or {}).get(tools.KEY_META)
        work = partial(tools.call, store, params.name, params.arguments or {}, key)
        try:
            # In a thread: another process may hold the file's lock for a while, and reads should go on meanwhile.
            return answer(await anyio.to_thread.run_sync(work))
        except ShopError as error:
            return answer({"error": str(error)}, text=str(error), is_error=True)

    return Server("shop", version="1", instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool)


def describe(tool: tools.ShopTool) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=tool.read_only,
        destructive_hint=tool.irreversible,
        # An effect recognises its key, a read has nothing to repeat, and an undo is recorded under the key it undoes.
        idempotent_hint=True,
        open_world_hint=False,
    )
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=input_schema(tool.model),
        annotations=hints,
        _meta=tool.meta,
    )


def answer(content: JsonObject, *, text: str | None = None, is_error: bool = False) -> types.CallToolResult:
    shown = json.dumps(content, ensure_ascii=False) if text is None else text
    return types.CallToolResult(content=[types.TextContent(text=shown)], structured_content=content, is_error=is_error)


async def serve(store: Store) -> None:
    server = build_server(store)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def main(store: Store) -> None:
    anyio.run(serve, store)
