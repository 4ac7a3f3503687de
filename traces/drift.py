"""Whether runs have become dearer: the last 7 days against the 4 weeks before, by agent and by task type within it."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from accounts.access import Access, rows
from runs.models import Run
from traces.costs import Sums
from traces.distribution import Distribution
from traces.tally import PAIR

DAY = dt.timedelta(days=1)
FLAGGED_FROM: Final = 0.2
LEAST_RUNS: Final = 30  # in each of the two stretches
MOST_RUNS: Final = 5_000  # of an agent, that are looked at for the version


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Of the median cost of a run. `version` is the agent's version with which it began; None when it can't be told."""

    agent: str
    task_type: str | None
    before: Decimal
    after: Decimal
    change: float
    flagged: bool
    version: int | None = None
    since: dt.datetime | None = None

    @property
    def size(self) -> float:
        return abs(self.change)


def drifts(access: Access, now: dt.datetime) -> dict[tuple[str, str | None], Drift]:
    """By (agent, task type), and by (agent, None) for all of an agent. Only what has enough runs is there."""
    end = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    recent, past = (_costs(access, *span) for span in ((end - 7 * DAY, end), (end - 35 * DAY, end - 7 * DAY)))
    found = {}
    for key, costs in recent.items():
        before, after = _median(past.get(key)), _median(costs)
        if before and after is not None:
            change = float(after / before) - 1
            flagged = abs(change) >= FLAGGED_FROM
            found[key] = Drift(
                agent=key[0], task_type=key[1], before=before, after=after, change=change, flagged=flagged
            )
    return {key: _with_version(access, one, end) if one.flagged else one for key, one in found.items()}


def _costs(access: Access, start: dt.datetime, end: dt.datetime) -> dict[tuple[str, str | None], Distribution]:
    found: dict[tuple[str, str | None], Distribution] = defaultdict(Distribution)
    for place, part in Sums(access, start, end).of(PAIR):
        found[place.key, place.sub].merge(part.costs)
        found[place.key, None].merge(part.costs)
    return found


def _median(costs: Distribution | None) -> Decimal | None:
    if costs is None or costs.runs < LEAST_RUNS:
        return None
    return costs.percentile(0.5)


def _with_version(access: Access, drift: Drift, end: dt.datetime) -> Drift:
    """The first version of the last 35 days whose own runs are as far from the past as the flag asks for."""
    runs = rows(access, Run).filter(
        agent__slug=drift.agent, created_at__gte=end - 35 * DAY, created_at__lt=end, unpriced_steps=0
    )
    if drift.task_type is not None:
        runs = runs.filter(task_type=drift.task_type)
    by_version: dict[int, Distribution] = defaultdict(Distribution)
    began: dict[int, dt.datetime] = {}
    latest = runs.order_by("-created_at").values_list("agent_version__number", "cost_usd", "created_at")[:MOST_RUNS]
    for number, cost, created in latest:
        by_version[number].add(int(cost.scaleb(9)))
        began[number] = created
    for number in sorted(by_version):
        median = by_version[number].percentile(0.5)
        gone = None if median is None else float(median / drift.before) - 1
        is_first = number == min(by_version)
        if gone is not None and not is_first and abs(gone) >= FLAGGED_FROM and (gone > 0) == (drift.change > 0):
            values = {name: getattr(drift, name) for name in Drift.__dataclass_fields__}
            return Drift(**{**values, "version": number, "since": began[number]})
    return drift
