"""The launch page: agent, task, mode and budget on the left; what it may cost and what will wait on the right."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe
from django_htmx.http import HttpResponseClientRedirect

from accounts.access import LADDER, ROLE_OF, Right, get, rows
from accounts.http import HttpRequest
from accounts.models import Membership
from runs import commands, estimates, forms, lists, policies
from runs.catalog import catalog
from runs.engine.types import Mode
from runs.errors import Invalid
from runs.forms import LaunchForm
from runs.models import Agent, Run, ToolServer
from runs.schemas import AgentIn

RECENT = 6
DEMO = "refund-desk"
MODES = (
    (Mode.INTERACTIVE, "Interactive", "message-square", "Stops at each risky step and asks you on the spot."),
    (Mode.BATCH, "Batch approvals", "list-checks", "Collects risky actions and sends them to the inbox."),
    (Mode.DRY_RUN, "Dry run", "eye", "Changes nothing. Ends with a report of what it would do."),
)


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    agents = _agents(request)
    if request.method == "POST":
        return _launch(request, agents)
    demo = next((agent for agent in agents if agent.slug == DEMO and agent.sample_task), None)
    if demo and not request.GET and not rows(request.access, Run).exists():
        return _welcome(request, demo)
    return _form(request, agents, _start(request, agents))


@require_safe
def estimate(request: HttpRequest) -> HttpResponse:
    """The right rail alone, for what is chosen in the form."""
    return render(request, "runs/_rail.html", _rail(request, _agents(request), forms.read(request.GET)))


def _launch(request: HttpRequest, agents: Sequence[Agent]) -> HttpResponse:
    request.access.require(Right.LAUNCH)
    form = forms.read(request.POST)
    chosen = _chosen(agents, form)
    definition = definition_of(chosen) if chosen else AgentIn(name="unknown")
    try:
        run = commands.launch(request.access, forms.wanted(form, definition))
    except Invalid as invalid:
        return _form(request, agents, form.with_errors(invalid.errors), status=422)
    url = reverse("runs:live", args=[run.id])
    # A form that goes by script is told where to, so that it opens the run's socket before it asks for the page.
    return HttpResponseClientRedirect(url) if request.htmx else HttpResponseRedirect(url, status=303)


def _start(request: HttpRequest, agents: Sequence[Agent]) -> LaunchForm:
    if "again" in request.GET:
        past = get(request.access, rows(request.access, Run).select_related("agent"), request.GET["again"])
        return forms.again(past)
    slug = request.GET.get("agent", "")
    agent = next((each for each in agents if each.slug == slug), agents[0] if agents else None)
    return forms.blank(agent.slug, definition_of(agent), agent.sample_task) if agent else LaunchForm()


def _form(request: HttpRequest, agents: Sequence[Agent], form: LaunchForm, *, status: int = 200) -> HttpResponse:
    chosen = _chosen(agents, form)
    if chosen:
        form = form.complete(forms.budget(definition_of(chosen).limits))
    context = {
        **_rail(request, agents, form),
        "cards": _cards(request, _offered(agents, chosen)),
        "others": len(agents) - len(_offered(agents, chosen)),
        "modes": MODES,
        "recent": lists.recent(request.access, RECENT),
    }
    return render(request, "runs/launch.html", context, status=status)


def _welcome(request: HttpRequest, demo: Agent) -> HttpResponse:
    definition = definition_of(demo)
    context = {
        "demo": demo,
        "definition": definition,
        "may_launch": request.access.may(Right.LAUNCH),
        "may_manage": request.access.may(Right.MANAGE),
        "simulated": settings.SIMULATED,
        "servers": rows(request.access, ToolServer).count(),
        "people": rows(request.access, Membership).count(),
    }
    return render(request, "runs/welcome.html", context)


# --- what the page shows ---------------------------------------------------------------------------------------------


def _agents(request: HttpRequest) -> list[Agent]:
    found = rows(request.access, Agent).filter(current__isnull=False).select_related("current")
    return list(found.order_by("created_at", "id"))


def _chosen(agents: Sequence[Agent], form: LaunchForm) -> Agent | None:
    return next((agent for agent in agents if agent.slug == form.agent), None)


def _offered(agents: Sequence[Agent], chosen: Agent | None) -> list[Agent]:
    """Without those that work for another agent, which are launched by it; the chosen one is always there."""
    below = {slug for agent in agents for slug in definition_of(agent).subagents}
    return [agent for agent in agents if agent.slug not in below or agent == chosen]


def definition_of(agent: Agent) -> AgentIn:
    return AgentIn.model_validate(agent.current.definition) if agent.current else AgentIn(name=agent.slug)


def _cards(request: HttpRequest, agents: Sequence[Agent]) -> list[dict[str, Any]]:
    known = catalog(request.access.team)
    costs = estimates.past_costs(request.access, [agent.id for agent in agents])
    scale = max((each[-1] for each in costs.values()), default=Decimal(0))
    cards = []
    for agent in agents:
        definition = definition_of(agent)
        tools = policies.tool_lines(definition, known)
        cards.append(
            {
                "agent": agent,
                "definition": definition,
                "tools": [line for line in tools if not line.reads or line.asks],
                "read_only": policies.read_only(tools),
                "range": estimates.cost_range(costs.get(agent.id, []), scale),
                "budget": forms.budget(definition.limits),
            }
        )
    return cards


def _rail(request: HttpRequest, agents: Sequence[Agent], form: LaunchForm) -> dict[str, Any]:
    agent = _chosen(agents, form)
    definition = definition_of(agent) if agent else None
    tools = policies.tool_lines(definition, catalog(request.access.team)) if definition else []
    costs = estimates.past_costs(request.access, [agent.id]) if agent else {}
    approvers = _approvers(request)
    return {
        "form": form,
        "agent": agent,
        "definition": definition,
        "estimate": estimates.estimate(costs.get(agent.id, []) if agent else [], forms.cost_of(form)),
        "waits": policies.waits(tools, form.mode),
        "approvers": approvers,
        "too_few": policies.needs_two(tools) and len(approvers) < 2 and form.mode != Mode.DRY_RUN,
        "model": (definition.model if definition else None) or settings.AGENTSITE_MODEL,
        "simulated": settings.SIMULATED,
        "may_launch": request.access.may(Right.LAUNCH),
    }


def _approvers(request: HttpRequest) -> list[str]:
    enough = LADDER[LADDER.index(ROLE_OF[Right.DECIDE]) :]
    found = rows(request.access, Membership).filter(role__in=enough, user__is_active=True).select_related("user")
    return [member.user.label for member in found.order_by("created_at", "id")]
