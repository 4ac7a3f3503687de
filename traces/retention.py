"""Removes runs of the past. What they cost stays in the summaries, and what people decided stays as evidence."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts import receipts
from accounts.models import Team
from runs.asked import MetaNumber, Note, RunMessage
from runs.models import Run, SearchDocument, Step
from runs.stale import hour_of
from traces import rollup
from traces.models import Rollup

AT_ONCE = 100  # runs in one transaction
GONE = "[removed]"


@dataclass(frozen=True, slots=True)
class Pruned:
    """`emptied` runs keep their row and their actions, which the audit log proves; their steps and texts are gone."""

    runs: int
    emptied: int
    steps: int


def prune_by_teams() -> None:
    """The worker's chore: what each team keeps no longer."""
    for team in Team.objects.filter(retention_days__isnull=False):
        with contextlib.suppress(rollup.Busy):  # the next look is soon enough
            prune(team, dt.timedelta(days=team.retention_days or 0))


def prune(team: Team, older_than: dt.timedelta, *, write: bool = True) -> Pruned:
    """Of the runs that ended longer ago than that. Costs are summed up first, and from then on not made again from
    steps that are gone. Raises rollup.Busy."""
    cutoff = hour_of(timezone.now() - older_than)
    old = Run.objects.filter(team=team, ended_at__lt=cutoff)
    proven = Q(actions__isnull=False) | Q(batches__isnull=False) | Q(children__isnull=False)
    full = old.filter(Q(steps__isnull=False) | ~Q(task=GONE)).distinct()
    if not write:
        emptied = full.filter(proven).distinct().count()
        steps = Step.objects.filter(run__in=old).count()
        return Pruned(full.count() - emptied, emptied, steps)
    rollup.roll(team.id)
    earlier = Q(kept_from__isnull=True) | Q(kept_from__lt=cutoff)
    Rollup.objects.filter(earlier, team=team).update(kept_from=cutoff)
    runs = emptied = steps = 0
    # Sub-agents first: a run that has none left can go as a whole.
    ordered = full.order_by(F("parent_id").desc(nulls_last=True), "id").values_list("id", flat=True)
    ids = list(ordered)
    for at in range(0, len(ids), AT_ONCE):
        with transaction.atomic():
            some = Run.objects.filter(id__in=ids[at : at + AT_ONCE])
            keep = list(some.filter(proven).distinct().values_list("id", flat=True))
            steps += _empty(ids[at : at + AT_ONCE])
            some.exclude(id__in=keep).delete()
            emptied += len(keep)
            runs += len(ids[at : at + AT_ONCE]) - len(keep)
    done = Pruned(runs, emptied, steps)
    if runs or emptied:
        _receipt(team, cutoff, done)
    return done


def _empty(run_ids: list[uuid.UUID]) -> int:
    SearchDocument.objects.filter(run_id__in=run_ids).delete()
    MetaNumber.objects.filter(run_id__in=run_ids).delete()
    RunMessage.objects.filter(run_id__in=run_ids).update(text=GONE, sealed=None)
    Note.objects.filter(run_id__in=run_ids).delete()
    steps = Step.objects.filter(run_id__in=run_ids)
    count = steps.count()
    steps.delete()
    Run.objects.filter(id__in=run_ids).update(task=GONE, result="", stop_detail="", plan=None, metadata={}, sealed=None)
    return count


def _receipt(team: Team, cutoff: dt.datetime, done: Pruned) -> None:
    with transaction.atomic():
        receipts.append(
            team.id,
            "data.pruned",
            actor="agentsite",
            subject_type="team",
            subject_id=team.id,
            payload={
                "before": cutoff.isoformat(),
                "runs": done.runs,
                "runs_emptied": done.emptied,
                "steps": done.steps,
            },
        )
