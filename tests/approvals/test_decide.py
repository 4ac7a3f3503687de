"""Each outcome that a line can have, and what stands in the database afterwards."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import Http404
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks as Captured

from accounts import receipts
from accounts.access import MissingRight
from accounts.models import Membership, Receipt
from accounts.schemas import Role
from approvals import deciding, evidence, inbox, settling
from approvals.inbox import Line, Result
from approvals.models import Decision, Verdict
from runs import audit
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.deciding import assert_untouched, decide, edit
from tests.approvals.factories import World, approve, line, reject


def test_approving_and_rejecting_in_one_go_closes_the_batch_and_wakes_the_run(
    world: World, bells: Bells, django_capture_on_commit_callbacks: Captured
) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)

    with django_capture_on_commit_callbacks(execute=True):
        outcomes = decide(
            world,
            "approver",
            batch,
            approve(refund),
            approve(update),
            reject(email, reason="untrue", note=" Ask her first. "),
        )

    assert [outcome.result for outcome in outcomes] == [Result.APPLIED] * 3
    for row in (refund, update, email, batch, batch.run):
        row.refresh_from_db()
    assert (refund.status, update.status, email.status) == (
        ActionStatus.APPROVED,
        ActionStatus.APPROVED,
        ActionStatus.REJECTED,
    )
    assert refund.released_by == [str(world.people["approver"].id)]
    assert refund.decided_by == world.people["approver"]
    assert email.note == "Says something that is not true. Ask her first."
    assert (batch.status, batch.version) == ("closed", 2)
    assert batch.run.status == RunStatus.QUEUED
    assert bells.workers == [batch.run_id]
    assert bells.inboxes == [world.team.id]


def test_a_part_of_a_batch_can_be_decided_and_the_rest_keeps_waiting(
    world: World, bells: Bells, django_capture_on_commit_callbacks: Captured
) -> None:
    batch, (refund, update, _email) = make.make_full_batch(world)

    with django_capture_on_commit_callbacks(execute=True):
        decide(world, "approver", batch, approve(refund))

    batch.refresh_from_db()
    update.refresh_from_db()
    assert (batch.status, batch.version, update.status) == ("open", 2, ActionStatus.PENDING)
    assert bells.workers == []
    assert bells.inboxes == [world.team.id]


def test_a_decision_that_lands_before_the_run_has_parked_leaves_the_run_to_its_worker(world: World) -> None:
    run = make.make_run(world, status=RunStatus.RUNNING, waiting_since=None, lease_owner="worker-1")
    batch = make.make_batch(world, run)
    refund = make.make_refund(batch)

    assert decide(world, "approver", batch, approve(refund))[0].result is Result.APPLIED

    run.refresh_from_db()
    batch.refresh_from_db()
    assert (run.status, batch.status) == (RunStatus.RUNNING, "closed")


def test_what_was_decided_already_says_by_whom_and_when(world: World) -> None:
    batch = make.make_batch(world)
    refund, other = make.make_refund(batch), make.make_email(batch)
    decide(world, "approver", batch, approve(refund))
    refund.refresh_from_db()

    late, in_time = decide(world, "second", batch, reject(refund), approve(other))

    assert (late.result, late.by, late.at) == (Result.ALREADY_DECIDED, world.people["approver"], refund.decided_at)
    assert late.detail == "Marco Ruiz approved this already."
    assert in_time.result is Result.APPLIED
    refund.refresh_from_db()
    assert refund.status == ActionStatus.APPROVED


def test_another_digest_is_stale(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    outcome = decide(world, "approver", batch, approve(refund, digest="0" * 64))[0]

    assert outcome.result is Result.STALE
    assert_untouched(refund)


def test_an_older_version_still_applies_to_what_is_as_it_was_shown(world: World) -> None:
    batch = make.make_batch(world)
    refund, email = make.make_refund(batch), make.make_email(batch)
    decide(world, "approver", batch, approve(refund))

    assert decide(world, "second", batch, approve(email), version=1)[0].result is Result.APPLIED


def test_a_superseded_action_is_stale_and_names_its_successor(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    edited = decide(world, "approver", batch, edit(refund, amount=50))[0]

    outcome = decide(world, "second", batch, approve(refund))[0]

    assert outcome.result is Result.STALE
    assert outcome.superseded_by == edited.superseded_by
    assert outcome.by == world.people["approver"]
    assert outcome.detail.startswith("Marco Ruiz changed this action")


def test_a_version_from_the_future_is_invalid(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    assert decide(world, "approver", batch, approve(refund), version=2)[0].result is Result.INVALID
    assert_untouched(refund)


def test_after_the_deadline_nothing_is_approved_and_the_batch_closes(world: World) -> None:
    batch = make.make_batch(world, minutes=-1)
    refund = make.make_refund(batch)

    outcome = decide(world, "approver", batch, approve(refund))[0]

    assert outcome.result is Result.EXPIRED
    refund.refresh_from_db()
    batch.refresh_from_db()
    batch.run.refresh_from_db()
    assert (refund.status, batch.status, batch.run.status) == (ActionStatus.EXPIRED, "closed", RunStatus.QUEUED)
    assert not Decision.objects.exists()
    assert decide(world, "approver", batch, approve(refund))[0].result is Result.EXPIRED


def test_a_right_that_went_between_page_and_post_forbids_each_line(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    access = world.access("approver")
    Membership.objects.filter(user=access.user).update(role="viewer")

    outcome = inbox.decide(access, batch.id, 1, [approve(refund)], channel="web")[0]

    assert outcome.result is Result.FORBIDDEN
    assert_untouched(refund)


@pytest.mark.parametrize("who", ["operator", "viewer"])
def test_without_the_right_the_whole_request_is_refused(world: World, who: str) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    with pytest.raises(MissingRight):
        decide(world, who, batch, approve(refund))
    assert_untouched(refund)


def test_another_teams_batch_does_not_exist(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    with pytest.raises(Http404):
        decide(world, "outsider", batch, approve(refund))
    assert_untouched(refund)


def test_an_action_of_another_batch_is_invalid(world: World) -> None:
    batch, other = make.make_batch(world), make.make_batch(world)
    elsewhere = make.make_refund(other)

    assert decide(world, "approver", batch, approve(elsewhere))[0].result is Result.INVALID
    assert_untouched(elsewhere)


def test_an_action_listed_twice_is_not_decided_at_all(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    outcomes = decide(world, "approver", batch, approve(refund), reject(refund))

    assert [outcome.result for outcome in outcomes] == [Result.INVALID] * 2
    assert_untouched(refund)


@pytest.mark.parametrize(
    ("kind", "status", "verdict"),
    [
        ("action", ActionStatus.PENDING, Verdict.ANSWER),
        ("action", ActionStatus.PENDING, Verdict.HAPPENED),
        ("question", ActionStatus.PENDING, Verdict.APPROVE),
        ("unknown", ActionStatus.UNKNOWN, Verdict.APPROVE),
        ("unknown", ActionStatus.UNKNOWN, Verdict.REJECT),
    ],
)
def test_a_verdict_that_does_not_fit_is_invalid(world: World, kind: str, status: str, verdict: Verdict) -> None:
    batch = make.make_batch(world)
    action = make.make_refund(batch, kind=kind, status=status)

    assert decide(world, "approver", batch, line(action, verdict, answer="x"))[0].result is Result.INVALID
    assert_untouched(action, status)


@pytest.mark.parametrize("note", ["x" * 4001, "a\0b"])
def test_a_note_that_cannot_be_kept_is_invalid(world: World, note: str) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    assert decide(world, "approver", batch, reject(refund, note=note))[0].result is Result.INVALID
    assert_untouched(refund)


def test_arguments_changed_in_the_database_cannot_be_approved(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    Action.objects.filter(id=refund.id).update(args={**refund.args, "amount": 8400})

    assert decide(world, "approver", batch, approve(refund))[0].result is Result.INVALID
    assert_untouched(refund)


def test_a_question_is_answered_and_the_answer_is_what_the_agent_reads(world: World) -> None:
    batch = make.make_batch(world)
    question = make.make_action(batch, "ask", {"question": "Which card?"}, kind="question")

    empty = decide(world, "approver", batch, line(question, Verdict.ANSWER, answer="  "))[0]
    answered = decide(world, "approver", batch, line(question, Verdict.ANSWER, answer="The Visa."))[0]

    assert (empty.result, answered.result) == (Result.INVALID, Result.APPLIED)
    question.refresh_from_db()
    assert (question.status, question.note) == (ActionStatus.ANSWERED, "The Visa.")


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(Verdict.HAPPENED, ActionStatus.SUCCEEDED), (Verdict.DID_NOT_HAPPEN, ActionStatus.FAILED)],
)
def test_a_person_settles_what_is_unknown(world: World, verdict: Verdict, status: str) -> None:
    batch = make.make_batch(world)
    lost = make.make_refund(
        batch, kind="unknown", status=ActionStatus.UNKNOWN, expires_at=timezone.now() - dt.timedelta(1)
    )

    assert decide(world, "approver", batch, line(lost, verdict, note="Seen at the bank"))[0].result is Result.APPLIED

    lost.refresh_from_db()
    batch.run.refresh_from_db()
    assert (lost.status, lost.note, batch.run.status) == (status, "Seen at the bank", RunStatus.QUEUED)
    again = decide(world, "second", batch, line(lost, verdict))[0]
    assert (again.result, again.by) == (Result.ALREADY_DECIDED, world.people["approver"])


def test_what_needs_no_person_says_so(world: World) -> None:
    batch = make.make_batch(world)
    held = make.make_refund(batch, status=ActionStatus.APPROVED, held=True, needed=0)
    make.make_email(batch)

    outcome = decide(world, "approver", batch, reject(held))[0]

    assert (outcome.result, outcome.by) == (Result.ALREADY_DECIDED, None)


# --- two people ------------------------------------------------------------------------------------------------------


def test_two_different_people_are_needed_and_the_first_keeps_it_pending(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)

    first = decide(world, "approver", batch, approve(refund))[0]
    refund.refresh_from_db()
    batch.refresh_from_db()

    assert (first.result, first.counts_only, first.detail) == (Result.APPLIED, True, "Approved, 1 of 2")
    assert (refund.status, batch.status) == (ActionStatus.PENDING, "open")

    again = decide(world, "approver", batch, approve(refund))[0]
    assert (again.result, again.by) == (Result.ALREADY_DECIDED, world.people["approver"])
    assert Decision.objects.count() == 1

    assert decide(world, "second", batch, approve(refund))[0].result is Result.APPLIED
    refund.refresh_from_db()
    people = [str(world.people[name].id) for name in ("approver", "second")]
    assert (refund.status, refund.released_by) == (ActionStatus.APPROVED, people)


def test_a_first_vote_whose_giver_lost_the_right_counts_no_more(world: World, bells: Bells) -> None:
    """Nobody is told that it was released, only to find it revoked at the claim."""
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    decide(world, "approver", batch, approve(refund))
    Membership.objects.filter(user=world.people["approver"]).update(role=Role.VIEWER)

    (outcome,) = decide(world, "second", batch, approve(refund))

    assert (outcome.detail, outcome.counts_only) == ("Approved, 1 of 2", True)
    refund.refresh_from_db()
    assert (refund.status, bells.workers) == (ActionStatus.PENDING, [])
    assert decide(world, "admin", batch, approve(refund))[0].detail == "Approved"
    refund.refresh_from_db()
    assert sorted(refund.released_by) == sorted(str(world.people[who].id) for who in ("admin", "second"))


def test_a_vote_whose_giver_may_decide_again_counts_once_one_of_the_two_says_so(world: World, bells: Bells) -> None:
    """No change of a role releases anything: a person does, who is one of the two, and no vote is counted twice."""
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    audit.record(refund, "action.proposed")
    decide(world, "approver", batch, approve(refund))
    first = Membership.objects.filter(user=world.people["approver"])
    first.update(role=Role.VIEWER)
    decide(world, "second", batch, approve(refund))
    again = decide(world, "second", batch, approve(refund))[0]
    assert (again.result, again.detail) == (
        Result.ALREADY_DECIDED,
        "Your approval counts already; 2 different people are needed.",
    )
    assert "Someone else must be the second" in page_of(world, "second", batch)

    first.update(role=Role.APPROVER)
    refund.refresh_from_db()
    assert (refund.status, bells.workers) == (ActionStatus.PENDING, [])
    assert f'value="{refund.id}"' in page_of(world, "second", batch), "it can be selected"
    outcome = decide(world, "second", batch, approve(refund))[0]

    assert (outcome.result, outcome.detail) == (Result.APPLIED, "Approved")
    refund.refresh_from_db()
    assert refund.status == ActionStatus.APPROVED
    assert sorted(refund.released_by) == sorted(str(world.people[who].id) for who in ("approver", "second"))
    assert Decision.objects.filter(action=refund).count() == 2
    assert Receipt.objects.filter(kind="action.released", actor=world.people["second"]).count() == 1
    assert evidence.verify(world.team) == []


def page_of(world: World, who: str, batch: Batch) -> str:
    return world.client(who).get(reverse("approvals:batch", args=[batch.id])).content.decode()


def test_one_rejection_ends_what_two_must_approve(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    decide(world, "approver", batch, approve(refund))

    assert decide(world, "approver", batch, reject(refund))[0].result is Result.APPLIED
    refund.refresh_from_db()
    assert refund.status == ActionStatus.REJECTED


# --- edits -----------------------------------------------------------------------------------------------------------


def test_a_decision_is_kept_with_what_was_shown_and_never_changes(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    decide(world, "approver", batch, reject(refund, note="No", reason="tone"))

    decision = Decision.objects.get()
    assert (decision.actor, decision.verdict, decision.note, decision.reason) == (
        world.people["approver"],
        "reject",
        "No",
        "tone",
    )
    assert (decision.shown_digest, decision.shown_version, decision.channel) == (refund.digest, 1, "api")
    decision.note = "Yes"
    for change in (
        decision.save,
        decision.delete,
        Decision.objects.all().delete,
        lambda: Decision.objects.update(note="Yes"),
    ):
        with pytest.raises(TypeError):
            change()
    assert Decision.objects.get().note == "No"


def test_decisions_go_with_their_run(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    decide(world, "approver", batch, approve(refund))

    batch.run.delete()

    assert not Decision.objects.exists()


def test_each_applied_line_has_a_receipt_and_no_other(world: World) -> None:
    batch = make.make_batch(world)
    refund, email = make.make_refund(batch), make.make_email(batch)

    decide(world, "approver", batch, approve(refund), reject(email, digest="0" * 64))

    receipt = Receipt.objects.get()
    assert (receipt.kind, receipt.subject_id, receipt.actor) == (
        "decision.approve",
        str(refund.id),
        world.people["approver"],
    )
    assert receipt.payload["digest"] == refund.digest
    assert receipts.verify(world.team) == []


def test_a_failure_half_way_leaves_neither_decision_nor_receipt_nor_bell(
    world: World, monkeypatch: pytest.MonkeyPatch, bells: Bells
) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)

    def fail(batch: Batch) -> None:
        raise RuntimeError("the database went away")

    monkeypatch.setattr(settling, "settle_batch", fail)
    with pytest.raises(RuntimeError, match="went away"):
        decide(world, "approver", batch, approve(refund))

    assert_untouched(refund)
    assert not Receipt.objects.exists()
    assert bells.inboxes == []


def test_unknown_ids_are_no_batches(world: World) -> None:
    with pytest.raises(Http404):
        inbox.decide(world.access("approver"), uuid.uuid4(), 1, [], channel="api")


def test_many_lines_take_as_many_statements_as_a_few_and_those_that_come_second_hold_nothing(world: World) -> None:
    def statements(who: str, count: int) -> tuple[int, list[str]]:
        batch = make.make_batch(world)
        actions = [make.make_refund(batch) for _ in range(count)]
        for action in actions:
            with transaction.atomic():
                audit.record(action, "action.proposed")
        lines = [approve(each) if place % 2 else reject(each) for place, each in enumerate(actions)]
        with CaptureQueriesContext(connection) as first:
            assert {each.result for each in decide(world, who, batch, *lines)} == {Result.APPLIED}
        with CaptureQueriesContext(connection) as second:
            assert {each.result for each in decide(world, "second", batch, *lines)} == {Result.ALREADY_DECIDED}
        return len(first), [query["sql"] for query in second.captured_queries]

    few, _ = statements("approver", 2)
    many, late = statements("approver", 40)

    assert many == few
    assert len(late) <= 4
    assert not [sql for sql in late if "FOR" in sql or sql.startswith(("BEGIN", "SAVEPOINT", "UPDATE", "INSERT"))]
    assert evidence.verify(world.team) == []


def test_of_many_lines_only_those_move_that_still_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is changed by other hands between the look at it and the statement that moves them all."""
    batch = make.make_batch(world)
    kept, lost = make.make_refund(batch), make.make_refund(batch)
    known = deciding._Deciding._judge

    def judge(self: Any, line: Line) -> Any:
        judged = known(self, line)
        Action.objects.filter(id=lost.id).update(status="cancelled", note="The run was cancelled.")
        return judged

    monkeypatch.setattr(deciding._Deciding, "_judge", judge)
    first, second = decide(world, "approver", batch, approve(kept), approve(lost))

    assert (first.result, second.result) == (Result.APPLIED, Result.ALREADY_DECIDED)
    assert second.detail == "The run was cancelled."
    assert [decision.action_id for decision in Decision.objects.all()] == [kept.id]
