"""What people are to be told, as rows: queued for each channel that wants them, claimed by whoever tells.

Whoever may tell is decided by one conditional UPDATE, so that two workers never tell twice. `delivery.py` sends.
"""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections.abc import Collection, Iterable, Sequence
from zoneinfo import ZoneInfo

from django.core.exceptions import PermissionDenied
from django.db.models import Exists, F, OuterRef, QuerySet, Subquery
from django.http import Http404
from django.utils import timezone

from accounts.access import Right, access_for_user
from approvals import inbox
from approvals.models import Decision, Verdict
from approvals.notice_models import Channel, ChannelKind, Notice, NoticeKind, NoticeState
from approvals.quiet import after_quiet, next_digest
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Risk
from runs.models import Action, Batch

GATHER_PAST = dt.timedelta(days=1)
REMIND_BEFORE = dt.timedelta(minutes=30)
LONG_ENOUGH = dt.timedelta(hours=1)
"""A batch that is shorter open than this gets no reminder: it would follow on the heels of the first notice."""
AT_ONCE = 200
SEVERE = (Risk.HIGH, Risk.CRITICAL)
DIGESTED = (NoticeKind.WAITING, NoticeKind.SECOND)


# --- what is to be told ----------------------------------------------------------------------------------------------


def gather() -> int:
    """Queues a notice for each batch that waits, on each channel that wants it; returns how many."""
    now = timezone.now()
    told = Notice.objects.filter(batch=OuterRef("pk"), kind=NoticeKind.WAITING)
    some = Channel.objects.filter(team=OuterRef("run__team"))
    waiting = Batch.objects.filter(status="open", expires_at__gt=now).filter(Exists(some)).select_related("run")
    new = waiting.filter(~Exists(told), created_at__gt=now - GATHER_PAST)
    count = sum(queue(batch, NoticeKind.WAITING) for batch in new.order_by("created_at")[:AT_ONCE])
    reminded = Notice.objects.filter(batch=OuterRef("pk"), kind=NoticeKind.REMINDER)
    late = waiting.filter(~Exists(reminded), expires_at__lte=now + REMIND_BEFORE)
    late = late.filter(created_at__lte=F("expires_at") - LONG_ENOUGH)
    count += sum(queue(batch, NoticeKind.REMINDER) for batch in late.order_by("expires_at")[:AT_ONCE])
    return count + sum(_ask_a_second(batch) for batch in _half_approved(waiting).order_by("expires_at")[:AT_ONCE])


def _half_approved(waiting: QuerySet[Batch]) -> QuerySet[Batch]:
    """Batches in which one person approved what needs another one, and somebody was not told of it yet."""
    last = _first_votes(OuterRef("pk")).order_by("-at").values("at")[:1]
    recent = waiting.annotate(voted_at=Subquery(last)).filter(voted_at__gt=timezone.now() - GATHER_PAST)
    told = Notice.objects.filter(channel=OuterRef("pk"), batch=OuterRef(OuterRef("pk")), kind=NoticeKind.SECOND)
    voted = _first_votes(OuterRef(OuterRef("pk"))).filter(actor=OuterRef("user"))
    there = Channel.objects.filter(team=OuterRef("run__team"), created_at__lte=OuterRef("voted_at"))
    return recent.filter(Exists(there.filter(~Exists(told), ~Exists(voted))))


def _first_votes(batch: Batch | OuterRef) -> QuerySet[Decision]:
    """Approvals of actions that wait for one more person."""
    open_to_more = {"action__batch": batch, "action__status": ActionStatus.PENDING, "action__needed__gt": 1}
    return Decision.objects.filter(**open_to_more, verdict=Verdict.APPROVE)


def _ask_a_second(batch: Batch) -> int:
    """All who were asked to decide, but for those who approved. Whoever may not is found when it is told."""
    asked = set(batch.asked.values_list("id", flat=True)) or None
    voters = set(_first_votes(batch).values_list("actor", flat=True))
    return queue(batch, NoticeKind.SECOND, users=asked, without=voters)


def queue(
    batch: Batch,
    kind: NoticeKind,
    *,
    users: Collection[uuid.UUID] | None = None,
    without: Collection[uuid.UUID] = (),
) -> int:
    """On all channels of the team that want this batch; with `users` (ids) on theirs alone, and never on those of the
    people in `without`. Told once each, whoever calls how often, but for what was handed to a person. What has as much
    time as the batch waits for a digest: for the others there may be none left."""
    now = timezone.now()
    risks = set(Action.objects.filter(batch=batch, status__in=list(WAITING_ACTIONS)).values_list("risk", flat=True))
    found = Channel.objects.filter(team_id=batch.run.team_id, created_at__lte=now).select_related("user")
    if users is not None:
        found = found.filter(user_id__in=users)
    found = found.exclude(user_id__in=list(without))
    wanting = [channel for channel in found if not channel.only_severe or risks & set(SEVERE)]
    rows = [
        Notice(channel=channel, batch=batch, kind=kind, due_at=_due(channel, now, digest=kind in DIGESTED))
        for channel in wanting
    ]
    return len(Notice.objects.bulk_create(rows, ignore_conflicts=True))


def queue_test(channel: Channel) -> Notice:
    return Notice.objects.create(channel=channel, kind=NoticeKind.TEST, due_at=timezone.now())


def _due(channel: Channel, now: dt.datetime, *, digest: bool) -> dt.datetime:
    gathered = next_digest(now, channel.digest_minutes) if digest else now
    return after_quiet(gathered, channel.quiet_from, channel.quiet_to, ZoneInfo(channel.time_zone))


# --- claiming --------------------------------------------------------------------------------------------------------


def claim(ids: Iterable[object]) -> list[Notice]:
    """queued -> sending, for this caller alone; returns what is worth telling of it, the rest is dropped."""
    now, mark = timezone.now(), secrets.token_hex(16)
    Notice.objects.filter(id__in=list(ids), state=NoticeState.QUEUED, due_at__lte=now).update(
        state=NoticeState.SENDING, claimed_by=mark, claimed_at=now, attempts=F("attempts") + 1
    )
    mine = Notice.objects.filter(claimed_by=mark).select_related("channel__user", "channel__team", "batch__run__agent")
    found = list(mine.order_by("batch__expires_at", "id"))
    worth = [notice for notice in found if _is_worth_telling(notice)]
    end([notice for notice in found if notice not in worth], NoticeState.DROPPED)
    return worth


def _is_worth_telling(notice: Notice) -> bool:
    """Read afresh at the last moment: nobody is called to what was decided, or to what they may not decide any more."""
    batch, channel = notice.batch, notice.channel
    if batch is not None and (batch.status != "open" or batch.expires_at <= timezone.now()):
        return False
    if batch is not None and notice.kind == NoticeKind.SECOND and not _first_votes(batch).exists():
        return False
    if channel.user is None:
        return True
    try:
        access = access_for_user(channel.user, channel.team.slug)
    except (Http404, PermissionDenied):
        return False
    return access.may(Right.DECIDE) and (batch is None or inbox.for_me(access).filter(id=batch.id).exists())


def end(notices: Sequence[Notice], state: NoticeState) -> None:
    mine = Notice.objects.filter(id__in=[notice.id for notice in notices], state=NoticeState.SENDING)
    mine.update(state=state, ended_at=timezone.now(), error="")


# --- the browser -----------------------------------------------------------------------------------------------------


def take_for_browser(user_id: uuid.UUID, team_id: uuid.UUID) -> list[Notice]:
    """What is due on this person's browser channels: taken by the first page that asks."""
    due = Notice.objects.filter(
        channel__user_id=user_id,
        channel__team_id=team_id,
        channel__kind=ChannelKind.BROWSER,
        state=NoticeState.QUEUED,
        due_at__lte=timezone.now(),
    )
    ids = list(due.values_list("id", flat=True)[:20])
    notices = claim(ids) if ids else []
    end(notices, NoticeState.SENT)
    return notices
