"""Standing permissions through the API: given from a decision of one's own, previewed, listed, revoked."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Receipt
from accounts.schemas import Scope
from approvals.models import StandingGrant
from runs.models import Action
from tests.api.client import NO_ID, answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve

GRANT = {
    *("id", "status", "agent", "tool", "tool_version", "matchers", "max_risk", "uses", "uses_left", "value_argument"),
    *("value", "value_left", "action", "created_by", "created_at", "expires_at", "revoked_by", "revoked_at"),
}
MATCHERS: list[dict[str, Any]] = [
    {"argument": "order", "test": "any"},
    {"argument": "amount", "test": "at_most", "value": 100},
    {"argument": "reason", "test": "prefix", "value": "Dented"},
]


@pytest.fixture
def approved(world: World) -> Action:
    """A refund that the approver approved."""
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    decide(world, "approver", batch, approve(refund))
    return refund


def wish(action: Action, **more: Any) -> dict[str, Any]:
    return {"action": str(action.id), "matchers": MATCHERS, "uses": 3, "days": 2, **more}


def test_it_is_given_listed_and_revoked(world: World, as_: As, approved: Action) -> None:
    caller = as_("approver")
    given = answer(caller.post("/grants", wish(approved, value_argument="amount", value="250.50")), 201)
    assert set(given) == GRANT
    assert (given["status"], given["agent"], given["tool"]) == ("standing", "refund-desk", "shop.issue_refund")
    assert (given["uses"], given["uses_left"], given["value"], given["value_left"]) == (3, 3, "250.5", "250.5")
    assert (given["created_by"], given["action"], given["revoked_at"]) == ("marco", str(approved.id), None)
    assert [matcher["argument"] for matcher in given["matchers"]] == ["order", "amount", "reason"]
    assert answer(as_("viewer").get("/grants"))["items"] == [given]
    assert Receipt.objects.get(kind="grant.given").payload["channel"] == "api"

    revoked = answer(as_("admin").post(f"/grants/{given['id']}/revoke"))

    assert (revoked["status"], revoked["revoked_by"]) == ("revoked", "dana")
    assert problem(as_("admin").post(f"/grants/{given['id']}/revoke"), 409)["current_status"] == "revoked"
    assert answer(caller.get("/grants"))["items"] == []
    assert [each["id"] for each in answer(caller.get("/grants", state="ended"))["items"]] == [given["id"]]


def test_the_preview_says_what_it_would_have_covered_and_gives_nothing(world: World, as_: As, approved: Action) -> None:
    make.make_refund(make.make_batch(world), 90.0)
    make.make_refund(make.make_batch(world), 500.0)
    seen = answer(as_("approver").post("/grants/preview", wish(approved, value_argument="amount", value="500")))
    assert (seen["asked"], seen["covered"], seen["rejected"], seen["complete"]) == (3, 2, 0, True)
    assert seen["value"] == "174"
    assert {each["title"] for each in seen["actions"]} == {
        "Refund $84.00 to Ines Carvalho",
        "Refund $90.00 to Ines Carvalho",
    }
    assert not StandingGrant.objects.exists()


@pytest.mark.parametrize("path", ["/grants", "/grants/preview"])
@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"uses": 0}, ["uses"]),
        ({"days": 91}, ["days"]),
        ({"matchers": MATCHERS[:2]}, ["matchers"]),
        ({"matchers": [{**each, "test": "any", "value": None} for each in MATCHERS]}, ["matchers"]),
        ({"matchers": []}, ["matchers"]),
        ({"value_argument": "reason", "value": "5"}, ["value_argument"]),
        ({"value_argument": "amount"}, ["value"]),
        ({"value": "25"}, ["value_argument"]),
        ({"value": "lots"}, ["value"]),
        ({"unknown": 1}, ["unknown"]),
    ],
)
def test_what_is_wrong_is_named(
    world: World, as_: As, approved: Action, path: str, more: dict[str, Any], fields: list[str]
) -> None:
    problem(as_("approver").post(path, wish(approved, **more)), 422, *fields)
    assert not StandingGrant.objects.exists()


def test_only_of_ones_own_approval_and_not_of_what_two_approve(world: World, as_: As, approved: Action) -> None:
    assert "Only who approved" in problem(as_("admin").post("/grants", wish(approved)), 409)["detail"]
    batch = make.make_batch(world)
    double = make.make_refund(batch, needed=2)
    decide(world, "approver", batch, approve(double))
    assert "two people" in problem(as_("approver").post("/grants", wish(double)), 409)["detail"]


def test_roles_scopes_and_other_teams(world: World, as_: As, approved: Action) -> None:
    given = answer(as_("approver").post("/grants", wish(approved)), 201)
    revoke = f"/grants/{given['id']}/revoke"
    for path, body in (("/grants", wish(approved)), ("/grants/preview", wish(approved)), (revoke, None)):
        for role in ("viewer", "operator"):
            assert "needs the role approver" in problem(as_(role).post(path, body), 403)["detail"]
        assert "lacks the scope" in problem(as_("approver", Scope.READ).post(path, body), 403)["detail"]
        problem(as_("outsider").post(path, body), 404)
        problem(as_("nobody").post(path, body), 401)
    problem(as_("approver").post("/grants", {**wish(approved), "action": NO_ID}), 404)
    problem(as_("approver").post(f"/grants/{NO_ID}/revoke"), 404)
    assert answer(as_("outsider").get("/grants", state="all"))["items"] == []
    assert StandingGrant.objects.get().revoked_at is None


def test_the_same_key_gives_once_and_pages_follow(world: World, as_: As, approved: Action) -> None:
    caller = as_("approver")
    first = answer(caller.post("/grants", wish(approved), key="k"), 201)
    assert answer(caller.post("/grants", wish(approved), key="k"), 201) == first
    second = answer(caller.post("/grants", wish(approved)), 201)
    page = answer(caller.get("/grants", limit=1))
    assert [each["id"] for each in page["items"]] == [second["id"]]
    rest = answer(caller.get("/grants", limit=1, cursor=page["next"]))
    assert [each["id"] for each in rest["items"]] == [first["id"]]
    problem(caller.get("/grants", cursor="x"), 422, "cursor")
