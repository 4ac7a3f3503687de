"""The tools of a run, ready to be called. Worker code: one pool of tool server sessions a process."""

from __future__ import annotations

import atexit
import uuid

from django.conf import settings

from runs import slots
from runs.agents import config_of
from runs.catalog import offered
from runs.engine.ports import Tool
from runs.models import Run, ToolServer
from runs.schemas import AgentIn, FoundTool
from runs.tools import BUILTIN
from runs.tools.mcp import ServerPool

_pool = ServerPool(allow_private=settings.AGENTSITE_ALLOW_STDIO_SERVERS, waiting=slots.released)
atexit.register(_pool.close)


def tools_for(run: Run) -> dict[str, Tool]:
    """The tools its agent may use, in the agent's order, by the name people see. One that is gone is left out, and the
    model is told that there is no such tool."""
    wanted = [grant.name for grant in AgentIn.model_validate(run.agent_version.definition).tools]
    slugs = {name.partition(".")[0] for name in wanted if name not in BUILTIN}
    known: dict[str, Tool] = {**BUILTIN, **_server_tools(run.team_id, slugs)}
    return {name: known[name] for name in wanted if name in known}


def _server_tools(team_id: uuid.UUID, slugs: set[str]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for server in ToolServer.objects.filter(team_id=team_id, slug__in=slugs):
        found = offered([FoundTool.model_validate(tool) for tool in server.tools])
        tools.update(_pool.tools(str(server.id), server.slug, config_of(server), found))
    return tools
