"""Who is asked once those who were asked have spoken."""

from __future__ import annotations

from pydantic import JsonValue

from accounts import receipts
from approvals.models import Verdict
from runs.engine.types import ActionStatus
from runs.models import Action, Batch


def ask_the_others(batch: Batch) -> list[receipts.Entry]:
    """Where an action still needs somebody, and everybody who was asked by name has approved it, all who may decide are
    asked: else the second of two people would be nobody's task. In the caller's transaction; returns what its receipts
    are to say of it."""
    asked = set(batch.asked.values_list("id", flat=True))
    if not asked:
        return []
    half = Action.objects.filter(batch=batch, status=ActionStatus.PENDING, needed__gt=1, decisions__isnull=False)
    for action in half.distinct().prefetch_related("decisions"):
        if asked <= {said.actor_id for said in action.decisions.all() if said.verdict == Verdict.APPROVE}:
            batch.asked.clear()
            payload: dict[str, JsonValue] = {
                "run": str(batch.run_id),
                "batch": str(batch.id),
                "people": [],
                "action": str(action.id),
            }
            kind = "batch.widened"
            return [
                receipts.Entry(kind=kind, actor="agentsite", subject_type="batch", subject_id=batch.id, payload=payload)
            ]
    return []
