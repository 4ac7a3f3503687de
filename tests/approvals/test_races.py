"""The same action at the same moment, with real threads and committed rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable

import pytest
from django.utils import timezone

from accounts import receipts
from approvals import inbox
from approvals.expire import expire_due
from approvals.inbox import Line, Outcome, Result
from approvals.models import Decision, Verdict
from runs import settled
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Batch
from tests.accounts.together import together
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.factories import World, approve, line, reject

ROUNDS = range(5)


def deciding(world: World, who: str, batch: Batch, *lines: Line) -> Callable[[], list[Outcome]]:
    access = world.access(who)
    return lambda: inbox.decide(access, batch.id, 1, list(lines), channel="web")


def results(answers: list[list[Outcome] | Exception]) -> list[Result]:
    for answer in answers:
        assert not isinstance(answer, Exception), answer
    return [outcome.result for answer in answers if isinstance(answer, list) for outcome in answer]


@pytest.mark.parametrize("_", ROUNDS)
def test_two_people_decide_the_same_batch_and_one_wins_each_action(shared_world: World, bells: Bells, _: int) -> None:
    world = shared_world
    batch, actions = make.make_full_batch(world)

    answers = together(
        [
            deciding(world, "approver", batch, *map(approve, actions)),
            deciding(world, "second", batch, *map(approve, actions)),
        ]
    )

    assert Counter(results(answers)) == {Result.APPLIED: 3, Result.ALREADY_DECIDED: 3}
    loser = next(o for answer in answers if isinstance(answer, list) for o in answer if o.result is not Result.APPLIED)
    winner = Decision.objects.get(action=loser.action).actor
    assert loser.by == winner
    assert loser.at == Action.objects.get(id=loser.action).decided_at
    assert Decision.objects.count() == 3
    assert bells.workers == [batch.run_id]
    assert receipts.verify(world.team) == []


@pytest.mark.parametrize("_", ROUNDS)
def test_approve_against_reject(shared_world: World, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch)

    answers = together(
        [
            deciding(shared_world, "approver", batch, approve(refund)),
            deciding(shared_world, "second", batch, reject(refund)),
        ]
    )

    assert sorted(results(answers)) == [Result.ALREADY_DECIDED, Result.APPLIED]
    refund.refresh_from_db()
    said = Decision.objects.get()
    assert refund.status == {"approve": ActionStatus.APPROVED, "reject": ActionStatus.REJECTED}[said.verdict]


@pytest.mark.parametrize("_", ROUNDS)
def test_approve_against_expiry(shared_world: World, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch)
    Action.objects.filter(id=refund.id).update(expires_at=timezone.now() + dt.timedelta(milliseconds=40))

    together([deciding(shared_world, "approver", batch, approve(refund)), expire_due, expire_due])
    expire_due()

    refund.refresh_from_db()
    batch.refresh_from_db()
    approved = Decision.objects.filter(action=refund).exists()
    if refund.status == ActionStatus.PENDING:  # the decision came too late, and the sweep a moment too early
        Action.objects.filter(id=refund.id).update(expires_at=timezone.now())
        expire_due()
        refund.refresh_from_db()
        batch.refresh_from_db()
    assert refund.status == (ActionStatus.APPROVED if approved else ActionStatus.EXPIRED)
    assert batch.status == "closed"


@pytest.mark.parametrize("_", ROUNDS)
def test_approve_against_cancel(shared_world: World, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch)

    together(
        [
            deciding(shared_world, "approver", batch, approve(refund)),
            lambda: settled.cancel_idle(batch.run_id, shared_world.people["operator"]),
        ]
    )

    refund.refresh_from_db()
    batch.run.refresh_from_db()
    assert refund.status == ActionStatus.CANCELLED
    assert batch.run.status == RunStatus.CANCELLED


@pytest.mark.parametrize("_", ROUNDS)
def test_a_double_click_decides_once(shared_world: World, bells: Bells, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch)
    click = deciding(shared_world, "approver", batch, approve(refund))

    answers = together([click, click, click])

    assert Counter(results(answers)) == {Result.APPLIED: 1, Result.ALREADY_DECIDED: 2}
    assert Decision.objects.count() == 1
    assert bells.workers == [batch.run_id]


@pytest.mark.parametrize("_", ROUNDS)
def test_two_final_votes_release_once(shared_world: World, bells: Bells, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch, needed=2)
    deciding(shared_world, "admin", batch, approve(refund))()

    answers = together(
        [
            deciding(shared_world, "approver", batch, approve(refund)),
            deciding(shared_world, "second", batch, approve(refund)),
        ]
    )

    assert Counter(results(answers)) == {Result.APPLIED: 1, Result.ALREADY_DECIDED: 1}
    refund.refresh_from_db()
    assert (refund.status, len(refund.released_by), refund.version) == (ActionStatus.APPROVED, 2, 2)
    assert bells.workers == [batch.run_id]


@pytest.mark.parametrize("_", ROUNDS)
def test_the_same_person_twice_is_one_vote(shared_world: World, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch, needed=2)
    click = deciding(shared_world, "approver", batch, approve(refund))

    answers = together([click, click])

    assert sorted(results(answers)) == [Result.ALREADY_DECIDED, Result.APPLIED]
    refund.refresh_from_db()
    assert refund.status == ActionStatus.PENDING
    assert Decision.objects.count() == 1


@pytest.mark.parametrize("_", ROUNDS)
def test_two_edits_and_an_approval_leave_one_action_that_counts(shared_world: World, _: int) -> None:
    batch = make.make_batch(shared_world)
    refund = make.make_refund(batch)

    def edited(amount: int) -> Line:
        return line(refund, Verdict.EDIT, args={**refund.args, "amount": amount})

    answers = together(
        [
            deciding(shared_world, "approver", batch, edited(50)),
            deciding(shared_world, "second", batch, edited(60)),
            deciding(shared_world, "admin", batch, approve(refund)),
        ]
    )

    assert results(answers).count(Result.APPLIED) == 1
    alive = Action.objects.filter(run=batch.run).exclude(status=ActionStatus.SUPERSEDED)
    assert alive.count() == 1


@pytest.mark.parametrize("_", ROUNDS)
def test_overlapping_batches_of_one_run_wake_it_once_both_are_decided(
    shared_world: World, bells: Bells, _: int
) -> None:
    run = make.make_run(shared_world)
    first, second = make.make_batch(shared_world, run), make.make_batch(shared_world, run)
    refund, email = make.make_refund(first), make.make_email(second)

    answers = together(
        [
            deciding(shared_world, "approver", first, approve(refund)),
            deciding(shared_world, "second", second, reject(email)),
        ]
    )

    assert results(answers) == [Result.APPLIED] * 2
    run.refresh_from_db()
    assert run.status == RunStatus.QUEUED
    assert set(bells.workers) == {run.id}
