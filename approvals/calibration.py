"""How far an agent's confidence can be trusted: what people decided on its calls, by how sure it said it was."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict

from django.db.models import Case, CharField, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.utils import timezone

from approvals.models import GRANT_CHANNEL, Decision, LaterLook, Verdict
from runs.engine.types import ActionStatus, Evidence, Policy, ToolGrant
from runs.human_side import Bucket, ToolHistory
from runs.models import Action

EVIDENCE_FOR = dt.timedelta(days=90)
HISTORY_FOR = dt.timedelta(days=30)
EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # upper edges; the last bucket holds 100% too
LOWS = (0.0, *EDGES[:-1])
NOT_SAID = ""
LOOKED = ("agree", "overturn")

# What a person left as proposed has gone on from pending, whatever became of it; a change or a no has its own status.
NOT_AGREED = (ActionStatus.PENDING, ActionStatus.SUPERSEDED, ActionStatus.REJECTED)
AGREED = (Q(yes=True) & ~Q(status__in=NOT_AGREED)) | Q(looked_right=True)
EDITED = Q(status=ActionStatus.SUPERSEDED)
REJECTED = Q(status=ActionStatus.REJECTED) | Q(looked_wrong=True)
ALONE = Q(needed=0)


def evidence(agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
    """For the floor of a policy: under a threshold, only calls at or above it say anything."""
    found = proposals(agent_id, EVIDENCE_FOR).filter(tool=grant.name)
    if grant.policy is Policy.CONFIDENCE:
        found = found.filter(confidence__gte=grant.threshold)
    counts = found.aggregate(agreed=Count("id", filter=AGREED), differed=Count("id", filter=EDITED | REJECTED))
    return Evidence(decided=counts["agreed"] + counts["differed"], agreed=counts["agreed"])


def history(agent_id: uuid.UUID) -> dict[str, ToolHistory]:
    """By tool, each with every bucket. One query, whatever the number of tools."""
    edge = Case(
        When(confidence__isnull=True, then=Value(NOT_SAID)),
        *(When(confidence__lt=high, then=Value(str(high))) for high in EDGES[:-1]),
        default=Value(str(EDGES[-1])),
        output_field=CharField(),
    )
    rows = (
        proposals(agent_id, HISTORY_FOR)
        .annotate(edge=edge)
        .values("tool", "edge")
        .annotate(
            alone=Count("id", filter=ALONE),
            approved=Count("id", filter=AGREED),
            edited=Count("id", filter=EDITED),
            rejected=Count("id", filter=REJECTED),
        )
        .order_by("tool", "edge")
    )
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for row in rows:
        found[row["tool"]][row["edge"]] = {name: row[name] for name in ("alone", "approved", "edited", "rejected")}
    return {tool: _history(counts) for tool, counts in found.items()}


def proposals(agent_id: uuid.UUID, lately: dt.timedelta) -> QuerySet[Action]:
    """Calls as the agent made them, and what people said: `yes` before, `looked_right` or `looked_wrong` afterwards."""
    yes = Decision.objects.filter(action=OuterRef("pk"), verdict=Verdict.APPROVE).exclude(channel=GRANT_CHANNEL)
    right, wrong = (Exists(LaterLook.objects.filter(action=OuterRef("pk"), verdict=word)) for word in LOOKED)
    made = Action.objects.filter(run__agent_id=agent_id, supersedes__isnull=True, kind__in=["action", "unknown"])
    recent = made.filter(created_at__gte=timezone.now() - lately)
    return recent.annotate(yes=Exists(yes), looked_right=right, looked_wrong=wrong).order_by()


def _history(counts: dict[str, dict[str, int]]) -> ToolHistory:
    def total(name: str) -> int:
        return sum(each[name] for each in counts.values())

    said = ("approved", "edited", "rejected")
    buckets = tuple(
        Bucket(low=low, high=high, **{name: counts.get(str(high), {}).get(name, 0) for name in said})
        for low, high in zip(LOWS, EDGES, strict=True)
    )
    return ToolHistory(
        alone=total("alone"),
        approved=total("approved"),
        edited=total("edited"),
        rejected=total("rejected"),
        buckets=buckets,
    )
