"""Found runs, counted and summed by up to two fields."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from accounts.access import Access, rows
from runs.models import Run
from traces import matching
from traces.scope import Scope
from traces.stats import percentile
from traces.tree import Query

MOST_RUNS = 50_000
PATHS = {
    "agent": "agent__slug",
    "status": "status",
    "stop": "stop_reason",
    "type": "task_type",
    "user": "owner__username",
    "mode": "mode",
    "version": "agent_version__number",
    "day": "created_at",
    "week": "created_at",
}


class UnknownField(ValueError):
    """Something that runs can't be grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`cost` is the sum of what has a price; `cost_p50` and `cost_p95` are of runs whose every step has one."""

    keys: dict[str, str]
    count: int
    cost: Decimal
    unpriced_runs: int
    cost_p50: Decimal | None
    cost_p95: Decimal | None
    duration_ms_p50: float | None
    duration_ms_p95: float | None


@dataclass(frozen=True, slots=True)
class _Facts:
    cost: Decimal
    unpriced: bool
    took_ms: float


def aggregate(access: Access, query: Query, by: Sequence[str], *, now: dt.datetime) -> tuple[list[Group], bool]:
    """(groups, largest first, whether only the newest MOST_RUNS were counted). Raises UnknownField."""
    for name in by:
        if name not in PATHS:
            raise UnknownField(f"Runs are grouped by {', '.join(PATHS)}; not by “{name}”.")
    if len(set(by)) != len(by) or not 0 < len(by) <= 2:
        raise UnknownField("Runs are grouped by one field or by two different ones.")
    found = matching.matching(rows(access, Run), query.node, Scope(access.team.id, now))
    found = found.annotate(took=matching.duration(now)).order_by("-created_at", "-id")
    columns = ("cost_usd", "unpriced_steps", "took", *(PATHS[name] for name in by))
    listed = list(found.values_list(*columns)[: MOST_RUNS + 1])
    groups: dict[tuple[str, ...], list[_Facts]] = defaultdict(list)
    for cost, unpriced, took, *keys in listed[:MOST_RUNS]:
        shown = tuple(_key(name, value, now.tzinfo) for name, value in zip(by, keys, strict=True))
        groups[shown].append(_Facts(cost, bool(unpriced), took / dt.timedelta(milliseconds=1)))
    made = [_group(dict(zip(by, keys, strict=True)), facts) for keys, facts in groups.items()]
    return sorted(made, key=lambda group: (-group.count, *group.keys.values())), len(listed) > MOST_RUNS


def _group(keys: dict[str, str], facts: list[_Facts]) -> Group:
    costs = sorted(each.cost for each in facts if not each.unpriced)
    times = sorted(each.took_ms for each in facts)
    return Group(
        keys=keys,
        count=len(facts),
        cost=sum((each.cost for each in facts), Decimal(0)),
        unpriced_runs=sum(each.unpriced for each in facts),
        cost_p50=percentile(costs, 0.5),
        cost_p95=percentile(costs, 0.95),
        duration_ms_p50=percentile(times, 0.5),
        duration_ms_p95=percentile(times, 0.95),
    )


def _key(name: str, value: Any, zone: dt.tzinfo | None) -> str:
    if name not in ("day", "week"):
        return "" if value is None else str(value)
    day = value.astimezone(zone).date()
    return str(day if name == "day" else day - dt.timedelta(days=day.weekday()))
