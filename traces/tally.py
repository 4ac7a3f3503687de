"""Steps added up under every key that costs are asked for by. One function counts for the summaries and for what is not
summed up yet, so that both are the same sum.

Money is added as whole billionths of a dollar, because SQLite would add it as floating point.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db.models import (
    BigIntegerField,
    Case,
    Count,
    DecimalField,
    ExpressionWrapper,
    F,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce, Round, TruncDay, TruncHour

from runs.models import Run, Step
from runs.pricing import SIMULATED
from traces import caching
from traces.distribution import Distribution

ALL: Final = ""
PAIR: Final = "agent+task_type"
Range = tuple[dt.datetime, dt.datetime]
"""From the first to before the second."""


class Place(NamedTuple):
    hour: dt.datetime
    by: str
    key: str
    sub: str = ""


@dataclass(slots=True)
class Tally:
    """`cost` and the three of the cache are billionths of a dollar; `costs` is of runs whose every step has a price."""

    runs: int = 0
    simulated_runs: int = 0
    steps: int = 0
    calls: int = 0
    unpriced_steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost: int = 0
    saved_by_reads: int = 0
    paid_for_writes: int = 0
    lost_to_expiry: int = 0
    unknown_savings: int = 0
    costs: Distribution = field(default_factory=Distribution)

    def add(self, other: Tally) -> None:
        self.runs += other.runs
        self.simulated_runs += other.simulated_runs
        self.steps += other.steps
        self.calls += other.calls
        self.unpriced_steps += other.unpriced_steps
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_5m_tokens += other.cache_write_5m_tokens
        self.cache_write_1h_tokens += other.cache_write_1h_tokens
        self.cost += other.cost
        self.saved_by_reads += other.saved_by_reads
        self.paid_for_writes += other.paid_for_writes
        self.lost_to_expiry += other.lost_to_expiry
        self.unknown_savings += other.unknown_savings
        self.costs.merge(other.costs)


SUMS: Final = tuple(each.name for each in dataclasses.fields(Tally) if each.name != "costs")
Tallies = dict[Place, Tally]
_KINDS = caching.KINDS


def tally(team_id: uuid.UUID, ranges: Sequence[Range]) -> Tallies:
    """Of the steps that began in one of the ranges, and of the runs created in one, by hour."""
    found: Tallies = defaultdict(Tally)
    if ranges:
        _add_steps(found, Step.objects.filter(_within("started_at", ranges)), team_id)
        _add_runs(found, Step.objects.filter(_within("run__created_at", ranges), run__team_id=team_id))
    return dict(found)


def _within(name: str, ranges: Iterable[Range]) -> Q:
    found = Q()
    for start, end in ranges:
        found |= Q(**{f"{name}__gte": start, f"{name}__lt": end})
    return found


def nano_usd() -> Cast:
    """The cost as a whole number that both databases add without rounding."""
    scaled = ExpressionWrapper(F("cost_usd") * Value(10**9), output_field=DecimalField(max_digits=30, decimal_places=9))
    return Cast(Round(scaled), BigIntegerField())


def usd(nano: int | Decimal | None) -> Decimal:
    return Decimal(int(nano or 0)).scaleb(-9)


# --- steps -----------------------------------------------------------------------------------------------------------


def summed(steps: QuerySet[Step]) -> Tally:
    """Of these steps as one: the same sum as in the report of which they are a row, the cache's ledger included."""
    own_prices = Q(price_id__contains="?") | Q(price_id__startswith="override/")
    listed = _groups(steps.exclude(own_prices), whole_days=True)
    if all(caching.is_whole(row["model"], row["band"], row["hour"].date()) for row in listed):
        groups = listed + _groups(steps.filter(own_prices))
    else:
        groups = _groups(steps)
    found = Tally()
    for row in groups:
        found.add(_of_group(row))
    return found


def _add_steps(found: Tallies, steps: QuerySet[Step], team_id: uuid.UUID) -> None:
    """`steps` are those of the time, of every team: with a team in the query, SQLite goes through all of its runs
    instead of the few steps of an hour."""
    rows = _groups(steps)
    payers = _payers(team_id, {row["run_id"] for row in rows})
    for row in rows:
        payer = payers.get(row["run_id"])
        if payer is None:
            continue
        part = _of_group(row)
        for place in _places({**row, **payer}):
            found[place].add(part)


def _groups(steps: QuerySet[Step], *, whole_days: bool = False) -> list[dict[str, Any]]:
    """Steps that share every key and rate. Each group is rounded by itself, so a search for those that used the cache
    must find whole groups: how they used it is a key too. In `whole_days`, which share no more than their rates,
    nothing may need rounding."""
    keys = ("model", "price_id", "band", "cache_use", *(() if whole_days else ("run_id", "tool")))
    time = (TruncDay if whole_days else TruncHour)("started_at", tzinfo=dt.UTC)
    rows = (
        steps.annotate(prompt=_prompt())
        .annotate(band=_band(), cache_use=_cache_use())
        .values(*keys, hour=time)
        .annotate(
            steps=Count("id"),
            nano=Coalesce(Sum(nano_usd()), 0),
            unpriced=Count("id", filter=Q(cost_usd__isnull=True)),
            expired=Sum("cache_expired_tokens"),
            **{f"sum_{kind}": Sum(kind) for kind in _KINDS},
        )
        .order_by()
    )
    return list(_plain(rows))


def _payers(team_id: uuid.UUID, run_ids: set[uuid.UUID]) -> dict[uuid.UUID, dict[str, Any]]:
    """Agent, task type and owner of those runs that are the team's."""
    ids, found = sorted(run_ids), {}
    for at in range(0, len(ids), 5_000):
        runs = Run.objects.filter(team_id=team_id, id__in=ids[at : at + 5_000])
        for run_id, agent, task_type, owner in runs.values_list("id", "agent__slug", "task_type", "owner_id"):
            found[run_id] = {"agent": agent, "task_type": task_type, "owner": owner}
    return found


def _plain(rows: Iterable[Any]) -> Iterable[dict[str, Any]]:
    return (dict(row) for row in rows)


def _places(row: Mapping[str, Any]) -> list[Place]:
    hour, agent, task_type = row["hour"], row["agent"], row["task_type"]
    return [
        Place(hour, ALL, ""),
        Place(hour, "task_type", task_type),
        Place(hour, "agent", agent),
        Place(hour, PAIR, agent, task_type),
        Place(hour, "user", str(row["owner"])),
        Place(hour, "model", row["model"]),
        Place(hour, "tool", row["tool"]),
    ]


def _prompt() -> Any:
    return F("input_tokens") + F("cache_read_tokens") + F("cache_write_5m_tokens") + F("cache_write_1h_tokens")


def _band() -> Case:
    starts = list(enumerate(caching.BAND_STARTS))
    return Case(*(When(prompt__gte=start, then=Value(index)) for index, start in reversed(starts)), default=Value(0))


def _cache_use() -> Any:
    """Which of reading, writing and writing again what had run out: one bit each."""
    written = Q(cache_write_5m_tokens__gt=0) | Q(cache_write_1h_tokens__gt=0)
    uses = (Q(cache_read_tokens__gt=0), written, Q(cache_expired_tokens__gt=0))
    bits = [Case(When(use, then=Value(1 << bit)), default=Value(0)) for bit, use in enumerate(uses)]
    return bits[0] + bits[1] + bits[2]


def _of_group(row: Mapping[str, Any]) -> Tally:
    counts = {kind: int(row[f"sum_{kind}"]) for kind in _KINDS}
    part = Tally(
        steps=row["steps"],
        calls=row["steps"] if row["model"] else 0,
        unpriced_steps=row["unpriced"],
        cost=int(row["nano"]),
    )
    for kind, count in counts.items():
        setattr(part, kind, count)
    if any(counts[kind] for kind in caching.CACHE_KINDS):
        paid, day, expired = usd(row["nano"]), row["hour"].date(), int(row["expired"])
        ledger = caching.ledger(row["model"], row["price_id"], counts, expired, row["band"], day, paid)
        if ledger is None:
            part.unknown_savings = row["steps"]
        else:
            part.saved_by_reads, part.paid_for_writes, part.lost_to_expiry = (
                int((amount * 10**9).to_integral_value()) for amount in ledger
            )
    return part


# --- runs ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Share:
    """What one run spent under one key."""

    nano: int = 0
    unpriced: int = 0
    simulated: bool = False


def _add_runs(found: Tallies, steps: QuerySet[Step]) -> None:
    rows = (
        steps.values(
            "run_id",
            "model",
            "tool",
            hour=TruncHour("run__created_at", tzinfo=dt.UTC),
            agent=F("run__agent__slug"),
            task_type=F("run__task_type"),
            owner=F("run__owner_id"),
        )
        .annotate(
            nano=Coalesce(Sum(nano_usd()), 0),
            unpriced=Count("id", filter=Q(cost_usd__isnull=True)),
            simulated=Count("id", filter=Q(price_id=SIMULATED)),
        )
        .order_by()
    )
    shares: dict[tuple[Place, uuid.UUID], _Share] = defaultdict(_Share)
    for row in _plain(rows):
        for place in _places(row):
            share = shares[place, row["run_id"]]
            share.nano += int(row["nano"])
            share.unpriced += row["unpriced"]
            share.simulated |= row["simulated"] > 0
    for (place, _), share in shares.items():
        part = found[place]
        part.runs += 1
        part.simulated_runs += share.simulated
        if not share.unpriced:
            part.costs.add(share.nano)
