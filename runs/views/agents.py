"""Agents: to read for everybody; for admins a draft of each, changed field by field, replayed and published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from accounts.access import Right, get, holders, rows
from accounts.http import HttpRequest
from runs import bounds, breakers, drafts, lists, policies, settings_form, settings_page
from runs.catalog import catalog
from runs.errors import Conflict, Invalid
from runs.human_side import Replay, human_side
from runs.models import Agent, AgentVersion, Run
from runs.policies import ToolLine
from runs.schemas import AgentIn

RUNS = 5
VERSIONS = 20


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
    if request.access.may(Right.MANAGE) and agent.current:
        return render(request, "runs/agent_settings.html", _settings(request, agent))
    definition = _definition(agent)
    tools = policies.tool_lines(definition, catalog(request.access.team))
    context = {
        **_shared(request, agent, definition, tools),
        "definition": definition,
        "model": definition.model or settings.AGENTSITE_MODEL,
        "tools": tools,
        "instructions": list(enumerate(definition.instructions.splitlines(), 1)),
    }
    return render(request, "runs/agent.html", context)


@require_POST
def change(request: HttpRequest, slug: str) -> HttpResponse:
    """One field (`only`) as it is left, or the whole form where no script runs."""
    agent = get(request.access, Agent, slug=slug, right=Right.MANAGE)
    only = request.POST.get("only", "")
    typed = {name: str(text) for name, text in request.POST.items() if not only or _belongs(name, only)}
    errors: Mapping[str, str] = {}
    try:
        drafts.change(request.access, slug, typed)
    except Invalid as invalid:
        errors = invalid.errors
    if not request.htmx:
        return _page(request, agent, typed, errors)
    context = _settings(request, _fresh(request, slug), typed=typed if errors else {}, errors=errors)
    context["touched"] = [each for each in _all_fields(context["settings"]) if _belongs(each.name, only)]
    shown = {each.name for each in context["touched"]}
    context["strays"] = [text for name, text in errors.items() if name not in shown]
    context["rows_touched"] = [row for row in context["settings"].rows if row.policy.name == only]
    context["rules_added"] = [] if errors else list(_rules_added(context["settings"], typed))
    return render(request, "runs/_draft_answer.html", context, status=422 if errors else 200)


@require_POST
def publish(request: HttpRequest, slug: str) -> HttpResponse:
    get(request.access, Agent, slug=slug, right=Right.MANAGE)
    shown = request.POST.get("revision", "")
    try:
        saved = drafts.publish(request.access, slug, int(shown) if shown.isdecimal() and len(shown) < 9 else 0)
    except Conflict as conflict:
        messages.warning(request, conflict.detail)
    except Invalid as invalid:
        messages.error(request, "Not published. " + " ".join(invalid.errors.values()))
    else:
        messages.success(
            request, f"v{saved.version.number} is live. Runs that began before keep the version they began with."
        )
    return redirect("runs:agent", slug)


@require_POST
def discard(request: HttpRequest, slug: str) -> HttpResponse:
    get(request.access, Agent, slug=slug, right=Right.MANAGE)
    if drafts.discard(request.access, slug):
        messages.success(request, "The draft is gone. The live version is unchanged.")
    return redirect("runs:agent", slug)


def _page(request: HttpRequest, agent: Agent, typed: Mapping[str, str], errors: Mapping[str, str]) -> HttpResponse:
    if not errors:
        return redirect("runs:agent", agent.slug)
    context = _settings(request, _fresh(request, agent.slug), typed=typed, errors=errors)
    return render(request, "runs/agent_settings.html", {**context, "form_errors": list(errors.values())}, status=422)


def _settings(
    request: HttpRequest,
    agent: Agent,
    *,
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    access = request.access
    draft = drafts.of(access, agent)
    live = _definition(agent)
    shown = AgentIn.model_validate(draft.definition) if draft else live
    known = catalog(access.team)
    view = settings_page.settings(
        shown, live, known, human_side().history(agent), lists.calls(access, agent), typed=typed, errors=errors
    )
    return {
        **_shared(request, agent, shown, [row.line for row in view.rows]),
        "definition": shown,
        "draft": draft,
        "url": reverse("runs:change_agent", args=[agent.slug]),
        "deciders": holders(access.team, Right.DECIDE).order_by("username"),
        "next_number": agent.current.number + 1 if agent.current else 1,
        "default_model": settings.AGENTSITE_MODEL,
        "settings": view,
        **_replayed(human_side().replay(agent, live, shown)),
    }


def _replayed(replay: Replay) -> dict[str, Any]:
    lists_of = (
        ("Would have run alone, though a person rejected or changed it", replay.regretted),
        ("Would have waited, and ran alone", replay.waiting),
    )
    return {"replay": replay, "replay_lists": lists_of}


def _shared(request: HttpRequest, agent: Agent, definition: AgentIn, tools: Sequence[ToolLine]) -> dict[str, Any]:
    versions = rows(request.access, AgentVersion).filter(agent=agent).select_related("created_by").order_by("-number")
    runs = rows(request.access, Run).filter(agent=agent)
    connections = _connections(request, definition)
    return {
        "agent": agent,
        "versions": versions[:VERSIONS],
        "version_count": agent.current.number if agent.current else 0,
        "run_count": runs.count(),
        "runs": lists.lines(runs.order_by("-number")[:RUNS]),
        "may_launch": request.access.may(Right.LAUNCH),
        "connections": connections,
        "guards": bounds.guards(request.access.team, definition, tools),
        "permitted": bounds.permitted(request.access.team),
        "may_manage": request.access.may(Right.MANAGE),
        "some_are_away": any(each.unavailable or each.is_tried for each in connections),
    }


def _fresh(request: HttpRequest, slug: str) -> Agent:
    return get(request.access, rows(request.access, Agent).select_related("current__created_by", "team"), slug=slug)


def _all_fields(view: settings_page.Settings) -> list[settings_page.Field]:
    found = list(view.fields.values())
    for row in view.rows:
        found += [*row.fields, *(part for rule in row.rules for part in rule)]
    return found


def _rules_added(view: settings_page.Settings, typed: Mapping[str, str]) -> Iterator[tuple[settings_page.ToolRow, Any]]:
    """The empty rule that follows the one which was empty until now."""
    for row in view.rows:
        shown = sum(f"{row.line.name}|rules.{number}.argument" in typed for number in range(len(row.rules)))
        if 0 < shown < len(row.rules):
            yield row, row.rules[-1]


def _belongs(name: str, only: str) -> bool:
    return settings_form.scope_of(name) == only


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


def _connections(request: HttpRequest, definition: AgentIn) -> list[breakers.Connection]:
    return breakers.connections(request.access.team.id, definition)


def _definition(agent: Agent) -> AgentIn:
    return AgentIn.model_validate(agent.current.definition) if agent.current else AgentIn(name=agent.slug)
