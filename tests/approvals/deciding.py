"""Deciding in tests, and what must hold of an action that nobody decided."""

from __future__ import annotations

from approvals import inbox
from approvals.inbox import Line, Outcome
from approvals.models import Decision, Verdict
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.approvals.factories import World, line


def decide(world: World, who: str, batch: Batch, *lines: Line, version: int = 1) -> list[Outcome]:
    return inbox.decide(world.access(who), batch.id, version, list(lines), channel="api")


def edit(action: Action, verdict: Verdict = Verdict.EDIT, **changes: object) -> Line:
    return line(action, verdict, args={**action.args, **changes})


def assert_untouched(action: Action, status: str = ActionStatus.PENDING) -> None:
    action.refresh_from_db()
    assert action.status == status
    assert not Decision.objects.filter(action=action).exists()
