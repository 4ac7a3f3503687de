"""The month against its budget: what was spent, what is promised already, and what the rest may bring."""

from __future__ import annotations

import calendar
import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from accounts.access import Access, rows
from runs.engine.types import ENDED, RunStatus
from runs.models import Run
from traces import charts
from traces.costs import Sums
from traces.distribution import Distribution

DAY = dt.timedelta(days=1)
HISTORY: Final = 28  # days: with fewer since the first spending, the pace of the month is used
MOST_PENDING: Final = 2_000
BAND = 1.28  # standard deviations to either side: four months of five end within it


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """`reserved` is held for model calls that run now; `expected` is what the unfinished runs will probably still
    cost: the median of their agent less what they cost already, within their limit."""

    runs: int
    reserved: Decimal
    expected: Decimal

    @property
    def total(self) -> Decimal:
        return max(self.reserved, self.expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """`forecast` is what was spent and the greater of what is committed and of what the remaining days cost as those
    before; None on the first day without history. The plot is 100 by 100; `over_on` passes the budget."""

    name: str
    spent: Decimal
    budget: Decimal | None
    share: str
    forecast: Decimal | None
    over: Decimal | None
    over_on: dt.date | None
    committed: Committed
    by_weekday: bool
    actual_points: str
    forecast_points: str
    band_points: str
    forecast_y: str
    budget_y: str
    today_x: str
    today: int
    last_day: int
    ticks: tuple[charts.Tick, ...]


def month(access: Access, now: dt.datetime) -> Month:
    budget = access.team.month_budget_usd
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight.replace(day=1)
    last_day = calendar.monthrange(now.year, now.month)[1]
    per_day = _per_day(access, min(first, midnight - HISTORY * DAY), first + last_day * DAY)
    running = _running(per_day, first, now.day)
    spent = running[-1]
    committed = _committed(access, now)
    ahead, by_weekday = _ahead(per_day, spent, first, now, last_day)
    rest = max(sum(ahead, Decimal(0)), committed.total)
    forecast = spent + rest if ahead or committed.total else None
    scale = rest / sum(ahead) if ahead and sum(ahead) else Decimal(1)
    future = _accumulated(spent, [each * scale for each in ahead])
    spread = _spread(per_day, midnight)
    ticks = charts.nice_ticks(float(max(budget or 0, (forecast or 0), spent)))
    top = ticks[-1]
    elapsed = (now - first) / DAY
    actual = [(0.0, 0.0)]
    actual += [(min(float(day), elapsed) / last_day, float(value) / top) for day, value in enumerate(running, start=1)]
    line = [actual[-1], *((day / last_day, float(value) / top) for day, value in enumerate(future, start=now.day))]
    return Month(
        name=f"{now:%B}",
        spent=spent,
        budget=budget,
        share=charts.pc(min(1.0, float(spent / budget))) if budget else "0",
        forecast=forecast,
        over=forecast / budget - 1 if forecast is not None and budget and forecast > budget else None,
        over_on=_over_on(future, budget, first, now.day),
        committed=committed,
        by_weekday=by_weekday,
        actual_points=_points(actual),
        forecast_points=_points(line) if forecast is not None else "",
        band_points=_band(line, spread / top) if spread and forecast is not None else "",
        forecast_y=charts.pc(1 - float(forecast) / top) if forecast is not None else "",
        budget_y=charts.pc(1 - float(budget) / top) if budget else "",
        today_x=charts.pc(elapsed / last_day),
        today=now.day,
        last_day=last_day,
        ticks=tuple(charts.Tick(value, charts.pc(1 - value / top)) for value in ticks),
    )


def _per_day(access: Access, start: dt.datetime, end: dt.datetime) -> dict[dt.date, Decimal]:
    days = Sums(access, start, end).report("day").rows
    return {dt.date.fromisoformat(row.key): row.cost or Decimal(0) for row in days}


def _running(per_day: Mapping[dt.date, Decimal], first: dt.datetime, today: int) -> list[Decimal]:
    found, total = [], Decimal(0)
    for number in range(1, today + 1):
        total += per_day.get(first.date().replace(day=number), Decimal(0))
        found.append(total)
    return found


def _ahead(
    per_day: Mapping[dt.date, Decimal], spent: Decimal, first: dt.datetime, now: dt.datetime, last_day: int
) -> tuple[list[Decimal], bool]:
    """(what today's rest and each later day will probably cost, whether weekdays were told apart)."""
    today = now.date()
    part = Decimal(str(1 - (now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / DAY))
    days = [first.date().replace(day=number) for number in range(now.day, last_day + 1)]
    since = min((day for day, cost in per_day.items() if cost), default=today)
    if (today - since).days >= HISTORY:
        means = _by_weekday(per_day, today)
        found = [means[day.weekday()] for day in days]
    else:
        elapsed = (now - first) / DAY
        if elapsed < 1 or not spent:
            return [], False
        found = [spent / Decimal(str(elapsed))] * len(days)
    return [found[0] * part, *found[1:]], (today - since).days >= HISTORY


def _by_weekday(per_day: Mapping[dt.date, Decimal], today: dt.date) -> list[Decimal]:
    sums = [Decimal(0)] * 7
    for back in range(1, HISTORY + 1):
        day = today - back * DAY
        sums[day.weekday()] += per_day.get(day, Decimal(0))
    return [total * 7 / HISTORY for total in sums]


def _spread(per_day: Mapping[dt.date, Decimal], midnight: dt.datetime) -> float:
    """Standard deviation of a day, from its weekday's mean; 0 without enough days."""
    days = [midnight.date() - back * DAY for back in range(1, HISTORY + 1)]
    if sum(1 for day in days if per_day.get(day)) < HISTORY // 2:
        return 0.0
    means = _by_weekday(per_day, midnight.date())
    off = [float(per_day.get(day, Decimal(0)) - means[day.weekday()]) ** 2 for day in days]
    return math.sqrt(sum(off) / len(off))


def _accumulated(start: Decimal, steps: Sequence[Decimal]) -> list[Decimal]:
    found, total = [], start
    for step in steps:
        total += step
        found.append(total)
    return found


def _over_on(future: Sequence[Decimal], budget: Decimal | None, first: dt.datetime, today: int) -> dt.date | None:
    if not budget:
        return None
    for number, value in enumerate(future, start=today):
        if value > budget:
            return first.date().replace(day=number)
    return None


# --- what is promised ------------------------------------------------------------------------------------------------


def _committed(access: Access, now: dt.datetime) -> Committed:
    live = rows(access, Run).exclude(status__in=list(ENDED)).order_by("-created_at")
    found = list(live.values_list("agent__slug", "status", "cost_usd", "reserved_usd", "max_cost_usd")[:MOST_PENDING])
    medians = _medians(access, now) if found else {}
    reserved, expected = Decimal(0), Decimal(0)
    for agent, status, cost, held, limit in found:
        usual = medians.get(agent, Decimal(0))
        most = usual if limit is None else min(usual, limit)
        now_held = held if status == RunStatus.RUNNING else Decimal(0)
        reserved += now_held
        expected += max(most - cost, now_held, Decimal(0))
    return Committed(runs=len(found), reserved=reserved, expected=expected)


def _medians(access: Access, now: dt.datetime) -> dict[str, Decimal]:
    found: dict[str, Distribution] = {}
    for place, part in Sums(access, now - HISTORY * DAY, now).of("agent"):
        found.setdefault(place.key, Distribution()).merge(part.costs)
    return {agent: median for agent, costs in found.items() if (median := costs.percentile(0.5)) is not None}


# --- geometry --------------------------------------------------------------------------------------------------------


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{charts.pc(x)},{charts.pc(1 - y)}" for x, y in points)


def _band(line: Sequence[tuple[float, float]], spread: float) -> str:
    """Grows with the square root of the days ahead, as a sum of days does."""
    off = [BAND * spread * math.sqrt(index) for index in range(len(line))]
    upper = [(x, min(1.0, y + width)) for (x, y), width in zip(line, off, strict=True)]
    lower = [(x, max(line[0][1], y - width)) for (x, y), width in zip(line, off, strict=True)]
    return _points([*upper, *reversed(lower)])
