"""Cost reports: summaries of the hours and days that are over, and the steps themselves for the rest. Together they are
the sum of the steps, to the last digit.

A step without a price is counted, never taken for zero; a row of nothing but such steps has no cost (None). A step
belongs to the moment it began, a run to the moment it was created: `runs`, `p50` and `p95` are of the runs created in
the period, each with all that it cost.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain

from django.db.models import Q

from accounts.access import Access, Right
from accounts.models import User
from runs.models import StaleHour
from runs.stale import HOUR, hour_of
from traces.distribution import Distribution
from traces.models import Rollup, Usage
from traces.rollup import joined
from traces.tally import ALL, PAIR, SUMS, Place, Range, Tally, tally, usd

KEYS = ("task_type", "agent", "model", "user", "tool")
TIMES = ("day", "week")
BY = (*KEYS, *TIMES)
PERCENTILES_FROM = 20  # runs: with fewer the page shows no percentiles; the API always gives them
DAY = dt.timedelta(days=1)


class UnknownBy(ValueError):
    """Something that costs can't be grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`when` is the first day of the row where the report is also by day or week. `saved_by_reads`, `paid_for_writes`
    and `lost_to_expiry` are against the same tokens without a cache; None where a model's price is unknown."""

    key: str
    when: str = ""
    runs: int
    simulated_runs: int
    steps: int
    calls: int
    cost: Decimal | None
    p50: Decimal | None
    p95: Decimal | None
    tokens: int
    prompt_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_saved_usd: Decimal | None
    saved_by_reads: Decimal | None
    paid_for_writes: Decimal | None
    lost_to_expiry: Decimal | None
    unpriced_steps: int

    @property
    def cached_share(self) -> float | None:
        """The part of all input tokens that was read from the cache."""
        return self.cache_read_tokens / self.prompt_tokens if self.prompt_tokens else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    by: str
    start: dt.datetime
    end: dt.datetime
    rows: tuple[Row, ...]
    total: Row
    children: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a report's sums come from. `raw` ranges were read from the steps, because no summary holds them yet;
    steps before `kept_from` are gone, and only summaries know of them."""

    team_id: uuid.UUID
    days: tuple[dt.datetime, ...]
    hours: tuple[dt.datetime, ...]
    raw: tuple[Range, ...]
    stale_hours: int
    rolled_to: dt.datetime | None
    kept_from: dt.datetime | None = None


def report(access: Access, *, by: str, start: dt.datetime, end: dt.datetime, children: bool = False) -> Report:
    """Of what began from `start` to before `end`. `by` is one of BY, or one of KEYS and a day or week: "agent,day".
    `children` splits each agent's row by task type. Raises UnknownBy."""
    read_by(by)
    return Sums(access, start, end).report(by, children=children)


def read_by(by: str) -> tuple[str | None, str | None]:
    """(key, time), either of which may be None. Raises UnknownBy."""
    parts = [part.strip() for part in by.split(",")]
    match parts:
        case [one] if one in TIMES:
            return None, one
        case [one] if one in KEYS:
            return one, None
        case [one, two] if one in KEYS and two in TIMES:
            return one, two
    raise UnknownBy(f"Costs are grouped by {', '.join(BY)}, or by one of the first and day or week; not by “{by}”.")


def _order(key: str | None, time: str | None) -> Callable[[Row], tuple[object, ...]]:
    if key is None:
        return lambda row: (row.key,)
    if time is not None:
        return lambda row: (row.when, -(row.cost or 0), row.key)
    return lambda row: (-(row.cost or 0), -row.unpriced_steps, row.key)


def _rows(parts: Iterable[tuple[Place, Tally]], key: Callable[[Place], tuple[str, str]]) -> list[Row]:
    found: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for place, part in parts:
        name = key(place)
        if part.costs.packed and name not in found:
            found[name] = part  # fresh from its summary: nobody else adds to it
        else:
            found[name].add(part)
    return [row_of(name, part, when) for (name, when), part in found.items()]


def _below(sums: Sums) -> dict[str, tuple[Row, ...]]:
    found: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for place, part in sums.of(PAIR):
        found[place.key][place.sub].add(part)
    return {
        key: tuple(sorted((row_of(sub, part) for sub, part in subs.items()), key=_order("task_type", None)))
        for key, subs in found.items()
    }


def _named(rows: list[Row]) -> list[Row]:
    """Summaries name people by their id: a name may change, or be erased."""
    names = dict(User.objects.filter(id__in=[row.key for row in rows]).values_list("id", "username"))
    by_id = {str(user_id): name for user_id, name in names.items()}
    return [_renamed(row, by_id.get(row.key, row.key)) for row in rows]


def _renamed(row: Row, key: str) -> Row:
    values = {name: getattr(row, name) for name in Row.__dataclass_fields__}
    return Row(**{**values, "key": key})


def row_of(key: str, part: Tally, when: str = "") -> Row:
    """The tally as it is shown."""
    cached = part.cache_read_tokens + part.cache_write_5m_tokens + part.cache_write_1h_tokens
    prompt = part.input_tokens + cached
    p50, p95 = part.costs.percentiles((0.5, 0.95))
    known = not part.unknown_savings or bool(part.saved_by_reads or part.paid_for_writes)
    return Row(
        key=key,
        when=when,
        runs=part.runs,
        simulated_runs=part.simulated_runs,
        steps=part.steps,
        calls=part.calls,
        cost=None if part.unpriced_steps and not part.cost else usd(part.cost),
        p50=p50,
        p95=p95,
        tokens=prompt + part.output_tokens,
        prompt_tokens=prompt,
        output_tokens=part.output_tokens,
        cache_read_tokens=part.cache_read_tokens,
        cache_saved_usd=usd(part.saved_by_reads - part.paid_for_writes) if known else None,
        saved_by_reads=usd(part.saved_by_reads) if known else None,
        paid_for_writes=usd(part.paid_for_writes) if known else None,
        lost_to_expiry=usd(part.lost_to_expiry) if known else None,
        unpriced_steps=part.unpriced_steps,
    )


# --- where the sums come from ----------------------------------------------------------------------------------------


class Sums:
    """The tallies of a period. What no summary holds is read from the steps once, whatever is asked for."""

    def __init__(self, access: Access, start: dt.datetime, end: dt.datetime) -> None:
        access.require(Right.VIEW)
        self._read(access.team.id, start, end)

    @classmethod
    def of_team(cls, team_id: uuid.UUID, start: dt.datetime, end: dt.datetime) -> Sums:
        """For work that nobody in particular asked for."""
        sums = cls.__new__(cls)
        sums._read(team_id, start, end)
        return sums

    def _read(self, team_id: uuid.UUID, start: dt.datetime, end: dt.datetime) -> None:
        self.start, self.end = start, end
        # Summaries of days are those of UTC; in another zone a day is put together from its hours.
        whole_days = not start.utcoffset() and not end.utcoffset()
        self.source = _source(team_id, start.astimezone(dt.UTC), end.astimezone(dt.UTC), whole_days)
        self._raw = tally(team_id, self.source.raw)

    def of(self, *by: str) -> list[tuple[Place, Tally]]:
        """By hour or, where a whole day is summed up, by day."""
        raw = ((place, part) for place, part in self._raw.items() if place.by in by)
        return list(chain(self._kept(by), raw))

    def report(self, by: str, *, children: bool = False) -> Report:
        key, time = read_by(by)
        parts = self.of(ALL) if key is None else self.of(ALL, key)
        total = Tally()
        for place, part in parts:
            if place.by == ALL:
                total.add(part)
        if key is None:
            rows = _rows(parts, lambda place: (self._when(place, time), ""))
        else:
            keyed = (each for each in parts if each[0].by == key)
            rows = _rows(keyed, lambda place: (place.key, self._when(place, time)))
        return Report(
            by=by,
            start=self.start,
            end=self.end,
            rows=tuple(sorted(_named(rows) if key == "user" else rows, key=_order(key, time))),
            total=row_of("total", total),
            children=_below(self) if children else {},
            source=self.source,
        )

    def _when(self, place: Place, time: str | None) -> str:
        day = place.hour.astimezone(self.start.tzinfo).date()
        if time == "week":
            return (day - dt.timedelta(days=day.weekday())).isoformat()
        return day.isoformat() if time else ""

    def daily(self, by: str) -> dict[str, dict[dt.date, Decimal]]:
        """Cost by key and day."""
        found: dict[str, dict[dt.date, Decimal]] = defaultdict(dict)
        for row in self.report(f"{by},day").rows:
            found[row.key][dt.date.fromisoformat(row.when)] = row.cost or Decimal(0)
        return found

    def _kept(self, by: Sequence[str]) -> Iterable[tuple[Place, Tally]]:
        source = self.source
        within = Q(pk__in=())
        for start, end in joined_days(source.days):
            within |= Q(grain=Usage.DAY, start__gte=start, start__lt=end)
        for start, end in joined(source.hours):
            within |= Q(grain=Usage.HOUR, start__gte=start, start__lt=end)
        if not (source.days or source.hours):
            return
        rows = Usage.objects.filter(within, team_id=source.team_id, by__in=by)
        for start, kind, key, sub, costs, *sums in rows.values_list("start", "by", "key", "sub", "costs", *SUMS):
            part = Tally(*sums)
            part.costs = Distribution(costs)
            yield Place(start, kind, key, sub), part


def joined_days(days: Iterable[dt.datetime]) -> list[Range]:
    found: list[Range] = []
    for day in days:
        if found and found[-1][1] == day:
            found[-1] = (found[-1][0], day + DAY)
        else:
            found.append((day, day + DAY))
    return found


def _source(team_id: uuid.UUID, start: dt.datetime, end: dt.datetime, whole_days: bool) -> Source:
    """Read in this order: the state, the stale hours, then the sums. A step that is written in between is counted with
    its hour or not at all, never twice."""
    state = Rollup.objects.filter(team_id=team_id).first()
    first = hour_of(start) + (HOUR if hour_of(start) != start else dt.timedelta(0))
    last = max(first, min(hour_of(end), state.rolled_to) if state else first)
    if state is None or last <= first:
        return Source(team_id=team_id, days=(), hours=(), raw=((start, end),), stale_hours=0, rolled_to=None)
    marks = StaleHour.objects.filter(team_id=team_id, hour__gte=first, hour__lt=last)
    if state.kept_from is not None:
        marks = marks.filter(hour__gte=state.kept_from)
    stale = set(marks.values_list("hour", flat=True).distinct())
    days, hours = _split(first, last, stale, whole_days)
    raw = [(start, first), *joined(stale), (last, end)]
    return Source(
        team_id=team_id,
        days=tuple(days),
        hours=tuple(hours),
        raw=tuple((begin, stop) for begin, stop in raw if begin < stop),
        stale_hours=len(stale),
        rolled_to=state.rolled_to,
        kept_from=state.kept_from,
    )


def _split(
    first: dt.datetime, last: dt.datetime, stale: set[dt.datetime], whole_days: bool
) -> tuple[list[dt.datetime], list[dt.datetime]]:
    """(whole days, single hours) that summaries hold from `first` to before `last`."""
    stale_days = {hour.replace(hour=0) for hour in stale}
    days, hours, at = [], [], first
    while at < last:
        if whole_days and at.hour == 0 and at + DAY <= last and at not in stale_days:
            days.append(at)
            at += DAY
        else:
            if at not in stale:
                hours.append(at)
            at += HOUR
    return days, hours
