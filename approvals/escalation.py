"""What happens to a batch that nobody decides: a reminder, a wider circle, an end. A timeout never approves."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, get
from approvals import notices
from approvals.expire import expire_in
from approvals.notice_models import NoticeKind
from runs import asking, audit, live
from runs.asked import Rung
from runs.engine.types import ActionStatus
from runs.errors import Conflict
from runs.models import Action, Batch, Run

AT_ONCE = 200
DONE = {"remind": "batch.reminded", "widen": "batch.widened"}


def climb() -> int:
    """Takes every rung that is due; returns how many. Safe to call from several workers: each rung is taken once."""
    due = Rung.objects.filter(done_at__isnull=True, due_at__lte=timezone.now(), batch__status="open")
    return sum(_take(rung) for rung in due.select_related("batch__run__team")[:AT_ONCE])


def _take(rung: Rung) -> bool:
    run = rung.batch.run
    if rung.kind == "reject":
        expire_in(run.id)  # by the deadline on the actions themselves, which an extension has moved
        return Rung.objects.filter(id=rung.id, done_at__isnull=True).update(done_at=timezone.now()) == 1
    with transaction.atomic():
        if Rung.objects.filter(id=rung.id, done_at__isnull=True).update(done_at=timezone.now()) != 1:
            return False
        people = asking.members(run, rung.people)
        if rung.kind == "widen" and rung.batch.asked.exists():
            rung.batch.asked.add(*people)
        # Told once: where the notices' own reminder came first, this one adds nothing.
        told = {person.id for person in people} if rung.kind == "widen" else None
        notices.queue(rung.batch, NoticeKind.REMINDER, users=told)
        _record(rung.batch, run, DONE[rung.kind], people=[person.label for person in people])
        transaction.on_commit(lambda: live.ring_inbox(run.team_id), robust=True)
    return True


def extend(access: Access, batch_id: uuid.UUID | str) -> Batch:
    """As much time again as there was, once, by anyone who may approve. Raises Conflict when it can't be."""
    batch = get(access, Batch.objects.select_related("run"), batch_id, right=Right.DECIDE)
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(id=batch.run_id)
        now = timezone.now()
        span = batch.expires_at - batch.created_at
        open_once = Batch.objects.filter(id=batch.id, status="open", extended_at__isnull=True, expires_at__gt=now)
        changes = {"extended_at": now, "extended_by": access.user, "version": F("version") + 1}
        if open_once.update(expires_at=F("expires_at") + span, **changes) != 1:
            batch.refresh_from_db()
            raise Conflict(_why_not(batch), status=batch.status)
        Rung.objects.filter(batch=batch, kind="reject").update(due_at=F("due_at") + span)
        for action in Action.objects.filter(batch=batch, status=ActionStatus.PENDING, expires_at__isnull=False):
            moved = Action.objects.filter(id=action.id, status=ActionStatus.PENDING)
            if moved.update(expires_at=F("expires_at") + span) == 1:
                audit.record(action, "action.extended", access.user, batch=str(batch.id))
        _record(batch, batch.run, "batch.extended", actor=access.user)
        transaction.on_commit(lambda: live.ring_inbox(batch.run.team_id), robust=True)
    batch.refresh_from_db()
    return batch


def _why_not(batch: Batch) -> str:
    if batch.status != "open":
        return "This batch is no longer open."
    if batch.extended_at is not None:
        return "This batch was extended already, which is possible once."
    return "The time to decide is over."


def _record(batch: Batch, run: Run, kind: str, *, actor: object = "the clock", **payload: object) -> None:
    receipts.append(
        run.team_id,
        kind,
        actor=actor,  # type: ignore[arg-type]
        subject_type="batch",
        subject_id=batch.id,
        payload={"run": str(run.id), "batch": str(batch.id), **payload},  # type: ignore[dict-item]
    )
