"""The inbox: what waits for a person, what was decided, and `decide`, the only way in for a verdict.

A decision is rows first, doorbells after the commit. It holds the run's row, so that decisions of one run, its expiry
and its worker's parking happen one after another; `lifecycle` changes each status by a conditional UPDATE besides.
What can change nothing any more is answered without holding anything: of many people at once most come second.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from accounts import turns
from accounts.access import Access, Right, get, rows
from approvals import columns, deciding, duties
from approvals.lines import NOTE_LENGTH, PAST, Line, Outcome, Result
from approvals.models import GRANT_CHANNEL, Decision, HandOver, Verdict
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Execution
from runs.models import Action, Batch

__all__ = ["NOTE_LENGTH", "PAST", "Line", "Outcome", "Result"]

REPLACED = Q(status=ActionStatus.SUPERSEDED) | Q(status=ActionStatus.REVOKED, superseded_by__isnull=False)


# --- reading ---------------------------------------------------------------------------------------------------------


def batches(access: Access, show: str = "pending", *, rows_only: bool = False) -> QuerySet[Batch]:
    """`pending` soonest expiry first, `decided` newest first, or `all`. A constant number of queries when read."""
    found = (with_rows if rows_only else with_actions)(rows(access, Batch))
    if show == "decided":
        return found.filter(status="closed").order_by("-closed_at", "-id")
    if show == "all":
        return found.order_by("-created_at", "-id")
    return found.filter(status="open").order_by("expires_at", "id")


def with_actions(found: QuerySet[Batch], some: Q | None = None) -> QuerySet[Batch]:
    """Each batch with all a page shows of it: run, agent, actions as they stand now, and their decisions."""
    current = with_decisions(Action.objects.filter(some or Q()).select_related("decided_by"))
    actions = Prefetch("actions", current.order_by("position", "created_at"))
    return found.select_related("run__agent", "run__agent_version", "run__owner", "extended_by").prefetch_related(
        actions, "rungs", "asked", Prefetch("hand_overs", HandOver.objects.select_related("by", "to"))
    )


def with_decisions(found: QuerySet[Action]) -> QuerySet[Action]:
    """Those that stand now, each with what was decided on it and on the one it replaced."""
    said = [Prefetch(path, Decision.objects.select_related("actor")) for path in ("decisions", "supersedes__decisions")]
    return found.exclude(REPLACED).select_related("supersedes").prefetch_related(*said)


def with_rows(found: QuerySet[Batch]) -> QuerySet[Batch]:
    """Each batch with what its row in a list shows: columns, no payload."""
    decisions = Prefetch("decisions", Decision.objects.select_related("actor"))
    current = Action.objects.exclude(REPLACED).only(*columns.ROW_OF_ACTION).order_by("position", "created_at")
    actions = Prefetch("actions", current.prefetch_related(decisions))
    run = found.select_related("run__agent", "run__agent_version").only(*columns.ROW_OF_BATCH)
    return run.prefetch_related(actions, "asked")


def for_me(access: Access) -> QuerySet[Batch]:
    """Open batches in which something waits for this very person, and is not barred to them."""
    mine = Decision.objects.filter(action=OuterRef("pk"), actor=access.user, verdict=Verdict.APPROVE)
    waiting = Action.objects.filter(batch=OuterRef("pk"), status__in=list(WAITING_ACTIONS)).exclude(Exists(mine))
    others = Batch.asked.through.objects.filter(batch_id=OuterRef("pk"))
    asked = ~Exists(others) | Exists(others.filter(user_id=access.user.id))
    return rows(access, Batch).filter(asked, Exists(waiting.exclude(duties.barred(access))), status="open")


def open_count(access: Access) -> int:
    """The number beside Approvals in the frame: open batches this person can act on."""
    return for_me(access).count() if access.may(Right.DECIDE) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    approved: int
    edited: int
    rejected: int
    median_minutes: int | None


def today(access: Access, since: dt.datetime) -> Today:
    """The team's decisions since a moment; half of the decided actions waited at most the median."""
    said = list(
        rows(access, Decision)
        .filter(at__gte=since)
        .exclude(channel=GRANT_CHANNEL)
        .values_list("verdict", "action_id", "at", "action__created_at")
    )
    counts = Counter(verdict for verdict, *_ in said)
    waits = sorted((at - created).total_seconds() for verdict, _, at, created in said if verdict != Verdict.EDIT)
    return Today(
        approved=len({action for verdict, action, *_ in said if verdict == Verdict.APPROVE}),
        edited=counts[Verdict.EDIT],
        rejected=counts[Verdict.REJECT],
        median_minutes=max(1, round(waits[(len(waits) - 1) // 2] / 60)) if waits else None,
    )


def decided_since(access: Access, since: dt.datetime, limit: int) -> list[Decision]:
    """The newest decisions, with what they were about."""
    found = rows(access, Decision).filter(at__gte=since).exclude(verdict=Verdict.EDIT).exclude(channel=GRANT_CHANNEL)
    return list(found.select_related("actor", "action").order_by("-at", "-id")[:limit])


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(
    access: Access,
    batch_id: uuid.UUID | str,
    version: int,
    lines: Sequence[Line],
    *,
    channel: str,
    execution: Execution | None = None,
    from_list: bool = False,
) -> list[Outcome]:
    """One outcome a line, in their order; lines that do not apply never keep the others from applying. `execution` says
    what a failure means for the rest of the batch; the last approval that names one counts. `from_list`: from a page
    that shows no cards, so that whatever must be seen has to have been opened.

    `version` is the batch's as it was shown. An older one does no harm by itself: a line is refused when its own action
    is not what was shown. Raises Http404 for another team's batch and MissingRight without the right to decide.
    """
    batch = get(access, Batch.objects.only("run_id", "version"), batch_id, right=Right.DECIDE)
    asked = deciding.Asked(access, version, lines, channel, execution, from_list)
    answers = deciding.answers_without_change(asked, batch)
    if answers is not None:
        return answers
    with turns.in_line(), transaction.atomic():
        return deciding.carry_out(asked, batch)
