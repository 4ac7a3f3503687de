"""The same action at the same moment, each race a hundred times, with real threads and committed rows: what people say.

One wins, the others are told who and when, and what is stored is what was answered."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from django.db import transaction

from accounts import receipts
from accounts.access import access_for_user
from accounts.schemas import Role
from approvals import inbox
from approvals.inbox import Line, Outcome, Result
from approvals.models import Decision, Verdict
from runs.engine.types import ActionStatus, JsonObject, RunStatus
from runs.models import Action, Batch, Run
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.factories import World, approve, line, reject

APPLIED, ALREADY, STALE = Result.APPLIED, Result.ALREADY_DECIDED, Result.STALE


def deciding(world: World, who: str, batch: Batch, *lines: Line) -> Callable[[], list[Outcome]]:
    return partial(inbox.decide, world.access(who), batch.id, 1, list(lines), channel="web")


def batches(world: World) -> Iterator[Batch]:
    """A new one for each repetition."""
    for _ in range(REPETITIONS):
        yield make.make_batch(world)


def told(answers: list[list[Outcome]]) -> list[Outcome]:
    for answer in answers:
        assert not isinstance(answer, Exception), answer
    return list(itertools.chain.from_iterable(answers))


def results(answers: list[list[Outcome]]) -> Counter[Result]:
    return Counter(outcome.result for outcome in told(answers))


def assert_losers_know(answers: list[list[Outcome]]) -> None:
    """Who was first, and when, is what the row says."""
    for outcome in told(answers):
        if outcome.result is ALREADY:
            action = Action.objects.get(id=outcome.action)
            assert (outcome.by, outcome.at) == (action.decided_by, action.decided_at)
            assert outcome.at is not None
            assert Decision.objects.get(action=action, at=outcome.at).actor == outcome.by


def test_overlapping_selections_each_action_is_decided_once(shared_world: World, race: Race, bells: Bells) -> None:
    """Two people each take two of three actions, in opposite orders; one is in both."""
    for batch in batches(shared_world):
        with transaction.atomic():
            one, both, other = (make.make_update(batch) for _ in range(3))
        bells.workers.clear()

        answers = race(
            deciding(shared_world, "approver", batch, approve(one), approve(both)),
            deciding(shared_world, "second", batch, approve(other), reject(both)),
        )

        assert results(answers) == {APPLIED: 3, ALREADY: 1}
        assert_losers_know(answers)
        assert Decision.objects.filter(action__batch=batch).count() == 3
        assert bells.workers == [batch.run_id]
    assert receipts.verify(shared_world.team) == []


def test_a_double_click_against_a_rejection(shared_world: World, race: Race, bells: Bells) -> None:
    for batch in batches(shared_world):
        refund = make.make_refund(batch)
        bells.workers.clear()
        click = deciding(shared_world, "approver", batch, approve(refund))

        answers = race(click, deciding(shared_world, "second", batch, reject(refund)), click)

        assert results(answers) == {APPLIED: 1, ALREADY: 2}
        assert_losers_know(answers)
        refund.refresh_from_db()
        said = Decision.objects.get(action=refund)
        assert refund.status == {"approve": ActionStatus.APPROVED, "reject": ActionStatus.REJECTED}[said.verdict]
        assert bells.workers == [batch.run_id]


def test_the_last_votes_and_a_requesters_own(shared_world: World, race: Race, bells: Bells) -> None:
    """Two people are needed and one has voted. Now another votes, and a third does so twice, and so does who may not:
    who launched it, because the tool says so. One vote completes it; the others are told whose it was, and when."""
    world = shared_world
    tool = {"name": "shop.issue_refund", "policy": "two_person", "own_approval": "refused"}
    make.define(world, {"name": "Refund desk", "tools": [tool]})
    world.agent.refresh_from_db()
    sam = make.make_person(world.team, "sam", "Sam", "Reyes", Role.APPROVER)
    people = [access_for_user(sam), world.access("second"), world.access("second"), world.access("admin")]
    for _ in range(REPETITIONS):
        with transaction.atomic():
            batch = make.make_batch(world, make.make_run(world, owner=world.people["admin"]))
            refund = make.make_refund(batch, needed=2)
        first = deciding(world, "approver", batch, approve(refund))
        assert results(race(first, first)) == {APPLIED: 1, ALREADY: 1}, "one person is one vote"
        refund.refresh_from_db()
        assert refund.status == ActionStatus.PENDING
        bells.workers.clear()

        answers = race(*[partial(inbox.decide, who, batch.id, 1, [approve(refund)], channel="web") for who in people])

        assert results(answers[:3]) == {APPLIED: 1, ALREADY: 2}
        assert_losers_know(answers)
        assert answers[3][0].result in (Result.FORBIDDEN, ALREADY)  # the latter once it was decided
        done = Action.objects.get(id=refund.id)
        assert (done.status, len(set(done.released_by)), done.version) == (ActionStatus.APPROVED, 2, 2)
        assert str(world.people["admin"].id) not in done.released_by
        assert Decision.objects.filter(action=refund).count() == 2
        assert bells.workers == [batch.run_id]


def test_two_edits_and_an_approval_leave_one_action_that_counts(shared_world: World, race: Race) -> None:
    world = shared_world
    for batch in batches(world):
        refund = make.make_refund(batch)

        def edited(amount: int, refund: Action = refund) -> Line:
            return line(refund, Verdict.EDIT, args={**refund.args, "amount": amount})

        answers = race(
            deciding(world, "approver", batch, edited(50)),
            deciding(world, "second", batch, edited(60)),
            deciding(world, "admin", batch, approve(refund)),
        )

        said = told(answers)
        (won,) = [outcome for outcome in said if outcome.result is APPLIED]
        assert {outcome.result for outcome in said} - {APPLIED} <= {STALE, ALREADY}
        assert {outcome.by for outcome in said} == {won.by}, "every loser is told who was first"
        alive = Action.objects.filter(batch=batch).exclude(status=ActionStatus.SUPERSEDED)
        assert [each.id for each in alive] == [won.superseded_by or refund.id]


def test_two_people_settle_an_unknown_one_and_answer_a_question(shared_world: World, race: Race) -> None:
    world = shared_world
    for batch in batches(world):
        lost = make.make_refund(batch, kind="unknown", status=ActionStatus.UNKNOWN, expires_at=None)
        asked: JsonObject = {"title": "Which?", "question": "Which order?", "options": [], "tried": [], "call": None}
        question = make.make_action(batch, "", asked, kind="question", risk="low")
        words = [
            (Verdict.HAPPENED, {"answer": "The first."}),
            (Verdict.DID_NOT_HAPPEN, {"answer": "The second."}),
        ]

        answers = race(
            *[
                deciding(world, who, batch, line(lost, word), line(question, Verdict.ANSWER, **more))
                for who, (word, more) in zip(("approver", "second"), words, strict=True)
            ]
        )

        assert results(answers) == {APPLIED: 2, ALREADY: 2}
        assert_losers_know(answers)
        lost.refresh_from_db()
        question.refresh_from_db()
        happened = Decision.objects.get(action=lost).verdict == Verdict.HAPPENED
        assert lost.status == (ActionStatus.SUCCEEDED if happened else ActionStatus.FAILED)
        assert question.note == Decision.objects.get(action=question).note


def test_two_batches_of_one_run_wake_it_once_both_are_decided(shared_world: World, race: Race, bells: Bells) -> None:
    for first in batches(shared_world):
        with transaction.atomic():
            second = make.make_batch(shared_world, first.run)
            refund, email = make.make_refund(first), make.make_email(second)
        bells.workers.clear()

        answers = race(
            deciding(shared_world, "approver", first, approve(refund)),
            deciding(shared_world, "second", second, reject(email)),
        )

        assert results(answers) == {APPLIED: 2}
        assert Run.objects.get(id=first.run_id).status == RunStatus.QUEUED
        assert set(bells.workers) == {first.run_id}
