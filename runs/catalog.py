"""The tools an agent of a team may use, as last found: no server is asked for this."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import Team
from runs.engine.types import ToolSpec
from runs.models import ToolServer
from runs.schemas import FoundTool
from runs.tools import BUILTIN
from runs.tools.base import spec_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    spec: ToolSpec
    found: FoundTool | None  # None for a built-in tool


def catalog(team: Team) -> dict[str, CatalogEntry]:
    """By the name people see: `server.tool`, or the plain name of a built-in tool. Twins are not offered."""
    entries = {name: CatalogEntry(spec=tool.spec, found=None) for name, tool in BUILTIN.items()}
    for server in ToolServer.objects.filter(team=team).order_by("slug"):
        for found in offered([FoundTool.model_validate(tool) for tool in server.tools]):
            spec = spec_of(found, server.slug)
            entries[spec.name] = CatalogEntry(spec=spec, found=found)
    return entries


def offered(tools: list[FoundTool]) -> list[FoundTool]:
    """Without the tools that are another's twin."""
    twins = {name for tool in tools for name in (tool.plan, tool.reconcile, tool.undo) if name}
    return [tool for tool in tools if tool.name not in twins]
