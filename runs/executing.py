"""Carrying out a dry run: choosing actions of its report, and planning again those that the world has overtaken."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, Right, get
from runs import audit, lifecycle, live, previews, staleness, timing
from runs.asked import Chosen
from runs.doorbell import ring
from runs.engine.types import Mode, RunStatus, ToolPlan
from runs.errors import Conflict
from runs.models import Action, Run
from runs.storable import storable

KEPT = (
    *("run_id", "kind", "intent", "tool_call_id", "position", "tool", "tool_version", "args", "digest", "reasoning"),
    *("confidence", "risk", "irreversible", "idempotent", "policy_version", "route_reason", "needed", "held", "status"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    action: uuid.UUID
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What became of a line. `outcome` is one of those of a decision."""

    action: uuid.UUID
    outcome: str
    detail: str


def execute(access: Access, run_id: uuid.UUID | str, picks: Sequence[Pick]) -> list[Picked]:
    """One outcome a line. What may run alone does so now, the rest goes to the inbox first; stale ones are refused with
    what changed. Raises Conflict when there is no report to carry out now."""
    run = _ready(access, run_id)
    wanted = {pick.action for pick in picks}
    staleness.check(run, [action for action in staleness.proposals(run) if action.id in wanted])
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(id=run.id)
        rows = {action.id: action for action in run.actions.all()}
        times = Counter(pick.action for pick in picks)
        outcomes = [_outcome(run, pick, rows.get(pick.action), times[pick.action]) for pick in picks]
        chosen = {outcome.action for outcome in outcomes if outcome.outcome == "applied"}
        if chosen:
            run.refresh_from_db(fields=["status", "stop_reason", "stop_detail", "ended_at"])
            picked = [row for row in rows.values() if row.id in chosen]
            begins = _begins(run, picked)
            if not lifecycle.execute_dry_run(run.id, begins):
                raise _conflict(run)
            _store(access, run, picked, begins)
    return outcomes


def take_back(access: Access, run_id: uuid.UUID | str) -> int:
    """The last choice, before it begins: the report is as it was. How many actions it was of. Raises Conflict."""
    run = get(access, Run.objects.select_related("team"), run_id, right=Right.LAUNCH)
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(id=run.id)
        last = Chosen.objects.filter(run=run, taken_back_at__isnull=True).order_by("-number").first()
        # The claim of the run is a conditional UPDATE on the same row: it begins, or this takes it back.
        begins = last.begins_at if last else None
        if last is None or begins is None or not lifecycle.back_to_report(run.id, begins, last.before):
            run.refresh_from_db()
            words = run.status.replace("_", " ")
            raise Conflict(f"This can't be taken back any more: the run is {words}.", status=run.status)
        Chosen.objects.filter(id=last.id).update(taken_back_at=timezone.now(), taken_back_by=access.user)
        receipts.append(
            run.team_id,
            "run.execute_taken_back",
            actor=access.user,
            subject_type="run",
            subject_id=run.id,
            payload={"chosen": str(last.id), "actions": len(last.intents)},
        )
        transaction.on_commit(lambda: live.ring(run.id, run.last_seq), robust=True)
    return len(last.intents)


def sleeps(run: Run, last: Chosen | None) -> bool:
    """Whether the last choice has not begun."""
    if last is None or last.begins_at is None or run.status != RunStatus.QUEUED:
        return False
    return run.due_at == last.begins_at and last.begins_at > timezone.now()


def plan_again(access: Access, run_id: uuid.UUID | str, action_ids: Sequence[uuid.UUID]) -> list[Picked]:
    """The same calls on the world as it is now: a new proposal in the place of each."""
    run = _ready(access, run_id)
    wanted = [action for action in staleness.proposals(run) if action.id in set(action_ids)]
    plans = staleness.plans_now(run, wanted)
    with transaction.atomic():
        run = Run.objects.select_for_update(no_key=True).get(id=run.id)
        if run.status != RunStatus.DRY_RUN_READY:
            raise _conflict(run)  # what somebody chose meanwhile was chosen by the plan that was shown
        return [_replan(action, plans[action.id]) for action in wanted]


# --- helpers ---------------------------------------------------------------------------------------------------------


def _ready(access: Access, run_id: uuid.UUID | str) -> Run:
    run = get(access, Run.objects.select_related("agent_version", "agent", "team"), run_id, right=Right.LAUNCH)
    if run.mode != Mode.DRY_RUN:
        raise Conflict("Only a dry run has a report to carry out.", status=run.status)
    if run.status != RunStatus.DRY_RUN_READY:
        raise _conflict(run)
    return run


def _conflict(run: Run) -> Conflict:
    return Conflict(
        f"The run is {run.status.replace('_', ' ')}, so nothing of it can be chosen now.", status=run.status
    )


def _outcome(run: Run, pick: Pick, action: Action | None, times: int) -> Picked:
    if action is None or times > 1:
        why = "This run has no such action." if action is None else "This action is listed more than once."
        return Picked(action=pick.action, outcome="invalid", detail=why)
    if pick.digest != action.digest:
        return Picked(action=action.id, outcome="stale", detail="This action is not the one that was shown.")
    if action.status not in staleness.PROPOSED or action.batch_id is not None:
        superseded = " It was planned again." if action.status == "superseded" else ""
        detail = f"This action is {action.status}.{superseded}"
        return Picked(action=action.id, outcome="stale" if superseded else "already_decided", detail=detail)
    if staleness.is_over(run):
        return Picked(action=action.id, outcome="expired", detail="This report is a day old; run it again.")
    if action.changed:
        return Picked(action=action.id, outcome="stale", detail=f"Changed since it was planned: {action.changed}.")
    detail = {0: "Runs at once.", 1: "Sent to the inbox: a person decides."}.get(
        action.needed, f"Sent to the inbox: {action.needed} people decide."
    )
    return Picked(action=action.id, outcome="applied", detail=detail)


def _begins(run: Run, chosen: Sequence[Action]) -> dt.datetime | None:
    """What people are asked about has an undo of its own after their approval; what runs at once has it here."""
    windows = [timing.timing_of(run, action.tool).undo for action in chosen if action.needed == 0]
    longest = max(windows, default=dt.timedelta(0))
    return timezone.now() + longest if longest else None


def _store(access: Access, run: Run, chosen: list[Action], begins: dt.datetime | None) -> None:
    number = (Chosen.objects.filter(run=run).aggregate(most=Max("number"))["most"] or 0) + 1
    intents = [action.intent for action in sorted(chosen, key=lambda each: (each.position, each.created_at))]
    before = {
        "stop_reason": run.stop_reason,
        "stop_detail": run.stop_detail,
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }
    Chosen.objects.create(run=run, number=number, by=access.user, intents=intents, before=before, begins_at=begins)
    receipts.append(
        run.team_id,
        "run.execute",
        actor=access.user,
        subject_type="run",
        subject_id=run.id,
        payload={"actions": {str(action.id): action.digest for action in chosen}},
    )
    transaction.on_commit(lambda: _ring(run, begins), robust=True)


def _ring(run: Run, begins: dt.datetime | None) -> None:
    if begins is None:  # else the sweeper rings in time
        ring(run.id)
    live.ring(run.id, run.last_seq)


def _replan(action: Action, plan: ToolPlan | str) -> Picked:
    if isinstance(plan, str):
        Action.objects.filter(id=action.id).update(changed=f"the tool says now: {plan}"[:500])
        return Picked(action=action.id, outcome="stale", detail=f"It can't be planned now: {plan}.")
    new = Action(supersedes=action, **{name: getattr(action, name) for name in KEPT})
    if not lifecycle.plan_again(action.id, action.digest):
        return Picked(action=action.id, outcome="already_decided", detail="Somebody was faster.")
    new.plan_summary = storable(plan.summary)[:300]
    new.preview, new.preconditions = storable(plan.preview), storable(plan.preconditions)
    previews.describe(new)
    new.save(force_insert=True)
    audit.record(action, "action.superseded", reason="planned again")
    audit.record(new, "action.proposed", route="simulate", reason="planned again")
    return Picked(action=new.id, outcome="applied", detail="Planned again.")
