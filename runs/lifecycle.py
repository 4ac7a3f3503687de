"""Every change of `Run.status` and `Action.status`. Each is one conditional UPDATE whose row count is checked.

    queued -> running -> completed | stopped | failed | cancelled | dry_run_ready
    running -> waiting (asks people) -> queued    running -> paused -> queued    running -> queued (retry, new lease)
    waiting (for runs below) -> paused

    pending -> approved -> executing -> succeeded | failed | unknown -> succeeded | failed
    pending -> rejected | answered | expired | cancelled | superseded
    approved -> cancelled | stale | expired | revoked      succeeded -> cancelled (undone)

Functions return whether they changed the row: False means that somebody else was first, never an error by itself.
Callers that need several of them to hold together open the transaction.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Exists, F, Max, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Greatest, Least
from django.utils import timezone

from runs.asked import Chosen
from runs.engine.types import ENDED, WAITING_ACTIONS, ActionStatus, RunStatus, StopReason
from runs.models import Action, Batch, Run

LEASE = dt.timedelta(seconds=20)
ALIVE = tuple(status for status in RunStatus if status not in ENDED)


# --- runs ------------------------------------------------------------------------------------------------------------


def claim_lease(run_id: uuid.UUID, owner: str) -> bool:
    """queued -> running, for one worker. The first claim starts the run's clock."""
    now = timezone.now()
    due = Q(due_at__isnull=True) | Q(due_at__lte=now)
    claimed = Run.objects.filter(due, id=run_id, status=RunStatus.QUEUED).update(
        status=RunStatus.RUNNING,
        lease_owner=owner,
        lease_until=now + LEASE,
        due_at=None,
        started_at=Coalesce("started_at", now),
    )
    return claimed == 1


def renew_leases(owners: Iterable[str]) -> None:
    Run.objects.filter(lease_owner__in=list(owners), status=RunStatus.RUNNING).update(
        lease_until=timezone.now() + LEASE
    )


def free_lost_lease(run_id: uuid.UUID, owner: str) -> bool:
    """running -> queued, when the worker that held it is gone. Of what it had reserved for a call one token stays:
    the sign for the next worker that a model call was on its way and may be billed."""
    sign = {"reserved_output_tokens": Least("reserved_output_tokens", Value(1))}
    return _held(run_id, owner).update(status=RunStatus.QUEUED, **{**_FREE, **sign}) == 1


def finish(run_id: uuid.UUID, owner: str, status: RunStatus, reason: StopReason, detail: str, result: str) -> bool:
    return (
        _held(run_id, owner).update(
            status=status,
            stop_reason=reason,
            stop_detail=detail,
            result=result,
            ended_at=timezone.now(),
            wish="",
            **_FREE,
        )
        == 1
    )


def park_waiting(run_id: uuid.UUID, owner: str) -> bool:
    """running -> waiting for people. The caller looks again afterwards: the last verdict may have come before this."""
    return _held(run_id, owner).update(status=RunStatus.WAITING, waiting_since=timezone.now(), **_FREE) == 1


def park_paused(run_id: uuid.UUID, owner: str) -> bool:
    """running -> paused, while that is still what people wish."""
    wished = _held(run_id, owner).filter(wish="pause")
    return wished.update(status=RunStatus.PAUSED, waiting_since=timezone.now(), wish="", **_FREE) == 1


def park_until(run_id: uuid.UUID, owner: str, due_at: dt.datetime) -> bool:
    """running -> queued, not to be taken before `due_at`."""
    return _held(run_id, owner).update(status=RunStatus.QUEUED, due_at=due_at, **_FREE) == 1


def parked(run_id: uuid.UUID) -> QuerySet[Run]:
    """The run, if it waits to try again what did not answer. One that sleeps because an approval or a choice can still
    be taken back is none of these."""
    now = timezone.now()
    revocable = Action.objects.filter(run_id=run_id, status=ActionStatus.APPROVED, starts_at__gt=now)
    chosen = Chosen.objects.filter(run_id=run_id, taken_back_at__isnull=True, begins_at__gt=now)
    queued = Run.objects.filter(id=run_id, status=RunStatus.QUEUED, due_at__gt=now)
    return queued.filter(~Exists(revocable), ~Exists(chosen))


def hurry(run_id: uuid.UUID) -> bool:
    """queued -> queued, to be taken at once: a person does not want a parked run to wait any longer."""
    return parked(run_id).update(due_at=None, rung_at=None) == 1


def wake(run_id: uuid.UUID) -> bool:
    """waiting -> queued, once nobody is asked any more and no run below works; the wait is added to the run's. Not to
    be taken before the last approval can't be taken back any more."""
    open_batch = Batch.objects.filter(run_id=run_id, status="open")
    if open_batch.exists() or works_below(run_id):
        return False
    approved = Action.objects.filter(run_id=run_id, status=ActionStatus.APPROVED, starts_at__gt=timezone.now())
    return _back_to_queue(run_id, RunStatus.WAITING, due_at=approved.aggregate(last=Max("starts_at"))["last"])


def wait_again(run_id: uuid.UUID) -> bool:
    """queued -> waiting: an approval was taken back, so people are asked once more. What was counted ahead of the time
    it would have started goes off the run's wait."""
    queued = Run.objects.filter(id=run_id, status=RunStatus.QUEUED)
    due = queued.values_list("due_at", flat=True).first()
    now = timezone.now()
    ahead = max(0, int((due - now).total_seconds() * 1000)) if due else 0
    spent = Greatest(F("wait_ms") - ahead, 0)
    return (
        queued.filter(due_at=due).update(status=RunStatus.WAITING, waiting_since=now, due_at=None, wait_ms=spent) == 1
    )


def resume(run_id: uuid.UUID, due_at: dt.datetime | None = None) -> bool:
    """paused -> queued, not to be taken before `due_at`; or the wish to pause is withdrawn from a run that has not yet
    paused. `pausing.resume` knows what is due."""
    if _back_to_queue(run_id, RunStatus.PAUSED, due_at):
        return True
    return Run.objects.filter(id=run_id, status__in=ALIVE, wish="pause").update(wish="", paused_with=None) == 1


def execute_dry_run(run_id: uuid.UUID, due_at: dt.datetime | None = None) -> bool:
    """dry_run_ready -> queued: a person chose what of it to carry out, and can take that back until `due_at`."""
    ready = Run.objects.filter(id=run_id, status=RunStatus.DRY_RUN_READY)
    ended = {"stop_reason": None, "stop_detail": "", "ended_at": None}
    return ready.update(status=RunStatus.QUEUED, due_at=due_at, rung_at=None, wish="", **ended) == 1


def back_to_report(run_id: uuid.UUID, begins_at: dt.datetime, ended: dict[str, Any]) -> bool:
    """queued -> dry_run_ready, before the time to begin: the choice was taken back. `ended`: how the run stood."""
    asleep = Run.objects.filter(id=run_id, status=RunStatus.QUEUED, due_at=begins_at)
    changes = {"status": RunStatus.DRY_RUN_READY, "due_at": None, "wish": "", **ended}
    return asleep.filter(due_at__gt=timezone.now()).update(**changes) == 1


def request_pause(run_id: uuid.UUID, paused_with: uuid.UUID | None = None) -> bool:
    """A running run is asked; a queued one pauses at once, and so does one that waits for runs it has started. One that
    waits for people has nothing to pause."""
    run, also = Run.objects.filter(id=run_id), {"paused_with": paused_with}
    queued = run.filter(status=RunStatus.QUEUED)
    if queued.update(status=RunStatus.PAUSED, waiting_since=timezone.now(), due_at=None, wish="", **also) == 1:
        return True
    if works_below(run_id) and run.filter(status=RunStatus.WAITING).update(status=RunStatus.PAUSED, **also) == 1:
        return True
    return run.filter(status=RunStatus.RUNNING, wish="").update(wish="pause", **also) == 1


def pause_with(run_id: uuid.UUID, above: uuid.UUID) -> bool:
    """Because the run above it is paused. One that waits for people is heard, and pauses before it goes on."""
    if request_pause(run_id, above):
        return True
    waits = Run.objects.filter(id=run_id, status=RunStatus.WAITING, wish="")
    return waits.update(wish="pause", paused_with=above) == 1


def works_below(run_id: uuid.UUID) -> bool:
    return Run.objects.filter(parent_id=run_id, status__in=ALIVE).exists()


def request_cancel(run_id: uuid.UUID, detail: str = "A person cancelled this run.") -> str | None:
    """`ended` when it ended here and now, `asked` when a worker holds it, None when it had ended before."""
    ended: dict[str, Any] = {
        "status": RunStatus.CANCELLED,
        "stop_reason": StopReason.CANCELLED,
        "stop_detail": detail,
        "ended_at": timezone.now(),
        "wish": "",
    }
    if Run.objects.filter(id=run_id, status=RunStatus.QUEUED).update(**ended) == 1:
        return "ended"
    if any(_end_wait(run_id, status, ended) for status in (RunStatus.WAITING, RunStatus.PAUSED)):
        return "ended"
    asked = Run.objects.filter(id=run_id, status=RunStatus.RUNNING).update(wish="cancel")
    return "asked" if asked == 1 else None


# --- actions ---------------------------------------------------------------------------------------------------------


def decide(
    shown: Mapping[uuid.UUID, str],
    verdict: ActionStatus,
    *,
    by: Any,
    note: str,
    released_by: list[str],
    starts_at: dt.datetime | None = None,
    result: Any = None,
    at: dt.datetime | None = None,
) -> set[uuid.UUID]:
    """pending -> approved | rejected | answered, each while it has not expired and is still what was shown: its digest,
    by its id. Returns which it changed. `result` is what an answer holds besides its text; `at` is the moment by which
    a caller that holds the run tells its own decisions apart.
    """
    now = timezone.now()
    at = at or now
    waiting = Action.objects.filter(status=ActionStatus.PENDING, expires_at__gt=now)
    moved: set[uuid.UUID] = set()
    for some in _pages(list(shown.items())):
        same = reduce(or_, (Q(id=action, digest=digest) for action, digest in some))
        count = waiting.filter(same).update(
            status=verdict,
            decided_by=by,
            decided_at=at,
            note=note,
            released_by=released_by,
            starts_at=starts_at,
            result=result,
            version=F("version") + 1,
        )
        ids = [action for action, _ in some]
        mine = Action.objects.filter(id__in=ids, status=verdict, decided_by=by, decided_at=at)
        moved.update(ids if count == len(ids) else mine.values_list("id", flat=True) if count else ())
    return moved


def settle_unknown(
    action_id: uuid.UUID, digest: str, *, happened: bool, by: Any, note: str, at: dt.datetime | None = None
) -> bool:
    """unknown -> succeeded | failed: a person looked and knows whether it happened."""
    status = ActionStatus.SUCCEEDED if happened else ActionStatus.FAILED
    return _move(action_id, ActionStatus.UNKNOWN, status, digest=digest, at=at, decided_by=by, note=note)


def supersede(action_id: uuid.UUID, digest: str, *, by: Any, at: dt.datetime | None = None) -> bool:
    """pending -> superseded: a person edited it; the edit is a new action."""
    return _move(action_id, ActionStatus.PENDING, ActionStatus.SUPERSEDED, digest=digest, at=at, decided_by=by)


def plan_again(action_id: uuid.UUID, digest: str) -> bool:
    """pending | approved -> superseded, of a dry run's proposal: the same call, planned on the world as it is now."""
    return any(
        _move(action_id, status, ActionStatus.SUPERSEDED, digest=digest)
        for status in (ActionStatus.PENDING, ActionStatus.APPROVED)
    )


def begin_execution(action_id: uuid.UUID, digest: str) -> bool:
    """approved -> executing, not expired and not too early to be taken back: the claim that makes a second execution
    impossible."""
    now = timezone.now()
    return (
        Action.objects.filter(id=action_id, digest=digest, status=ActionStatus.APPROVED)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
        .filter(Q(starts_at__isnull=True) | Q(starts_at__lte=now))
        .update(status=ActionStatus.EXECUTING, executed_at=now, version=F("version") + 1)
        == 1
    )


def postpone(action_id: uuid.UUID, starts_at: dt.datetime) -> bool:
    """An approved action begins later, and can be taken back until then."""
    approved = Action.objects.filter(id=action_id, status=ActionStatus.APPROVED)
    return approved.update(starts_at=starts_at, version=F("version") + 1) == 1


def end_execution(action_id: uuid.UUID, status: ActionStatus, result: Any) -> bool:
    """executing -> succeeded | failed. Stored with the step that records it."""
    return (
        Action.objects.filter(id=action_id, status=ActionStatus.EXECUTING).update(
            status=status, result=result, version=F("version") + 1
        )
        == 1
    )


def lose_execution(action_id: uuid.UUID, batch: Batch) -> bool:
    """executing -> unknown: it may or may not have happened; `batch` asks a person."""
    return (
        Action.objects.filter(id=action_id, status=ActionStatus.EXECUTING).update(
            status=ActionStatus.UNKNOWN, kind="unknown", batch=batch, version=F("version") + 1
        )
        == 1
    )


def retire(action_id: uuid.UUID, status: ActionStatus, reason: str) -> bool:
    """approved -> cancelled | stale | expired | revoked: it will not run, and the row says why."""
    return _move(action_id, ActionStatus.APPROVED, status, note=reason)


def withdraw(action_id: uuid.UUID, reason: str) -> bool:
    """pending | approved -> cancelled: nothing is to become of it any more, and the row says why."""
    return any(
        _move(action_id, status, ActionStatus.CANCELLED, note=reason)
        for status in (ActionStatus.PENDING, ActionStatus.APPROVED)
    )


def revoke(action_id: uuid.UUID, digest: str, *, by: Any, at: dt.datetime | None = None) -> bool:
    """approved -> revoked: a person took the approval back before it began."""
    note = f"{by.label} took the approval back before it began."
    return _move(action_id, ActionStatus.APPROVED, ActionStatus.REVOKED, digest=digest, at=at, note=note, decided_by=by)


def undone(action_id: uuid.UUID, note: str) -> bool:
    """succeeded -> cancelled: its effect was taken back."""
    return _move(action_id, ActionStatus.SUCCEEDED, ActionStatus.CANCELLED, note=note)


def expire(action_id: uuid.UUID) -> bool:
    """pending -> expired once its time is over. A timeout never approves."""
    return (
        Action.objects.filter(id=action_id, status=ActionStatus.PENDING, expires_at__lte=timezone.now()).update(
            status=ActionStatus.EXPIRED, note="Nobody decided in time, so nothing ran.", version=F("version") + 1
        )
        == 1
    )


def withdraw_actions(run_id: uuid.UUID, reason: str) -> int:
    """pending | approved -> cancelled for a run that has ended."""
    return Action.objects.filter(run_id=run_id, status__in=[ActionStatus.PENDING, ActionStatus.APPROVED]).update(
        status=ActionStatus.CANCELLED, note=reason, version=F("version") + 1
    )


def forget_executions(run_id: uuid.UUID, reason: str) -> int:
    """executing -> unknown for a run that has ended: no worker is left that could say how it ended."""
    return Action.objects.filter(run_id=run_id, status=ActionStatus.EXECUTING).update(
        status=ActionStatus.UNKNOWN, kind="unknown", note=reason, version=F("version") + 1
    )


def close_batch(batch_id: uuid.UUID) -> bool:
    """open -> closed, once no action of it waits for a person."""
    if Action.objects.filter(batch_id=batch_id, status__in=list(WAITING_ACTIONS)).exists():
        return False
    return Batch.objects.filter(id=batch_id, status="open").update(status="closed", closed_at=timezone.now()) == 1


def reopen_batch(batch_id: uuid.UUID) -> bool:
    """closed -> open: an approval of it was taken back."""
    return Batch.objects.filter(id=batch_id, status="closed").update(status="open", closed_at=None) == 1


def close_batches(run_id: uuid.UUID) -> int:
    return Batch.objects.filter(run_id=run_id, status="open").update(status="closed", closed_at=timezone.now())


# --- helpers ---------------------------------------------------------------------------------------------------------

AT_ONCE = 200
"""Rows that one statement names one by one. SQLite takes a condition of a thousand parts at most."""

_FREE: dict[str, Any] = {
    "lease_owner": "",
    "lease_until": None,
    "reserved_usd": 0,
    "reserved_input_tokens": 0,
    "reserved_output_tokens": 0,
}


def _pages(items: list[tuple[uuid.UUID, str]]) -> Iterator[list[tuple[uuid.UUID, str]]]:
    return (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))


def _held(run_id: uuid.UUID, owner: str) -> QuerySet[Run]:
    return Run.objects.filter(id=run_id, status=RunStatus.RUNNING, lease_owner=owner)


def _move(
    action_id: uuid.UUID,
    old: ActionStatus,
    new: ActionStatus,
    digest: str | None = None,
    at: dt.datetime | None = None,
    **also: Any,
) -> bool:
    """`at`: of the decision that moves it, so that whoever comes later is told the same moment."""
    rows = Action.objects.filter(id=action_id, status=old)
    if digest is not None:
        rows = rows.filter(digest=digest)
    return rows.update(status=new, decided_at=at or timezone.now(), version=F("version") + 1, **also) == 1


def _back_to_queue(run_id: uuid.UUID, status: RunStatus, due_at: dt.datetime | None = None) -> bool:
    changes = {"status": RunStatus.QUEUED, "due_at": due_at, "rung_at": None}
    if status is RunStatus.PAUSED:
        changes["paused_with"] = None
    return _end_wait(run_id, status, changes, until=due_at)


def _end_wait(run_id: uuid.UUID, status: RunStatus, changes: dict[str, Any], until: dt.datetime | None = None) -> bool:
    """Leaves `status`, adding the time waited. Conditional on the wait that was read, so no wait counts twice."""
    since = Run.objects.filter(id=run_id, status=status).values_list("waiting_since", flat=True).first()
    if since is None:
        return False
    waited = int(((until or timezone.now()) - since).total_seconds() * 1000)
    return (
        Run.objects.filter(id=run_id, status=status, waiting_since=since).update(
            wait_ms=F("wait_ms") + waited, waiting_since=None, **changes
        )
        == 1
    )
