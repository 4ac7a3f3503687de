"""Runs as table rows. One query for any number of them."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from accounts.access import Access, rows
from runs import presenters
from runs.beneath import shown_status, with_delegating
from runs.engine.types import ENDED, WAITING_ACTIONS, RunStatus
from runs.models import Action, Agent, Run, Step

MODES = {"interactive": "Interactive", "batch": "Batch", "dry_run": "Dry run"}
LIVE = tuple(status for status in RunStatus if status not in ENDED)
SHOWS = {
    "": "All",
    "live": "Live",
    "waiting": "Needs approval",
    "completed": "Completed",
    "stopped": "Stopped or failed",
    "cancelled": "Cancelled",
}
_STATUSES: dict[str, tuple[RunStatus, ...]] = {
    "live": LIVE,
    "waiting": LIVE,
    "completed": (RunStatus.COMPLETED, RunStatus.DRY_RUN_READY),
    "stopped": (RunStatus.STOPPED, RunStatus.FAILED),
    "cancelled": (RunStatus.CANCELLED,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    id: uuid.UUID
    ref: str
    title: str
    agent: str
    agent_slug: str
    mode: str
    status: str
    label: str
    simulated: bool
    created_at: dt.datetime
    owner: str
    took_ms: int
    cost_usd: Decimal
    unpriced_steps: int


def shown(access: Access, show: str) -> QuerySet[Run]:
    """The newest first. What needs approval is told by what people are asked, not by the status: a run may wait for
    its sub-agents alone, and one that is paused may have asked before."""
    found = rows(access, Run).order_by("-number")
    if show in _STATUSES:
        found = found.filter(status__in=_STATUSES[show])
    if show == "waiting":
        asked = Action.objects.filter(run=OuterRef("pk"), status__in=WAITING_ACTIONS, batch__status="open")
        found = found.filter(Exists(asked))
    return found


def lines(found: QuerySet[Run]) -> list[RunLine]:
    open_ones = Q(actions__status__in=list(WAITING_ACTIONS), actions__batch__status="open")
    selected = found.select_related("agent", "agent_version", "owner").annotate(
        waiting=Count("actions", filter=open_ones),
        to_approve=Count("actions", filter=open_ones & Q(actions__kind="action")),
    )
    return [_line(run, _waits(run.waiting, run.to_approve), run.delegates) for run in with_delegating(selected)]  # type: ignore[attr-defined]


def _waits(waiting: int, to_approve: int) -> str:
    """What a person is asked for, in the words of the run's own page; empty when nothing is."""
    if waiting and not to_approve:
        return "needs an answer"
    return f"{waiting} to approve" if waiting else ""


def recent(access: Access, limit: int) -> list[RunLine]:
    return lines(rows(access, Run).order_by("-number")[:limit]) if limit else []


def calls(access: Access, agent: Agent, days: int = 30) -> dict[str, int]:
    """How often each tool was called lately, reads included."""
    since = timezone.now() - dt.timedelta(days=days)
    found = rows(access, Step).filter(run__agent=agent, kind="tool", started_at__gte=since)
    return dict(found.order_by().values_list("tool").annotate(number=Count("id")))


def live_count(access: Access) -> int:
    return rows(access, Run).filter(status__in=LIVE).count()


def _label(status: str, waits: str) -> str:
    return f"{waits[0].upper()}{waits[1:]}" if status == RunStatus.WAITING else f"{status.capitalize()}, {waits}"


def _line(run: Run, waits: str, delegates: bool) -> RunLine:
    return RunLine(
        id=run.id,
        ref=run.short_id,
        title=run.title,
        agent=str(run.agent_version.definition.get("name", run.agent.slug)),
        agent_slug=run.agent.slug,
        mode=MODES.get(run.mode, run.mode),
        status=shown_status(run.status, delegates),
        label=_label(run.status, waits) if waits and run.status in LIVE else "",
        simulated=run.simulated,
        created_at=run.created_at,
        owner=run.owner.label,
        took_ms=presenters.duration_ms(run),
        cost_usd=run.cost_usd,
        unpriced_steps=run.unpriced_steps,
    )
