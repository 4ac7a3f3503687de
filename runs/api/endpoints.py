"""`/runs`, `/agents`, `/tools`, `/tool-servers`. Each fetches through `accounts.access` and calls one command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Query, Router, Status
from pydantic import Field

from accounts.access import Access, Right, get, rows
from runs import agents, commands, executing, forks, presenters
from runs.api.idempotent import idempotent
from runs.api.paging import DEFAULT_LIMIT, LARGEST_LIMIT, page
from runs.api.shapes import AgentPut, ExecuteIn, ForkIn, MessageIn, RunIn, ServerIn
from runs.catalog import catalog
from runs.engine.types import RunStatus
from runs.errors import Invalid
from runs.models import Agent, Run, Step
from runs.probe import probe
from runs.schemas import ServerConfig

router = Router()
Limit = Annotated[int, Field(ge=1, le=LARGEST_LIMIT)]
LARGEST_SEQ = 2**31 - 1


def access_of(request: HttpRequest) -> Access:
    access: Access = request.auth  # type: ignore[attr-defined]
    return access


# --- agents ----------------------------------------------------------------------------------------------------------


@router.put("/agents/{slug}", response={200: dict, 201: dict}, tags=["agents"])
def put_agent(request: HttpRequest, slug: str, payload: AgentPut) -> Status[dict[str, Any]]:
    saved = agents.put_agent(access_of(request), slug, payload)
    return Status(201 if saved.created else 200, presenters.agent_json(saved.agent, saved.version))


@router.get("/agents", response=dict, tags=["agents"])
def list_agents(request: HttpRequest, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None) -> dict[str, Any]:
    found, following = page(rows(access_of(request), Agent).select_related("current"), limit, cursor)
    return {"items": [presenters.agent_json(agent, agent.current) for agent in found], "next": following}


@router.get("/agents/{slug}", response=dict, tags=["agents"])
def get_agent(request: HttpRequest, slug: str) -> dict[str, Any]:
    agent = get(access_of(request), Agent.objects.select_related("current"), slug=slug)
    return presenters.agent_json(agent, agent.current)


# --- tools -----------------------------------------------------------------------------------------------------------


@router.get("/tools", response=dict, tags=["tools"])
def list_tools(request: HttpRequest) -> dict[str, Any]:
    access = access_of(request)
    access.require(Right.VIEW)
    return {"items": [presenters.tool_json(entry) for entry in catalog(access.team).values()], "next": None}


@router.put("/tool-servers/{slug}", response=dict, tags=["tools"])
def put_tool_server(request: HttpRequest, slug: str, payload: ServerIn) -> dict[str, Any]:
    """Starts or asks the server for its tools first: one that can't be reached is not stored."""
    access = access_of(request)
    config = ServerConfig.model_validate(payload.model_dump())
    agents.check_server(access, slug, config)
    found = probe(config, slug)
    return presenters.server_json(agents.save_server(access.team, slug, config, found, by=access.user))


# --- runs ------------------------------------------------------------------------------------------------------------


@router.post("/runs", response={201: dict}, tags=["runs"])
@idempotent
def launch(request: HttpRequest, payload: RunIn) -> Status[dict[str, Any]]:
    access = access_of(request)
    run = commands.launch(access, commands.Launch(**payload.model_dump()))
    return Status(201, presenters.run_json(get(access, presenters.named(Run.objects.all()), run.id)))


@router.get("/runs", response=dict, tags=["runs"])
def list_runs(
    request: HttpRequest,
    status: str | None = None,
    agent: str | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> dict[str, Any]:
    found = presenters.named(rows(access_of(request), Run))
    if status is not None:
        known = [value.value for value in RunStatus]
        if status not in known:
            raise Invalid({"status": f"One of: {', '.join(known)}."})
        found = found.filter(status=status)
    if agent is not None:
        found = found.filter(agent__slug=agent)
    page_of_runs, following = page(found, limit, cursor)
    return {"items": presenters.runs_json(page_of_runs), "next": following}


@router.get("/runs/{run_id}", response=dict, tags=["runs"])
def get_run(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return presenters.run_json(get(access_of(request), presenters.named(Run.objects.all()), run_id))


@router.get("/runs/{run_id}/steps", response=dict, tags=["runs"])
def list_steps(
    request: HttpRequest,
    run_id: str,
    after: Annotated[int, Query(ge=0, le=LARGEST_SEQ)] = 0,
    limit: Limit = LARGEST_LIMIT,
) -> dict[str, Any]:
    """Recorded steps with a seq above `after`; `next` is the `after` of the next page, null when there is none yet."""
    access = access_of(request)
    run = get(access, Run, run_id)
    steps = list(
        rows(access, Step).filter(run=run, seq__gt=after).select_related("payload").order_by("seq")[: limit + 1]
    )
    following = steps[limit - 1].seq if len(steps) > limit else None
    return {"items": [presenters.step_json(step) for step in steps[:limit]], "next": following}


@router.post("/runs/{run_id}/messages", response={202: dict}, tags=["runs"])
@idempotent
def steer(request: HttpRequest, run_id: str, payload: MessageIn) -> Status[dict[str, Any]]:
    message = commands.steer(access_of(request), run_id, payload.text)
    told = {"id": str(message.id), "text": message.text, "created_at": presenters.time(message.created_at)}
    return Status(202, told)


@router.post("/runs/{run_id}/fork", response={201: dict}, tags=["runs"])
@idempotent
def fork(request: HttpRequest, run_id: str, payload: ForkIn) -> Status[dict[str, Any]]:
    """Goes on from a step in a run of its own: earlier steps are replayed, nothing is executed again."""
    access = access_of(request)
    wanted = payload.model_dump(exclude_none=True, exclude={"replace_output"})
    if "replace_output" in payload.model_fields_set:
        wanted["replace_output"] = payload.replace_output
    made = forks.fork(access, run_id, forks.Fork(**wanted))
    return Status(201, presenters.run_json(get(access, presenters.named(Run.objects.all()), made.id)))


@router.post("/runs/{run_id}/execute", response=dict, tags=["runs"])
@idempotent
def execute(request: HttpRequest, run_id: str, payload: ExecuteIn) -> dict[str, Any]:
    """Of a dry run: carries out the chosen ones of `GET /runs/{id}/actions`. A line each; stale ones are refused with
    what changed."""
    picks = [executing.Pick(action=each.id, digest=each.digest) for each in payload.actions]
    outcomes = executing.execute(access_of(request), run_id, picks)
    return {"results": [{"action": str(o.action), "outcome": o.outcome, "detail": o.detail} for o in outcomes]}


@router.post("/runs/{run_id}/execute/revoke", response=dict, tags=["runs"])
@idempotent
def take_back(request: HttpRequest, run_id: str) -> dict[str, Any]:
    """Of a dry run: takes the last choice back, before it has begun."""
    executing.take_back(access_of(request), run_id)
    return presenters.run_json(get(access_of(request), presenters.named(Run.objects.all()), run_id))


@router.post("/runs/{run_id}/pause", response=dict, tags=["runs"])
@idempotent
def pause(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return _changed(request, commands.pause, run_id)


@router.post("/runs/{run_id}/resume", response=dict, tags=["runs"])
@idempotent
def resume(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return _changed(request, commands.resume, run_id)


@router.post("/runs/{run_id}/cancel", response=dict, tags=["runs"])
@idempotent
def cancel(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return _changed(request, commands.cancel, run_id)


def _changed(request: HttpRequest, change: Callable[[Access, str], Run], run_id: str) -> dict[str, Any]:
    access = access_of(request)
    run = change(access, run_id)
    return presenters.run_json(get(access, presenters.named(Run.objects.all()), run.id))
