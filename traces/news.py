"""Runs that began after a page of results was made and match its query: asked in memory, every few seconds."""

from __future__ import annotations

import datetime as dt

from accounts.access import Access, rows
from runs.models import Run
from traces import memory
from traces.tree import Query

MOST = memory.MOST_AT_ONCE


def newer(access: Access, query: Query, since: dt.datetime, now: dt.datetime) -> tuple[int, bool]:
    """(how many, whether there are more than were looked at)."""
    runs = rows(access, Run).filter(created_at__gt=since).order_by("-created_at")
    facts = memory.gather(runs, now)
    return sum(memory.holds(query.node, each) for each in facts), len(facts) == MOST
