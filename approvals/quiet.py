"""When a channel may speak: digests are gathered, and nights are quiet in the zone of the people who sleep."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo


def next_digest(moment: dt.datetime, minutes: int) -> dt.datetime:
    """The next full round of `minutes` since midnight UTC, so that one digest takes all of its round; 0 is at once."""
    if not minutes:
        return moment
    midnight = moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rounds = int((moment - midnight).total_seconds() // (minutes * 60)) + 1
    return midnight + dt.timedelta(minutes=rounds * minutes)


def after_quiet(
    moment: dt.datetime, quiet_from: dt.time | None, quiet_to: dt.time | None, zone: ZoneInfo
) -> dt.datetime:
    """The moment itself, or the end of the quiet hours it lies in. They may span midnight; equal times are none."""
    if quiet_from is None or quiet_to is None or quiet_from == quiet_to:
        return moment
    local = moment.astimezone(zone)
    time = local.time()
    spans = quiet_from > quiet_to
    within = (time >= quiet_from or time < quiet_to) if spans else quiet_from <= time < quiet_to
    if not within:
        return moment
    day = local.date() + dt.timedelta(days=1 if spans and time >= quiet_from else 0)
    # Wall-clock arithmetic: where the clock changes in the night, the end is still the hour people named.
    return dt.datetime.combine(day, quiet_to, tzinfo=zone).astimezone(dt.UTC)
