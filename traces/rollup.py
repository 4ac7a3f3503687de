"""Keeps the cost summaries: hour by hour from the steps, day by day from the hours. An hour is always made whole again,
never added to, so doing it twice changes nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from django.db import transaction
from django.db.models import Min, Q
from django.utils import timezone

from accounts.models import Team
from runs.models import Run, StaleHour, Step
from runs.stale import HOUR, ROLLED_AFTER, hour_of
from traces.distribution import Distribution
from traces.models import Rollup, Usage
from traces.tally import SUMS, Place, Range, Tallies, Tally, tally

logger = logging.getLogger(__name__)
DAY: Final = dt.timedelta(days=1)
CLAIM: Final = dt.timedelta(minutes=2)
AT_ONCE: Final = 24  # hours in one transaction: other writers get their turn in between
MOST_A_TURN: Final = 10  # batches: the worker's other errands must not wait for a whole history


class Busy(Exception):
    """Another worker sums up this team at the moment."""


def roll_due() -> None:
    """The worker's chore: every team whose hours are over, or were changed afterwards."""
    target = hour_of(timezone.now() - ROLLED_AFTER)
    stale = StaleHour.objects.values("team_id")
    due = Team.objects.filter(Q(rollup__isnull=True) | Q(rollup__rolled_to__lt=target) | Q(id__in=stale))
    for team_id in due.values_list("id", flat=True):
        try:
            roll(team_id, most=MOST_A_TURN)
        except Busy:
            continue


def roll(team_id: uuid.UUID, *, most: int | None = None) -> int:
    """Sums up what is due, the stale hours first; `most` batches. Gives the hours done. Raises Busy."""
    state = _state(team_id)
    token = _claim(team_id)
    done = batches = 0
    try:
        while most is None or batches < most:
            hours, marks, rolled_to = _next(state)
            if not hours and not marks and rolled_to <= state.rolled_to:
                break
            state = _roll_hours(state, token, hours, marks, rolled_to)
            done += len(hours)
            batches += 1
    finally:
        Rollup.objects.filter(team_id=team_id, worker=token).update(worker="", until=None)
    return done


def rebuild(team_id: uuid.UUID, since: dt.datetime | None = None) -> int:
    """Makes the summaries again from the steps: all, or the hours from `since` on. Reports stay right meanwhile: what
    is not summed up is read from the steps. Raises Busy."""
    state = _state(team_id)
    first = _begin(state, since)
    with transaction.atomic():
        free = Q(until__isnull=True) | Q(until__lt=timezone.now())
        if Rollup.objects.filter(free, team_id=team_id).update(rolled_to=first) != 1:
            raise Busy
        of_hour, of_day = Q(grain=Usage.HOUR, start__gte=first), Q(grain=Usage.DAY, start__gt=first - DAY)
        Usage.objects.filter(of_hour | of_day, team_id=team_id).delete()
    return roll(team_id)


def _begin(state: Rollup, since: dt.datetime | None) -> dt.datetime:
    """The first hour that may be looked at again."""
    first = _first(state.team_id) or state.rolled_to
    return min(state.rolled_to, max(filter(None, (first, since and hour_of(since), state.kept_from))))


def differing(team_id: uuid.UUID, since: dt.datetime | None = None) -> list[dt.datetime]:
    """The hours whose summary is not the sum of their steps, of those that are said to be summed up."""
    state = _state(team_id)
    stale = set(StaleHour.objects.filter(team_id=team_id).values_list("hour", flat=True))
    at, found = _begin(state, since), []
    while at < state.rolled_to:
        kept = Usage.objects.filter(team_id=team_id, grain=Usage.HOUR, start__gte=at)
        at = min(filter(None, (_first(team_id, at), kept.aggregate(at=Min("start"))["at"])), default=state.rolled_to)
        end = min(at + AT_ONCE * HOUR, state.rolled_to)
        found += _differing([hour for hour in _hours(at, end) if hour not in stale], team_id)
        at = max(end, at)
    return found


def _differing(hours: list[dt.datetime], team_id: uuid.UUID) -> list[dt.datetime]:
    kept: dict[dt.datetime, Tallies] = defaultdict(dict)
    made: dict[dt.datetime, Tallies] = defaultdict(dict)
    for row in Usage.objects.filter(team_id=team_id, grain=Usage.HOUR, start__in=hours):
        kept[row.start][Place(row.start, row.by, row.key, row.sub)] = of_row(row)
    for place, part in tally(team_id, joined(hours)).items():
        made[place.hour][place] = part
    return [hour for hour in hours if not _alike(kept[hour], made[hour])]


def _alike(one: Tallies, other: Tallies) -> bool:
    """Costs per run are compared by their number: summaries may have rounded them."""
    return one.keys() == other.keys() and all(
        all(getattr(part, name) == getattr(other[place], name) for name in SUMS) for place, part in one.items()
    )


def _state(team_id: uuid.UUID) -> Rollup:
    known = Rollup.objects.filter(team_id=team_id).first()
    if known is None:
        start = _first(team_id) or hour_of(timezone.now() - ROLLED_AFTER)
        known, _ = Rollup.objects.get_or_create(team_id=team_id, defaults={"rolled_to": start})
    return known


_EVER = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


def _first(team_id: uuid.UUID, since: dt.datetime = _EVER) -> dt.datetime | None:
    """The hour of the team's first run or step from then on, whichever is earlier."""
    moments = (
        Run.objects.filter(team_id=team_id, created_at__gte=since).aggregate(at=Min("created_at"))["at"],
        Step.objects.filter(run__team_id=team_id, started_at__gte=since).aggregate(at=Min("started_at"))["at"],
    )
    return min((hour_of(moment) for moment in moments if moment), default=None)


def _claim(team_id: uuid.UUID) -> str:
    token, now = secrets.token_hex(8), timezone.now()
    free = Q(until__isnull=True) | Q(until__lt=now)
    if Rollup.objects.filter(free, team_id=team_id).update(worker=token, until=now + CLAIM) != 1:
        raise Busy
    return token


def _next(state: Rollup) -> tuple[list[dt.datetime], list[int], dt.datetime]:
    """(hours to be made, marks that are settled by it, how far everything is rolled then)."""
    marks = StaleHour.objects.filter(team_id=state.team_id)
    void = Q(hour__gte=state.rolled_to)
    if state.kept_from is not None:
        void |= Q(hour__lt=state.kept_from)
    stale = list(marks.exclude(void).order_by("hour").values_list("hour", flat=True).distinct()[:AT_ONCE])
    if stale:
        settled = marks.filter(hour__in=stale).values_list("id", flat=True)
        return stale, list(settled), state.rolled_to
    target = hour_of(timezone.now() - ROLLED_AFTER)
    start = max(state.rolled_to, min(target, _first(state.team_id, state.rolled_to) or target))
    end = max(start, min(target, start + AT_ONCE * HOUR))
    # A mark that is newer than the end may be of the next hours: it stands until they are made.
    settled = marks.filter(void).filter(hour__lt=end).values_list("id", flat=True)
    return _hours(start, end), list(settled), end


def _hours(start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    return [start + HOUR * n for n in range(max(0, (end - start) // HOUR))]


def _roll_hours(
    state: Rollup, token: str, hours: list[dt.datetime], marks: list[int], rolled_to: dt.datetime
) -> Rollup:
    """The marks were read before the steps are: whoever writes after that has left another mark."""
    made = tally(state.team_id, joined(hours))
    with transaction.atomic():
        now = timezone.now()
        held = Rollup.objects.filter(team_id=state.team_id, worker=token, until__gte=now)
        if held.update(rolled_to=rolled_to, until=now + CLAIM) != 1:
            raise Busy
        _replace(state.team_id, Usage.HOUR, hours, made)
        days = sorted({hour.replace(hour=0) for hour in [state.rolled_to, *hours]})
        whole = [day for day in days if day + DAY <= rolled_to]
        _replace(state.team_id, Usage.DAY, whole, _by_day(state.team_id, whole))
        StaleHour.objects.filter(id__in=marks).delete()
    state.rolled_to = rolled_to
    return state


def _replace(team_id: uuid.UUID, grain: str, starts: Collection[dt.datetime], made: Tallies) -> None:
    if not starts:
        return
    Usage.objects.filter(team_id=team_id, grain=grain, start__in=list(starts)).delete()
    rows = [
        Usage(
            team_id=team_id,
            grain=grain,
            start=place.hour,
            by=place.by,
            key=place.key,
            sub=place.sub,
            costs=part.costs.to_bytes(),
            **{name: getattr(part, name) for name in SUMS},
        )
        for place, part in sorted(made.items())
    ]
    Usage.objects.bulk_create(rows, batch_size=500)


def _by_day(team_id: uuid.UUID, days: Collection[dt.datetime]) -> Tallies:
    found: dict[Place, Tally] = defaultdict(Tally)
    within = Q(start__in=())
    for day in days:
        within |= Q(start__gte=day, start__lt=day + DAY)
    for row in Usage.objects.filter(within, team_id=team_id, grain=Usage.HOUR).iterator():
        found[Place(row.start.replace(hour=0), row.by, row.key, row.sub)].add(of_row(row))
    return dict(found)


def of_row(row: Usage) -> Tally:
    part = Tally(**{name: getattr(row, name) for name in SUMS})
    part.costs = Distribution(row.costs)
    return part


def joined(hours: Iterable[dt.datetime]) -> list[Range]:
    """Hours as few ranges."""
    found: list[Range] = []
    for hour in sorted(hours):
        if found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + HOUR)
        else:
            found.append((hour, hour + HOUR))
    return found
