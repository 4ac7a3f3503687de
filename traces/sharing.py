"""Links to one trace that end by themselves. Whoever is signed in and in the run's team may open one, in whichever team
they work at the moment; they see that trace and can change nothing. For anybody else there is no such link."""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import Http404
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, access_for_user, get, rows, token_digest
from accounts.models import User
from runs.errors import Invalid
from runs.models import Run
from traces.models import Share

LIFETIMES = {"1": "a day", "7": "a week", "30": "30 days"}
"""Days, and in words."""
MOST = 20
OPENED_EVERY = dt.timedelta(minutes=1)


class Gone(Exception):
    """The link was good once: `share` says until when. Told to members of its team only."""

    def __init__(self, share: Share) -> None:
        super().__init__(str(share))
        self.share = share


@dataclass(frozen=True, slots=True)
class Opened:
    """`access` is what the reader has there: to see, whatever their role is."""

    share: Share
    access: Access


def active(access: Access, run: Run) -> QuerySet[Share]:
    found = rows(access, Share).filter(run=run, revoked_at__isnull=True, expires_at__gt=timezone.now())
    return found.select_related("created_by").order_by("expires_at", "id")


def shown(access: Access, run: Run) -> dict[str, Any]:
    """For the page of the trace."""
    may_share, may_manage = access.may(Right.LAUNCH), access.may(Right.MANAGE)
    links = [
        {"share": share, "may_revoke": may_manage or (may_share and share.created_by_id == access.user.id)}
        for share in active(access, run)
    ]
    return {"links": links, "may_share": may_share, "team": access.team.name, "lifetimes": LIFETIMES}


def create(access: Access, run_id: uuid.UUID | str, days: str) -> tuple[Share, str]:
    """The row, and the token of the link, which exists nowhere else. Raises Invalid."""
    run = get(access, Run, run_id, right=Right.LAUNCH)
    if days not in LIFETIMES:
        raise Invalid({"days": f"A link holds for {', '.join(LIFETIMES)} days."})
    if active(access, run).count() >= MOST:
        raise Invalid({"days": f"{MOST} links to this trace are open: revoke one first."})
    raw = secrets.token_urlsafe(32)
    with transaction.atomic():
        share = Share.objects.create(
            team=access.team,
            run=run,
            digest=token_digest(raw),
            created_by=access.user,
            expires_at=timezone.now() + dt.timedelta(days=int(days)),
        )
        _receipt(access, "trace.shared", share)
    return share, raw


def revoke(access: Access, run_id: uuid.UUID | str, share_id: uuid.UUID | str) -> bool:
    """One's own; an admin may revoke those of others. False when it had ended already."""
    run = get(access, Run, run_id)
    share = get(access, Share, share_id, right=Right.LAUNCH, run=run)
    if share.created_by_id != access.user.id:
        access.require(Right.MANAGE)
    now = timezone.now()
    with transaction.atomic():
        open_one = Share.objects.filter(id=share.id, revoked_at__isnull=True, expires_at__gt=now)
        if open_one.update(revoked_at=now) != 1:
            return False
        _receipt(access, "trace.share_revoked", share)
    return True


def opened(user: User, token: str) -> Opened:
    """Raises Http404 for a link that is none to this person, Gone for one that has ended."""
    share = Share.objects.filter(digest=token_digest(token)).select_related("team", "created_by").first()
    if share is None:
        raise Http404("No such link.")
    access = access_for_user(user, share.team.slug)  # Http404 for anybody outside its team
    now = timezone.now()
    if share.revoked_at is not None or share.expires_at <= now:
        raise Gone(share)
    before = now - OPENED_EVERY
    Share.objects.filter(Q(opened_at__isnull=True) | Q(opened_at__lt=before), id=share.id).update(opened_at=now)
    return Opened(share, replace(access, rights=frozenset({Right.VIEW})))


def _receipt(access: Access, kind: str, share: Share) -> None:
    receipts.append(
        access.team.id,
        kind,
        actor=access.user,
        subject_type="run",
        subject_id=share.run_id,
        payload={"share": str(share.id), "expires_at": share.expires_at.isoformat()},
    )
