"""Agents and tool servers: what people change about them. A saved agent is a new version; old runs keep theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, holders, rows
from accounts.models import Team, User
from accounts.secrets import decrypt, encrypt
from runs.catalog import catalog
from runs.errors import Invalid
from runs.models import Agent, AgentVersion, ToolServer
from runs.schemas import SLUG, AgentIn, FoundTool, ServerConfig
from runs.tools import RESERVED_SLUGS

PEOPLE = ("reviewers", "backup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    agent: Agent
    version: AgentVersion
    created: bool


def put_agent(access: Access, slug: str, wanted: AgentIn, *, sample_task: str | None = None) -> Saved:
    """Stores a new version, or none when nothing changed. Raises `Invalid` for an unknown slug, tool or sub-agent."""
    access.require(Right.MANAGE)
    _check_slug(slug)
    check_references(access, slug, wanted)
    return save_agent(access.team, slug, wanted, by=access.user, sample_task=sample_task)


def save_agent(team: Team, slug: str, wanted: AgentIn, *, by: User | None, sample_task: str | None = None) -> Saved:
    definition = wanted.model_dump(mode="json")
    with transaction.atomic():
        Team.objects.select_for_update().get(id=team.id)
        agent, created = Agent.objects.select_related("current").get_or_create(team=team, slug=slug)
        if sample_task is not None and sample_task != agent.sample_task:
            Agent.objects.filter(id=agent.id).update(sample_task=sample_task)
        if agent.current and _as_read(agent.current.definition) == definition:
            return Saved(agent=agent, version=agent.current, created=False)
        number = agent.current.number + 1 if agent.current else 1
        version = AgentVersion.objects.create(agent=agent, number=number, definition=definition, created_by=by)
        Agent.objects.filter(id=agent.id).update(current=version)
        agent.current = version
        receipts.append(
            team.id,
            "agent.saved",
            actor=by or "agentsite",
            subject_type="agent",
            subject_id=agent.id,
            payload={"slug": slug, "version": number},
        )
    return Saved(agent=agent, version=version, created=created)


def check_server(access: Access, slug: str, config: ServerConfig) -> None:
    """Who may add which server, before anything is started or asked."""
    access.require(Right.MANAGE)
    _check_slug(slug)
    if slug in RESERVED_SLUGS:
        raise Invalid({"slug": f"“{slug}” is the name of built-in tools."})
    if config.transport == "stdio" and not settings.AGENTSITE_ALLOW_STDIO_SERVERS:
        raise Invalid(
            {
                "transport": "Servers over stdio run a command on this machine; "
                "set AGENTSITE_ALLOW_STDIO_SERVERS=1 to allow them."
            }
        )


def save_server(team: Team, slug: str, config: ServerConfig, tools: list[FoundTool], *, by: User | None) -> ToolServer:
    """Stores what was found. `env` and `headers` are encrypted; nothing of them is logged or shown again."""
    with transaction.atomic():
        server, _ = ToolServer.objects.update_or_create(
            team=team,
            slug=slug,
            defaults={
                "transport": config.transport,
                "config": encrypt(config.model_dump_json()),
                "tools": [tool.model_dump(mode="json") for tool in tools],
                "checked_at": timezone.now(),
            },
        )
        receipts.append(
            team.id,
            "tool_server.saved",
            actor=by or "agentsite",
            subject_type="tool_server",
            subject_id=server.id,
            payload={"slug": slug, "transport": config.transport, "tools": len(tools)},
        )
    return server


def config_of(server: ToolServer) -> ServerConfig:
    return ServerConfig.model_validate(json.loads(decrypt(bytes(server.config))))


def _as_read(stored: dict[str, Any]) -> dict[str, Any]:
    """A field that is newer than the stored version has its default there, and is no change."""
    return AgentIn.model_validate(stored).model_dump(mode="json")


def _check_slug(slug: str) -> None:
    if not SLUG.match(slug) or len(slug) > 40:
        raise Invalid({"slug": "Small letters, digits and single hyphens, at most 40 characters."})


def check_references(access: Access, slug: str, wanted: AgentIn) -> None:
    errors = _strangers(access, slug, wanted)
    of_agent = {tool.name for tool in wanted.tools}
    known = catalog(access.team)
    for index, tool in enumerate(wanted.tools):
        if tool.name not in known:
            errors[f"tools.{index}.name"] = f"There is no tool “{tool.name}”.{_did_you_mean(tool.name, known)}"
            continue
        names = known[tool.name].spec.input_schema.get("properties") or {}
        for place, rule in enumerate(tool.rules):
            if names and rule.argument not in names and rule.argument.split(".")[0] not in names:
                errors[f"tools.{index}.rules.{place}.argument"] = (
                    f"{tool.name} has no argument “{rule.argument}”. It has: {', '.join(names)}."
                )
        for name in tool.after:
            if name == tool.name or name not in of_agent:
                errors[f"tools.{index}.after"] = f"“{name}” is no other tool of this agent."
    slugs = set(rows(access, Agent).values_list("slug", flat=True))
    for index, name in enumerate(wanted.subagents):
        if name == slug or name not in slugs:
            errors[f"subagents.{index}"] = f"There is no other agent “{name}”."
    if errors:
        raise Invalid(errors)


def _strangers(access: Access, slug: str, wanted: AgentIn) -> dict[str, str]:
    """Who is to be asked and could not decide. A name that stands in the live version already is none: people leave,
    and others are asked then."""
    agent = Agent.objects.filter(team=access.team, slug=slug).select_related("current").first()
    live = agent.current.definition.get("tools") or () if agent and agent.current else ()
    known = {name for tool in live for who in PEOPLE for name in tool.get(who) or ()}
    named = {name for tool in wanted.tools for who in PEOPLE for name in getattr(tool, who)} - known
    if not named:
        return {}
    able = set(holders(access.team, Right.DECIDE).filter(username__in=named).values_list("username", flat=True))
    return {
        f"tools.{index}.{who}": f"“{name}” is nobody of this team who may decide."
        for index, tool in enumerate(wanted.tools)
        for who in PEOPLE
        for name in getattr(tool, who)
        if name in named - able
    }


def _did_you_mean(name: str, known: dict[str, Any]) -> str:
    ending = name.rpartition(".")[2]
    alike = sorted(other for other in known if other.rpartition(".")[2] == ending)
    return f" Did you mean “{alike[0]}”?" if alike else ""
