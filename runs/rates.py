"""A team's own prices, and pricing its history again."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from accounts import receipts
from accounts.models import Team, User
from runs import pricing, stale
from runs.engine.types import Price, RunStatus, StepStatus, Usage
from runs.models import PriceOverride, Run, Step, TeamMonth
from runs.pricing import Override

RATES = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
}


def of_team(team_id: uuid.UUID) -> tuple[Override, ...]:
    return tuple(_override(row) for row in PriceOverride.objects.filter(team_id=team_id))


def _override(row: PriceOverride) -> Override:
    rates = {name: getattr(row, column) for column, name in RATES.items() if getattr(row, column) is not None}
    return Override(
        id=row.id.hex,
        model=row.model,
        geo=row.geo,
        starts_on=row.starts_on,
        ends_on=row.ends_on,
        factor=row.factor,
        rates=rates,
    )


def add(team: Team, by: User, values: dict[str, Any]) -> PriceOverride:
    """`values` are columns of PriceOverride. New calls are priced with it at once; history only by `reprice`."""
    with transaction.atomic():
        row = PriceOverride.objects.create(team=team, created_by=by, **values)
        _receipt(team, by, "price.added", row)
    return row


def end(row: PriceOverride, by: User, day: dt.date) -> bool:
    """From that day on the list price holds again. False when it had an end already."""
    with transaction.atomic():
        ended = PriceOverride.objects.filter(id=row.id, ends_on__isnull=True).update(ends_on=day) == 1
        if ended:
            row.ends_on = day
            _receipt(row.team, by, "price.ended", row)
    return ended


def _receipt(team: Team, by: User, kind: str, row: PriceOverride) -> None:
    shown = {name: getattr(row, name) for name in ("model", "geo", "starts_on", "ends_on", "factor", *RATES)}
    payload = {name: str(value) for name, value in shown.items() if value not in (None, "")}
    receipts.append(team.id, kind, actor=by, subject_type="price", subject_id=row.id, payload=payload)


# --- pricing again ---------------------------------------------------------------------------------------------------


UNPAID = (pricing.SIMULATED, "replayed")  # what nobody charges: the simulated model, and what a fork copied


@dataclass(slots=True)
class Change:
    """Of one model: its calls, how many got another price, and the sums before and after."""

    calls: int = 0
    changed: int = 0
    before: Decimal = Decimal(0)
    after: Decimal = Decimal(0)
    unpriced_before: int = 0
    unpriced_after: int = 0


@dataclass(frozen=True, slots=True)
class Repriced:
    """`skipped` runs are being worked on: their worker holds their sums. They are left as they are."""

    by_model: dict[str, Change]
    skipped: int


def reprice(
    team: Team,
    *,
    since: dt.datetime | None = None,
    model: str = "",
    write: bool = True,
    actor: User | str = "agentsite",
) -> Repriced:
    """Prices the calls that a team's runs made as if they were made today: with the present list and the team's own
    prices of their day. Sums of runs and months follow, summaries are marked. Nothing is written without `write`."""
    calls = Step.objects.filter(run__team=team).exclude(model="").exclude(price_id__in=UNPAID)
    calls = calls.filter(started_at__gte=since) if since else calls
    calls = calls.filter(model=model) if model else calls
    found: dict[str, Change] = defaultdict(Change)
    overrides, skipped = of_team(team.id), 0
    for run_id in list(calls.order_by("run_id").values_list("run_id", flat=True).distinct()):
        with transaction.atomic():
            run = Run.objects.select_for_update().filter(id=run_id).exclude(status=RunStatus.RUNNING).first()
            if run is None:
                skipped += 1
                continue
            changed = list(_changes(calls.filter(run_id=run_id), overrides, found))
            if write and changed:
                _rewrite(run, changed)
    if write and any(change.changed for change in found.values()):
        _report(team, actor, found)
    return Repriced(dict(found), skipped)


def _changes(
    calls: QuerySet[Step], overrides: Sequence[Override], found: dict[str, Change]
) -> Iterator[tuple[Step, Decimal | None, str]]:
    for step in calls.order_by("seq"):
        usage = Usage(terms=step.price_terms, **{name: getattr(step, name) for name in RATES.values()})
        new = pricing.price(step.model, usage, simulated=False, at=step.started_at, overrides=overrides)
        if step.cost_usd is None and step.status == StepStatus.ERROR:
            new = Price(usd=None, price_id=step.price_id)  # of a reply that was lost only a part of its tokens is known
        change = found[step.model]
        change.calls += 1
        change.before += step.cost_usd or Decimal(0)
        change.after += new.usd or Decimal(0)
        change.unpriced_before += step.cost_usd is None
        change.unpriced_after += new.usd is None
        if (step.cost_usd, step.price_id) != (new.usd, new.price_id):
            change.changed += step.cost_usd != new.usd
            yield step, new.usd, new.price_id


def _rewrite(run: Run, changed: Sequence[tuple[Step, Decimal | None, str]]) -> None:
    """Within the transaction that holds the run's row."""
    by_month: dict[dt.date, Decimal] = defaultdict(Decimal)
    for step, usd, price_id in changed:
        by_month[step.started_at.date().replace(day=1)] += (usd or Decimal(0)) - (step.cost_usd or Decimal(0))
        Step.objects.filter(id=step.id).update(cost_usd=usd, price_id=price_id)
    known = [cost for cost in run.steps.values_list("cost_usd", flat=True) if cost is not None]
    Run.objects.filter(id=run.id).update(
        cost_usd=sum(known, Decimal(0)), unpriced_steps=run.steps.filter(cost_usd__isnull=True).count()
    )
    for month, usd in by_month.items():
        TeamMonth.objects.filter(team_id=run.team_id, month=month).update(spent_usd=F("spent_usd") + usd)
    stale.mark(run.team_id, run.created_at, *(step.started_at for step, _, _ in changed))


def _report(team: Team, actor: User | str, found: dict[str, Change]) -> None:
    with transaction.atomic():
        receipts.append(
            team.id,
            "price.repriced",
            actor=actor,
            subject_type="team",
            subject_id=team.id,
            payload={
                name: {"changed": change.changed, "before_usd": str(change.before), "after_usd": str(change.after)}
                for name, change in sorted(found.items())
            },
        )
