"""What a run is likely to cost, from what runs of the same agent cost. Under twenty runs only the range is said."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from django.conf import settings
from django.utils import timezone

from accounts.access import Access, rows
from runs.engine.types import RunStatus
from runs.models import Run

PERCENTILES_FROM = 20
PAST = dt.timedelta(days=90)
MOST_RUNS = 4000
BARS = 20
HEIGHT = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Geometry in percent of the width and in units of the height."""

    x: str
    width: str
    y: str
    height: str
    is_covered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`covers`: share of past runs that the budget would have been enough for. `enough`: a budget for 95 of 100."""

    runs: int
    low: Decimal | None
    high: Decimal | None
    p50: Decimal | None
    p90: Decimal | None
    bars: tuple[Bar, ...]
    budget: Decimal | None
    budget_x: str
    covers: float | None
    enough: Decimal | None
    top: Decimal | None

    @property
    def is_free(self) -> bool:
        return self.runs > 0 and not self.high

    @property
    def short(self) -> float | None:
        return None if self.covers is None or self.covers > 0.95 else 1 - self.covers

    @property
    def label_ends(self) -> bool:
        """Right of the middle the budget's label goes to the left of its line."""
        return float(self.budget_x or 0) > 55


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The same for a card: where p50 to p90 (or all runs) lie on a scale that every card shares."""

    runs: int
    low: Decimal | None
    high: Decimal | None
    is_percentile: bool
    x: str
    width: str


def past_costs(access: Access, agents: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[Decimal]]:
    """Costs of completed runs, ascending, by agent. Simulated runs are compared with simulated ones only."""
    found = rows(access, Run).filter(
        agent_id__in=list(agents),
        status=RunStatus.COMPLETED,
        simulated=settings.SIMULATED,
        unpriced_steps=0,
        created_at__gte=timezone.now() - PAST,
    )
    costs: dict[uuid.UUID, list[Decimal]] = {}
    for agent, cost in found.order_by("-created_at").values_list("agent_id", "cost_usd")[:MOST_RUNS]:
        costs.setdefault(agent, []).append(cost)
    return {agent: sorted(each) for agent, each in costs.items()}


def estimate(costs: Sequence[Decimal], budget: Decimal | None) -> Estimate:
    """`costs` ascending."""
    known = len(costs) >= PERCENTILES_FROM
    top = max([*costs[-1:], budget or Decimal(0)], default=Decimal(0)) * Decimal("1.05")
    covered = None if budget is None or not costs else sum(cost <= budget for cost in costs) / len(costs)
    return Estimate(
        runs=len(costs),
        low=costs[0] if costs else None,
        high=costs[-1] if costs else None,
        p50=percentile(costs, 50) if known else None,
        p90=percentile(costs, 90) if known else None,
        bars=_bars(costs, budget, top) if known and costs[-1] else (),
        budget=budget,
        budget_x=_share(budget, top) if budget and top else "",
        covers=covered if known else None,
        enough=_round_up(percentile(costs, 95)) if known else None,
        top=top if known else None,
    )


def cost_range(costs: Sequence[Decimal], scale: Decimal) -> Range:
    known = len(costs) >= PERCENTILES_FROM
    low = high = None
    if costs:
        low, high = (percentile(costs, 50), percentile(costs, 90)) if known else (costs[0], costs[-1])
    drawn = bool(scale) and low is not None and high is not None
    return Range(
        runs=len(costs),
        low=low,
        high=high,
        is_percentile=known,
        x=_share(low or Decimal(0), scale) if drawn else "0",
        width=_share((high or Decimal(0)) - (low or Decimal(0)), scale) if drawn else "0",
    )


def percentile(costs: Sequence[Decimal], percent: int) -> Decimal:
    """Nearest rank: always a cost that some run had."""
    return costs[max(0, math.ceil(len(costs) * percent / 100) - 1)]


def _bars(costs: Sequence[Decimal], budget: Decimal | None, top: Decimal) -> tuple[Bar, ...]:
    counts = [0] * BARS
    for cost in costs:
        counts[min(BARS - 1, int(cost / top * BARS))] += 1
    most = max(counts)
    step = 100 / BARS
    return tuple(
        Bar(
            x=f"{index * step + 0.3:.2f}",
            width=f"{step - 0.6:.2f}",
            y=f"{HEIGHT - max(1.5, count / most * HEIGHT):.1f}",
            height=f"{max(1.5, count / most * HEIGHT):.1f}",
            is_covered=budget is None or top * index / BARS < budget,
        )
        for index, count in enumerate(counts)
        if count
    )


def _share(part: Decimal, whole: Decimal) -> str:
    return f"{float(part / whole) * 100:.2f}" if whole else "0"


def _round_up(amount: Decimal) -> Decimal:
    """To the next ten cents, so that the proposal reads like a budget."""
    tenths = (amount * 10).to_integral_value(rounding=ROUND_CEILING)
    return max(Decimal("0.10"), tenths / 10).quantize(Decimal("0.01"))
