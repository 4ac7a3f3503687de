"""The chain proves the rows: whatever is changed behind the product's back is found, and does not execute."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from accounts import receipts
from accounts.models import Receipt, Team
from approvals import evidence, inbox, undo
from approvals.evidence import verify, verify_action
from approvals.inbox import Result
from approvals.models import Decision, Verdict
from approvals.undo import Taken
from runs import audit
from runs.engine.types import ActionStatus, Execution
from runs.models import Action, Batch
from runs.verdicts import digest_of
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide, edit
from tests.approvals.factories import World, approve, reject


def recorded(world: World) -> tuple[Batch, list[Action]]:
    """The batch of the pictures, with the receipts that the engine writes of it."""
    batch, actions = make.make_full_batch(world)
    for action in actions:
        audit.record(action, "action.proposed")
        audit.record(action, "action.asked", batch=str(batch.id), batch_digest=audit.batch_digest(batch))
    return batch, actions


def found(world: World) -> list[str]:
    return [problem.kind for problem in verify(world.team)]


def sql(statement: str, *values: Any) -> None:
    """Past the models, as somebody with the database's password would."""
    with connection.cursor() as cursor:
        cursor.execute(statement, [_plain(value) for value in values])


def _plain(value: Any) -> Any:
    return value.hex if isinstance(value, uuid.UUID) and connection.vendor == "sqlite" else value


def test_an_untouched_history_has_no_problems(world: World) -> None:
    batch, (refund, update, email) = recorded(world)
    decide(world, "approver", batch, approve(refund), edit(update, changes={"note": "x"}), reject(email, note="No"))

    assert verify(world.team) == []


ACTION_CHANGES: dict[str, dict[str, object]] = {
    "arguments": {"args": {"order": "48213", "amount": 840.0, "reason": "Dented in transit"}},
    "tool": {"tool": "shop.send_email"},
    "title": {"title": "Something harmless"},
    "digest": {"digest": "0" * 64},
    "preview": {"preview": {"type": "amount", "amount": "1.00"}},
    "preconditions": {"preconditions": {}},
    "policy line": {"route_reason": "it may run alone"},
    "people needed": {"needed": 0},
    "risk": {"risk": "low"},
    "confidence": {"confidence": 0.99},
    "status": {"status": ActionStatus.SUCCEEDED},
    "note": {"note": "Somebody else said so."},
    "who released it": {"released_by": []},
    "deadline": {"expires_at": dt.datetime(2099, 1, 1, tzinfo=dt.UTC)},
    "when it was decided": {"decided_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
    "result": {"result": {"refund": "made up"}},
    "decided by": {"decided_by": None},
    "batch": {"batch": None},
}


@pytest.mark.parametrize("change", ACTION_CHANGES.values(), ids=ACTION_CHANGES)
def test_any_change_of_a_decided_action_is_found(world: World, change: dict[str, object]) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    assert verify(world.team) == []

    Action.objects.filter(id=refund.id).update(**change)

    [problem] = verify(world.team)
    assert problem.kind == "changed"
    assert str(refund.id) in problem.detail
    last = Receipt.objects.filter(subject_id=str(refund.id)).latest("seq")
    assert problem.seq == last.seq


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("verdict", "reject"),
        ("note", "Never said"),
        ("shown_digest", "0" * 64),
        ("shown_version", 9),
        ("reason", "tone"),
    ],
)
def test_any_change_of_a_decision_is_found(world: World, column: str, value: object) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund, note="Fine"))

    sql(f"UPDATE approvals_decision SET {column} = %s WHERE action_id = %s", value, refund.id)

    assert found(world) == ["changed"]


def test_a_decision_of_somebody_else_is_found(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))

    sql("UPDATE approvals_decision SET actor_id = %s", world.people["viewer"].id)

    assert found(world) == ["changed"]


def test_a_decision_that_was_removed_or_made_up_is_found(world: World) -> None:
    batch, (refund, update, _) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    said = Decision.objects.get()

    sql("DELETE FROM approvals_decision")
    assert found(world) == ["missing"]

    Decision.objects.create(
        action=update,
        actor=said.actor,
        verdict=Verdict.APPROVE,
        shown_digest=update.digest,
        shown_version=1,
        channel="web",
        at=said.at,
    )
    assert found(world) == ["unrecorded", "missing"]


def test_an_action_that_was_removed_or_made_up_is_found(world: World) -> None:
    batch, (_, _, email) = recorded(world)
    make.make_refund(batch)
    sql("DELETE FROM runs_action WHERE id = %s", email.id)

    assert found(world) == ["unrecorded", "missing"]


@pytest.mark.parametrize("column", ["title", "why"])
def test_a_batch_that_says_something_else_now_is_found(world: World, column: str) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))

    Batch.objects.filter(id=batch.id).update(**{column: "Harmless"})

    assert found(world) == ["changed"]


def test_a_batch_that_is_carried_out_in_another_way_than_was_decided_is_found(world: World) -> None:
    batch, (refund, update, _) = recorded(world)
    lines = [approve(update)]
    inbox.decide(world.access("approver"), batch.id, 1, lines, channel="api", execution=Execution.STOP_ON_FAILURE)
    decide(world, "approver", batch, approve(refund))
    assert found(world) == []

    Batch.objects.filter(id=batch.id).update(execution=Execution.INDEPENDENT)

    assert found(world) == ["changed"]
    update.refresh_from_db()
    assert [problem.kind for problem in verify_action(update)] == ["changed"]


def test_a_change_before_the_next_event_is_found_after_it(world: World) -> None:
    """The next receipt is about the changed row: the one before it tells."""
    batch, (refund, *_) = recorded(world)
    Action.objects.filter(id=refund.id).update(title="Harmless")
    decide(world, "approver", batch, reject(refund))

    [problem] = verify(world.team)

    assert problem.kind == "changed"
    assert "decision.reject" in problem.detail


@pytest.mark.parametrize(
    "change",
    [{"needed": 0}, {"title": "Harmless"}, {"risk": "low"}, {"preview": None}],
    ids=lambda change: next(iter(change)),
)
def test_what_was_changed_before_the_decision_cannot_be_approved(world: World, change: dict[str, object]) -> None:
    batch, (_, update, _) = recorded(world)
    Action.objects.filter(id=update.id).update(**change)

    (outcome,) = decide(world, "approver", batch, approve(update))
    (edited,) = decide(world, "approver", batch, edit(update, changes={"note": "x"}))

    assert outcome.result is edited.result is Result.INVALID
    assert "changed it in the database" in outcome.detail
    assert_untouched(update)


def test_what_was_changed_after_the_approval_is_taken_back_for_good(world: World, settings: LazySettings) -> None:
    """It is not asked anew, with the change in it, as if somebody had proposed it so."""
    settings.AGENTSITE_UNDO_SECONDS = 60
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    Action.objects.filter(id=refund.id).update(needed=0)

    (outcome,) = undo.revoke(world.access("approver"), batch.id, [Taken(refund.id, refund.digest)], channel="web")

    assert (outcome.result, outcome.superseded_by) == (Result.APPLIED, None)
    assert Action.objects.filter(supersedes=refund).count() == 0


@pytest.mark.parametrize("fits", [False, True], ids=["payload alone", "payload and hash"])
def test_what_was_changed_together_with_its_receipt_never_begins(world: World, fits: bool) -> None:
    """Arguments, digest and the receipt's own digests of them: the chain still knows."""
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    refund.refresh_from_db()
    assert audit.is_intact(refund)
    refund.args = {**refund.args, "amount": 840.0}
    refund.digest = digest_of(refund)
    refund.save()
    last = Receipt.objects.filter(subject_id=str(refund.id)).latest("seq")
    refund.refresh_from_db()
    last.payload.update(facts=audit.facts_digest(refund), state=audit.state_digest(refund), digest=refund.digest)
    if fits:
        last.hash = receipts._hash(last)
    last.save()

    assert not audit.is_intact(refund)
    assert found(world)


@pytest.mark.parametrize("change", [{"receipts_hash": "0" * 64}, {"receipts_seq": 90}])
def test_the_end_of_the_chain_moved_before_a_decision(world: World, change: dict[str, object]) -> None:
    batch, (refund, *_) = recorded(world)
    Team.objects.filter(id=world.team.id).update(**change)
    decide(world, "approver", batch, reject(refund))

    assert found(world)[0] in ("gap", "reorder")


def test_the_end_of_the_chain_set_back_decides_nothing(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    Team.objects.filter(id=world.team.id).update(receipts_seq=2)

    with pytest.raises(receipts.ChainBroken, match="verify_receipts"):
        decide(world, "approver", batch, approve(refund))

    assert_untouched(refund)
    assert found(world)


def test_receipts_cut_off_together_with_the_end_of_the_chain(world: World) -> None:
    """The chain by itself looks whole; the rows say what is missing."""
    batch, (refund, *_) = recorded(world)
    end = Team.objects.values("receipts_seq", "receipts_hash").get(id=world.team.id)
    decide(world, "approver", batch, approve(refund))
    Receipt.objects.filter(team=world.team, seq__gt=end["receipts_seq"]).delete()
    Team.objects.filter(id=world.team.id).update(**end)
    world.team.refresh_from_db()

    assert receipts.verify(world.team) == []
    assert set(found(world)) == {"changed", "unrecorded"}
    refund.refresh_from_db()
    assert not audit.is_intact(refund)


def test_rows_of_a_pruned_run_are_not_missed(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    run = batch.run
    receipts.append(
        world.team.id, evidence.PRUNED, actor="agentsite", subject_type="run", subject_id=run.id, payload={}
    )
    sql("DELETE FROM approvals_decision")
    for table in ("runs_action", "runs_batch"):
        sql(f"DELETE FROM {table} WHERE run_id = %s", run.id)

    assert verify(world.team) == []


def test_another_team_sees_nothing_of_it(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    Action.objects.filter(id=refund.id).update(title="Harmless")

    assert verify(world.outsider.memberships.get().team) == []


def test_numbers_in_arguments_verify_as_either_database_gives_them_back(world: World) -> None:
    batch = make.make_batch(world)
    action = make.make_action(
        batch, args={"order": "1", "amount": 84.0, "reason": "x", "n": [1, 1.0, 1e22, -0.0, 2**53 - 1], "é": "e\u0301"}
    )
    audit.record(action, "action.proposed")

    assert [p for p in verify(world.team) if str(action.id) in p.detail] == []


@pytest.mark.parametrize("say", [approve, reject], ids=["approve", "reject"])
def test_every_decision_is_one_receipt_with_what_was_shown(world: World, say: Callable[..., inbox.Line]) -> None:
    batch, (refund, *_) = recorded(world)
    before = Receipt.objects.count()

    decide(world, "approver", batch, say(refund))

    [receipt] = Receipt.objects.order_by("seq")[before:]
    said = Decision.objects.get()
    assert receipt.payload["decision"] == str(said.id)
    assert receipt.payload["shown_digest"] == refund.digest
    assert receipt.actor == world.people["approver"]
