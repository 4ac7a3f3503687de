"""Separation of duties: who launched a run does not approve its risky actions. Off only on purpose, and on record."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Membership, Receipt, Team
from accounts.schemas import Role, Separation
from approvals.inbox import Result
from approvals.models import Verdict
from runs.engine.types import ActionStatus, Risk
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide, edit
from tests.approvals.factories import World, approve, reject


def own_batch(world: World, who: str = "approver") -> Batch:
    return make.make_batch(world, make.make_run(world, owner=world.people[who]))


@pytest.mark.parametrize(("risk", "barred"), [("low", False), ("medium", False), ("high", True), ("critical", True)])
def test_a_requester_may_not_approve_what_is_risky(world: World, risk: str, barred: bool) -> None:
    batch = own_batch(world)
    refund = make.make_refund(batch, risk=Risk(risk))

    outcome = decide(world, "approver", batch, approve(refund))[0]

    assert outcome.result is (Result.FORBIDDEN if barred else Result.APPLIED)
    if barred:
        assert "somebody else must approve" in outcome.detail
        assert_untouched(refund)
        assert decide(world, "second", batch, approve(refund))[0].result is Result.APPLIED


def test_a_requester_may_reject_and_change_their_own(world: World) -> None:
    batch = own_batch(world)
    refund, email = make.make_refund(batch), make.make_email(batch)

    outcomes = decide(world, "approver", batch, reject(refund), edit(email, subject="Other"))

    assert [outcome.result for outcome in outcomes] == [Result.APPLIED] * 2
    assert decide(world, "second", batch, edit(Action.objects.get(supersedes=email), Verdict.APPROVE, subject="x"))


@pytest.mark.parametrize(("stated", "risk", "barred"), [("refused", Risk.LOW, True), ("allowed", Risk.CRITICAL, False)])
def test_the_tools_own_policy_goes_before_the_risk(world: World, stated: str, risk: Risk, barred: bool) -> None:
    make.define(
        world, {"name": "R", "tools": [{"name": "shop.issue_refund", "policy": "review", "own_approval": stated}]}
    )
    batch = own_batch(world)
    refund = make.make_refund(batch, risk=risk)

    outcome = decide(world, "approver", batch, approve(refund))[0]

    assert outcome.result is (Result.FORBIDDEN if barred else Result.APPLIED)


def test_a_requester_is_one_of_two_but_never_both(world: World) -> None:
    batch = own_batch(world)
    refund = make.make_refund(batch, needed=2)

    assert decide(world, "approver", batch, approve(refund))[0].counts_only
    assert decide(world, "approver", batch, approve(refund))[0].result is Result.ALREADY_DECIDED
    assert decide(world, "second", batch, approve(refund))[0].result is Result.APPLIED


def test_a_requester_is_no_half_where_the_tool_says_so(world: World) -> None:
    tool = {"name": "shop.issue_refund", "policy": "two_person", "own_approval": "refused"}
    make.define(world, {"name": "R", "tools": [tool]})
    batch = own_batch(world)
    refund = make.make_refund(batch, needed=2)

    assert decide(world, "approver", batch, approve(refund))[0].result is Result.FORBIDDEN
    assert decide(world, "second", batch, approve(refund))[0].counts_only
    assert decide(world, "admin", batch, approve(refund))[0].result is Result.APPLIED
    refund.refresh_from_db()
    assert refund.released_by == [str(world.people[name].id) for name in ("second", "admin")]


def test_a_team_of_one_can_work_until_somebody_else_may_decide(world: World) -> None:
    Membership.objects.filter(team=world.team).exclude(user=world.people["admin"]).update(role=Role.OPERATOR)
    batch = own_batch(world, "admin")
    first, second = make.make_refund(batch), make.make_refund(batch)

    assert decide(world, "admin", batch, approve(first))[0].result is Result.APPLIED
    Membership.objects.filter(user=world.people["second"]).update(role=Role.APPROVER)
    assert decide(world, "admin", batch, approve(second))[0].result is Result.FORBIDDEN


@pytest.mark.parametrize(
    ("mode", "alone", "result"),
    [(Separation.OFF, False, Result.APPLIED), (Separation.ON, True, Result.FORBIDDEN)],
)
def test_a_team_can_switch_it(world: World, mode: Separation, alone: bool, result: Result) -> None:
    if alone:
        Membership.objects.filter(team=world.team).exclude(user=world.people["admin"]).delete()
    assert world.client("admin").post("/accounts/separation/", {"separation": mode}).status_code == 302
    batch = own_batch(world, "admin")
    refund = make.make_refund(batch)

    assert decide(world, "admin", batch, approve(refund))[0].result is result
    receipt = Receipt.objects.get(kind="team.separation_changed")
    assert (receipt.actor, receipt.payload) == (world.people["admin"], {"before": "auto", "separation": mode})


@pytest.mark.parametrize("who", ["approver", "operator", "viewer"])
def test_only_an_admin_switches_it(world: World, who: str) -> None:
    assert world.client(who).post("/accounts/separation/", {"separation": "off"}).status_code == 403
    assert Team.objects.get(id=world.team.id).separation == Separation.AUTO


def test_a_choice_that_is_not_there_changes_nothing(world: World) -> None:
    world.client("admin").post("/accounts/separation/", {"separation": "whenever"})
    assert not Receipt.objects.filter(kind="team.separation_changed").exists()


def test_the_page_says_so_and_offers_no_approval(world: World) -> None:
    batch = own_batch(world)
    refund, update = make.make_refund(batch), make.make_update(batch)

    page = world.client("approver").get(f"/approvals/{batch.id}/").content.decode()

    assert "You launched this run, so somebody else must approve this, because its risk is critical." in page
    assert f'name="select" value="{refund.id}"' not in page
    assert f'name="select" value="{update.id}"' in page
    assert f'name="reject" value="{refund.id}"' in page


def test_the_list_asks_once_whether_somebody_else_may_decide(world: World) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            world.client("approver").get("/approvals/")
        return sum('"accounts_membership"' in query["sql"] and "EXISTS" not in query["sql"] for query in captured)

    make.make_refund(own_batch(world))
    before = queries()
    for _ in range(3):
        make.make_refund(own_batch(world))

    assert queries() == before


# --- an edit can't get round two people ------------------------------------------------------------------------------


def test_an_edit_that_raises_the_amount_over_a_threshold_needs_two(world: World) -> None:
    above = {"argument": "amount", "test": "above", "value": 250, "policy": "two_person", "risk": "critical"}
    make.define(world, {"name": "R", "tools": [{"name": "shop.issue_refund", "policy": "review", "rules": [above]}]})
    batch = make.make_batch(world)
    refund = make.make_refund(batch, risk=Risk.MEDIUM)

    outcome = decide(world, "approver", batch, edit(refund, Verdict.APPROVE, amount=412.5))[0]

    new = Action.objects.get(supersedes=refund)
    assert (new.needed, new.risk, new.status) == (2, Risk.CRITICAL, ActionStatus.PENDING)
    assert new.route_reason == "amount is 412.5, above the 250 from which two people decide"
    assert outcome.counts_only
    assert decide(world, "second", batch, approve(new))[0].result is Result.APPLIED


def test_an_editor_alone_cannot_make_a_two_person_action_small_enough_for_one(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, amount=412.5, needed=2)

    outcome = decide(world, "approver", batch, edit(refund, Verdict.APPROVE, amount=1))[0]

    new = Action.objects.get(supersedes=refund)
    assert (new.needed, new.status, outcome.counts_only) == (2, ActionStatus.PENDING, True)
    assert "needed 2 people" in new.route_reason
