"""Two people over one action, 100 times with real threads: one release, one vote a person, nobody is told wrong."""

from __future__ import annotations

from collections import Counter
from functools import partial

from accounts.access import Access, access_for_user
from accounts.schemas import Role
from approvals import inbox
from approvals.inbox import Line, Outcome, Result
from approvals.models import Decision
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.accounts.together import together
from tests.approvals import factories as make
from tests.approvals.factories import World, approve

REPETITIONS = 100


def test_the_last_votes_and_a_requesters_own(shared_world: World) -> None:
    """Two people are needed and one has voted. The second and third vote at once, and so does who may not: the one who
    launched it, because the tool says so. One of the two completes it, the other is told who did and when."""
    world = shared_world
    tool = {"name": "shop.issue_refund", "policy": "two_person", "own_approval": "refused"}
    make.define(world, {"name": "Refund desk", "tools": [tool]})
    world.agent.refresh_from_db()
    run = make.make_run(world, owner=world.people["admin"])
    first, second = world.access("approver"), world.access("second")
    third = world.access("admin")
    extra = make.make_person(world.team, "sam", "Sam", "Reyes", Role.APPROVER)
    voter = access_for_user(extra)
    for _ in range(REPETITIONS):
        batch = make.make_batch(world, run)
        refund = make.make_refund(batch, needed=2)
        vote(first, batch, approve(refund))

        answers = together([partial(vote, access, batch, approve(refund)) for access in (second, voter, third)])

        outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
        assert len(outcomes) == 3, answers
        said = Counter(outcome.result for outcome in outcomes[:2])
        assert said == {Result.APPLIED: 1, Result.ALREADY_DECIDED: 1}
        assert outcomes[2].result in (Result.FORBIDDEN, Result.ALREADY_DECIDED)  # the latter once it was decided
        done = Action.objects.get(id=refund.id)
        loser = next(outcome for outcome in outcomes[:2] if outcome.result is Result.ALREADY_DECIDED)
        assert (done.status, len(set(done.released_by)), done.version) == (ActionStatus.APPROVED, 2, 2)
        assert (loser.by, loser.at) == (done.decided_by, done.decided_at)
        assert str(world.people["admin"].id) not in done.released_by
        assert Decision.objects.filter(action=refund).count() == 2


def vote(access: Access, batch: Batch, line: Line) -> Outcome:
    return inbox.decide(access, batch.id, 1, [line], channel="web")[0]
