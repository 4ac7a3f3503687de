"""Whole runs: what a failure in a batch means for its rest, and approvals that are taken back before they begin."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from django.conf import LazySettings
from django.utils import timezone

from accounts.access import Access
from approvals import inbox, undo
from approvals.inbox import Line, Result
from approvals.models import Verdict
from approvals.undo import Taken
from runs import commands
from runs.engine.types import ActionStatus, Execution
from runs.models import Run
from runs.worker import sweep
from tests.flows.conftest import Model, applied, assert_sound, decide, waiting
from tests.flows.shop import LocalShop
from tests.running import NOTE, REFUND, advance, launch, open_batch, results_sent, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
CUSTOMERS = tuple(f"C-3000{number}" for number in range(10))


@pytest.fixture
def shop(shop: LocalShop) -> LocalShop:
    for customer in CUSTOMERS:
        shop.change("INSERT INTO customers VALUES (?, 'Ines Carvalho', 'i@example.com', 'email', 0, '', 1)", customer)
    return shop


def notes(count: int) -> list[object]:
    return [
        tool(NOTE, confidence=0.5, customer=customer, changes={"notes": "changed"}) for customer in CUSTOMERS[:count]
    ]


def ten_notes(crew: Access, shop: LocalShop, model: Model, execution: Execution) -> Run:
    """Ten record changes, all approved under a mode; the third one is refused by the shop itself."""
    model.says(uses(*notes(10)), "Ten wait.", "Done.")  # type: ignore[arg-type]
    run = advance(launch(crew))
    calls: list[str] = []

    def refused(name: str) -> None:
        calls.append(name)
        if len(calls) == 3:
            shop.change("DELETE FROM customers WHERE customer = ?", CUSTOMERS[2])

    shop.before = refused
    batch = open_batch(run)
    lines = [Line(action=a.id, digest=a.digest, verdict=Verdict.APPROVE) for a in waiting(batch)]
    assert applied(inbox.decide(crew, batch.id, batch.version, lines, channel="api", execution=execution))
    return run


@pytest.mark.parametrize(
    ("execution", "statuses"),
    [
        (Execution.INDEPENDENT, ["succeeded", "succeeded", "failed", *["succeeded"] * 7]),
        (Execution.STOP_ON_FAILURE, ["succeeded", "succeeded", "failed", *["cancelled"] * 7]),
        (Execution.ALL_OR_NOTHING, ["cancelled", "cancelled", "failed", *["cancelled"] * 7]),
    ],
)
def test_a_failure_in_the_middle(
    crew: Access, shop: LocalShop, model: Model, execution: Execution, statuses: list[str]
) -> None:
    run = advance(ten_notes(crew, shop, model, execution))

    assert run.status == "completed"
    assert list(run.actions.order_by("position").values_list("status", flat=True)) == statuses
    assert [line["outcome"] for line in results_sent(model.calls[-1])] == statuses
    assert changed(shop) == [name for name, status in zip(CUSTOMERS, statuses, strict=True) if status == "succeeded"]
    assert_sound(run)


def changed(shop: LocalShop) -> list[str]:
    with shop.store.reading() as db:
        found = db.execute("SELECT customer FROM customers WHERE notes = 'changed' ORDER BY customer").fetchall()
    return [str(row["customer"]) for row in found]


def test_all_or_nothing_is_refused_where_something_is_final(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(*notes(1), REFUNDS), "Two wait.", "Done.")  # type: ignore[arg-type]
    run = advance(launch(crew))
    outcomes = decide_as(crew, run, Execution.ALL_OR_NOTHING)

    assert {outcome.result for outcome in outcomes} == {Result.INVALID}
    assert all("can't be undone" in outcome.detail for outcome in outcomes)
    assert {action.status for action in run.actions.all()} == {ActionStatus.PENDING}
    assert applied(decide_as(crew, run, Execution.STOP_ON_FAILURE))


def decide_as(crew: Access, run: Run, execution: Execution) -> list[inbox.Outcome]:
    batch = open_batch(run)
    lines = [Line(action=a.id, digest=a.digest, verdict=Verdict.APPROVE) for a in waiting(batch)]
    return inbox.decide(crew, batch.id, batch.version, lines, channel="api", execution=execution)


# --- taking back -----------------------------------------------------------------------------------------------------


@pytest.fixture
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10


def test_the_effect_comes_after_the_window_and_not_before(
    crew: Access, shop: LocalShop, model: Model, window: None, rings: list[str]
) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    rings.clear()
    assert applied(decide(crew, run))
    assert rings == [], "nobody is rung before the time"
    assert advance(run).status == "queued"
    assert shop.effects() == []

    with time_machine.travel(timezone.now() + dt.timedelta(seconds=11), tick=True):
        sweep()
        assert rings == [str(run.id)]
        run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
    assert_sound(run)


def test_taken_back_then_rejected_never_runs(crew: Access, shop: LocalShop, model: Model, window: None) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    batch = open_batch(run)
    (action,) = waiting(batch)
    assert applied(decide(crew, run))
    assert applied(undo.revoke(crew, batch.id, [Taken(action.id, action.digest)], channel="web"))
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=30), tick=True):
        assert advance(run).status == "waiting"
        assert applied(decide(crew, run, Verdict.REJECT, note="I looked again."))
        run = advance(run)
    assert (run.status, shop.effects()) == ("completed", [])
    (line,) = results_sent(model.calls[-1])
    assert (line["outcome"], line["note"], line["edited_by_a_person"]) == ("rejected", "I looked again.", False)
    assert_sound(run)


def test_pausing_in_the_window_does_not_shorten_it(crew: Access, shop: LocalShop, model: Model, window: None) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    commands.pause(crew, run.id)
    commands.resume(crew, run.id)
    run = advance(run)
    assert (run.status, shop.effects()) == ("queued", []), "it sleeps for what is left"
    assert run.due_at is not None
    with time_machine.travel(run.due_at, tick=True):
        run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
