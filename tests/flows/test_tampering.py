"""Rows changed behind the product's back, between a person's yes and the effect: nothing runs, and it is found."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.access import Access
from approvals import evidence
from approvals.models import Decision
from runs import audit
from runs.engine.types import ActionStatus
from runs.models import Action, Batch, Run
from runs.verdicts import digest_of
from tests.flows.conftest import Model, applied, assert_sound, decide
from tests.flows.shop import LocalShop
from tests.running import REFUND, advance, launch, tool, uses

MOVES = ("id", "status", "version", "expires_at", "closed_at")
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture
def run(crew: Access, shop: LocalShop, model: Model) -> Run:
    """Waits for a decision on one refund."""
    model.says(uses(REFUNDS), "One refund waits.", "Done.")
    return advance(launch(crew))


@pytest.mark.parametrize(
    ("model", "proven", "free"),
    [
        (Action, {*audit.FACTS, *audit.STATE}, {"id", "checked_at", "changed"}),
        (Decision, set(evidence.DECISION), {"id"}),
        (Batch, set(audit.BATCH), {*MOVES, "execution", "extended_at", "extended_by_id"}),
    ],
    ids=["action", "decision", "batch"],
)
def test_every_column_is_proven(model: type[Any], proven: set[str], free: set[str]) -> None:
    """A new column of an action belongs into `audit.FACTS` if it never changes once proposed, else into `STATE`."""
    assert {column.attname for column in model._meta.concrete_fields} == proven | free


@pytest.mark.parametrize(
    "change",
    [
        {"args": {"order": "48213", "amount": 1.0, "reason": "x"}},
        {"title": "Refund $1.00"},
        {"needed": 0},
        {"risk": "low"},
        {"plan_summary": "nothing much"},
        {"note": "Never said"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_approved_action_that_was_changed_never_runs(
    crew: Access, run: Run, shop: LocalShop, change: dict[str, Any]
) -> None:
    """Not even with a digest that fits: the receipts know what was approved."""
    assert applied(decide(crew, run))
    action = run.actions.get()
    for name, value in change.items():
        setattr(action, name, value)
    Action.objects.filter(id=action.id).update(**change, digest=digest_of(action))

    advance(run)

    action.refresh_from_db()
    assert action.status == ActionStatus.REVOKED
    assert "differs" in action.note
    assert shop.effects() == []
    assert {problem.kind for problem in evidence.verify(run.team)} == {"changed"}


def test_an_action_that_nobody_approved_never_runs(crew: Access, run: Run, shop: LocalShop) -> None:
    Action.objects.filter(run=run).update(status=ActionStatus.APPROVED, released_by=[str(crew.user.id)])
    Batch.objects.filter(run=run).update(status="closed")
    Run.objects.filter(id=run.id).update(status="queued")

    run = advance(run)

    assert run.actions.get().status == ActionStatus.REVOKED
    assert shop.effects() == []
    assert {problem.kind for problem in evidence.verify(run.team)} == {"changed"}


def test_what_executes_is_the_row_that_was_checked(crew: Access, run: Run, shop: LocalShop) -> None:
    assert applied(decide(crew, run))

    advance(run)

    assert len(shop.effects()) == 1
    assert run.actions.get().status == ActionStatus.SUCCEEDED
    assert_sound(run)
