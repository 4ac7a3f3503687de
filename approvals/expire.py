"""Deadlines. A timeout ends the wait and never approves: what nobody decided in time does not run."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils import timezone

from approvals import settling
from runs import lifecycle
from runs.engine.types import ActionStatus
from runs.models import Action, Batch, Run

AT_ONCE = 200


def expire_due() -> int:
    """Closes what is past its deadline, run by run; returns how many actions. Safe to call from several workers."""
    overdue = Action.objects.filter(status=ActionStatus.PENDING, expires_at__lte=timezone.now())
    runs = list(overdue.order_by("expires_at").values_list("run_id", flat=True)[:AT_ONCE])
    return sum(expire_in(run_id) for run_id in dict.fromkeys(runs))


def expire_in(run_id: uuid.UUID) -> int:
    """The same for one run."""
    with transaction.atomic():
        run = Run.objects.select_for_update(no_key=True).filter(id=run_id).first()
        if run is None:
            return 0
        overdue = Action.objects.filter(run=run, status=ActionStatus.PENDING, expires_at__lte=timezone.now())
        expired = [action for action in overdue if lifecycle.expire(action.id)]
        for action in expired:
            settling.expiry_receipt(action)
        for batch in Batch.objects.filter(id__in={action.batch_id for action in expired}):
            settling.settle_batch(batch)
    return len(expired)
