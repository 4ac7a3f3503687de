"""Agents to read: what each may do, under which policy and limits."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from accounts.access import Right, get, rows
from accounts.http import HttpRequest
from runs import breakers, lists, policies
from runs.catalog import catalog
from runs.models import Agent, AgentVersion, Run
from runs.schemas import AgentIn

RUNS = 5


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    known = catalog(request.access.team)
    agents = rows(request.access, Agent).filter(current__isnull=False).select_related("current")
    counted = agents.annotate(run_count=Count("runs")).order_by("created_at", "id")
    cards: list[dict[str, Any]] = []
    for agent in counted:
        definition = _definition(agent)
        tools = policies.tool_lines(definition, known)
        shown = [line for line in tools if not line.reads or line.asks]
        cards.append({"agent": agent, "definition": definition, "tools": shown, "read_only": policies.read_only(tools)})
    context = {"cards": cards, "may_launch": request.access.may(Right.LAUNCH)}
    return render(request, "runs/agents.html", context)


@require_safe
def page(request: HttpRequest, slug: str) -> HttpResponse:
    agent = get(request.access, rows(request.access, Agent).select_related("current__created_by"), slug=slug)
    definition = _definition(agent)
    versions = rows(request.access, AgentVersion).filter(agent=agent).select_related("created_by").order_by("-number")
    context = {
        "agent": agent,
        "definition": definition,
        "model": _models(definition)[0],
        "connections": _connections(request, definition),
        "tools": policies.tool_lines(definition, catalog(request.access.team)),
        "instructions": list(enumerate(definition.instructions.splitlines(), 1)),
        "versions": versions[:20],
        "runs": lists.lines(rows(request.access, Run).filter(agent=agent).order_by("-number")[:RUNS]),
        "may_launch": request.access.may(Right.LAUNCH),
    }
    return render(request, "runs/agent.html", context)


@require_POST
def try_connection(request: HttpRequest, slug: str) -> HttpResponse:
    """The next call goes through at once, whatever the breaker waits for."""
    agent = get(request.access, rows(request.access, Agent).select_related("current"), slug=slug, right=Right.LAUNCH)
    wanted = next(
        (each for each in _connections(request, _definition(agent)) if each.name == request.POST.get("name")), None
    )
    if wanted is None:
        messages.warning(request, "This agent has no such connection.")
    else:
        breakers.try_now(request.access.team.id, wanted.name)
        messages.success(request, f"The next call of {wanted.label} is made at once.")
    return redirect("runs:agent", slug)


def _models(definition: AgentIn) -> list[str]:
    """The main one first, each once."""
    named = [definition.model or settings.AGENTSITE_MODEL, *definition.fallback_models, definition.judge_model]
    return list(dict.fromkeys(model for model in named if model))


def _connections(request: HttpRequest, definition: AgentIn) -> list[breakers.Connection]:
    tools = [tool.name for tool in definition.tools]
    return breakers.connections(request.access.team.id, _models(definition), tools)


def _definition(agent: Agent) -> AgentIn:
    return AgentIn.model_validate(agent.current.definition) if agent.current else AgentIn(name=agent.slug)
