"""How far an agent's confidence can be trusted: what people decided on its calls, by how sure it said it was."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Case, CharField, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.utils import timezone

from approvals.models import Decision, Verdict
from runs.engine.types import ActionStatus, Evidence, Policy, ToolGrant
from runs.models import Action

COUNTED_FOR = dt.timedelta(days=90)
EDGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)  # upper edges; the last bucket holds 100% too

# What a person left as proposed has gone on from pending, whatever became of it; a change or a no has its own status.
CHANGED = (ActionStatus.SUPERSEDED,)
REFUSED = (ActionStatus.REJECTED,)
NOT_AGREED = (ActionStatus.PENDING, *CHANGED, *REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Decided calls whose confidence was from `low` up to `high` (shares of 1)."""

    low: float
    high: float
    approved: int = 0
    edited: int = 0
    rejected: int = 0

    @property
    def decided(self) -> int:
        return self.approved + self.edited + self.rejected

    @property
    def agreed(self) -> float | None:
        return self.approved / self.decided if self.decided else None


def evidence(agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
    """For the floor of a policy: under a threshold, only calls at or above it say anything."""
    found = _decided(agent_id).filter(tool=grant.name)
    if grant.policy is Policy.CONFIDENCE:
        found = found.filter(confidence__gte=grant.threshold)
    counts = found.aggregate(agreed=Count("id", filter=AGREED), differed=Count("id", filter=DIFFERED))
    return Evidence(decided=counts["agreed"] + counts["differed"], agreed=counts["agreed"])


def buckets(agent_id: uuid.UUID) -> dict[str, list[Bucket]]:
    """By tool, each with every bucket. One query, whatever the number of tools."""
    edge = Case(
        *(When(confidence__lt=high, then=Value(str(high))) for high in EDGES[:-1]),
        default=Value(str(EDGES[-1])),
        output_field=CharField(),
    )
    rows = (
        _decided(agent_id)
        .filter(confidence__isnull=False)
        .annotate(edge=edge)
        .values("tool", "edge")
        .annotate(
            approved=Count("id", filter=AGREED),
            edited=Count("id", filter=Q(status__in=CHANGED)),
            rejected=Count("id", filter=Q(status__in=REFUSED)),
        )
        .order_by("tool")
    )
    found: dict[str, dict[str, tuple[int, int, int]]] = {}
    for row in rows:
        found.setdefault(row["tool"], {})[row["edge"]] = (row["approved"], row["edited"], row["rejected"])
    return {tool: _all(counts) for tool, counts in found.items()}


def _all(counts: dict[str, tuple[int, int, int]]) -> list[Bucket]:
    lows: Sequence[float] = (0.0, *EDGES[:-1])
    return [
        Bucket(low=low, high=high, approved=approved, edited=edited, rejected=rejected)
        for low, high in zip(lows, EDGES, strict=True)
        for approved, edited, rejected in [counts.get(str(high), (0, 0, 0))]
    ]


def _decided(agent_id: uuid.UUID) -> QuerySet[Action]:
    """Proposals as the agent made them, with `yes`: whether a person (not a standing grant) approved one."""
    since = timezone.now() - COUNTED_FOR
    yes = Decision.objects.filter(action=OuterRef("pk"), verdict=Verdict.APPROVE)
    made = Action.objects.filter(run__agent_id=agent_id, kind__in=["action", "unknown"], created_at__gte=since)
    return made.filter(supersedes__isnull=True).annotate(yes=Exists(yes)).order_by()


AGREED = Q(yes=True) & ~Q(status__in=NOT_AGREED)
DIFFERED = Q(status__in=[*CHANGED, *REFUSED])
