"""Some of what ran alone is looked at afterwards: a person agrees or overturns, and calibration learns from it."""

from __future__ import annotations

import hashlib
import uuid

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, get, rows
from approvals.models import LaterLook
from runs.errors import Invalid
from runs.models import Action

VERDICTS = ("agree", "overturn")
NOTE_LENGTH = 4000


def draw(action: Action, share: float) -> bool:
    """Drawn by a hash of the action's id, which no model can choose: the same action is drawn always or never."""
    if not is_drawn(action.id, share):
        return False
    LaterLook.objects.get_or_create(action=action)
    return True


def is_drawn(action_id: uuid.UUID, share: float) -> bool:
    number = int.from_bytes(hashlib.sha256(action_id.bytes).digest()[:8], "big")
    return number < share * 2**64


def waiting(access: Access) -> QuerySet[LaterLook]:
    """Oldest first; only what has ended, so that there is something to judge."""
    found = rows(access, LaterLook).filter(verdict="", action__status__in=["succeeded", "failed"])
    return found.select_related("action__run__agent").order_by("created_at", "id")


def reviewed(access: Access) -> QuerySet[LaterLook]:
    found = rows(access, LaterLook).exclude(verdict="").select_related("action__run__agent", "reviewed_by")
    return found.order_by("-reviewed_at", "-id")


def review(access: Access, look_id: uuid.UUID | str, verdict: str, note: str = "") -> LaterLook | None:
    """The look, or None when somebody was first. Raises `Invalid`."""
    look = get(access, LaterLook.objects.select_related("action"), look_id, right=Right.DECIDE)
    note = note.strip()
    if verdict not in VERDICTS:
        raise Invalid({"verdict": "Agree or overturn."})
    if verdict == "overturn" and not note:
        raise Invalid({"note": "Say what was wrong: whoever sets the policy reads it."})
    if len(note) > NOTE_LENGTH or "\0" in note:
        raise Invalid({"note": f"At most {NOTE_LENGTH:,} characters."})
    with transaction.atomic():
        unseen = LaterLook.objects.filter(id=look.id, verdict="")
        moved = unseen.update(verdict=verdict, note=note, reviewed_by=access.user, reviewed_at=timezone.now())
        if moved != 1:
            return None
        receipts.append(
            access.team.id,
            "action.looked_at",
            actor=access.user,
            subject_type="action",
            subject_id=look.action_id,
            payload={"verdict": verdict, "note": note, "tool": look.action.tool},
        )
    look.refresh_from_db()
    return look
