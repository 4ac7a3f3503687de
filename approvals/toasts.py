"""What the answer to a decision offers for a few seconds: to take it back."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from django.utils import timezone

from approvals.presenter import ActionView, BatchView
from runs.previews import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Toast:
    lead: str
    until: dt.datetime
    server_now: dt.datetime
    seconds: int
    actions: tuple[ActionView, ...]


def undo_toast(batch: BatchView, approved: Collection[uuid.UUID]) -> Toast | None:
    """For what was approved just now and has not begun."""
    now = timezone.now()
    held = tuple(action for action in batch.held if action.id in approved and (action.starts_at or now) > now)
    until = max((action.starts_at for action in held if action.starts_at), default=None)
    if until is None:
        return None
    seconds = max(1, round((until - now).total_seconds()))
    lead = f"{counted(len(held), 'action', 'actions')} approved."
    return Toast(lead=lead, until=until, server_now=now, seconds=seconds, actions=held)
