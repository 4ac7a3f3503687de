"""What happens to a batch that nobody decides, on a clock that stands still until it is moved."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import pytest
import time_machine
from django.db import transaction
from django.urls import reverse

from accounts.access import MissingRight
from accounts.models import Receipt
from approvals import evidence, inbox
from approvals.escalation import climb, extend
from approvals.expire import expire_due
from approvals.inbox import Result
from runs import asking, audit, lifecycle, timing
from runs.asked import Rung
from runs.engine.types import ActionStatus, RunStatus
from runs.errors import Conflict
from runs.models import Action, AgentVersion, Batch, Run
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve

NOON = dt.datetime(2026, 3, 12, 12, 0, tzinfo=dt.UTC)
TIMES = {"expires_s": 3600, "remind_s": 1200, "widen_s": 2400, "reviewers": ["marco"], "backup": ["lea", "gone"]}


def asked(world: World, **times: Any) -> tuple[Batch, Action]:
    """A refund that was asked for at noon, under these times."""
    tools = [{**tool, **(times if "refund" in tool["name"] else {})} for tool in make.DEFINITION["tools"]]
    make.define(world, {**make.DEFINITION, "tools": tools})
    run = Run.objects.select_related("agent_version").get(id=make.make_run(world).id)
    batch = asking.open_batch(run, "queue:1", ["1:0"], ["shop.issue_refund"], "Because.", "wants to do 1 thing")
    refund = make.make_refund(batch)
    with transaction.atomic():
        audit.record(refund, "action.proposed")
    return batch, refund


def at(minutes: float) -> time_machine.travel:
    return time_machine.travel(NOON + dt.timedelta(minutes=minutes), tick=False)


def done(batch: Batch) -> list[str]:
    return list(Rung.objects.filter(batch=batch, done_at__isnull=False).values_list("kind", flat=True))


def test_remind_then_widen_then_reject(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
        assert batch.expires_at == NOON + dt.timedelta(hours=1)
        assert climb() == 0
    with at(19.99):
        assert climb() == 0
    with at(20):
        assert (climb(), climb(), done(batch)) == (1, 0, ["remind"])
        assert (list(inbox.for_me(world.access("approver"))), list(inbox.for_me(world.access("second")))) == (
            [batch],
            [],
        )
    with at(40):
        assert (climb(), done(batch)) == (1, ["remind", "widen"])
        assert list(inbox.for_me(world.access("second"))) == [batch], "the backup group is asked now"
    with at(59.99):
        assert climb() == 0
        assert decide(world, "second", batch, approve(refund), version=99)[0].result is Result.INVALID
    with at(60):
        assert climb() == 1
    refund.refresh_from_db()
    batch.refresh_from_db()
    assert (refund.status, batch.status) == (ActionStatus.EXPIRED, "closed")
    assert Run.objects.get(id=batch.run_id).status == RunStatus.QUEUED
    kinds = Counter(Receipt.objects.values_list("kind", flat=True))
    assert (kinds["batch.reminded"], kinds["batch.widened"], kinds["action.expired"]) == (1, 1, 1)
    assert not Receipt.objects.filter(kind="decision.approve").exists(), "a timeout never approves"
    assert evidence.verify(world.team) == []


def test_what_was_slept_through_is_caught_up_in_order(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
    with at(600):
        climb()
    refund.refresh_from_db()
    assert refund.status == ActionStatus.EXPIRED
    assert set(done(batch)) >= {"reject"}


def test_a_worker_that_was_paused_past_the_deadline_executes_nothing(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
        decide(world, "approver", batch, approve(refund))
        refund.refresh_from_db()
        assert refund.status == ActionStatus.APPROVED
    with at(61):
        assert not lifecycle.begin_execution(refund.id, refund.digest)
    with at(59):
        assert lifecycle.begin_execution(refund.id, refund.digest)


def test_no_rung_is_taken_once_it_is_decided(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
        decide(world, "approver", batch, approve(refund))
    with at(50):
        assert (climb(), done(batch)) == (0, [])


def test_without_times_there_is_a_day_and_a_reminder_half_way(world: World) -> None:
    with at(0):
        batch, _ = asked(world)
    assert [(rung.kind, rung.due_at - NOON) for rung in batch.rungs.all()] == [
        ("remind", dt.timedelta(hours=12)),
        ("reject", dt.timedelta(hours=24)),
    ]
    assert list(batch.asked.all()) == []


# --- more time -------------------------------------------------------------------------------------------------------


def test_as_much_time_again_once(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
    with at(59):
        longer = extend(world.access("approver"), batch.id)
        assert (longer.expires_at, longer.version) == (NOON + dt.timedelta(hours=2), 2)
        with pytest.raises(Conflict, match="extended already"):
            extend(world.access("second"), batch.id)
    with at(61):
        assert (climb(), expire_due()) == (2, 0), "only the reminder and the wider circle were due"
        [outcome] = decide(world, "second", batch, approve(refund), version=2)
        assert outcome.result is Result.APPLIED
    assert evidence.verify(world.team) == []


def test_a_backup_without_a_time_is_asked_when_three_quarters_are_over() -> None:
    run = Run(agent_version=AgentVersion(definition={"tools": [{"name": "a.b", "expires_s": 3600, "backup": ["lea"]}]}))

    assert timing.timing_of(run, "a.b").widen == dt.timedelta(minutes=45)
    assert timing.timing_of(run, "a.c").widen is None


def test_an_extended_batch_ends_too(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
        extend(world.access("approver"), batch.id)
    with at(120):
        climb()
        refund.refresh_from_db()
        assert refund.status == ActionStatus.EXPIRED


def test_what_cannot_be_extended(world: World) -> None:
    with at(0):
        batch, refund = asked(world, **TIMES)
        with pytest.raises(MissingRight):
            extend(world.access("operator"), batch.id)
    with at(60), pytest.raises(Conflict, match="time to decide is over"):
        extend(world.access("approver"), batch.id)
    with at(30):
        decide(world, "approver", batch, approve(refund))
        with pytest.raises(Conflict, match="no longer open"):
            extend(world.access("approver"), batch.id)


@pytest.mark.parametrize(
    ("who", "status"),
    [("admin", 302), ("approver", 302), ("operator", 403), ("viewer", 403), ("outsider", 404), ("anonymous", 302)],
)
def test_who_extends_on_the_page(world: World, who: str, status: int) -> None:
    batch, _ = make.make_full_batch(world)
    assert world.client(who).post(reverse("approvals:extend", args=[batch.id])).status_code == status
    batch.refresh_from_db()
    assert (batch.extended_at is not None) is (who in ("admin", "approver"))


def test_two_workers_take_each_rung_once(shared_world: World, race: Race) -> None:
    for _ in range(REPETITIONS):
        with at(0):
            batch, _refund = asked(shared_world, **TIMES)
        with at(20):
            assert sum(race(climb, climb)) == 1
        assert done(batch) == ["remind"]
        Batch.objects.filter(id=batch.id).update(status="closed")
    assert Receipt.objects.filter(kind="batch.reminded").count() == REPETITIONS
