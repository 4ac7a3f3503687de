"""What a new installation starts with: the sample shop's tools and the agents that work with it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from django.conf import settings

from accounts.models import Team
from runs.agents import save_agent, save_server
from runs.models import Agent, ToolServer
from runs.schemas import AgentIn, FoundTool, ServerConfig

SHOP = "shop"
DEFAULT_TEAM = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    agents: list[str]
    created: bool


def ensure_samples() -> Samples:
    """Adds what is missing and changes nothing that people have changed. The shop's tools are on file, as its server
    lists them (a test holds that), so that a first start need not wait for one."""
    team = Team.objects.get(slug=DEFAULT_TEAM)
    created = False
    if not ToolServer.objects.filter(team=team, slug=SHOP).exists():
        config = shop_config(Path(settings.DATA_DIR))
        save_server(team, SHOP, config, shop_tools(), by=None)
        created = True
    tasks = _read("tasks.json")
    known = set(Agent.objects.filter(team=team).values_list("slug", flat=True))
    definitions: list[dict[str, Any]] = _read("agents.json")
    for definition in definitions:
        slug = definition.pop("slug")
        if slug not in known:
            save_agent(team, slug, AgentIn.model_validate(definition), by=None, sample_task=tasks.get(slug, ""))
            created = True
    return Samples(agents=sorted(tasks), created=created)


def shop_tools() -> list[FoundTool]:
    return [FoundTool.model_validate(tool) for tool in _read("shop_tools.json")]


def shop_config(data_dir: Path) -> ServerConfig:
    """Our own server, started with this Python; it needs the project on its path and a file of its own."""
    return ServerConfig(
        transport="stdio",
        command=[sys.executable, "-m", "runs.samples.shop", "--data", str(data_dir / "shop.sqlite3")],
        env={"PYTHONPATH": str(settings.BASE_DIR)},
    )


def _read(name: str) -> Any:
    return json.loads(files("runs.samples").joinpath(name).read_text(encoding="utf-8"))
