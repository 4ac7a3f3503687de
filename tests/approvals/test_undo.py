"""Taking an approval back: in its window, at the last moment, too late, by whom, and in a real run."""

from __future__ import annotations

import datetime as dt

import pytest
from django.conf import LazySettings
from django.utils import timezone

from accounts.access import MissingRight
from accounts.models import Receipt
from approvals import inbox, undo
from approvals.inbox import Outcome, Result
from approvals.undo import Taken
from runs import lifecycle, settled
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Batch, Run
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve, reject


@pytest.fixture(autouse=True)
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10


def take_back(world: World, batch: Batch, *actions: Action, who: str = "approver") -> list[Outcome]:
    taken = [Taken(action.id, action.digest) for action in actions]
    return undo.revoke(world.access(who), batch.id, taken, channel="web")


def approved(world: World) -> tuple[Batch, list[Action]]:
    batch, actions = make.make_full_batch(world)
    decide(world, "approver", batch, *map(approve, actions))
    for row in (batch, *actions):
        row.refresh_from_db()
    return batch, actions


def test_an_approved_run_sleeps_in_the_database_until_the_window_is_over(world: World) -> None:
    before = timezone.now()
    batch, actions = approved(world)
    after = timezone.now()
    run = Run.objects.get(id=batch.run_id)

    assert {action.status for action in actions} == {ActionStatus.APPROVED}
    assert (run.status, run.lease_owner, run.due_at) == (RunStatus.QUEUED, "", actions[0].starts_at)
    assert run.due_at is not None
    assert before <= run.due_at - dt.timedelta(seconds=10) <= after
    assert not lifecycle.claim_lease(run.id, "worker")
    assert not lifecycle.begin_execution(actions[0].id, actions[0].digest), "the claim looks at the time itself"


def test_a_tool_says_how_long_its_own_window_is(world: World) -> None:
    tools = [{**tool, "undo_s": 0 if "refund" in str(tool["name"]) else 90} for tool in make.DEFINITION["tools"]]
    make.define(world, {**make.DEFINITION, "tools": tools})
    batch, (refund, update, _) = approved(world)

    assert refund.starts_at is None
    assert update.starts_at is not None
    assert 80 < (update.starts_at - timezone.now()).total_seconds() <= 90
    assert Run.objects.get(id=batch.run_id).due_at is not None


def test_the_window_never_outlives_the_deadline(world: World) -> None:
    batch = make.make_batch(world, minutes=0.1)
    refund = make.make_refund(batch)
    decide(world, "approver", batch, approve(refund))
    refund.refresh_from_db()

    assert refund.expires_at is not None
    assert refund.starts_at is not None
    assert refund.starts_at < refund.expires_at


def test_taking_back_brings_the_question_back(world: World) -> None:
    batch, (refund, _, email) = approved(world)

    outcomes = take_back(world, batch, refund, email)

    assert [outcome.result for outcome in outcomes] == [Result.APPLIED] * 2
    batch.refresh_from_db()
    run = Run.objects.get(id=batch.run_id)
    assert (batch.status, run.status, run.due_at) == ("open", RunStatus.WAITING, None)
    refund.refresh_from_db()
    again = Action.objects.get(supersedes=refund)
    assert outcomes[0].superseded_by == again.id
    assert refund.status == ActionStatus.REVOKED
    assert (again.status, again.digest, again.args) == (ActionStatus.PENDING, refund.digest, refund.args)
    shown = inbox.with_actions(Batch.objects.filter(id=batch.id)).get().actions.all()
    assert [(each.tool, each.status) for each in shown] == [
        ("shop.issue_refund", "pending"),
        ("shop.update_customer", "approved"),
        ("shop.send_email", "pending"),
    ]
    assert Receipt.objects.filter(kind="decision.revoke").count() == 2

    [stale] = decide(world, "second", batch, approve(refund), version=batch.version)
    assert (stale.result, stale.superseded_by) == (Result.STALE, again.id)
    [new] = decide(world, "approver", batch, approve(again), version=batch.version)
    assert new.result is Result.APPLIED, "the same person may approve it again"


def test_the_wait_is_counted_once(world: World) -> None:
    batch, actions = approved(world)
    take_back(world, batch, *actions)
    run = Run.objects.get(id=batch.run_id)

    assert run.wait_ms < 8000, "the ten seconds that did not pass are not counted"


def test_once_the_run_has_gone_on_what_has_not_begun_never_will(world: World) -> None:
    batch, (refund, update, email) = approved(world)
    Run.objects.filter(id=batch.run_id).update(status=RunStatus.RUNNING, lease_owner="worker", due_at=None)
    Action.objects.filter(id=refund.id).update(status=ActionStatus.EXECUTING)

    begun, not_begun = take_back(world, batch, refund, email)

    assert (begun.result, begun.detail) == (Result.ALREADY_DECIDED, "This can't be taken back: it is executing.")
    assert (not_begun.result, not_begun.superseded_by) == (Result.APPLIED, None)
    email.refresh_from_db()
    assert email.status == ActionStatus.REVOKED
    assert Action.objects.filter(run=batch.run, status=ActionStatus.PENDING).count() == 0
    assert update.status == ActionStatus.APPROVED


def test_what_may_not_be_taken_back(world: World) -> None:
    batch = make.make_batch(world)
    refund, email = make.make_refund(batch), make.make_email(batch)
    alone = make.make_update(batch, status=ActionStatus.APPROVED, held=True, needed=0)
    decide(world, "approver", batch, reject(email))

    assert {o.result for o in take_back(world, batch, refund, email, alone)} == {Result.ALREADY_DECIDED}
    [unknown] = undo.revoke(world.access("approver"), batch.id, [Taken(make.missing_id(), "x")], channel="api")
    assert unknown.result is Result.INVALID
    with pytest.raises(MissingRight):
        take_back(world, batch, refund, who="operator")


def test_a_cancelled_run_takes_the_sleeping_approvals_with_it(world: World) -> None:
    batch, (refund, *_) = approved(world)
    assert settled.cancel_idle(batch.run_id, world.people["operator"]) == "ended"

    [outcome] = take_back(world, batch, refund)
    assert (outcome.result, outcome.detail) == (Result.ALREADY_DECIDED, "This can't be taken back: it is cancelled.")


def test_paused_while_it_sleeps_and_taken_back(world: World) -> None:
    batch, actions = approved(world)
    assert lifecycle.request_pause(batch.run_id)
    take_back(world, batch, *actions)
    run = Run.objects.get(id=batch.run_id)

    assert run.status == RunStatus.PAUSED
    assert lifecycle.resume(run.id)
