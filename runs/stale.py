"""Which hours of the cost summaries a write makes out of date. Most writes mark nothing and cost nothing.

An hour is summed up once it has been over for `ROLLED_AFTER`, and a writer marks every hour that has been over for
`MARKED_AFTER`: whoever writes without a mark has committed long before the hour is looked at.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable

from django.utils import timezone

from runs.models import StaleHour

HOUR = dt.timedelta(hours=1)
MARKED_AFTER = dt.timedelta(minutes=1)
ROLLED_AFTER = dt.timedelta(minutes=5)


def hours_over(*moments: dt.datetime) -> set[dt.datetime]:
    """The hours that have to be marked by whoever writes steps of those moments, or of runs created then."""
    latest = timezone.now() - MARKED_AFTER - HOUR
    return {hour for hour in map(hour_of, moments) if hour <= latest}


def mark(team_id: uuid.UUID, *moments: dt.datetime) -> None:
    """Within the transaction of the write."""
    mark_hours(team_id, hours_over(*moments))


def mark_hours(team_id: uuid.UUID, hours: Iterable[dt.datetime]) -> None:
    rows = [StaleHour(team_id=team_id, hour=hour) for hour in hours]
    if rows:
        StaleHour.objects.bulk_create(rows)


def hour_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
