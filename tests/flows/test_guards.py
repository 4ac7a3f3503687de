"""What must still hold just before an effect. Where it does not: no effect, a reason on the row, the model told."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from accounts import receipts
from accounts.access import Access
from accounts.models import Membership, User
from approvals.expire import expire_due
from approvals.inbox import Result
from approvals.models import Decision, Verdict
from runs.models import Action, Run, ToolServer
from tests.flows.conftest import Model, applied, assert_sound, decide, decide_on, member, tool_results, waiting
from tests.flows.shop import LocalShop
from tests.running import REFUND, add_agent, advance, launch, open_batch, results_sent, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture
def run(crew: Access, shop: LocalShop, model: Model) -> Run:
    """Waits for a decision on one refund."""
    model.says(uses(REFUNDS), "One refund waits.", "Done.")
    return advance(launch(crew))


def not_done(run: Run, shop: LocalShop, model: Model, status: str, words: str, *, tampered: bool = False) -> Action:
    run = advance(run)
    action = Action.objects.filter(run=run).latest("created_at")
    assert (run.status, action.status) == ("completed", status)
    assert shop.effects() == []
    assert "issue_refund" not in shop.executed
    (line,) = results_sent(model.calls[-1])
    assert line["outcome"] == status
    assert words in str(line)
    assert run.steps.get(key__startswith="effect:").status == "denied"
    assert receipts.verify(run.team) == []
    assert_sound(run, tampered=tampered)
    return action


def revoke(approver: Access) -> None:
    Membership.objects.filter(user=approver.user).update(role="operator")


def leave(approver: Access) -> None:
    Membership.objects.filter(user=approver.user).delete()


def deactivate(approver: Access) -> None:
    User.objects.filter(id=approver.user.id).update(is_active=False)


@pytest.mark.parametrize("lose", [revoke, leave, deactivate])
def test_an_approver_who_lost_the_right(crew: Access, run: Run, shop: LocalShop, model: Model, lose: object) -> None:
    marco = member(crew, "marco")
    assert applied(decide(marco, run))
    lose(marco)  # type: ignore[operator]
    action = not_done(run, shop, model, "revoked", "may no longer approve")
    assert action.note == "a person who approved it may no longer approve"


@pytest.mark.parametrize(
    "change",
    [
        {"args": {"order": "48213", "amount": 9.0, "reason": "cheaper"}},
        {"tool_version": "another"},
        {"tool": "shop.send_email"},
        {"policy_version": "desk@0"},
        {"digest": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_action_that_was_changed_in_the_database(
    crew: Access, run: Run, shop: LocalShop, model: Model, change: dict[str, object]
) -> None:
    assert applied(decide(crew, run))
    Action.objects.filter(run=run).update(**change)
    not_done(run, shop, model, "revoked", "differs from what was approved", tampered=True)


def test_an_approval_whose_time_is_over(crew: Access, run: Run, shop: LocalShop, model: Model) -> None:
    assert applied(decide(crew, run))
    Action.objects.filter(run=run).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    not_done(run, shop, model, "expired", "its time ran out before it ran", tampered=True)


def test_a_question_that_nobody_answered(
    crew: Access, run: Run, shop: LocalShop, model: Model, rings: list[str]
) -> None:
    Action.objects.filter(run=run).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    rings.clear()
    assert expire_due() == 1
    assert rings == [str(run.id)]
    not_done(run, shop, model, "expired", "Nobody decided in time")


def test_a_world_that_has_changed(crew: Access, run: Run, shop: LocalShop, model: Model) -> None:
    assert applied(decide(crew, run))
    shop.change('UPDATE orders SET refunded_cents = 100, version = version + 1 WHERE "order" = ?', "48213")
    action = not_done(run, shop, model, "stale", "what it was planned on has changed")
    assert "refunded was '0.00', is now '1.00'" in action.note


def test_a_tool_that_now_refuses(crew: Access, run: Run, shop: LocalShop, model: Model) -> None:
    assert applied(decide(crew, run))
    shop.change('UPDATE orders SET refunded_cents = total_cents WHERE "order" = ?', "48213")
    not_done(run, shop, model, "stale", "left to refund")


def test_a_tool_that_was_added_anew_with_another_meaning(crew: Access, run: Run, shop: LocalShop, model: Model) -> None:
    assert applied(decide(crew, run))
    server = ToolServer.objects.get(team=crew.team)
    for found in server.tools:
        found["version"] = "another"
    server.save()
    not_done(run, shop, model, "stale", "the tool has changed")


def test_another_change_of_the_same_world_is_none(crew: Access, run: Run, shop: LocalShop, model: Model) -> None:
    """Only what the action rests on counts."""
    assert applied(decide(crew, run))
    shop.change('UPDATE orders SET version = version + 1 WHERE "order" <> ?', "48213")
    assert advance(run).status == "completed"
    assert shop.effects() == ["issue_refund"]


# --- two people ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(crew: Access, shop: LocalShop, model: Model) -> Run:
    add_agent(crew.team, tools=[{"name": REFUND, "policy": "two_person"}])
    model.says(uses(REFUNDS), "One refund waits.", "Done.")
    return advance(launch(crew))


def test_two_people_release_together(crew: Access, two: Run, shop: LocalShop, model: Model) -> None:
    marco = member(crew, "marco")
    (outcome,) = decide(crew, two)
    assert (outcome.result, outcome.counts_only) == (Result.APPLIED, True)
    two.refresh_from_db()
    assert two.status == "waiting"
    (again,) = decide(crew, two)
    assert again.result is Result.ALREADY_DECIDED, "one person is one vote"
    assert applied(decide(marco, two))
    assert advance(two).status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert Decision.objects.count() == 2
    assert_sound(two)


def test_one_of_two_who_lost_the_right_is_one_too_few(crew: Access, two: Run, shop: LocalShop, model: Model) -> None:
    marco = member(crew, "marco")
    decide(crew, two)
    assert applied(decide(marco, two))
    revoke(marco)
    not_done(two, shop, model, "revoked", "may no longer approve")


def test_the_same_name_twice_in_the_row_is_one_person(crew: Access, two: Run, shop: LocalShop, model: Model) -> None:
    marco = member(crew, "marco")
    decide(crew, two)
    assert applied(decide(marco, two))
    Action.objects.filter(run=two).update(released_by=[str(crew.user.id)] * 2)
    not_done(two, shop, model, "revoked", "may no longer approve", tampered=True)


def test_a_rejection_by_the_second_ends_it(crew: Access, two: Run, shop: LocalShop, model: Model) -> None:
    marco = member(crew, "marco")
    decide(crew, two)
    batch = open_batch(two)
    assert applied(decide_on(marco, batch, waiting(batch), Verdict.REJECT, note="No."))
    assert advance(two).status == "completed"
    assert shop.effects() == []
    assert tool_results(model.calls[-1])
