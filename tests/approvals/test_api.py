"""CONTRACT's shapes, over HTTP with a token and as plain functions."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest
from django.test import Client
from pydantic import ValidationError
from pytest_django import DjangoAssertNumQueries

from accounts import tokens
from accounts.schemas import Scope
from approvals import api, inbox, paging
from approvals.models import Decision
from runs.models import Action
from tests.approvals import factories as make
from tests.approvals.factories import World, approve

BATCH = {"id", "version", "run", "agent", "title", "why", "status", "expires_at", "asked", "actions", "execution"}
ACTION = {
    "id", "digest", "kind", "tool", "args", "risk", "confidence", "route_reason", "preview", "status", "needed",
    "decisions", "supersedes", "result", "note", "expires_at", "starts_at",
}  # fmt: skip


def payload(version: int, *decisions: dict[str, Any], **more: Any) -> api.DecisionsIn:
    return api.DecisionsIn.model_validate({"version": version, "decisions": list(decisions), **more})


def said(action: Action, verdict: str, **more: Any) -> dict[str, Any]:
    return {"action": str(action.id), "digest": action.digest, "verdict": verdict, **more}


def test_a_batch_has_exactly_the_contracts_fields(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)

    [item] = api.list_batches(world.access("viewer"))["items"]

    assert set(item) == BATCH
    assert all(set(action) == ACTION for action in item["actions"])
    assert (item["id"], item["run"], item["agent"]) == (str(batch.id), str(batch.run_id), "refund-desk")
    assert (item["status"], item["version"]) == ("pending", 1)
    assert dt.datetime.fromisoformat(item["expires_at"]) == batch.expires_at
    assert item["expires_at"].endswith("Z")
    first = item["actions"][0]
    assert (first["id"], first["digest"], first["args"]) == (str(refund.id), refund.digest, refund.args)
    assert first["preview"]["type"] == "amount"
    json.dumps(item)


def test_decisions_are_answered_line_by_line(world: World) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="web")
    nobody = {"action": str(uuid.uuid4()), "digest": "x", "verdict": "approve"}

    answer = api.decide_json(
        world.access("approver"),
        batch.id,
        payload(
            1,
            said(refund, "approve"),
            said(update, "approve", digest="0" * 64),
            said(email, "reject", note="No"),
            nobody,
        ),
    )

    results = answer["results"]
    assert [line["outcome"] for line in results] == ["already_decided", "stale", "applied", "invalid"]
    assert results[0]["by"] == "lea"
    assert dt.datetime.fromisoformat(results[0]["at"]).tzinfo is dt.UTC
    assert all({"action", "outcome", "detail"} <= set(line) for line in results)
    assert "by" not in results[3]
    email.refresh_from_db()
    assert email.note == "No"


def test_an_edit_through_the_api_names_its_successor(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    [line] = api.decide_json(
        world.access("approver"), batch.id, payload(1, said(refund, "approve", args={**refund.args, "amount": 50}))
    )["results"]

    assert line["outcome"] == "applied"
    [item] = api.list_batches(world.access("viewer"), "decided")["items"]
    [action] = item["actions"]
    assert (action["id"], action["supersedes"], action["status"]) == (line["superseded_by"], str(refund.id), "approved")
    assert [each["verdict"] for each in action["decisions"]] == ["edit", "approve"]
    assert action["decisions"][0]["by"] == "marco"


@pytest.mark.parametrize(
    "broken",
    [
        {"version": 0},
        {"version": "x"},
        {"decisions": []},
        {"decisions": [{"action": "x", "digest": "y", "verdict": "approve"}]},
        {"decisions": [{"action": str(uuid.uuid4()), "digest": "y", "verdict": "edit"}]},
        {"execution": "some"},
        {"extra": 1},
    ],
)
def test_a_body_of_another_shape_is_refused(broken: dict[str, Any]) -> None:
    good = {"version": 1, "decisions": [{"action": str(uuid.uuid4()), "digest": "y", "verdict": "approve"}]}

    api.DecisionsIn.model_validate(good)
    with pytest.raises(ValidationError):
        api.DecisionsIn.model_validate(good | broken)


def test_the_list_is_read_page_by_page_without_gaps(world: World) -> None:
    for minutes in (50, 10, 30, 30, 20):
        make.make_refund(make.make_batch(world, minutes=minutes))
    access = world.access("viewer")
    whole = [item["id"] for item in api.list_batches(access)["items"]]

    pages: list[str] = []
    cursor = None
    while True:
        page = api.list_batches(access, limit=2, cursor=cursor)
        pages += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert pages == whole
    assert len(pages) == 5
    for bad in ("x", "////", "bm9uc2Vuc2U="):
        with pytest.raises(paging.BadCursor):
            api.list_batches(access, cursor=bad)


def test_the_list_takes_as_many_queries_for_twenty_batches_as_for_one(
    world: World, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    access = world.access("viewer")
    make.make_full_batch(world)
    with django_assert_max_num_queries(10) as one:
        api.list_batches(access)
    for _ in range(19):
        make.make_full_batch(world)
    with django_assert_max_num_queries(len(one.captured_queries)):
        assert len(api.list_batches(access)["items"]) == 20


# --- over HTTP --------------------------------------------------------------------------------------------------------


def bearer(world: World, who: str, *scopes: Scope) -> dict[str, str]:
    access = world.access(who)
    _, raw = tokens.create_token(access.user, access.team, name="test", scopes=scopes)
    return {"HTTP_AUTHORIZATION": f"Bearer {raw}"}


def post(world: World, headers: dict[str, str], batch_id: object, *decisions: dict[str, Any]) -> Any:
    return Client().post(
        f"/api/v1/approvals/{batch_id}/decisions",
        json.dumps({"version": 1, "decisions": list(decisions)}),
        content_type="application/json",
        **headers,  # type: ignore[arg-type]
    )


def test_over_http_a_token_lists_and_decides(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    headers = bearer(world, "approver", Scope.READ, Scope.APPROVALS)

    listed = Client().get("/api/v1/approvals?status=pending", **headers)  # type: ignore[arg-type]
    decided = post(world, headers, batch.id, said(refund, "approve"))

    assert [item["id"] for item in listed.json()["items"]] == [str(batch.id)]
    assert decided.status_code == 200
    assert decided.json()["results"][0]["outcome"] == "applied"


@pytest.mark.parametrize(
    ("who", "scopes", "status"),
    [
        ("approver", [Scope.READ], 403),
        ("operator", [Scope.READ, Scope.RUNS], 403),
        ("outsider", [Scope.READ, Scope.APPROVALS], 404),
    ],
)
def test_over_http_who_may_not_decide_is_told_so(world: World, who: str, scopes: list[Scope], status: int) -> None:
    batch, (refund, *_) = make.make_full_batch(world)

    response = post(world, bearer(world, who, *scopes), batch.id, said(refund, "approve"))

    assert response.status_code == status
    assert response["Content-Type"].startswith("application/problem+json")
    assert not Decision.objects.exists()


def test_over_http_bad_input_is_a_problem_with_fields(world: World) -> None:
    batch, _ = make.make_full_batch(world)
    headers = bearer(world, "approver", Scope.READ, Scope.APPROVALS)

    assert post(world, headers, batch.id).status_code == 422
    assert post(world, headers, batch.id, {"action": "x", "digest": "y", "verdict": "shrug"}).json()["errors"]
    assert post(world, headers, "nonsense", said(Action(id=uuid.uuid4(), digest="d"), "approve")).status_code == 404
