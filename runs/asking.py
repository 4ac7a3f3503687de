"""Putting actions before people: a batch with its deadline, who is asked first, and the ladder of what comes after."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.db.models import Max
from django.utils import timezone

from accounts.models import Membership, User
from runs import timing
from runs.asked import Rung
from runs.children import above
from runs.models import Batch, Run


def open_batch(run: Run, key: str, intents: Sequence[str], tools: Sequence[str], why: str, title: str) -> Batch:
    """The batch of `key`, made with its ladder when it is not there yet. In the caller's transaction."""
    known = Batch.objects.filter(run_id=run.id, key=key).first()
    if known is not None:
        return known
    number = (Batch.objects.filter(run_id=run.id).aggregate(most=Max("number"))["most"] or 0) + 1
    times, now = timing.of_batch(run, tools), timezone.now()
    agent = " › ".join(str(row.agent_version.definition["name"]) for row in (*above(run), run))
    batch = Batch.objects.create(
        run=run,
        key=key,
        number=number,
        intents=list(intents),
        title=f"{agent} {title}"[:200],
        why=why,
        expires_at=now + times.expires,
    )
    batch.asked.set(members(run, times.reviewers))
    Rung.objects.bulk_create(ladder(batch, times, now))
    return batch


def ladder(batch: Batch, times: timing.Timing, now: dt.datetime) -> list[Rung]:
    rungs = [Rung(batch=batch, kind="remind", due_at=now + times.remind)]
    if times.widen is not None and times.backup:
        rungs.append(Rung(batch=batch, kind="widen", due_at=now + times.widen, people=list(times.backup)))
    return [*rungs, Rung(batch=batch, kind="reject", due_at=now + times.expires)]


def members(run: Run, names: Sequence[str]) -> list[User]:
    """Of these user names, who is in the run's team now. A name that left is no error: others are asked."""
    if not names:
        return []
    found = Membership.objects.filter(team_id=run.team_id, user__username__in=list(names), user__is_active=True)
    return [membership.user for membership in found.select_related("user")]
