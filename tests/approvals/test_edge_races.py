"""The same moment from other sides, each race a hundred times: deadlines, extensions, cancelling, edits, undo, the
claim before an effect, and rights that go. Whoever is first at the run's row wins, and nothing is half done."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from accounts import receipts
from accounts.models import Membership, Receipt
from accounts.schemas import Role
from approvals import escalation, undo
from approvals.expire import expire_due
from approvals.inbox import Outcome, Result
from approvals.models import Decision, Verdict
from approvals.undo import Taken
from runs import audit, leases, settled
from runs.engine.ports import NotReleased
from runs.engine.types import ActionStatus, RunStatus
from runs.errors import Conflict
from runs.models import Action, Batch, Run
from runs.verdicts import DbVerdicts, to_engine
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.factories import World, approve, line
from tests.approvals.test_races import deciding, results

OWNER = "this:1:1"
FALLEN = "the plan no longer holds, because “The card is valid” did not hold"
COMING = dt.timedelta(milliseconds=2)
Calls = list[Callable[[], Any]]


def asked(world: World, **fields: Any) -> tuple[Batch, Action]:
    """A refund that waits, on record."""
    with transaction.atomic():
        batch = make.make_batch(world)
        refund = make.make_refund(batch, **fields)
        audit.record(refund, "action.proposed")
    return batch, refund


def released(world: World) -> tuple[Batch, Action]:
    """An approved refund whose run a worker has taken up: the moment before the effect."""
    batch, refund = asked(world)
    deciding(world, "approver", batch, approve(refund))()
    Run.objects.filter(id=batch.run_id).update(status=RunStatus.RUNNING, lease_owner=OWNER, due_at=None)
    refund.refresh_from_db()
    return batch, refund


def claiming(refund: Action) -> Callable[[], object]:
    verdicts = DbVerdicts(refund.run, leases.Lease(run_id=refund.run_id, owner=OWNER))
    return partial(verdicts.claim, to_engine(refund), refund.preconditions)


def withdrawing(refund: Action) -> Callable[[], object]:
    verdicts = DbVerdicts(refund.run, leases.Lease(run_id=refund.run_id, owner=OWNER))
    return partial(verdicts.withdraw, to_engine(refund), FALLEN)


def taking_back(world: World, batch: Batch, refund: Action, who: str = "second") -> Callable[[], list[Outcome]]:
    return partial(undo.revoke, world.access(who), batch.id, [Taken(refund.id, refund.digest)], channel="web")


def begun(answer: object) -> bool:
    """What a claim came to."""
    assert not isinstance(answer, Exception) or isinstance(answer, NotReleased), answer
    return not isinstance(answer, NotReleased)


def claims(refund: Action) -> int:
    return Receipt.objects.filter(kind="action.executing", subject_id=str(refund.id)).count()


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_approve_or_edit_against_expiry(shared_world: World, race: Race) -> None:
    """The deadline passes while people decide: some come in time, some do not, and the answer says which."""
    world, said, coming = shared_world, Counter[str](), COMING
    for number in range(REPETITIONS):
        if number % 12 == 0 and number and not said[Result.APPLIED]:
            coming *= 2  # a busy machine takes longer to decide than all of these deadlines
        deadline = timezone.now() + coming * (number % 12)
        batch, refund = asked(world, expires_at=deadline)
        verdict = line(refund, Verdict.EDIT, args={**refund.args, "amount": 50}) if number % 2 else approve(refund)

        answers = race(deciding(world, "approver", batch, verdict), expire_due, expire_due)
        time.sleep(max(0.0, (deadline - timezone.now()).total_seconds()))
        expire_due()

        [(outcome,)] = [answer for answer in answers if isinstance(answer, list)]
        refund.refresh_from_db()
        came = outcome.result is Result.APPLIED
        status = ActionStatus.SUPERSEDED if number % 2 else ActionStatus.APPROVED
        assert outcome.result in (Result.APPLIED, Result.EXPIRED), outcome
        assert refund.status == (status if came else ActionStatus.EXPIRED)
        assert Decision.objects.filter(action=refund).count() == came
        assert not Action.objects.filter(batch=batch, status=ActionStatus.PENDING).exists(), "an edit expires too"
        assert Batch.objects.get(id=batch.id).status == "closed"
        assert Run.objects.get(id=batch.run_id).status == RunStatus.QUEUED
        said[outcome.result] += 1
    assert len(said) == 2, "the deadline has to fall before some and after others"
    assert receipts.verify(world.team) == []


def test_extending_against_expiry_and_against_itself(shared_world: World, race: Race) -> None:
    world, said, coming = shared_world, Counter[str](), COMING
    for number in range(REPETITIONS):
        if number % 10 == 0 and number and not said["extended"]:
            coming *= 2
        deadline = timezone.now() + coming * (number % 10)
        with transaction.atomic():
            batch = make.make_batch(world)
            refund = make.make_refund(batch, expires_at=deadline)
            Batch.objects.filter(id=batch.id).update(expires_at=deadline, created_at=deadline - dt.timedelta(hours=1))
        two = [partial(escalation.extend, world.access(who), batch.id) for who in ("approver", "second")]

        answers = race(*two, expire_due)

        extended = sum(isinstance(answer, Batch) for answer in answers)
        assert extended <= 1
        assert all(isinstance(answer, Conflict) for answer in answers[:2] if not isinstance(answer, Batch)), answers
        refund.refresh_from_db()
        assert refund.expires_at == deadline + dt.timedelta(hours=1) * extended
        assert refund.status in (ActionStatus.EXPIRED, ActionStatus.PENDING)
        assert not (extended and refund.status == ActionStatus.EXPIRED), "extended and expired"
        said["extended" if extended else "over"] += 1
    assert len(said) == 2


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_deciding_against_cancelling(shared_world: World, race: Race) -> None:
    """Approving, editing and answering: after a cancel nothing waits and nothing can run, whoever was first."""
    world = shared_world
    cancel = partial(settled.cancel_idle, actor=world.people["operator"])
    for number in range(REPETITIONS):
        batch, refund = asked(world)
        verdict = line(refund, Verdict.EDIT, args={**refund.args, "amount": 50}) if number % 2 else approve(refund)

        answers = race(deciding(world, "approver", batch, verdict), partial(cancel, batch.run_id))

        assert answers[1] == "ended"
        left = Action.objects.filter(batch=batch).values_list("status", flat=True)
        assert set(left) <= {ActionStatus.CANCELLED, ActionStatus.SUPERSEDED}
        assert Run.objects.get(id=batch.run_id).status == RunStatus.CANCELLED
        assert Batch.objects.get(id=batch.id).status == "closed"
        (outcome,) = answers[0]
        assert (outcome.result is Result.APPLIED) == Decision.objects.filter(action=refund).exists()
    assert receipts.verify(world.team) == []


# --- the moment before the effect ------------------------------------------------------------------------------------


def test_two_workers_and_an_undo_at_the_claim(shared_world: World, race: Race) -> None:
    """The same message twice, and two people take the approval back: it begins once, or it is taken back once."""
    world = shared_world
    for _ in range(REPETITIONS):
        batch, refund = released(world)

        answers = race(
            claiming(refund),
            claiming(refund),
            taking_back(world, batch, refund),
            taking_back(world, batch, refund, "approver"),
        )

        started = sum(map(begun, answers[:2]))
        taken = results(answers[2:])[Result.APPLIED]
        assert started + taken == 1, answers
        refund.refresh_from_db()
        assert refund.status == (ActionStatus.EXECUTING if started else ActionStatus.REVOKED)
        assert claims(refund) == started
        assert Decision.objects.filter(action=refund, verdict=Verdict.REVOKE).count() == taken
    assert receipts.verify(world.team) == []


def test_a_plan_that_falls_at_the_claim(shared_world: World, race: Race) -> None:
    """A worker whose lease is gone begins the effect while another one withdraws it, or the other way round: it is
    executed or withdrawn, never both, and the receipt says which."""
    world = shared_world
    for _ in range(REPETITIONS):
        _, refund = released(world)

        answers = race(claiming(refund), withdrawing(refund), claiming(refund), withdrawing(refund))

        started = sum(map(begun, answers[::2]))
        assert answers[1::2] == [None, None]
        withdrawn = Receipt.objects.filter(kind="action.cancelled", subject_id=str(refund.id)).count()
        assert started + withdrawn == 1, answers
        refund.refresh_from_db()
        assert refund.status == (ActionStatus.EXECUTING if started else ActionStatus.CANCELLED)
        assert (refund.executed_at is not None, refund.note == FALLEN) == (bool(started), not started)
        assert claims(refund) == started
    assert receipts.verify(world.team) == []


def test_cancelling_against_the_claim(shared_world: World, race: Race) -> None:
    """A worker holds the run, so cancelling is a wish. It is read at the claim under the run's row."""
    world = shared_world
    for _ in range(REPETITIONS):
        batch, refund = released(world)

        answers = race(claiming(refund), partial(settled.cancel_idle, batch.run_id, world.people["operator"]))

        assert answers[1] == "asked"
        started = begun(answers[0])
        refund.refresh_from_db()
        assert refund.status == (ActionStatus.EXECUTING if started else ActionStatus.APPROVED)
        assert claims(refund) == started
        assert not begun(race(claiming(refund))[0]), "neither twice, nor after the wish"


def test_a_right_that_goes_while_its_owner_decides_and_before_the_effect(shared_world: World, race: Race) -> None:
    """Either the approval came first, and then the claim refuses it, or it was refused itself."""
    world = shared_world
    membership = Membership.objects.filter(user=world.people["approver"], team=world.team)
    for _ in range(REPETITIONS):
        membership.update(role=Role.APPROVER)
        batch, refund = asked(world)
        decides = deciding(world, "approver", batch, approve(refund))

        answers = race(decides, partial(membership.update, role=Role.OPERATOR))

        (outcome,) = answers[0]
        came = outcome.result is Result.APPLIED
        assert came or outcome.result is Result.FORBIDDEN
        refund.refresh_from_db()
        assert refund.status == (ActionStatus.APPROVED if came else ActionStatus.PENDING)
        Run.objects.filter(id=batch.run_id).update(status=RunStatus.RUNNING, lease_owner=OWNER)
        with pytest.raises(NotReleased, match=r"may no longer approve" if came else "pending|approved"):
            claiming(refund)()
        refund.refresh_from_db()
        assert refund.status == (ActionStatus.REVOKED if came else ActionStatus.PENDING)
