"""Who may do what: tokens, roles, scopes, and rows of another team."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.utils import timezone

from accounts.models import ApiToken, Membership, User
from accounts.schemas import Scope
from runs.asked import Note, RunMessage
from runs.models import Action, Agent, Run
from tests.api.client import NO_ID, Caller, answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World

ROLES = ("viewer", "operator", "approver", "admin")
AGENT = {"name": "Ticket sorter", "tools": [{"name": "shop.issue_refund", "policy": "review"}]}
LAUNCH = {"agent": "refund-desk", "task": "Sort the tickets.", "mode": "batch"}


class Call(NamedTuple):
    """`needs` is the lowest role; `foreign` what somebody of another team gets."""

    method: str
    path: str
    body: Any
    needs: str
    ok: int
    foreign: int


CALLS = (
    Call("GET", "/agents", None, "viewer", 200, 200),
    Call("GET", "/agents/refund-desk", None, "viewer", 200, 404),
    Call("PUT", "/agents/sorter", AGENT, "admin", 201, 422),
    Call("GET", "/tools", None, "viewer", 200, 200),
    Call("POST", "/runs", LAUNCH, "operator", 201, 422),
    Call("GET", "/runs", None, "viewer", 200, 200),
    Call("GET", "/runs/{run}", None, "viewer", 200, 404),
    Call("GET", "/runs/{run}/steps", None, "viewer", 200, 404),
    Call("GET", "/runs/{run}/actions", None, "viewer", 200, 404),
    Call("POST", "/runs/{queued}/pause", None, "operator", 200, 404),
    Call("POST", "/runs/{paused}/resume", None, "operator", 200, 404),
    Call("POST", "/runs/{run}/execute/revoke", None, "operator", 409, 404),
    Call("POST", "/runs/{run}/cancel", None, "operator", 200, 404),
    Call("POST", "/runs/{run}/messages", {"text": "Be brief."}, "operator", 202, 404),
    Call("GET", "/approvals", None, "viewer", 200, 200),
    Call("POST", "/approvals/{batch}/decisions", "decide", "approver", 200, 404),
    Call("POST", "/approvals/revoke", {"actions": [{"id": str(UUID(int=0)), "digest": "x"}]}, "approver", 200, 200),
    Call("POST", "/approvals/{batch}/hand_over", {"to": "lea"}, "approver", 200, 404),
    Call("GET", "/traces", None, "viewer", 200, 200),
    Call("GET", "/traces/aggregate", None, "viewer", 200, 200),
    Call("GET", "/traces/{run}", None, "viewer", 200, 404),
    Call("GET", "/traces/{run}/notes", None, "viewer", 200, 404),
    Call("POST", "/traces/{run}/notes", {"text": "Too slow.", "score": 0.3}, "operator", 201, 404),
    Call("GET", "/traces/{run}/shares", None, "viewer", 200, 404),
    Call("POST", "/traces/{run}/shares", {"days": 7}, "operator", 201, 404),
    Call("POST", "/erasure/search", {"text": "Ana Lima"}, "admin", 200, 200),
    Call("POST", "/erasure/texts", {"text": "Ana Lima", "again": "Ana Lima"}, "admin", 200, 200),
    Call("GET", "/costs", None, "viewer", 200, 200),
)
IDS = [f"{call.method} {call.path}" for call in CALLS]
SCOPE_OF = {"viewer": Scope.READ, "operator": Scope.RUNS, "approver": Scope.APPROVALS, "admin": Scope.AGENTS}


class Place(NamedTuple):
    """One row of every kind, for the paths and bodies of calls."""

    ids: dict[str, str]
    action: Action

    def send(self, caller: Caller, call: Call) -> Any:
        body = call.body
        if body == "decide":
            line = {"action": str(self.action.id), "digest": self.action.digest, "verdict": "approve"}
            body = {"version": 1, "decisions": [line]}
        return caller.call(call.method, call.path.format(**self.ids), body)


@pytest.fixture
def place(world: World) -> Place:
    batch = make.make_batch(world)
    ids = {
        "run": str(batch.run_id),
        "batch": str(batch.id),
        "queued": str(make.make_run(world, status="queued", waiting_since=None).id),
        "paused": str(make.make_run(world, status="paused").id),
    }
    return Place(ids, make.make_refund(batch))


def stored() -> tuple[int, ...]:
    counts = (model.objects.count() for model in (Agent, Run, RunMessage, Note))
    return (*counts, *(Run.objects.filter(status=status).count() for status in ("queued", "paused", "cancelled")))


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_the_role_that_is_needed_is_enough(place: Place, as_: As, call: Call) -> None:
    response = place.send(as_(call.needs), call)
    assert response.status_code == call.ok, response.content


@pytest.mark.parametrize("call", [call for call in CALLS if call.needs != "viewer"], ids=lambda call: call.path)
def test_a_lower_role_is_refused_and_told_who_can_help(place: Place, as_: As, call: Call) -> None:
    before = stored()
    for role in ROLES[: ROLES.index(call.needs)]:
        refused = problem(place.send(as_(role), call), 403)
        assert f"needs the role {call.needs}" in refused["detail"]
        assert f"yours is {role}" in refused["detail"]
        assert "Dana Okafor can grant it." in refused["detail"]
    assert stored() == before


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_an_admin_of_another_team_finds_nothing(place: Place, as_: As, call: Call) -> None:
    before = stored()
    response = place.send(as_("outsider"), call)
    assert response.status_code == call.foreign, response.content
    if call.foreign == 404:
        problem(response, 404)
    elif call.foreign == 200:
        body = answer(response)
        mine = [row for row in body.get("items", body.get("rows", [])) if row.get("server") or "server" not in row]
        assert mine == []
    assert stored() == before


def test_without_a_token_nothing_is_answered(place: Place, as_: As) -> None:
    for call in CALLS:
        response = place.send(as_("nobody"), call)
        assert "Authorization: Bearer" in problem(response, 401)["detail"]
        assert response["WWW-Authenticate"] == 'Bearer realm="agentsite"'


@pytest.mark.parametrize("call", CALLS, ids=IDS)
def test_a_scope_limits_the_role(place: Place, as_: As, call: Call) -> None:
    """An admin's token with every scope but the one that the call needs."""
    needed = SCOPE_OF[call.needs]
    others = [scope for scope in Scope if scope != needed]
    refused = problem(place.send(as_("admin", *others), call), 403)
    assert f"lacks the scope “{needed}”" in refused["detail"]


@pytest.mark.parametrize("call", [call for call in CALLS if call.method != "GET"], ids=lambda call: call.path)
def test_a_call_needs_no_other_scope_than_its_own(place: Place, as_: As, call: Call) -> None:
    """A program that may launch, and read nothing, gets its run in the answer: no 403 after it was done."""
    response = place.send(as_("admin", SCOPE_OF[call.needs]), call)
    assert response.status_code == call.ok, response.content


@pytest.mark.parametrize("call", [call for call in CALLS if "{" in call.path], ids=lambda call: call.path)
def test_an_id_that_nothing_has_is_404(place: Place, as_: As, call: Call) -> None:
    admin = as_("admin")
    for bad in (NO_ID, "7", "not-an-id", "%00", "%F0%9F%8E%89", "x" * 300):
        nowhere = Place(dict.fromkeys(place.ids, bad), place.action)
        problem(nowhere.send(admin, call), 404)


# --- tokens ----------------------------------------------------------------------------------------------------------


def expired(token: ApiToken) -> None:
    ApiToken.objects.filter(id=token.id).update(expires_at=timezone.now() - dt.timedelta(seconds=1))


def revoked(token: ApiToken) -> None:
    ApiToken.objects.filter(id=token.id).update(revoked_at=timezone.now())


def inactive(token: ApiToken) -> None:
    User.objects.filter(id=token.user_id).update(is_active=False)


def left(token: ApiToken) -> None:
    Membership.objects.filter(user_id=token.user_id).delete()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(expired, "expired"), (revoked, "revoked"), (inactive, "no longer active"), (left, "no longer a member")],
)
def test_a_token_that_does_not_count_any_more(
    world: World, as_: As, spoil: Callable[[ApiToken], None], words: str
) -> None:
    caller = as_("operator")
    answer(caller.get("/runs"))
    spoil(ApiToken.objects.get())
    response = caller.get("/runs")
    assert words in problem(response, 401)["detail"]
    assert response["WWW-Authenticate"] == 'Bearer realm="agentsite", error="invalid_token"'


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic dXNlcjpwYXNz", "wrong", "Bearer \x00", "Bearer é"]
)
def test_a_wrong_token(world: World, header: str) -> None:
    response = Caller(None).call("GET", "/runs", headers={"Authorization": header})
    problem(response, 401)
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_session_is_no_token(world: World) -> None:
    response = world.client("admin").get("/api/v1/runs")
    assert response.status_code == 401


def test_a_role_that_was_lowered_counts_at_once(world: World, as_: As) -> None:
    caller = as_("operator")
    Membership.objects.filter(user=world.people["operator"]).update(role="viewer")
    problem(caller.post("/runs", LAUNCH), 403)


def test_too_many_calls(world: World, as_: As, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentsite.api.CALLS_A_MINUTE", 3)
    monkeypatch.setattr("agentsite.api.time.time", lambda: 1_800_000_015.0)
    caller, other = as_("viewer"), as_("viewer")
    assert [caller.get("/runs").status_code for _ in range(3)] == [200] * 3
    response = caller.get("/runs")
    problem(response, 429)
    assert 0 < int(response["Retry-After"]) <= 60
    answer(other.get("/runs"))


def test_a_cache_that_is_away_limits_nobody_and_is_not_waited_for_at_each_call(
    world: World, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(*_: object, **__: object) -> None:
        asked.append(1)
        raise ConnectionError("no cache")

    monkeypatch.setattr("agentsite.api.cache.incr", away)
    monkeypatch.setattr("agentsite.api.PerToken.away_until", 0.0)
    caller = as_("viewer")
    for _ in range(3):
        answer(caller.get("/runs"))
    assert len(asked) == 1
