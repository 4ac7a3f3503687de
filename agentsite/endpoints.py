"""The endpoints of approvals, traces and costs. The apps give plain functions; here they get their addresses."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from ninja import Query, Router, Status

from approvals import api as approvals
from approvals import grants_api as grants
from approvals import paging
from runs import noting
from runs.api.endpoints import Limit, access_of
from runs.api.idempotent import idempotent
from runs.errors import Invalid
from traces import api as traces
from traces import erasing_api, sharing
from traces.export import costs_csv

approvals_router = Router(tags=["approvals"])
traces_router = Router(tags=["traces and costs"])


@approvals_router.get("/approvals", response=dict)
def list_batches(
    request: HttpRequest,
    status: paging.Status = "pending",
    limit: Limit = approvals.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> dict[str, Any]:
    try:
        return approvals.list_batches(access_of(request), status, limit=limit, cursor=cursor)
    except paging.BadCursor as error:
        raise Invalid({"cursor": str(error)}) from error


@approvals_router.get("/runs/{run_id}/actions", response=dict)
def list_actions(
    request: HttpRequest, run_id: str, limit: Limit = approvals.DEFAULT_LIMIT, cursor: str | None = None
) -> dict[str, Any]:
    """Whatever the run did, asked for or, in a dry run, proposes, in its order."""
    return approvals.list_actions(access_of(request), run_id, limit=limit, cursor=cursor)


@approvals_router.post("/approvals/{batch_id}/decisions", response=dict)
@idempotent
def decide(request: HttpRequest, batch_id: str, payload: approvals.DecisionsIn) -> dict[str, Any]:
    return approvals.decide_json(access_of(request), batch_id, payload)


@approvals_router.post("/approvals/{batch_id}/revoke", response=dict)
@idempotent
def revoke(request: HttpRequest, batch_id: str, payload: approvals.RevokeIn) -> dict[str, Any]:
    """Takes back approvals of actions that have not begun."""
    return approvals.revoke_json(access_of(request), batch_id, payload)


@approvals_router.post("/approvals/revoke", response=dict)
@idempotent
def take_back(request: HttpRequest, payload: approvals.RevokeIn) -> dict[str, Any]:
    """Takes back approvals of actions that have not begun, in whichever batches they are. Each batch is taken by
    itself, as far as each action's own window allows."""
    return approvals.take_back_json(access_of(request), payload)


@approvals_router.post("/approvals/{batch_id}/extend", response=dict)
@idempotent
def extend(request: HttpRequest, batch_id: str) -> dict[str, Any]:
    """As much time again to decide, once."""
    return approvals.extend_json(access_of(request), batch_id)


@approvals_router.post("/approvals/{batch_id}/hand_over", response=dict)
@idempotent
def hand_over(request: HttpRequest, batch_id: str, payload: approvals.HandOverIn) -> dict[str, Any]:
    """Asks somebody else of the team who may decide."""
    return approvals.hand_over_json(access_of(request), batch_id, payload)


@approvals_router.get("/grants", response=dict)
def list_grants(
    request: HttpRequest,
    state: grants.State = "standing",
    limit: Limit = approvals.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Standing permissions, newest first."""
    return grants.list_grants(access_of(request), state, limit, cursor)


@approvals_router.post("/grants", response={201: dict})
@idempotent
def give_grant(request: HttpRequest, payload: grants.GrantIn) -> Any:
    """Allows more calls like an action that the caller approved; each use counts as the caller's approval."""
    return Status(201, grants.give_json(access_of(request), payload))


@approvals_router.post("/grants/preview", response=dict)
@idempotent
def preview_grant(request: HttpRequest, payload: grants.GrantIn) -> dict[str, Any]:
    """What such a permission would have covered of the last 30 days. Gives nothing."""
    return grants.preview_json(access_of(request), payload)


@approvals_router.post("/grants/{grant_id}/revoke", response=dict)
@idempotent
def revoke_grant(request: HttpRequest, grant_id: str) -> dict[str, Any]:
    """From now on people are asked again; what it released and did not begin is stopped."""
    return grants.revoke_json(access_of(request), grant_id)


@traces_router.get("/traces", response=dict)
def search(request: HttpRequest, asked: Query[traces.TraceSearch]) -> dict[str, Any]:
    return traces.list_traces(access_of(request), asked)


@traces_router.get("/traces/aggregate", response=dict)
def aggregate(request: HttpRequest, asked: Query[traces.TraceAggregate]) -> dict[str, Any]:
    return traces.aggregate_traces(access_of(request), asked)


@traces_router.get("/traces/compare", response=dict)
def compare(request: HttpRequest, asked: Query[traces.TwoTraces]) -> dict[str, Any]:
    return traces.compare_traces(access_of(request), asked)


@traces_router.get("/traces/why", response=dict)
def why(request: HttpRequest, asked: Query[traces.TraceQuery]) -> dict[str, Any]:
    return traces.why_traces(access_of(request), asked)


@traces_router.get("/traces/{run_id}", response=dict)
def trace(request: HttpRequest, run_id: str, format: Literal["json", "otlp"] = "json") -> HttpResponseBase:  # noqa: A002
    """In pieces, as they are read: a long run's trace is tens of megabytes."""
    _, pieces = traces.trace(access_of(request), run_id, format)
    return StreamingHttpResponse(pieces, content_type="application/json; charset=utf-8")


@traces_router.get("/traces/{run_id}/notes", response=dict)
def list_notes(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return traces.list_notes(access_of(request), run_id)


@traces_router.post("/traces/{run_id}/notes", response={201: dict})
@idempotent
def add_note(request: HttpRequest, run_id: str, payload: traces.NoteIn) -> Status[dict[str, Any]]:
    return Status(201, traces.add_note(access_of(request), run_id, payload))


@traces_router.put("/traces/{run_id}/notes/{note_id}", response=dict)
def edit_note(request: HttpRequest, run_id: str, note_id: str, payload: traces.NoteChange) -> dict[str, Any]:
    """Of one's own notes."""
    return traces.edit_note(access_of(request), run_id, note_id, payload)


@traces_router.delete("/traces/{run_id}/notes/{note_id}", response={204: None})
def delete_note(request: HttpRequest, run_id: str, note_id: str) -> Status[None]:
    """Of one's own notes; an admin may delete those of others too."""
    noting.delete(access_of(request), run_id, note_id)
    return Status(204, None)


@traces_router.get("/traces/{run_id}/shares", response=dict)
def list_shares(request: HttpRequest, run_id: str) -> dict[str, Any]:
    return traces.list_shares(access_of(request), run_id)


@traces_router.post("/traces/{run_id}/shares", response={201: dict})
@idempotent
def share(request: HttpRequest, run_id: str, payload: traces.ShareIn) -> Status[dict[str, Any]]:
    """The link is in this answer, and in no other."""

    def url_of(token: str) -> str:
        return request.build_absolute_uri(reverse("traces:shared", args=[token]))

    return Status(201, traces.share(access_of(request), run_id, payload, url_of))


@traces_router.delete("/traces/{run_id}/shares/{share_id}", response={204: None})
def revoke_share(request: HttpRequest, run_id: str, share_id: str) -> Status[None]:
    """One's own; an admin may revoke those of others. A link that has ended stays ended."""
    sharing.revoke(access_of(request), run_id, share_id)
    return Status(204, None)


@traces_router.post("/erasure/search", response=dict)
@idempotent
def find_person(request: HttpRequest, payload: erasing_api.TextIn) -> dict[str, Any]:
    """Who signs in under that name or address, and how many rows of the team hold the text. For admins."""
    return erasing_api.find(access_of(request), payload)


@traces_router.post("/erasure/texts", response=dict)
@idempotent
def erase_text(request: HttpRequest, payload: erasing_api.TextAgain) -> dict[str, Any]:
    """“[erased]” in its place, wherever it stands. There is no way back."""
    return erasing_api.erase_text(access_of(request), payload)


@traces_router.post("/erasure/people/{user_id}", response=dict)
@idempotent
def erase_person(request: HttpRequest, user_id: str, payload: erasing_api.PersonAgain) -> dict[str, Any]:
    """Their account, names and texts; what they decided stays as evidence. There is no way back."""
    return erasing_api.erase_person(access_of(request), user_id, payload)


@traces_router.get("/costs", response=dict)
def costs(request: HttpRequest, asked: Query[traces.CostQuery]) -> dict[str, Any] | HttpResponse:
    report = traces.cost_report(access_of(request), asked)
    if asked.format == "csv":
        response = HttpResponse(costs_csv(report), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="costs.csv"'
        return response
    return traces.costs_json(report)
