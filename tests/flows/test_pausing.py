"""Pausing while an approval can still be taken back: nothing is executed, and the time for it stands still."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.conf import LazySettings
from django.test import Client
from django.utils import timezone

from accounts import receipts
from accounts.access import Access
from accounts.models import Receipt
from approvals import undo
from approvals.inbox import Result
from approvals.undo import Taken
from runs import commands
from runs.models import Action, Run
from tests.flows.conftest import Model, applied, assert_sound, decide
from tests.flows.shop import LocalShop
from tests.running import REFUND, advance, launch, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture(autouse=True)
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10


def later(seconds: float) -> time_machine.travel:
    return time_machine.travel(timezone.now() + dt.timedelta(seconds=seconds), tick=True)


@pytest.fixture
def approved(crew: Access, shop: LocalShop, model: Model) -> Run:
    """It sleeps, because its approval can still be taken back."""
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    return advance(run)


def test_the_window_stands_still_while_the_run_is_paused(crew: Access, shop: LocalShop, approved: Run) -> None:
    refund = Action.objects.get(run=approved)
    assert refund.starts_at is not None
    with later(4):
        most = refund.starts_at - timezone.now()
        run = commands.pause(crew, approved.id)
        least = refund.starts_at - timezone.now()
        assert (run.status, run.due_at) == ("paused", None)
    with later(3600):
        assert advance(run).status == "paused"
        earliest = timezone.now()
        run = commands.resume(crew, run.id)
        refund.refresh_from_db()
        assert run.due_at == refund.starts_at
        assert earliest + least <= refund.starts_at <= timezone.now() + most, "what was left of it"
        assert Receipt.objects.filter(kind="action.postponed", subject_id=str(refund.id)).count() == 1
        assert (advance(run).status, shop.effects()) == ("queued", [])
        commands.pause(crew, run.id)
    with later(7200):
        run = commands.resume(crew, run.id)
        assert (advance(run).status, shop.effects()) == ("queued", []), "and again"
    with later(7207):
        run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
    assert receipts.verify(run.team) == []
    assert_sound(run)


def test_it_can_be_taken_back_during_the_pause_and_after_it(
    crew: Access, shop: LocalShop, approved: Run, client: Client
) -> None:
    refund = Action.objects.get(run=approved)
    commands.pause(crew, approved.id)
    client.force_login(crew.user, backend="django.contrib.auth.backends.ModelBackend")
    with later(60):
        page = client.get(f"/approvals/{refund.batch_id}/").content.decode()
        assert "1 approved action begins some seconds after the paused run is resumed" in page
        commands.resume(crew, approved.id)
        (outcome,) = undo.revoke(crew, str(refund.batch_id), [Taken(refund.id, refund.digest)], channel="web")
        assert outcome.result is Result.APPLIED
        approved.refresh_from_db()
        assert (approved.status, shop.effects()) == ("waiting", []), "it is asked again"


def test_what_was_over_when_it_paused_is_not_waited_for_again(crew: Access, shop: LocalShop, approved: Run) -> None:
    refund = Action.objects.get(run=approved)
    begins = refund.starts_at
    with later(11):
        commands.pause(crew, approved.id)
        run = commands.resume(crew, approved.id)
        refund.refresh_from_db()
        assert (run.due_at, refund.starts_at) == (None, begins)
        assert advance(run).status == "completed"


def test_the_deadline_stays_where_it_is(crew: Access, shop: LocalShop, approved: Run) -> None:
    commands.pause(crew, approved.id)
    deadline = timezone.now() + dt.timedelta(seconds=8)
    Action.objects.filter(run=approved).update(expires_at=deadline)
    with later(2):
        commands.resume(crew, approved.id)
    assert Action.objects.get(run=approved).starts_at == deadline - dt.timedelta(seconds=5)
