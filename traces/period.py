"""The stretch of time that a cost report covers."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

DAY = dt.timedelta(days=1)
LONGEST = dt.timedelta(days=3_660)
RANGES = {"7d": "7 days", "30d": "30 days", "month": "This month", "custom": "Custom"}


class BadPeriod(ValueError):
    """`field` is `from` or `to`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start` to before `end`."""

    name: str
    start: dt.datetime
    end: dt.datetime

    @property
    def last(self) -> dt.date:
        return (self.end - dt.timedelta(microseconds=1)).date()

    @property
    def days(self) -> list[dt.date]:
        first = self.start.date()
        return [first + DAY * offset for offset in range((self.last - first).days + 1)]

    @property
    def before(self) -> Period:
        """As long a stretch, right before this one."""
        return Period(name=self.name, start=self.start - (self.end - self.start), end=self.start)


def read_period(now: dt.datetime, name: str = "", start: str = "", end: str = "") -> Period:
    """Days of `now`'s zone. A start or end makes it custom; `end` is the last day, included. Raises BadPeriod."""
    tomorrow = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    if start or end or name == "custom":
        last = _moment("to", end, now, whole_day=True) if end else tomorrow
        first = _moment("from", start, now, whole_day=False) if start else last - 30 * DAY
        if first >= last:
            raise BadPeriod("from", "The period ends before it begins.")
        if last - first > LONGEST:
            raise BadPeriod("from", "A report covers ten years at most.")
        return Period(name="custom", start=first, end=last)
    if name == "month":
        return Period(name=name, start=(tomorrow - DAY).replace(day=1), end=tomorrow)
    days = 7 if name == "7d" else 30
    return Period(name=f"{days}d", start=tomorrow - days * DAY, end=tomorrow)


def _moment(field: str, raw: str, now: dt.datetime, *, whole_day: bool) -> dt.datetime:
    try:
        if len(raw) == 10:
            found = dt.datetime.combine(dt.date.fromisoformat(raw), dt.time(), now.tzinfo)
            found = found + DAY if whole_day else found
        else:
            found = dt.datetime.fromisoformat(raw)
            found = found.astimezone(now.tzinfo) if found.tzinfo else found.replace(tzinfo=now.tzinfo)
        in_reach = 1990 < found.astimezone(dt.UTC).year < 2200
    except (ValueError, OverflowError):
        in_reach = False
    if not in_reach:
        raise BadPeriod(field, f"“{raw}” is not a date: write it as 2026-11-01.")
    return found
