"""What the found runs have in common: figures, facets and a histogram, from one narrow row of each."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import Count, Q, QuerySet, Sum

from accounts.access import Access, rows
from runs.engine.types import ENDED
from runs.models import Run
from traces import charts, matching
from traces.editing import chosen, toggled, without
from traces.scope import Scope
from traces.search import sample_of, window
from traces.stats import percentile
from traces.tally import nano_usd, usd
from traces.tree import And, Node, Or, Query, Term
from traces.vocabulary import TIMES

MOST_RUNS = 10_000
MOST_NORM = 2_000
FACET_VALUES = 8
SERIES = ("completed", "stopped", "failed", "open")
BUCKETS = (
    ("5 minutes", 300),
    ("hour", 3_600),
    ("6 hours", 21_600),
    ("half day", 43_200),
    ("day", 86_400),
    ("week", 604_800),
    ("4 weeks", 2_419_200),
    ("quarter", 7_862_400),
)
MOST_BUCKETS = 30


class Facts(NamedTuple):
    created_at: dt.datetime
    took: dt.timedelta
    status: str
    stop_reason: str | None
    task_type: str
    cost: Decimal
    unpriced: int
    slug: str
    agent: str
    version: int
    username: str
    first_name: str
    last_name: str

    @property
    def person(self) -> str:
        return f"{self.first_name} {self.last_name}".strip() or self.username


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Percentiles are of runs whose every step has a price; `unpriced` counts the others. None: nothing to say.
    `capped`: of the newest only; but where `whole`, `count`, `cost` and `unpriced` are of all."""

    count: int
    of: int
    cost: Decimal
    unpriced: int
    cost_p50: Decimal | None
    cost_p95: Decimal | None
    duration_p50_ms: int | None
    unfinished: float | None
    capped: bool
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetValue:
    value: str
    label: str
    count: int
    width: str
    chosen: bool
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    field: str
    title: str
    values: tuple[FacetValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """`odd` labels give way where there is little room."""

    start: dt.datetime
    counts: tuple[int, ...]
    label: bool
    odd: bool
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bars of equal time: the first begins at `first` (seconds since 1970), each lasts `seconds`. `rest` is the query
    without its times, for the script that lets people drag."""

    per: str
    seconds: int
    bars: charts.Bars
    buckets: tuple[Bucket, ...]
    rest: str

    @property
    def first(self) -> int:
        return int(self.buckets[0].start.timestamp())

    @property
    def pairs(self) -> list[tuple[charts.Bar, Bucket]]:
        return list(zip(self.bars.bars, self.buckets, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`norm` is of all runs of the same time of the one agent that was found; None where there is no one agent."""

    figures: Figures
    norm: Figures | None
    facets: tuple[Facet, ...]
    histogram: Histogram | None

    @property
    def share_of_norm(self) -> Decimal | None:
        return self.figures.cost / self.norm.cost if self.norm and self.norm.cost else None


def overview(access: Access, query: Query, *, now: dt.datetime) -> Overview:
    """Over the newest MOST_RUNS found, or where that would mean looking at run after run over those among the newest
    SAMPLE of all; `figures.capped` says when there were more, or may be."""
    runs = rows(access, Run)
    scope = Scope(access.team.id, now)
    found, capped = facts(runs, query.node, scope, MOST_RUNS)
    figures = _figures(found, of=runs.count(), capped=capped)
    if capped and not scope.walks:
        figures = replace(figures, whole=True, **_sums(matching.matching(runs, query.node, scope)))
    return Overview(
        figures=figures,
        norm=_norm(runs, query, found, Scope(access.team.id, now)),
        facets=tuple(_facets(found, query)),
        histogram=_histogram(found, query, now),
    )


def _sums(found: QuerySet[Run]) -> dict[str, Any]:
    unpriced = Count("pk", filter=Q(unpriced_steps__gt=0))
    sums = found.order_by().aggregate(count=Count("pk"), nano=Sum(nano_usd()), unpriced=unpriced)
    return {"count": sums["count"], "cost": usd(sums["nano"]), "unpriced": sums["unpriced"]}


def _norm(runs: QuerySet[Run], query: Query, found: Sequence[Facts], scope: Scope) -> Figures | None:
    """Of the newest MOST_NORM."""
    agents = {row.slug for row in found}
    narrowed = [
        node for node in query.conditions if not (isinstance(node, Term) and node.field.name in ("agent", *TIMES))
    ]
    if len(agents) != 1 or not narrowed:
        return None
    times = tuple(term for term in query.terms if term.field.name in TIMES)
    own = runs.filter(agent__slug=agents.pop())
    listed, capped = facts(own, And(times) if times else None, scope, MOST_NORM)
    return _figures(listed, of=len(listed), capped=capped)


def facts(runs: QuerySet[Run], node: Node | None, scope: Scope, most: int) -> tuple[list[Facts], bool]:
    """(of each found run, whether there may be more)."""
    found = matching.matching(runs, node, scope)
    sample = sample_of(window(runs, node)) if scope.walks else None
    if sample is not None:
        found = found.filter(created_at__gte=sample.edge)
    found = found.annotate(took=matching.duration(scope.now)).order_by("-created_at", "-id")
    columns = found.values_list(
        "created_at",
        "took",
        "status",
        "stop_reason",
        "task_type",
        "cost_usd",
        "unpriced_steps",
        "agent__slug",
        "agent_version__definition__name",
        "agent_version__number",
        "owner__username",
        "owner__first_name",
        "owner__last_name",
    )
    listed = [Facts(*row) for row in columns[: most + 1]]
    return listed[:most], sample is not None or len(listed) > most


def _figures(found: Sequence[Facts], *, of: int, capped: bool) -> Figures:
    costs = sorted(row.cost for row in found if not row.unpriced)
    times = sorted(row.took / dt.timedelta(milliseconds=1) for row in found if row.status in ENDED)
    ended = [row for row in found if row.status in ENDED]
    unfinished = sum(row.status not in ("completed", "dry_run_ready") for row in ended)
    median = percentile(times, 0.5)
    return Figures(
        count=len(found),
        of=of,
        cost=sum((row.cost for row in found), Decimal(0)),
        unpriced=sum(1 for row in found if row.unpriced),
        cost_p50=percentile(costs, 0.5),
        cost_p95=percentile(costs, 0.95),
        duration_p50_ms=None if median is None else round(median),
        unfinished=unfinished / len(ended) if ended else None,
        capped=capped,
        whole=not capped,
    )


# --- facets ----------------------------------------------------------------------------------------------------------


def _facets(found: Sequence[Facts], query: Query) -> Iterable[Facet]:
    agents = {row.slug: row.agent or row.slug for row in reversed(found)}
    sources: list[tuple[str, str, list[str]]] = [
        ("status", "Status", [row.status for row in found]),
        ("stop", "Stop reason", [row.stop_reason for row in found if row.stop_reason and row.stop_reason != "done"]),
        ("type", "Task type", [row.task_type for row in found if row.task_type]),
        ("agent", "Agent", [row.slug for row in found]),
        ("version", "Agent version", [str(row.version) for row in found] if len(agents) == 1 else []),
        ("user", "Started by", [row.person for row in found]),
    ]
    for field, title, values in sources:
        facet = _facet(field, title, Counter(values), query, agents if field == "agent" else {})
        if facet.values:
            yield facet


def _facet(field: str, title: str, counts: Counter[str], query: Query, labels: Mapping[str, str]) -> Facet:
    """`labels` are what people call a value; a query may name it either way."""
    called = {label.lower(): value for value, label in labels.items()} | {value.lower(): value for value in counts}
    asked = {called.get(text.lower(), text): text for text in chosen(query, field)}
    counts.update(dict.fromkeys(set(asked) - set(counts), 0))
    total = max(sum(counts.values()), 1)
    return Facet(
        field=field,
        title=title,
        values=tuple(
            FacetValue(
                value=value,
                label=f"v{value}" if field == "version" else labels.get(value, value),
                count=count,
                width=charts.pc(count / total),
                chosen=value in asked,
                query=toggled(query, field, asked.get(value, value)),
            )
            for value, count in counts.most_common(FACET_VALUES)
        ),
    )


# --- histogram -------------------------------------------------------------------------------------------------------


def _histogram(found: Sequence[Facts], query: Query, now: dt.datetime) -> Histogram | None:
    """Bars of equal time over the found runs, in the zone of `now`."""
    if not found:
        return None
    first, last = found[-1].created_at.astimezone(now.tzinfo), found[0].created_at.astimezone(now.tzinfo)
    per, seconds = next(
        ((name, size) for name, size in BUCKETS if (last - first).total_seconds() / size < MOST_BUCKETS - 1),
        BUCKETS[-1],
    )
    start = _floor(first, seconds)
    size = dt.timedelta(seconds=seconds)
    count = (last - start) // size + 1
    if count < 12:  # a few bars would fill the plot's whole width
        start -= size * (12 - count)
        count = 12
    tallies = [[0] * len(SERIES) for _ in range(count)]
    for row in found:
        tallies[(row.created_at - start) // size][_series(row.status)] += 1
    every = max(1, -(-count // 7))
    buckets = tuple(
        Bucket(
            start=start + size * index,
            counts=tuple(tally),
            label=index % every == every // 2,
            odd=bool(index // every % 2),
            query=_narrowed(query, start + size * index, size),
        )
        for index, tally in enumerate(tallies)
    )
    return Histogram(
        per=per,
        seconds=seconds,
        bars=charts.stacked(tallies, wanted=2, whole=True),
        buckets=buckets,
        rest=without(query, *TIMES),
    )


def _floor(moment: dt.datetime, seconds: int) -> dt.datetime:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if seconds > 86_400:
        return midnight - dt.timedelta(days=midnight.weekday())
    return midnight + dt.timedelta(seconds=(moment - midnight).total_seconds() // seconds * seconds)


def _series(status: str) -> int:
    if status in ("completed", "dry_run_ready"):
        return 0
    if status in ("stopped", "cancelled"):
        return 1
    return 2 if status == "failed" else 3


def _narrowed(query: Query, start: dt.datetime, size: dt.timedelta) -> str:
    """The query within one bucket: its own time terms give way."""
    stamp = "%Y-%m-%dT%H:%M%z"
    text = without(query, *TIMES)
    plain = f"({text})" if isinstance(query.node, Or) else text
    return f"{plain} started:[{start.strftime(stamp)} TO {(start + size).strftime(stamp)}]".strip()
