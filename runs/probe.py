"""Asking a tool server for its tools when a person adds it."""

from __future__ import annotations

import importlib

from django.conf import settings

from runs.errors import Invalid
from runs.schemas import FoundTool, ServerConfig


def probe(config: ServerConfig, slug: str) -> list[FoundTool]:
    """The server's tools, twins included. Raises `Invalid` when it does not start, answer or speak MCP.

    The MCP SDK is imported here and not above: it costs 0.7 s, which a web process pays only when it is used.
    """
    mcp = importlib.import_module("runs.tools.mcp")
    try:
        found: list[FoundTool] = mcp.discover(config, slug, allow_private=settings.AGENTSITE_ALLOW_STDIO_SERVERS)
    except mcp.ServerError as error:
        raise Invalid({"command" if config.transport == "stdio" else "url": str(error)}) from error
    return found
