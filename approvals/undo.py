"""Taking an approval back before its action has begun."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from accounts.access import Access, Right, get, still_may
from approvals import evidence
from approvals.inbox import Outcome, Result
from approvals.models import Decision, Verdict
from approvals.settling import settle_batch
from runs import audit, lifecycle
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Batch, Run, Step

HELD = (RunStatus.QUEUED, RunStatus.WAITING, RunStatus.PAUSED)
COPIED = (
    *("run_id", "batch_id", "kind", "intent", "tool_call_id", "position", "tool", "tool_version", "args", "digest"),
    *("title", "reasoning", "confidence", "risk", "irreversible", "idempotent", "policy_version", "route_reason"),
    *("needed", "plan_summary", "preview", "preview_type", "amount", "currency", "preconditions", "expires_at"),
)


@dataclass(frozen=True, slots=True)
class Taken:
    action: uuid.UUID
    digest: str


def revoke(access: Access, batch_id: uuid.UUID | str, lines: Sequence[Taken], *, channel: str) -> list[Outcome]:
    """One outcome a line. While the run sleeps, a new action with the same arguments waits in the old one's place and
    the batch is open again; once the run has gone on, what had not begun never will. Raises Http404, MissingRight."""
    batch = get(access, Batch, batch_id, right=Right.DECIDE)
    with transaction.atomic():
        # The claim before an effect holds the same row: an approval is taken back, or its action begins.
        run = Run.objects.select_for_update(of=("self",), no_key=True).get(id=batch.run_id)
        may = access.may(Right.DECIDE) and still_may(access.user.id, access.team.id, Right.DECIDE)
        opens = may and run.status in HELD and not Step.objects.filter(run=run, key=f"waited:{batch.key}").exists()
        found = Action.objects.filter(batch=batch).select_related("decided_by", "superseded_by", "run")
        actions = {action.id: action for action in found}
        outcomes = [_one(access, may, line, actions.get(line.action), batch, opens, channel) for line in lines]
        if any(outcome.result is Result.APPLIED for outcome in outcomes):
            if opens:
                lifecycle.reopen_batch(batch.id)
                lifecycle.wait_again(run.id)
            settle_batch(batch)
    return outcomes


def _one(
    access: Access, may: bool, line: Taken, action: Action | None, batch: Batch, opens: bool, channel: str
) -> Outcome:
    if action is None:
        return Outcome(action=line.action, result=Result.INVALID, detail="This batch has no such action.")
    if not may:
        return _said(action, Result.FORBIDDEN, "You no longer have the right to decide on actions.")
    if line.digest != action.digest:
        return _said(action, Result.STALE, "This action is not the one that was shown; look at it as it is now.")
    now = timezone.now()
    # What was changed in the database is not asked anew as if it had been proposed so.
    opens = opens and not audit.is_contradicted(action)
    if action.decided_by is None or not lifecycle.revoke(action.id, action.digest, by=access.user, at=now):
        action.refresh_from_db()
        return _said(action, Result.ALREADY_DECIDED, f"This can't be taken back: it is {action.status}.")
    new = _again(action) if opens else None
    said = Decision.objects.create(
        action=action,
        actor=access.user,
        verdict=Verdict.REVOKE,
        shown_digest=line.digest,
        shown_version=batch.version,
        channel=channel,
        at=now,
    )
    evidence.record_decision(said, new.id if new else None)
    detail = "Taken back; it waits for a decision again." if new else "Taken back; it will not run."
    return Outcome(
        action=action.id,
        result=Result.APPLIED,
        detail=detail,
        by=access.user,
        at=now,
        superseded_by=new.id if new else None,
    )


def _again(action: Action) -> Action:
    """The same once more, pending: approvals of the old one do not count for it."""
    new = Action(status=ActionStatus.PENDING, supersedes=action, **{name: getattr(action, name) for name in COPIED})
    new.save(force_insert=True)
    audit.record(new, "action.proposed", route="ask", reason="the approval of the same action was taken back")
    return new


def _said(action: Action, result: Result, detail: str) -> Outcome:
    return Outcome(action=action.id, result=result, detail=detail, by=action.decided_by, at=action.decided_at)
