"""What follows once actions of a batch were decided, expired or taken back."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from runs import audit, doorbell, lifecycle, live
from runs.models import Action, Batch, Run


def settle_batch(batch: Batch) -> None:
    """After actions of it changed: raises its version, closes it and wakes its run when nothing waits any more."""
    Batch.objects.filter(id=batch.id).update(version=F("version") + 1)
    closed = lifecycle.close_batch(batch.id)
    if closed:
        lifecycle.wake(batch.run_id)
    run = Run.objects.only("team_id", "last_seq", "due_at").get(id=batch.run_id)
    transaction.on_commit(lambda: _ring(run, closed), robust=True)


def expiry_receipt(action: Action) -> None:
    audit.record(action, "action.expired", "the clock", batch=str(action.batch_id))


def _ring(run: Run, closed: bool) -> None:
    if closed and run.due_at is None:  # else the sweeper rings in time
        doorbell.ring(run.id)
    live.ring(run.id, run.last_seq)
    live.ring_inbox(run.team_id)
