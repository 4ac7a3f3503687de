"""Found runs, counted and summed by up to two fields."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

from django.db.models import CharField, Value
from django.db.models.functions import Concat

from accounts.access import Access, rows
from runs.models import Run, SearchDocument
from traces import by_steps, matching
from traces.scope import Scope
from traces.stats import percentile
from traces.tree import Query
from traces.vocabulary import GROUPS

MOST_RUNS = 50_000
MOST_WITH_STEPS = 5_000
OF_STEPS = ("tool", "model")
PATHS: dict[str, Any] = {
    "agent": "agent__slug",
    "status": "status",
    "stop": "stop_reason",
    "type": "task_type",
    "user": "owner__username",
    "mode": "mode",
    "version": "agent_version__number",
    "prompt": Concat("agent__slug", Value("@"), "agent_version__number", output_field=CharField()),
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
    """(groups, largest first, whether only the newest runs were counted). A run with several tools or models counts for
    each. Raises UnknownField."""
    for name in by:
        if name not in GROUPS:
            raise UnknownField(f"Runs are grouped by {', '.join(GROUPS)}; not by “{name}”.")
    if len(set(by)) != len(by) or not 0 < len(by) <= 2:
        raise UnknownField("Runs are grouped by one field or by two different ones.")
    of_steps = [name for name in by if name in OF_STEPS]
    most = MOST_WITH_STEPS if of_steps else MOST_RUNS
    found = matching.matching(rows(access, Run), query.node, Scope(access.team.id, now))
    found = found.annotate(took=matching.duration(now)).order_by("-created_at", "-id")
    columns = ("id", "cost_usd", "unpriced_steps", "took", *(PATHS.get(name, "id") for name in by))
    listed = list(found.values_list(*columns)[: most + 1])
    used = {name: _used(name, [row[0] for row in listed[:most]]) for name in of_steps}
    groups: dict[tuple[str, ...], list[_Facts]] = defaultdict(list)
    for run_id, cost, unpriced, took, *keys in listed[:most]:
        facts = _Facts(cost, bool(unpriced), took / dt.timedelta(milliseconds=1))
        values = [
            used[name].get(run_id, ("",)) if name in used else (_key(name, key, now.tzinfo),)
            for name, key in zip(by, keys, strict=True)
        ]
        for shown in product(*values):
            groups[shown].append(facts)
    made = [_group(dict(zip(by, keys, strict=True)), facts) for keys, facts in groups.items()]
    return sorted(made, key=lambda group: (-group.count, *group.keys.values())), len(listed) > most


def _used(column: str, run_ids: list[uuid.UUID]) -> dict[uuid.UUID, set[str]]:
    """The tools or models of each run."""
    documents = SearchDocument.objects.filter(by_steps.of_these(run_ids)).exclude(**{column: ""})
    used: dict[uuid.UUID, set[str]] = defaultdict(set)
    for run_id, value in documents.values_list("run_id", column).distinct():
        used[run_id].add(value)
    return used


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
