"""An MCP server with one tool of every kind, over stdio or streamable HTTP. Notes in a file what it did."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

KEY_META = "agentsite/idempotency-key"
TWINS = {"agentsite/plan": "plan_paint", "agentsite/reconcile": "did_it", "agentsite/undo": "scrape"}


def schema(**properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }


def tool(name: str, given: dict[str, Any], *, meta: dict[str, Any] | None = None, **hints: bool) -> types.Tool:
    annotations = types.ToolAnnotations(**hints) if hints else None
    return types.Tool(name=name, description=f"Does {name}.", input_schema=given, annotations=annotations, _meta=meta)


TOOLS = [
    tool("echo", schema(text="string"), read_only_hint=True),
    tool("whoami", schema(), read_only_hint=True),
    tool("nap", schema(seconds="number"), read_only_hint=True, idempotent_hint=True),
    tool("refuse", schema(), destructive_hint=False),
    tool("picture", schema(), read_only_hint=True),
    tool(
        "paint",
        schema(colour="string"),
        meta={**TWINS, "agentsite/risk": "critical"},
        destructive_hint=False,
        idempotent_hint=True,
    ),
    tool("hang_picture", schema(), meta={"agentsite/undo": "scrape"}),
    tool("strike", schema()),
    tool("plan_paint", schema(colour="string"), read_only_hint=True),
    tool("did_it", schema(effect_key="string"), read_only_hint=True),
    tool("scrape", schema(effect_key="string"), destructive_hint=False),
    tool("slow_paint", schema(colour="string"), meta={"agentsite/reconcile": "did_it"}),
    tool("crash", schema(), meta={"agentsite/plan": "paint", "agentsite/risk": "huge"}),
    tool("crash_first", schema(), meta={"agentsite/reconcile": "did_it"}),
    tool("lie", schema(), meta={"agentsite/plan": "lie"}),
    types.Tool(name="typed", input_schema=schema(), output_schema=schema(size="integer")),
    tool("not/callable", schema()),
    tool("bad_schema", {"type": "object", "properties": {"a": {"type": "no such type"}}}),
]


class Workshop:
    def __init__(self, log: Path, renamed: bool) -> None:
        self.log = log
        self.renamed = renamed

    def listed(self) -> list[types.Tool]:
        if not self.renamed:
            return TOOLS
        return [each.model_copy(update={"description": "Now does something else."}) for each in TOOLS]

    def note(self, what: str, key: object) -> None:
        with self.log.open("a") as log:
            log.write(json.dumps({"what": what, "key": key}) + "\n")

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    async def call(self, name: str, given: dict[str, Any], key: object) -> types.CallToolResult:
        work = getattr(self, f"do_{name}", None)
        if work is None:
            return text(f"no tool {name}", is_error=True)
        result: types.CallToolResult = await work(given, key)
        return result

    async def do_echo(self, given: dict[str, Any], _key: object) -> types.CallToolResult:
        return text(given["text"])

    async def do_whoami(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        return structured({"pid": os.getpid(), "environment": sorted(os.environ)})

    async def do_nap(self, given: dict[str, Any], _key: object) -> types.CallToolResult:
        await anyio.sleep(given["seconds"])
        return text("rested")

    async def do_refuse(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        return text("the brush is dry", is_error=True)

    async def do_picture(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        image = types.ImageContent(data="aGk=", mime_type="image/png")
        return types.CallToolResult(content=[types.TextContent(text="a cat"), image])

    async def do_paint(self, given: dict[str, Any], key: object) -> types.CallToolResult:
        self.note(f"paint {given['colour']}", key)
        return structured({"painted": given["colour"]})

    async def do_plan_paint(self, given: dict[str, Any], _key: object) -> types.CallToolResult:
        return plan(given["colour"], len(self.notes()))

    async def do_did_it(self, given: dict[str, Any], _key: object) -> types.CallToolResult:
        done = any(note["key"] == given["effect_key"] for note in self.notes())
        return structured({"result": "happened" if done else "did_not_happen"})

    async def do_scrape(self, given: dict[str, Any], key: object) -> types.CallToolResult:
        self.note(f"scrape {given['effect_key']}", key)
        return text("scraped")

    async def do_slow_paint(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        self.note("slow_paint begins", None)
        await anyio.sleep(30)
        return text("never said")

    async def do_strike(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        raise MCPError(code=types.CONNECTION_CLOSED, message="on strike until noon")

    async def do_crash(self, _given: dict[str, Any], key: object) -> types.CallToolResult:
        self.note("crash", key)
        os._exit(7)

    async def do_crash_first(self, _given: dict[str, Any], _key: object) -> types.CallToolResult:
        os._exit(7)

    async def do_typed(self, _given: dict[str, Any], key: object) -> types.CallToolResult:
        self.note("typed", key)
        return structured({"size": "large"})


def text(words: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=words)], is_error=is_error)


def structured(content: dict[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=json.dumps(content))], structured_content=content)


def plan(colour: str, coats: int) -> types.CallToolResult:
    if colour == "invisible":
        return text("there is no such paint", is_error=True)
    preview = {"type": "record", "fields": [{"field": "wall", "now": "white", "after": colour}]}
    return structured({"summary": f"Paint it {colour}", "preview": preview, "preconditions": {"coats": coats}})


def build(workshop: Workshop) -> Server[Any]:
    async def list_tools(_context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """Two pages, as a large server would answer."""
        tools = workshop.listed()
        if params is not None and params.cursor == "2":
            return types.ListToolsResult(tools=tools[8:])
        return types.ListToolsResult(tools=tools[:8], next_cursor="2")

    async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await workshop.call(params.name, params.arguments or {}, (params.meta or {}).get(KEY_META))

    return Server("workshop", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


async def over_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def over_http(server: Server[Any], port: int) -> None:
    import uvicorn

    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="error")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--http", type=int)
    parser.add_argument("--renamed", action="store_true")
    options = parser.parse_args()
    server = build(Workshop(options.log, options.renamed))
    if options.http is None:
        anyio.run(over_stdio, server)
    else:
        over_http(server, options.http)


if __name__ == "__main__":
    main()
