"""Resuming a paused run. While it was paused the time in which an approval, or a choice of a dry run, can be taken back
stood still: what was left of it is left again."""

from __future__ import annotations

import datetime as dt
import uuid

from django.utils import timezone

from runs import lifecycle
from runs.asked import Chosen
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Run
from runs.timing import BEFORE_DEADLINE


def resume(run_id: uuid.UUID, postponed: list[Action]) -> bool:
    """As `lifecycle.resume`, in the transaction that holds the run's row. The run sleeps until no approval of it can be
    taken back any more. `postponed` gets the actions that now begin later, for their receipts."""
    paused_at = Run.objects.filter(id=run_id, status=RunStatus.PAUSED).values_list("waiting_since", flat=True).first()
    if paused_at is None:
        return lifecycle.resume(run_id)
    now = timezone.now()
    sleeping = _postpone_actions(run_id, paused_at, now)
    postponed += sleeping
    begins = [action.starts_at for action in sleeping if action.starts_at]
    begins += _postpone_choice(run_id, paused_at, now)
    return lifecycle.resume(run_id, due_at=max(begins, default=None))


def _postpone_actions(run_id: uuid.UUID, paused_at: dt.datetime, now: dt.datetime) -> list[Action]:
    """Those that could still be taken back when the run was paused, or were approved after that."""
    sleeping = Action.objects.filter(run_id=run_id, status=ActionStatus.APPROVED, starts_at__gt=paused_at)
    postponed = []
    for action in sleeping.order_by("position", "id"):
        begins = _again(action.starts_at, max(paused_at, action.decided_at or paused_at), now)
        if action.expires_at is not None:
            begins = min(begins, action.expires_at - BEFORE_DEADLINE)
        if lifecycle.postpone(action.id, begins):
            action.starts_at = begins
            postponed.append(action)
    return postponed


def _postpone_choice(run_id: uuid.UUID, paused_at: dt.datetime, now: dt.datetime) -> list[dt.datetime]:
    last = Chosen.objects.filter(run_id=run_id, taken_back_at__isnull=True).order_by("-number").first()
    if last is None or last.begins_at is None or last.begins_at <= paused_at:
        return []
    last.begins_at = _again(last.begins_at, paused_at, now)
    last.save(update_fields=["begins_at"])
    return [last.begins_at]


def _again(begins: dt.datetime | None, stood_still: dt.datetime, now: dt.datetime) -> dt.datetime:
    return now + ((begins or stood_still) - stood_still)
