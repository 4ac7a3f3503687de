"""Sending what is due, outside any transaction. Worker code, for a thread that may wait for a network.

A worker that died while it was sending is the one way in which a notice may be sent twice: its rows are taken up again
after a while, for losing a notice would be worse. Receivers know a repeat by its id.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Sequence

from django.utils import timezone

from approvals import notices, senders
from approvals.notice_models import ChannelKind, Notice, NoticeKind, NoticeState

logger = logging.getLogger(__name__)
BACKOFF = tuple(dt.timedelta(seconds=seconds) for seconds in (30, 120, 600, 3600, 4 * 3600))
TAKEN_UP_AGAIN = dt.timedelta(minutes=5)
AT_ONCE = 200


def deliver_due() -> int:
    """Sends what is due; returns how many messages went out."""
    _take_up_again()
    due = Notice.objects.filter(state=NoticeState.QUEUED, due_at__lte=timezone.now())
    due = due.exclude(channel__kind=ChannelKind.BROWSER)
    messages: dict[object, list[object]] = defaultdict(list)  # a test is a message of its own
    for notice_id, channel_id, kind in due.order_by("due_at").values_list("id", "channel_id", "kind")[:AT_ONCE]:
        messages[channel_id, kind == NoticeKind.TEST].append(notice_id)
    return sum(_deliver(ids) for ids in messages.values())


def _deliver(ids: Sequence[object]) -> int:
    claimed = notices.claim(ids)
    if not claimed:
        return 0
    channel = claimed[0].channel
    try:
        senders.send(channel, claimed)
    except senders.NotDelivered as problem:
        _try_later(claimed, str(problem), again=problem.again)
        return 0
    except Exception as problem:
        logger.exception("A notice could not be sent to channel %s", channel.id)
        _try_later(claimed, type(problem).__name__, again=True)
        return 0
    notices.end(claimed, NoticeState.SENT)
    return 1


def _try_later(failed: Sequence[Notice], error: str, *, again: bool) -> None:
    now = timezone.now()
    for notice in failed:
        left = again and notice.attempts <= len(BACKOFF)
        changes = (
            {"state": NoticeState.QUEUED, "due_at": now + BACKOFF[notice.attempts - 1]}
            if left
            else {"state": NoticeState.FAILED, "ended_at": now}
        )
        mine = Notice.objects.filter(id=notice.id, state=NoticeState.SENDING, claimed_by=notice.claimed_by)
        mine.update(error=error[:300], **changes)


def _take_up_again() -> None:
    stuck = Notice.objects.filter(state=NoticeState.SENDING, claimed_at__lt=timezone.now() - TAKEN_UP_AGAIN)
    again = stuck.update(state=NoticeState.QUEUED)
    if again:
        logger.warning("%d notices were left by a worker that died and are sent again", again)
