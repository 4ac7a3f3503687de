"""Nobody knows whether it happened, and the tool can be asked again later."""

from __future__ import annotations

import datetime as dt
import threading
from functools import partial

import pytest
import time_machine
from django.db import transaction
from django.utils import timezone

from accounts.access import Access
from accounts.models import Receipt
from approvals import reconcile
from approvals.models import Verdict
from runs.audit import batch_digest, record
from runs.engine.ports import ToolConnectionLost
from runs.engine.types import ActionStatus
from runs.models import Action
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.flows.conftest import Model, applied, assert_sound, decide, decide_on
from tests.flows.shop import LocalShop, LocalTool
from tests.running import REFUND, advance, launch, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture
def lost(crew: Access, shop: LocalShop, model: Model) -> Action:
    """A refund that was given, whose answer was lost, and the tool could not be asked at that moment."""
    model.says(uses(REFUNDS), "One refund waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    shop.changes["idempotent"] = False  # called again under its key it would have said so itself
    shop.after["issue_refund"].append(ToolConnectionLost("the server closed the connection"))
    shop.outcome = "unknown"
    run = advance(run)
    shop.outcome = None
    action = run.actions.get()
    assert (run.status, action.status) == ("waiting", ActionStatus.UNKNOWN)
    return action


def kinds(action: Action) -> list[str]:
    return list(Receipt.objects.filter(subject_id=str(action.id)).order_by("seq").values_list("kind", flat=True))


def test_the_tool_settles_what_it_could_not_tell_before(lost: Action, shop: LocalShop, rings: list[str]) -> None:
    rings.clear()
    assert reconcile.ask_due() == 0, "not at once"

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=20)):
        assert reconcile.ask_due() == 1

    lost.refresh_from_db()
    assert (lost.status, lost.decided_by) == (ActionStatus.SUCCEEDED, None)
    assert kinds(lost)[-2:] == [reconcile.ASKED, reconcile.ANSWERED]
    assert rings == [str(lost.run_id)]
    run = advance(lost.run)
    assert run.status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert "The tool, asked again, confirmed" in str(run.steps.get(key__startswith="effect:").payload.output)
    assert_sound(run)


@pytest.mark.parametrize(("after", "status"), [(20, ActionStatus.UNKNOWN), (4000, ActionStatus.FAILED)])
def test_it_did_not_happen_is_believed_once_no_call_can_be_at_work_any_more(
    lost: Action, shop: LocalShop, after: int, status: str
) -> None:
    shop.outcome = "did_not_happen"

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=after)):
        assert reconcile.ask_due() == 1

    lost.refresh_from_db()
    assert lost.status == status


def test_it_is_asked_a_few_times_and_then_left_to_people(crew: Access, lost: Action, shop: LocalShop) -> None:
    shop.outcome = "unknown"
    now = timezone.now()
    for hours in range(20):
        with time_machine.travel(now + dt.timedelta(hours=3 * hours, seconds=20)):
            reconcile.ask_due()

    assert kinds(lost).count(reconcile.ASKED) == len(reconcile.AGAIN_AFTER)
    assert applied(decide(crew, lost.run, Verdict.HAPPENED))
    assert advance(lost.run).status == "completed"


def test_a_tool_that_hangs_holds_nobody_up(lost: Action, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(LocalTool, "reconcile", lambda tool, key: "happened" if over.wait(20) else "unknown")

    said = reconcile.ask_again(lost.id, patience_s=0.05)
    over.set()

    assert said is not None
    assert said.word == "timed_out"
    lost.refresh_from_db()
    assert lost.status == ActionStatus.UNKNOWN
    assert_sound(lost.run)


def test_two_workers_ask_once(lost: Action, shop: LocalShop, race: Race) -> None:
    shop.outcome = "unknown"
    for number in range(1, REPETITIONS + 1):
        Receipt.objects.filter(subject_id=str(lost.id), kind=reconcile.ASKED).update(kind="action.asked_before")

        with time_machine.travel(timezone.now() + dt.timedelta(seconds=20)):
            race(reconcile.ask_due, reconcile.ask_due, reconcile.ask_due)

        assert kinds(lost).count(reconcile.ASKED) == 1, number


def test_a_person_against_the_tool_settles_once(crew: Access, lost: Action, shop: LocalShop, race: Race) -> None:
    shop.outcome = "happened"
    assert lost.batch
    for number in range(REPETITIONS):
        with transaction.atomic():
            other = make.make_refund(
                lost.batch,
                run=lost.run,
                intent=f"{1_000 + number}:0",  # the run's own calls begin at 1
                kind="unknown",
                status="unknown",
                executed_at=timezone.now(),
                expires_at=None,
            )
            record(other, "action.unknown", batch=str(lost.batch_id), batch_digest=batch_digest(lost.batch))

        said, _ = race(
            partial(decide_on, crew, lost.batch, [other], Verdict.DID_NOT_HAPPEN),
            partial(reconcile.ask_again, other.id),
        )

        other.refresh_from_db()
        assert other.status == (ActionStatus.FAILED if applied(said) else ActionStatus.SUCCEEDED), said
        settled = Receipt.objects.filter(subject_id=str(other.id), payload__settled=True).count()
        assert applied(said) + settled == 1, number
    assert applied(decide(crew, lost.run, Verdict.HAPPENED))
    assert_sound(lost.run)
