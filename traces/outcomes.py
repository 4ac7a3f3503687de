"""What the money was good for: cost per finished task, of rejected work, and waste."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Count, Q, QuerySet, Sum

from accounts.access import Access, rows
from runs.engine.types import ENDED, ActionStatus, RunStatus, StopReason
from runs.models import Action, Run, Step
from traces.step_matching import STEPS, refused_turn
from traces.tally import nano_usd, usd
from traces.vocabulary import REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`query` finds the same runs, or where it names steps the same steps."""

    label: str
    what: str
    count: int
    cost: Decimal
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Of the runs created in the period. `per_finished` is the cost of every ended run, shared among the completed
    ones. `waste` is a part of `total`; its shares don't overlap."""

    finished: int
    total: Decimal
    per_finished: Decimal | None
    per_approved: Decimal | None
    approved: int
    waste: tuple[Share, ...]

    @property
    def wasted(self) -> Decimal:
        return sum((share.cost for share in self.waste), Decimal(0))

    @property
    def wasted_share(self) -> float | None:
        return float(self.wasted / self.total) if self.total else None


def outcomes(access: Access, start: dt.datetime, end: dt.datetime, span: str) -> Outcomes:
    """`span` is the period in words of the query language."""
    runs = rows(access, Run).filter(created_at__gte=start, created_at__lt=end)
    by_end = {
        (row["status"], row["stop_reason"]): (int(row["runs"]), usd(row["nano"]))
        for row in runs.values("status", "stop_reason").annotate(runs=Count("id"), nano=Sum(nano_usd())).order_by()
    }
    ended = {key: found for key, found in by_end.items() if key[0] in ENDED}
    total = sum((cost for _, cost in ended.values()), Decimal(0))
    finished = sum(count for (status, _), (count, _) in ended.items() if status == RunStatus.COMPLETED)
    actions = rows(access, Action).filter(run__created_at__gte=start, run__created_at__lt=end)
    approved = actions.filter(status=ActionStatus.SUCCEEDED).count()
    return Outcomes(
        finished=finished,
        total=total,
        per_finished=total / finished if finished else None,
        per_approved=total / approved if approved else None,
        approved=approved,
        waste=tuple(share for share in _waste(access, runs, actions, ended, span) if share.cost),
    )


_REJECTED = (StopReason.REJECTED, StopReason.ESCALATION_DECLINED)
_NOT_REJECTED = "-stop:(rejected OR escalation_declined)"
_KEPT = f"-status:(failed OR cancelled) {_NOT_REJECTED}"


def _waste(
    access: Access,
    runs: QuerySet[Run],
    actions: QuerySet[Action],
    ended: dict[tuple[str, str | None], tuple[int, Decimal]],
    span: str,
) -> list[Share]:
    def ends(status: str | None, reasons: tuple[str, ...] = ()) -> tuple[int, Decimal]:
        found = [
            value
            for (one, why), value in ended.items()
            if (why in reasons if reasons else one == status and why not in _REJECTED)
        ]
        return sum(count for count, _ in found), sum((cost for _, cost in found), Decimal(0))

    failed, cancelled, refused = ends(RunStatus.FAILED), ends(RunStatus.CANCELLED), ends(None, _REJECTED)
    lost = Q(status__in=[RunStatus.FAILED, RunStatus.CANCELLED]) | Q(stop_reason__in=_REJECTED)
    kept = runs.exclude(lost)
    tries = rows(access, Step).filter(run__in=kept, status__in=["error", "timeout"], cost_usd__gt=0)
    # Beginning with the few runs that have one, instead of the steps of all.
    refused_in = actions.filter(status__in=REFUSED, run__in=kept).values("run")
    turns = rows(access, Step).filter(refused_turn(access.team.id, STEPS), run__in=refused_in)
    (tried, tried_cost), (turned, turned_cost) = _summed(tries), _summed(turns)
    return [
        Share(
            label="Failed runs",
            what="run",
            count=failed[0],
            cost=failed[1],
            query=f"status:failed {_NOT_REJECTED} {span}",
        ),
        Share(
            label="Cancelled runs",
            what="run",
            count=cancelled[0],
            cost=cancelled[1],
            query=f"status:cancelled {_NOT_REJECTED} {span}",
        ),
        Share(
            label="Runs ended by a rejection",
            what="run",
            count=refused[0],
            cost=refused[1],
            query=f"stop:(rejected OR escalation_declined) {span}",
        ),
        Share(
            label="Proposals that were not taken",
            what="turn",
            count=turned,
            cost=turned_cost,
            query=f"{_KEPT} {span} step:{{is:refused}}",
        ),
        Share(
            label="Tries that failed",
            what="step",
            count=tried,
            cost=tried_cost,
            query=f"{_KEPT} {span} step:{{status:(error OR timeout) cost:>0}}",
        ),
    ]


def _summed(steps: QuerySet[Step]) -> tuple[int, Decimal]:
    sums = steps.order_by().aggregate(count=Count("pk"), nano=Sum(nano_usd()))
    return sums["count"], usd(sums["nano"])
