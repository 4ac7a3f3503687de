"""The tools that come with agentsite. Tools of MCP servers are in `runs/tools/mcp.py`, imported by worker code only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from runs.engine.outputs import READER
from runs.engine.ports import Tool
from runs.tools.clock import TimeNow
from runs.tools.notes import WriteNote

BUILTIN: Mapping[str, Tool] = MappingProxyType({tool.spec.name: tool for tool in (WriteNote(), TimeNow())})
# No server may take the first part of a built-in tool's name as its slug.
RESERVED_SLUGS = frozenset(name.partition(".")[0] for name in (*BUILTIN, READER))
