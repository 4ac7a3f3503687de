"""What has to happen to a run's open questions when the run ends, and after its waits. Used by people's commands and by
workers alike."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from django.db import transaction
from django.db.models import Count

from accounts import receipts
from runs import audit, lifecycle
from runs.engine.delegating import NAME as DELEGATE
from runs.engine.explain import Signs, explain
from runs.engine.types import ActionStatus, StepKind, StepStatus, StopReason
from runs.models import Action, Run, Step

_LEFT = (ActionStatus.PENDING, ActionStatus.APPROVED, ActionStatus.EXECUTING)


def withdraw(run_id: uuid.UUID, reason: str) -> None:
    """Nothing of an ended run waits for a person any more, and no run that it started works on. Belongs into the
    transaction of the end. All rows are changed before the first receipt is written, for receipts hold the team's row:
    so two ends, or an end and a decision, never wait for each other."""
    alive = list(below(run_id))
    held = list(Run.objects.select_for_update(no_key=True).filter(id__in=alive).order_by("id")) if alive else []
    outcomes = {child.id: lifecycle.request_cancel(child.id, _why(child)) for child in held}
    ended = [child for child, outcome in outcomes.items() if outcome == "ended"]
    left = _withdraw(run_id, reason)
    for child in ended:
        left += _withdraw(child, "The run above it ended.")
    for action, why in left:
        lost = action.status == ActionStatus.EXECUTING
        audit.record(action, "action.unknown" if lost else "action.cancelled", reason=why)
    for run in Run.objects.filter(id__in=[child for child, outcome in outcomes.items() if outcome]).order_by("id"):
        receipts.append(
            run.team_id,
            "run.cancel",
            actor="agentsite",
            subject_type="run",
            subject_id=run.id,
            payload={"outcome": outcomes[run.id], "because_of": str(run_id)},
        )


def _withdraw(run_id: uuid.UUID, reason: str) -> list[tuple[Action, str]]:
    """The actions that were still open, as they were before."""
    left = list(Action.objects.filter(run_id=run_id, status__in=_LEFT).order_by("position", "id"))
    if left:
        lifecycle.withdraw_actions(run_id, reason)
        lifecycle.forget_executions(
            run_id, "The run ended while this was being done; whether it happened is not known."
        )
    lifecycle.close_batches(run_id)
    return [(action, reason) for action in left]


def below(run_id: uuid.UUID) -> Iterator[uuid.UUID]:
    """Every run below that has not ended."""
    level = [run_id]
    while level:
        level = list(Run.objects.filter(parent_id__in=level, status__in=lifecycle.ALIVE).values_list("id", flat=True))
        yield from level


def cancel_idle(run_id: uuid.UUID, actor: object) -> str | None:
    """`ended`, `asked` or None, as `lifecycle.request_cancel`; what waited is withdrawn in the same transaction."""
    with transaction.atomic():
        run = Run.objects.select_for_update().get(id=run_id)
        outcome = lifecycle.request_cancel(run_id, _why(run))
        if outcome == "ended":
            withdraw(run_id, "The run was cancelled.")
        if outcome is not None:
            receipts.append(
                run.team_id,
                "run.cancel",
                actor=actor,  # type: ignore[arg-type]
                subject_type="run",
                subject_id=run_id,
                payload={"outcome": outcome},
            )
    return outcome


def signs_of(run: Run) -> Signs:
    """What the rows show of a run that ends without the engine: its calls, and what waits for people."""
    steps = Step.objects.filter(run=run).order_by()
    by_status = dict(steps.filter(kind=StepKind.TOOL).values_list("status").annotate(Count("id")))
    delegated = steps.filter(kind=StepKind.DELEGATE).count()
    answered = steps.filter(kind=StepKind.TOOL, tool=DELEGATE).count() if delegated else 0
    actions = dict(Action.objects.filter(run=run, kind="action").order_by().values_list("status").annotate(Count("id")))
    return Signs(
        task=run.task,
        calls_done=by_status.pop(StepStatus.OK, 0),
        calls_not_done=sum(by_status.values()) - by_status.get(StepStatus.SIMULATED, 0),
        calls_begun=max(0, delegated - answered) + actions.get(ActionStatus.EXECUTING, 0),
        proposed=actions.get(ActionStatus.PENDING, 0) + actions.get(ActionStatus.APPROVED, 0),
    )


def _why(run: Run) -> str:
    return explain(StopReason.CANCELLED, "", run.plan, signs_of(run))


def cancel_if_wished(run_id: uuid.UUID) -> bool:
    """A run that parked while somebody asked to cancel it has no worker left to read the wish."""
    if not Run.objects.filter(id=run_id, wish="cancel").exists():
        return False
    return cancel_idle(run_id, "agentsite") == "ended"
