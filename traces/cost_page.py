"""What the costs page shows: totals, spend per day, the month against its budget, and a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from accounts.access import Access, rows
from accounts.models import User
from runs.engine.types import ENDED
from runs.models import Agent, Run
from traces import alerts, charts, costs, drift, names, outcomes
from traces.costs import Report, Row, Sums
from traces.editing import quoted
from traces.month import month
from traces.period import Period

TABS = {
    "agent": "Agent",
    "task_type": "Task type",
    "model": "Model",
    "user": "User",
    "tool": "Tool",
    "day": "Day",
}
Drifts = Mapping[tuple[str, str | None], drift.Drift]
MOST_SERIES = 5
OTHER = "Other"
QUERY_FIELDS = {"agent": "agent", "task_type": "type", "model": "model", "user": "user", "tool": "tool"}
NAMELESS = {
    "task_type": "No task type",
    "model": "No model (tools, people)",
    "tool": "No tool (model calls, people)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the table. `change` is against the period before, None when that had no cost. `children` rows follow it;
    each of them names it as `parent`."""

    row: Row
    label: str
    query: str
    change: float | None
    spark: tuple[charts.Bar, ...]
    drift: drift.Drift | None = None
    parent: str = ""
    children: int = 0
    series: int
    is_child: bool
    percentiles: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An agent whose runs have become dearer or cheaper."""

    drift: drift.Drift
    agent: str

    @property
    def query(self) -> str:
        version = f" version:{self.drift.version}" if self.drift.version else ""
        return f"agent:{quoted(self.drift.agent)}{version} since:7d"


def page(access: Access, period: Period, by: str, *, now: dt.datetime) -> dict[str, Any]:
    """The template's context. Raises UnknownBy."""
    sums = Sums(access, period.start, period.end)
    report = sums.report(by, children=by == "agent")
    past = Sums(access, period.before.start, period.before.end).report(by)
    before = past.total.cost or Decimal(0)
    called = person_names(access) if by == "user" else agent_names(access)
    per_day = sums.daily("task_type")
    order = _series(per_day)
    found = drift.drifts(access, now) if by == "agent" else {}
    lines = _lines(sums, report, past, period, called, order, found)
    flagged = [
        Flag(drift=each, agent=called.get(agent, agent))
        for (agent, kind), each in found.items()
        if kind is None and each.flagged
    ]
    return {
        "period": period,
        "report": report,
        "lines": lines,
        "change": _change(report.total.cost or Decimal(0), before),
        "before": before,
        "chart": _per_day(per_day, order, period, flagged),
        "month": month(access, now),
        "outcomes": outcomes.outcomes(access, period.start, period.end, _span(period)),
        "drifts": flagged,
        "alerts": alerts.overview(access.team.id, now)[:6],
        "savings": _savings(report, lines, period),
        "ledger": _ledger(period),
        "completeness": _completeness(access, report, now),
        "simulated_runs": report.total.simulated_runs,
        "percentiles_from": costs.PERCENTILES_FROM,
        "span": _span(period),
        "query_all": f"step:{{{_span(period)}}}",
        "query_runs": f"{_span(period)} steps:>0",
        "query_unpriced": f"step:{{has:unpriced {_span(period)}}}",
        "query_month": f"step:{{started:[{now.replace(day=1).date()} TO {now.date()}]}}",
    }


def _completeness(access: Access, report: Report, now: dt.datetime) -> dict[str, Any]:
    """How much of the truth the report holds: priced calls, runs whose sums still grow, how far it is summed up."""
    total, source = report.total, report.source
    live = rows(access, Run).exclude(status__in=list(ENDED)).count()
    return {
        "priced": total.calls - total.unpriced_steps,
        "calls": total.calls,
        "share": _share(total.calls - total.unpriced_steps, total.calls),
        "live": live,
        "rolled_to": source.rolled_to,
        "kept_from": source.kept_from if source.kept_from and source.kept_from > report.start else None,
        "stale_hours": source.stale_hours,
    }


def _share(part: int, whole: int) -> float | None:
    """To a tenth of a percent, downwards: only what is whole is 100%."""
    return part * 1000 // whole / 1000 if whole else None


def agent_names(access: Access) -> dict[str, str]:
    agents = rows(access, Agent).select_related("current")
    return {agent.slug: _agent_name(agent) for agent in agents}


def person_names(access: Access) -> dict[str, str]:
    """Of whoever started runs in the team."""
    people = User.objects.filter(id__in=names.observed(access.team.id, "owner"))
    return {person.username: person.label for person in people}


def _agent_name(agent: Agent) -> str:
    return str(agent.current.definition.get("name") or agent.slug) if agent.current else agent.slug


# --- the table -------------------------------------------------------------------------------------------------------


def _lines(
    sums: Sums,
    report: Report,
    past: Report,
    period: Period,
    called: dict[str, str],
    order: Sequence[str],
    drifts: Drifts,
) -> list[Line]:
    before = {row.key: row.cost or Decimal(0) for row in past.rows}
    sparks = sums.daily(report.by) if report.by in costs.KEYS else {}
    found = []
    for row in report.rows:
        label = _label(report.by, row.key, called)
        below = report.children.get(row.key, ())
        below = below if len(below) > 1 or (below and below[0].key) else ()
        found.append(
            Line(
                row=row,
                label=label or NAMELESS.get(report.by, "None"),
                query=_query(report.by, row.key, period),
                change=_change(row.cost or Decimal(0), before.get(row.key, Decimal(0))),
                spark=_spark(sparks.get(row.key, {}), period),
                drift=drifts.get((row.key, None)),
                children=len(below),
                series=_place(row.key, order) if report.by == "task_type" else 0,
                is_child=False,
                percentiles=row.runs >= costs.PERCENTILES_FROM,
            )
        )
        found += [_child(child, row.key, period, order, drifts.get((row.key, child.key))) for child in below]
    return found


def _label(by: str, key: str, called: Mapping[str, str]) -> str:
    if by == "day":
        return f"{dt.date.fromisoformat(key):%a %-d %B}"
    return called.get(key, key) if by in ("agent", "user") else key


def _child(row: Row, parent: str, period: Period, order: Sequence[str], found: drift.Drift | None) -> Line:
    return Line(
        row=row,
        label=row.key or NAMELESS["task_type"],
        query=f"{_named('agent', parent)} {_query('task_type', row.key, period)}",
        change=None,
        spark=(),
        drift=found,
        parent=parent,
        series=_place(row.key, order),
        is_child=True,
        percentiles=row.runs >= costs.PERCENTILES_FROM,
    )


def _query(by: str, key: str, period: Period, also: str = "") -> str:
    """Finds the very steps that the row sums up: those that began in the period, whenever their run did."""
    span = _span(_day(dt.date.fromisoformat(key), period) if by == "day" else period)
    of_run = [_named(QUERY_FIELDS[by], key)] if by in ("agent", "task_type", "user") else []
    of_step = [_named(by, key)] if by in ("model", "tool") else []
    return " ".join([*of_run, f"step:{{{' '.join(filter(None, [*of_step, span, also]))}}}"])


def _named(field: str, key: str) -> str:
    return f"{field}:={quoted(key)}" if key else f"-{field}:*"


def _span(period: Period) -> str:
    midnights = all(each.time() == dt.time() for each in (period.start, period.end))
    if midnights:
        return f"started:[{period.start.date()} TO {period.last}]"
    return f"started:[{period.start.isoformat()} TO {period.end.isoformat()}]"


def _day(day: dt.date, period: Period) -> Period:
    """As much of it as is in the period."""
    midnight = dt.datetime.combine(day, dt.time(), period.start.tzinfo)
    return Period(name="day", start=max(midnight, period.start), end=min(midnight + dt.timedelta(days=1), period.end))


def _change(now: Decimal, before: Decimal) -> float | None:
    return float((now - before) / before) if before else None


def _spark(days: dict[dt.date, Decimal], period: Period) -> tuple[charts.Bar, ...]:
    return charts.stacked([[days.get(day, Decimal(0))] for day in period.days]).bars if days else ()


CACHED = "(cache_read:>0 OR cache_write:>0)"


def _ledger(period: Period) -> dict[str, str]:
    """The steps of each figure of the cache's ledger."""
    parts = {"reads": "cache_read:>0", "writes": "cache_write:>0", "net": CACHED, "lost": "cache_lost:>0"}
    return {name: f"step:{{{_span(period)} {part}}}" for name, part in parts.items()}


def _savings(report: Report, lines: Sequence[Line], period: Period) -> list[dict[str, Any]]:
    """Paid and saved of each row that used the cache, on one scale."""
    used = [line for line in lines if not line.is_child and line.row.cache_saved_usd and line.row.cost is not None]
    most = max((float(line.row.cost or 0) + max(0.0, float(line.row.cache_saved_usd or 0)) for line in used), default=0)
    found = []
    for line in used:
        saved = max(Decimal(0), line.row.cache_saved_usd or Decimal(0))
        paid, extra = charts.parts([line.row.cost or Decimal(0), saved], whole=most)
        query = _query(report.by, line.row.key, period, CACHED)
        found.append({"line": line, "paid": paid, "saved": extra, "query": query})
    return found


# --- spend per day ---------------------------------------------------------------------------------------------------


def _series(per_day: dict[str, dict[dt.date, Decimal]]) -> list[str]:
    """Task types by what they cost, the largest first; beyond MOST_SERIES the rest is one."""
    ordered = sorted(per_day, key=lambda key: (-sum(per_day[key].values()), key))
    return ordered if len(ordered) <= MOST_SERIES else [*ordered[: MOST_SERIES - 1], OTHER]


def _place(key: str, order: Sequence[str]) -> int:
    """1 to MOST_SERIES; what is under Other has the last place."""
    return order.index(key) + 1 if key in order else len(order)


def _per_day(
    per_day: dict[str, dict[dt.date, Decimal]], order: Sequence[str], period: Period, flagged: Sequence[Flag]
) -> dict[str, Any]:
    days = period.days
    every = max(1, -(-len(days) // 7))
    buckets = [[Decimal(0)] * len(order) for _ in days]
    for key, spent in per_day.items():
        for day, cost in spent.items():
            buckets[(day - days[0]).days][_place(key, order) - 1] += cost
    bars = charts.stacked(buckets)
    highest = max(bars.bars, key=lambda bar: bar.total, default=None)
    return {
        "bars": bars,
        "pairs": [
            {"bar": bar, "day": day, "label": index % every == 0, "peak": bar is highest and bar.total > 0}
            for index, (bar, day) in enumerate(zip(bars.bars, days, strict=True))
        ],
        "legend": [
            {"label": key or NAMELESS["task_type"], "fill": f"series-{n}"} for n, key in enumerate(order, start=1)
        ],
        "events": _events(days, flagged),
        "peak": highest,
        "peak_day": days[highest.index] if highest else None,
        "anything": bool(highest and highest.total > 0),
    }


def _events(days: Sequence[dt.date], flagged: Sequence[Flag]) -> list[dict[str, Any]]:
    """Where a version began that changed what runs cost."""
    found = []
    for flag in flagged:
        if flag.drift.since and flag.drift.since.date() in days:
            place = days.index(flag.drift.since.date()) / len(days)
            label = f"{flag.agent} v{flag.drift.version} live, {flag.drift.since:%-d %b}"
            found.append({"x": charts.pc(place), "label": label, "end": place > 0.5})
    return found
