"""Cost reports, computed from the journal's steps: what a report shows is the sum of its steps, to the last digit.

Money is added as whole billionths of a dollar, because SQLite would add it as floating point. A step without a price is
counted, never taken for zero; a row of nothing but such steps has no cost (None).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypedDict

from django.db.models import (
    BigIntegerField,
    Case,
    Count,
    DecimalField,
    ExpressionWrapper,
    F,
    Max,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce, Round, TruncDay, TruncWeek

from runs.models import Step
from runs.pricing import SIMULATED
from traces import caching
from traces.stats import percentile

BY = ("task_type", "agent", "model", "user", "tool", "day", "week")
PERCENTILES_FROM = 20  # runs: with fewer the page shows no percentiles; the API always gives them
_PATHS = {
    "task_type": "run__task_type",
    "agent": "run__agent__slug",
    "model": "model",
    "user": "run__owner__username",
    "tool": "tool",
}
_NANO = 10**9


class UnknownBy(ValueError):
    """Something that costs can't be grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`p50` and `p95` are of the cost per run within the row, over runs whose every step has a price."""

    key: str
    runs: int
    steps: int
    cost: Decimal | None
    p50: Decimal | None
    p95: Decimal | None
    tokens: int
    prompt_tokens: int
    cache_read_tokens: int
    cache_saved_usd: Decimal | None
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


class _Group(TypedDict):
    """One (key, run, model, price, band) of the database's answer."""

    key: str
    child: str
    run_id: uuid.UUID
    model: str
    price_id: str
    band: int
    day: dt.date
    steps: int
    nano: int | None
    unpriced: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int


def report(
    steps: QuerySet[Step], *, by: str, start: dt.datetime, end: dt.datetime, children: str | None = None
) -> Report:
    """Of the steps that began from `start` to before `end`; days and weeks are those of `start`'s zone. With `children`
    each row also comes split by that grouping. Raises UnknownBy."""
    groups = _groups(within(steps, start, end), by, children, start.tzinfo)
    split: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        split[group["key"]].append(group)
    rows = _ordered([_row(key, members) for key, members in split.items()], by)
    below = {key: _split(members, children) for key, members in split.items()} if children else {}
    return Report(by=by, start=start, end=end, rows=rows, total=_row("total", groups), children=below)


def _split(groups: Iterable[_Group], by: str) -> tuple[Row, ...]:
    found: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        found[group["child"]].append(group)
    return _ordered([_row(key, members) for key, members in found.items()], by)


def _ordered(rows: list[Row], by: str) -> tuple[Row, ...]:
    if by in ("day", "week"):
        return tuple(sorted(rows, key=lambda row: row.key))
    return tuple(sorted(rows, key=lambda row: (-(row.cost or 0), -row.unpriced_steps, row.key)))


def by_key(steps: QuerySet[Step], by: str, start: dt.datetime, end: dt.datetime) -> dict[str, Decimal]:
    """Cost alone, by key."""
    rows = within(steps, start, end).values(grouped=F(_path(by))).annotate(nano=Sum(nano_usd())).order_by()
    return {_key(row["grouped"]): usd(row["nano"]) for row in rows}


def within(steps: QuerySet[Step], start: dt.datetime, end: dt.datetime) -> QuerySet[Step]:
    return steps.filter(started_at__gte=start, started_at__lt=end)


def total(steps: QuerySet[Step], start: dt.datetime, end: dt.datetime) -> tuple[Decimal, int]:
    """(cost, unpriced steps) of a period."""
    found = within(steps, start, end).aggregate(
        nano=Sum(nano_usd()), unpriced=Count("id", filter=Q(cost_usd__isnull=True))
    )
    return usd(found["nano"]), int(found["unpriced"])


def daily(steps: QuerySet[Step], by: str, start: dt.datetime, end: dt.datetime) -> dict[str, dict[dt.date, Decimal]]:
    """Cost by key and day."""
    rows = (
        within(steps, start, end)
        .annotate(day=TruncDay("started_at", tzinfo=start.tzinfo))
        .values("day", grouped=F(_path(by)))
        .annotate(nano=Sum(nano_usd()))
        .order_by()
    )
    found: dict[str, dict[dt.date, Decimal]] = defaultdict(dict)
    for row in rows:
        found[_key(row["grouped"])][row["day"].date()] = usd(row["nano"])
    return found


def nano_usd() -> Cast:
    """The cost as a whole number that both databases add without rounding."""
    scaled = ExpressionWrapper(F("cost_usd") * Value(_NANO), output_field=DecimalField(max_digits=30, decimal_places=9))
    return Cast(Round(scaled), BigIntegerField())


def usd(nano: int | Decimal | None) -> Decimal:
    return Decimal(int(nano or 0)).scaleb(-9)


def priced_steps(steps: QuerySet[Step], start: dt.datetime, end: dt.datetime) -> tuple[int, int]:
    """(model calls with a price, all model calls)."""
    calls = within(steps, start, end).exclude(model="")
    found = calls.aggregate(all=Count("id"), priced=Count("id", filter=Q(cost_usd__isnull=False)))
    return int(found["priced"]), int(found["all"])


def simulated_runs(steps: QuerySet[Step], start: dt.datetime, end: dt.datetime) -> int:
    """Runs with steps of the simulated model, which costs nothing."""
    return within(steps, start, end).filter(price_id=SIMULATED).values("run_id").distinct().count()


# --- grouping --------------------------------------------------------------------------------------------------------


def _path(by: str) -> str:
    if by not in _PATHS:
        raise UnknownBy(f"Costs are grouped by {', '.join(BY)}; not by “{by}”.")
    return _PATHS[by]


def _groups(steps: QuerySet[Step], by: str, children: str | None, zone: dt.tzinfo | None) -> list[_Group]:
    rows = (
        steps.annotate(prompt=_prompt())
        .annotate(band=_band())
        .values(
            "run_id",
            "band",
            "price_id",
            payer=F("model"),
            grouped=_grouping(by, zone),
            below=_grouping(children, zone) if children else Value(""),
        )
        .annotate(
            steps=Count("id"),
            latest=Max("started_at"),
            nano=Sum(nano_usd()),
            unpriced=Count("id", filter=Q(cost_usd__isnull=True)),
            **{f"sum_{kind}": Coalesce(Sum(kind), 0) for kind in caching.KINDS},
        )
        .order_by()
    )
    return [_group(dict(row)) for row in rows]


def _grouping(by: str, zone: dt.tzinfo | None) -> Any:
    if by == "day":
        return TruncDay("started_at", tzinfo=zone)
    if by == "week":
        return TruncWeek("started_at", tzinfo=zone)
    return F(_path(by))


def _prompt() -> Any:
    return F("input_tokens") + F("cache_read_tokens") + F("cache_write_5m_tokens") + F("cache_write_1h_tokens")


def _band() -> Case:
    starts = list(enumerate(caching.BAND_STARTS))
    return Case(*(When(prompt__gte=start, then=Value(index)) for index, start in reversed(starts)), default=Value(0))


def _group(row: dict[str, Any]) -> _Group:
    return _Group(
        key=_key(row["grouped"]),
        child=_key(row["below"]),
        run_id=row["run_id"],
        model=row["payer"],
        price_id=row["price_id"],
        band=row["band"],
        day=row["latest"].date(),
        steps=row["steps"],
        nano=None if row["nano"] is None else int(row["nano"]),
        unpriced=row["unpriced"],
        input_tokens=row["sum_input_tokens"],
        output_tokens=row["sum_output_tokens"],
        cache_read_tokens=row["sum_cache_read_tokens"],
        cache_write_5m_tokens=row["sum_cache_write_5m_tokens"],
        cache_write_1h_tokens=row["sum_cache_write_1h_tokens"],
    )


def _key(value: Any) -> str:
    return value.date().isoformat() if isinstance(value, dt.datetime) else str(value or "")


@dataclass(slots=True)
class _PerRun:
    nano: int = 0
    unpriced: int = 0


@dataclass(slots=True)
class _Tally:
    runs: dict[uuid.UUID, _PerRun] = field(default_factory=lambda: defaultdict(_PerRun))
    steps: int = 0
    prompt: int = 0
    output: int = 0
    cache_read: int = 0
    saved: Decimal = Decimal(0)
    unknown_saving: bool = False


def _row(key: str, groups: Iterable[_Group]) -> Row:
    tally = _Tally()
    for group in groups:
        _add(tally, group)
    cost = usd(sum(run.nano for run in tally.runs.values()))
    unpriced = sum(run.unpriced for run in tally.runs.values())
    costs = sorted(usd(run.nano) for run in tally.runs.values() if not run.unpriced)
    return Row(
        key=key,
        runs=len(tally.runs),
        steps=tally.steps,
        cost=None if unpriced and not cost else cost,
        p50=percentile(costs, 0.5),
        p95=percentile(costs, 0.95),
        tokens=tally.prompt + tally.output,
        prompt_tokens=tally.prompt,
        cache_read_tokens=tally.cache_read,
        cache_saved_usd=None if tally.unknown_saving and not tally.saved else tally.saved,
        unpriced_steps=unpriced,
    )


def _add(tally: _Tally, group: _Group) -> None:
    run = tally.runs[group["run_id"]]
    run.nano += group["nano"] or 0
    run.unpriced += group["unpriced"]
    tally.steps += group["steps"]
    cached = group["cache_read_tokens"] + group["cache_write_5m_tokens"] + group["cache_write_1h_tokens"]
    tally.prompt += group["input_tokens"] + cached
    tally.output += group["output_tokens"]
    tally.cache_read += group["cache_read_tokens"]
    if cached:
        saving = caching.saved(group["model"], group["price_id"], _counts(group), group["band"], group["day"])
        tally.saved += saving or 0
        tally.unknown_saving |= saving is None


def _counts(group: _Group) -> dict[str, int]:
    return {
        "cache_read_tokens": group["cache_read_tokens"],
        "cache_write_5m_tokens": group["cache_write_5m_tokens"],
        "cache_write_1h_tokens": group["cache_write_1h_tokens"],
    }
