"""The sub-agents of a run, as its live page shows them: what each is at, and what it costs with all below it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import BooleanField, Count, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet

from accounts.access import Access, rows
from runs import family, lifecycle
from runs.engine.types import ENDED, WAITING_ACTIONS, RunStatus
from runs.family import Below
from runs.models import Batch, Run, Step

MOST = 50
DELEGATING = "delegating"  # shown for `waiting` where nobody is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgent:
    """`doing` is its newest step; `cost_usd` includes the runs below it."""

    id: uuid.UUID
    ref: str
    agent: str
    title: str
    status: str
    label: str
    steps: int
    doing: str
    cost_usd: Decimal
    is_partly_unpriced: bool

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Beneath:
    """`sums` is over everything below the run; `agents` are those it has started itself, the newest ones if many."""

    sums: Below
    agents: tuple[SubAgent, ...]

    @property
    def at_work(self) -> int:
        return sum(not agent.is_ended for agent in self.agents)


def beneath(access: Access, run: Run) -> Beneath:
    """Three queries, and one for each further level of the tree."""
    children = rows(access, Run).filter(parent=run).select_related("agent", "agent_version")
    found = list(asking(children).order_by("-number")[:MOST])[::-1]
    sums = family.below([run.id, *(child.id for child in found)])
    doing = _newest_steps([child.id for child in found]) if found else {}
    agents = tuple(_sub_agent(child, sums[child.id], doing.get(child.id, "")) for child in found)
    return Beneath(sums=sums[run.id], agents=agents)


def with_delegating(found: QuerySet[Run]) -> QuerySet[Run]:
    """`delegates`: whether it asks no person anything itself, and runs that it has started are at work."""
    asks = Exists(Batch.objects.filter(run=OuterRef("pk"), status="open"))
    below = Exists(Run.objects.filter(parent=OuterRef("pk"), status__in=lifecycle.ALIVE))
    # The status stands first: of most runs the others need not be looked for.
    waits = Q(status=RunStatus.WAITING)
    return found.annotate(delegates=ExpressionWrapper(waits & ~Q(asks) & Q(below), output_field=BooleanField()))


def asking(found: QuerySet[Run]) -> QuerySet[Run]:
    """`delegates`, and how many actions wait for people in open batches of its own: `asked`, of them `to_approve`."""
    open_ones = Q(actions__status__in=list(WAITING_ACTIONS), actions__batch__status="open")
    return with_delegating(found).annotate(
        asked=Count("actions", filter=open_ones),
        to_approve=Count("actions", filter=open_ones & Q(actions__kind="action")),
    )


def asked_label(run: Run) -> str:
    """What a live run of `asking` asks people for, in the words of its own page; empty when it asks nothing."""
    asked, to_approve = run.asked, run.to_approve  # type: ignore[attr-defined]  # annotated
    if not asked or run.is_ended:
        return ""
    words = f"{asked} to approve" if to_approve else "needs an answer"
    if run.status == RunStatus.WAITING:
        return f"{words[0].upper()}{words[1:]}"
    return f"{run.status.capitalize()}, {words}"


def shown_status(status: str, delegates: bool) -> str:
    return DELEGATING if status == RunStatus.WAITING and delegates else status


def open_batches(access: Access, run_id: uuid.UUID) -> QuerySet[Batch]:
    """Of the run, and of what is below it, down to the third level: they are decided under its name."""
    family_of_it = Q(run=run_id) | Q(run__parent=run_id) | Q(run__parent__parent=run_id)
    return rows(access, Batch).filter(family_of_it, status="open")


def _newest_steps(run_ids: list[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    newest = Step.objects.filter(run_id__in=run_ids, seq=F("run__last_seq"))
    return {step.run_id: f"{step.title}: {step.summary}" if step.summary else step.title for step in newest}


def _sub_agent(child: Run, sums: Below, doing: str) -> SubAgent:
    return SubAgent(
        id=child.id,
        ref=child.short_id,
        agent=str(child.agent_version.definition.get("name", child.agent.slug)),
        title=child.title,
        status=shown_status(child.status, child.delegates),  # type: ignore[attr-defined]  # annotated
        label=asked_label(child),
        steps=child.last_seq,
        doing=doing[:200],
        cost_usd=child.cost_usd + sums.cost_usd,
        is_partly_unpriced=bool(child.unpriced_steps + sums.unpriced_steps),
    )
