from __future__ import annotations

from pytest_django import DjangoCaptureOnCommitCallbacks as Captured

from accounts.models import Receipt
from approvals import inbox
from approvals.expire import expire_due
from approvals.models import Decision
from runs.engine.types import ActionStatus, RunStatus
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.factories import World, approve


def test_what_nobody_decided_in_time_does_not_run_and_the_run_goes_on(
    world: World, bells: Bells, django_capture_on_commit_callbacks: Captured
) -> None:
    late, in_time = make.make_batch(world, minutes=-1), make.make_batch(world)
    refund, email, other = make.make_refund(late), make.make_email(late), make.make_refund(in_time)

    with django_capture_on_commit_callbacks(execute=True):
        assert expire_due() == 2

    for row in (refund, email, other, late, late.run):
        row.refresh_from_db()
    assert (refund.status, email.status, other.status) == (
        ActionStatus.EXPIRED,
        ActionStatus.EXPIRED,
        ActionStatus.PENDING,
    )
    assert (late.status, late.version, late.run.status) == ("closed", 2, RunStatus.QUEUED)
    assert bells.workers == [late.run_id]
    assert {receipt.kind for receipt in Receipt.objects.all()} == {"action.expired"}
    assert expire_due() == 0


def test_one_of_two_approvals_is_not_enough_at_the_deadline(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    make.make_refund(batch, needed=1, expires_at=None)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")
    type(refund).objects.filter(id=refund.id).update(expires_at="2020-01-01T00:00:00Z")

    expire_due()

    refund.refresh_from_db()
    assert refund.status == ActionStatus.EXPIRED
    assert Decision.objects.count() == 1


def test_an_outcome_that_is_unknown_never_expires(world: World) -> None:
    batch = make.make_batch(world, minutes=-1)
    lost = make.make_refund(batch, kind="unknown", status=ActionStatus.UNKNOWN)

    assert expire_due() == 0
    lost.refresh_from_db()
    assert lost.status == ActionStatus.UNKNOWN


def test_a_batch_that_ran_out_half_approved_is_not_called_approved(world: World) -> None:
    batch = make.make_batch(world)
    refund, email = make.make_refund(batch, needed=2), make.make_email(batch)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")
    type(refund).objects.filter(id__in=[refund.id, email.id]).update(expires_at="2020-01-01T00:00:00Z")
    expire_due()

    page = world.client("approver").get(f"/approvals/{batch.id}/").content.decode()

    assert "Marco Ruiz approved, but nothing ran before this batch expired" in page
    assert "Marco Ruiz approved this batch" not in page
