"""Editing before approving: the edit is a new action, checked and routed afresh."""

from __future__ import annotations

import pytest

from approvals.inbox import Result
from approvals.models import Verdict
from runs.engine.types import ActionStatus
from runs.models import Action
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide, edit
from tests.approvals.factories import World, approve, line


def test_an_edit_is_a_new_action_that_supersedes_the_old_and_waits(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    outcome = decide(world, "approver", batch, edit(refund, amount=50.5))[0]

    assert outcome.result is Result.APPLIED
    refund.refresh_from_db()
    new = Action.objects.get(supersedes=refund)
    assert new.id == outcome.superseded_by
    assert (refund.status, new.status) == (ActionStatus.SUPERSEDED, ActionStatus.PENDING)
    assert (refund.args["amount"], new.args["amount"]) == (84.0, 50.5)
    assert new.digest not in ("", refund.digest)
    assert (new.intent, new.tool_call_id, new.position) == (refund.intent, refund.tool_call_id, refund.position)
    assert (new.batch_id, new.expires_at, new.needed) == (batch.id, refund.expires_at, 1)
    assert new.confidence is None
    assert new.title == "Refund $50.50 to Ines Carvalho"
    assert "lines" not in (new.preview or {})


def test_an_edited_approval_approves_the_edit(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    outcome = decide(world, "approver", batch, edit(refund, Verdict.APPROVE, amount=50))[0]

    assert (outcome.result, outcome.action) == (Result.APPLIED, refund.id)
    new = Action.objects.get(supersedes=refund)
    assert (new.status, new.args["amount"]) == (ActionStatus.APPROVED, 50)


def test_an_approval_with_the_same_arguments_is_no_edit(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    assert (
        decide(world, "approver", batch, line(refund, Verdict.APPROVE, args={**refund.args, "amount": 84}))[
            0
        ].superseded_by
        is None
    )
    refund.refresh_from_db()
    assert refund.status == ActionStatus.APPROVED


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"amount": "fifty"}, "amount"), ({"amount": 5000}, "amount"), ({"extra": 1}, ""), ({"reason": "a\0b"}, "reason")],
)
def test_an_edit_that_breaks_the_schema_leaves_the_action_pending(
    world: World, changes: dict[str, object], field: str
) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    outcome = decide(world, "approver", batch, edit(refund, Verdict.APPROVE, **changes))[0]

    assert outcome.result is Result.INVALID
    assert field in [name for name, _ in outcome.errors]
    assert_untouched(refund)


def test_numbers_json_cannot_say_are_refused(world: World) -> None:
    batch = make.make_batch(world)
    update = make.make_update(batch)

    for value in (float("nan"), 2**60):
        assert decide(world, "approver", batch, edit(update, changes={"x": value}))[0].result is Result.INVALID
    assert_untouched(update)


def test_an_edit_starts_its_own_count_and_its_editor_is_one_vote(world: World) -> None:
    make.define(
        world,
        {
            "name": "Refund desk",
            "tools": [{"name": "shop.issue_refund", "policy": "two_person"}],
        },
    )
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    decide(world, "second", batch, approve(refund))

    outcome = decide(world, "approver", batch, edit(refund, Verdict.APPROVE, amount=50))[0]

    new = Action.objects.get(supersedes=refund)
    assert (new.needed, new.status, outcome.counts_only) == (2, ActionStatus.PENDING, True)
    assert decide(world, "approver", batch, approve(new))[0].result is Result.ALREADY_DECIDED
    assert decide(world, "second", batch, approve(new))[0].result is Result.APPLIED
    new.refresh_from_db()
    assert new.status == ActionStatus.APPROVED


def test_an_edit_never_runs_by_the_confidence_of_what_it_replaced(world: World) -> None:
    batch = make.make_batch(world)
    update = make.make_update(batch)

    decide(world, "approver", batch, edit(update, changes={"preferred_contact": "post"}))

    new = Action.objects.get(supersedes=update)
    assert (new.status, new.needed, new.route_reason) == (ActionStatus.PENDING, 1, "a person changed its arguments")


def test_an_edit_of_a_tool_that_is_gone_or_forbidden_is_refused(world: World) -> None:
    batch = make.make_batch(world)
    gone = make.make_action(batch, "shop.no_more", {"a": 1})
    ungranted = make.make_action(batch, "shop.issue_refund")
    make.define(world, {"name": "Refund desk", "tools": []})

    outcomes = decide(world, "approver", batch, edit(gone, a=2), edit(ungranted, amount=2))

    assert [outcome.result for outcome in outcomes] == [Result.INVALID] * 2
    assert_untouched(gone)
    assert_untouched(ungranted)
