"""Who saw what, and when: a row and a receipt for the first time a person is shown a batch in one of its versions."""

from __future__ import annotations

import datetime as dt

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import receipts
from accounts.access import Access
from accounts.models import User
from approvals.evidence import VIEWED
from approvals.models import Viewing
from runs import audit
from runs.models import Action, Batch


def note(access: Access, batch: Batch) -> None:
    """For a page that shows the batch whole. A closed batch is history, of which no decision can follow."""
    seen = Viewing.objects.filter(batch=batch, user=access.user, version=batch.version)
    if batch.status != "open" or seen.exists():
        return
    try:
        with transaction.atomic():
            Viewing.objects.create(batch=batch, user=access.user, version=batch.version, at=timezone.now())
            shown = Action.objects.filter(batch=batch).order_by("position", "created_at")
            receipts.append(
                access.team.id,
                VIEWED,
                actor=access.user,
                subject_type="batch",
                subject_id=batch.id,
                payload={
                    "run": str(batch.run_id),
                    "version": batch.version,
                    "batch_digest": audit.batch_digest(batch),
                    "actions": {str(action.id): audit.facts_digest(action) for action in shown},
                },
            )
    except (IntegrityError, receipts.ChainBroken):
        return  # the same person's other tab was first; or nothing can be decided here anyway, and may still be read


def first_seen(batch: Batch, user: User) -> dt.datetime | None:
    return Viewing.objects.filter(batch=batch, user=user).values_list("at", flat=True).first()
