"""Runs as table rows. One query for any number of them."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Count, Exists, OuterRef, QuerySet
from django.utils import timezone

from accounts.access import Access, rows
from runs import presenters
from runs.beneath import asked_label, asking, shown_status
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
    return [_line(run) for run in asking(found.select_related("agent", "agent_version", "owner"))]


def recent(access: Access, limit: int) -> list[RunLine]:
    return lines(rows(access, Run).order_by("-number")[:limit]) if limit else []


def calls(access: Access, agent: Agent, days: int = 30) -> dict[str, int]:
    """How often each tool was called lately, reads included."""
    since = timezone.now() - dt.timedelta(days=days)
    found = rows(access, Step).filter(run__agent=agent, kind="tool", started_at__gte=since)
    return dict(found.order_by().values_list("tool").annotate(number=Count("id")))


def live_count(access: Access) -> int:
    return rows(access, Run).filter(status__in=LIVE).count()


def _line(run: Run) -> RunLine:
    return RunLine(
        id=run.id,
        ref=run.short_id,
        title=run.title,
        agent=str(run.agent_version.definition.get("name", run.agent.slug)),
        agent_slug=run.agent.slug,
        mode=MODES.get(run.mode, run.mode),
        status=shown_status(run.status, run.delegates),  # type: ignore[attr-defined]  # annotated
        label=asked_label(run),
        simulated=run.simulated,
        created_at=run.created_at,
        owner=run.owner.label,
        took_ms=presenters.duration_ms(run),
        cost_usd=run.cost_usd,
        unpriced_steps=run.unpriced_steps,
    )
