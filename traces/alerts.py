"""Thresholds on spending: looked at by a worker's chore, recorded once when passed, told by `alert_sender`."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db.models import F, Q, QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from runs.models import Agent, Run
from runs.stale import HOUR
from traces.costs import Sums
from traces.editing import written
from traces.limits import TookTooLong, bounded
from traces.matching import matching
from traces.models import Alert, AlertEvent, Measure
from traces.query import parse
from traces.scope import Scope
from traces.tally import nano_usd, usd
from traces.tree import QueryError

logger = logging.getLogger(__name__)
DAY: Final = dt.timedelta(days=1)
RUNS_OF: Final = 7 * DAY  # a run is looked at for as long after it began
MOST_AT_ONCE: Final = 100  # events of one alert in one look


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What is over its limit, or was and is `over` no more."""

    subject: str
    label: str
    window: dt.datetime
    value: Decimal


def look_at_all() -> None:
    """The worker's chore. An alert that can't be looked at holds up no other."""
    now = timezone.now()
    for alert in Alert.objects.select_related("team"):
        try:
            look(alert, now)
        except (TookTooLong, QueryError):
            logger.warning("Alert %s could not be looked at", alert.id)


def look(alert: Alert, now: dt.datetime) -> int:
    """Fires what is newly over its limit, and resolves what no longer is. Gives how many fired. Doing it again, or in
    two workers at once, fires nothing twice: the row is unique."""
    limit = limit_of(alert)
    if limit is None:
        return 0
    with bounded():
        found = list(_passed(alert, limit, now))
    fired = 0
    quiet = alert.snoozed_until is not None and alert.snoozed_until > now
    for one in found:
        row, is_new = AlertEvent.objects.get_or_create(
            alert=alert,
            subject=one.subject,
            window=one.window,
            defaults={
                "label": one.label[:200],
                "value_usd": one.value,
                "limit_usd": limit,
                "fired_at": now,
                "due_at": None if quiet else now,
            },
        )
        fired += is_new
        if not is_new and row.resolved_at is None:
            AlertEvent.objects.filter(id=row.id).update(value_usd=one.value)
    _resolve(alert, {(one.subject, one.window) for one in found}, now)
    if not quiet:
        _tell_of_what_was_snoozed(alert, now)
    return fired


def _tell_of_what_was_snoozed(alert: Alert, now: dt.datetime) -> None:
    """What fired in the pause and is still over its limit when the pause ends: nobody knows of it yet."""
    untold = AlertEvent.objects.filter(alert=alert, resolved_at__isnull=True, due_at__isnull=True, told_at__isnull=True)
    untold.filter(attempts=0).update(due_at=now)


def limit_of(alert: Alert) -> Decimal | None:
    """None while the team has no budget that a share could be of."""
    if alert.limit_usd is not None:
        return alert.limit_usd
    budget = alert.team.month_budget_usd
    return None if budget is None or alert.budget_share is None else budget * alert.budget_share / 100


def window_start(measure: str, now: dt.datetime) -> dt.datetime:
    """UTC, as the days of reports."""
    midnight = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if measure == Measure.WEEK:
        return midnight - midnight.weekday() * DAY
    return midnight.replace(day=1) if measure == Measure.MONTH else midnight


def _resolve(alert: Alert, over: set[tuple[str, dt.datetime]], now: dt.datetime) -> None:
    for row in AlertEvent.objects.filter(alert=alert, resolved_at__isnull=True):
        if alert.measure == Measure.RUN:
            done = not Run.objects.filter(id=row.subject, ended_at__isnull=True).exists()
        else:
            done = (row.subject, row.window) not in over
        if done:
            AlertEvent.objects.filter(id=row.id, resolved_at__isnull=True).update(resolved_at=now)


# --- what is spent ---------------------------------------------------------------------------------------------------


def _passed(alert: Alert, limit: Decimal, now: dt.datetime) -> Iterator[Passed]:
    if alert.measure == Measure.RUN:
        yield from _runs(alert, limit, now)
        return
    start = window_start(alert.measure, now)
    spent = _by_search(alert, start, now) if alert.query else _by_report(alert, start, now)
    over = sorted(((key, value) for key, value in spent.items() if value > limit), key=lambda each: -each[1])
    names = _names(alert, [key for key, _ in over])
    for key, value in over[:MOST_AT_ONCE]:
        yield Passed(subject=key, label=names.get(key, key), window=start, value=value)


def _runs(alert: Alert, limit: Decimal, now: dt.datetime) -> Iterator[Passed]:
    since = max(now - RUNS_OF, alert.created_at)
    known = AlertEvent.objects.filter(alert=alert).values("subject")
    found = _found(alert, now).filter(Q(created_at__gte=since) | Q(ended_at__isnull=True), cost_usd__gt=limit)
    told = set(known.values_list("subject", flat=True))
    for run in found.order_by("-created_at")[: MOST_AT_ONCE + len(told)]:
        if str(run.id) not in told:
            yield Passed(
                subject=str(run.id), label=f"{run.short_id} {run.title}", window=run.created_at, value=run.cost_usd
            )


def _found(alert: Alert, now: dt.datetime) -> QuerySet[Run]:
    runs = Run.objects.filter(team=alert.team)
    return matching(runs, parse(alert.query, now).node, Scope(alert.team_id, now)) if alert.query else runs


def _by_search(alert: Alert, start: dt.datetime, now: dt.datetime) -> dict[str, Decimal]:
    """Whole costs of the runs created since, as the search shows them."""
    runs = _found(alert, now).filter(created_at__gte=start)
    path = {"agent": "agent__slug", "user": "owner_id"}.get(alert.per)
    if path is None:
        return {"": usd(runs.aggregate(nano=Sum(nano_usd()))["nano"])}
    rows = runs.values(subject=F(path)).annotate(nano=Sum(nano_usd())).order_by()
    return {str(row["subject"]): usd(row["nano"]) for row in rows}


def _by_report(alert: Alert, start: dt.datetime, now: dt.datetime) -> dict[str, Decimal]:
    """What the costs page shows of the same time."""
    found: dict[str, int] = defaultdict(int)
    for place, part in Sums.of_team(alert.team.id, start, now + HOUR).of(alert.per):
        found[place.key] += part.cost
    return {key: usd(nano) for key, nano in found.items()}


def _names(alert: Alert, keys: list[str]) -> dict[str, str]:
    if alert.per == "user":
        people = User.objects.filter(id__in=[uuid.UUID(key) for key in keys])
        return {str(user.id): user.label for user in people}
    if alert.per == "agent":
        agents = Agent.objects.filter(team=alert.team_id, slug__in=keys).select_related("current")
        return {agent.slug: agent.current.definition["name"] for agent in agents if agent.current}
    return {}


# --- how it stands ---------------------------------------------------------------------------------------------------


def state(alert: Alert, events: list[AlertEvent], now: dt.datetime) -> str:
    """snoozed, firing, resolved, or quiet when it never fired."""
    if alert.snoozed_until is not None and alert.snoozed_until > now:
        return "snoozed"
    if any(event.resolved_at is None for event in events):
        return "firing"
    return "resolved" if events else "quiet"


def describe(alert: Alert) -> str:
    """One line in words: what is watched."""
    if alert.limit_usd is not None:
        limit = f"${alert.limit_usd:,.2f}"
    else:
        share = f"{alert.budget_share or 0:f}"
        limit = f"{share.rstrip('0').rstrip('.')}% of the budget"
    if alert.measure == Measure.RUN:
        return f"One run above {limit}"
    what = {"agent": "An agent", "user": "A person"}.get(alert.per, "The team")
    return f"{what} above {limit} in {Measure(alert.measure).label}"


def overview(team_id: uuid.UUID, now: dt.datetime) -> list[dict[str, Any]]:
    """Each alert with its newest event and its state, the firing ones first."""
    found = []
    newest: dict[uuid.UUID, list[AlertEvent]] = defaultdict(list)
    recent = AlertEvent.objects.filter(alert__team_id=team_id).order_by("-fired_at")
    for event in recent[:500]:
        newest[event.alert_id].append(event)
    for alert in Alert.objects.filter(team_id=team_id).select_related("team"):
        events = newest[alert.id]
        found.append(
            {
                "alert": alert,
                "says": describe(alert),
                "state": state(alert, events, now),
                "event": events[0] if events else None,
                "firing": sum(event.resolved_at is None for event in events),
                "query": link_query(alert, events[0] if events else None),
                "no_budget": limit_of(alert) is None,
            }
        )
    order = {"firing": 0, "snoozed": 1, "resolved": 2, "quiet": 3}
    return sorted(found, key=lambda each: order[each["state"]])


def link_query(alert: Alert, event: AlertEvent | None) -> str:
    """The search that shows what passed the limit."""
    parts = [f"({alert.query})"] if " OR " in alert.query else [alert.query] if alert.query else []
    if alert.measure == Measure.RUN:
        parts.append(f"run:{event.subject}" if event else f"cost:>{limit_of(alert) or 0:f}")
    elif event is not None:
        parts.append(f"since:{event.window.astimezone(dt.UTC):%Y-%m-%dT%H:%MZ}")  # whatever the reader's time zone
        if alert.per == "agent":
            parts.append(written("agent", event.subject))
        elif alert.per == "user":
            parts.append(written("user", event.label))
    return " ".join(part for part in parts if part)
