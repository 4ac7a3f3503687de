"""The same moment twice: real threads, committed rows. One lease, each step once, no verdict lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from django.db import transaction

from accounts.access import Access
from approvals import inbox
from approvals.inbox import Line
from approvals.models import Verdict
from runs import commands, leases, lifecycle, tasks
from runs.engine import loop
from runs.engine.types import Parked, RunSpec
from runs.models import Action, Batch, Run
from runs.verdicts import DbVerdicts
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.flows.conftest import Model, applied, assert_sound, decide, keys, member
from tests.flows.shop import LocalShop
from tests.running import READ, REFUND, add_agent, advance, launch, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


def no_failures(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, Exception):
            raise result


# --- a decision that lands before the run has parked -----------------------------------------------------------------


def test_a_decision_between_the_question_and_the_parking(
    crew: Access, shop: LocalShop, model: Model, rings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = launch(crew)
    park = lifecycle.park_waiting

    def decided_first(*args: object) -> bool:
        assert applied(decide(crew, run))
        run.refresh_from_db()
        assert run.status == "running", "its ring finds nothing to do"
        tasks.advance_run(str(run.id))
        rings.clear()
        return park(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lifecycle, "park_waiting", decided_first)
    run = advance(run)
    assert (run.status, rings) == ("queued", [str(run.id)])
    monkeypatch.undo()
    monkeypatch.setattr("runs.toolbox.tools_for", shop.tools_for)
    run = advance(run)
    assert run.status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


@pytest.mark.parametrize("before", [True, False], ids=["before it was asked", "after it was asked"])
def test_a_verdict_that_comes_while_the_question_is_recorded(
    crew: Access, shop: LocalShop, model: Model, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """The batch is visible as soon as `ask` has committed, and the step that says so is recorded after it."""
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = launch(crew)
    ask = DbVerdicts.ask

    def asked(self: DbVerdicts, key: str, actions: list[Action], why: str) -> None:
        if before:
            assert not Batch.objects.exists()
        ask(self, key, actions, why)  # type: ignore[arg-type]
        assert applied(decide(crew, run))

    monkeypatch.setattr(DbVerdicts, "ask", asked)
    run = advance(run)
    assert run.status == "completed", "nothing was left to wait for"
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


OWNER = "this:1:1"


def about_to_park(run: Run, **fields: Any) -> Run:
    """Its worker has asked a person and is about to park."""
    again = {"status": "running", "lease_owner": OWNER, "waiting_since": None, "due_at": None, "ended_at": None}
    with transaction.atomic():
        Run.objects.filter(id=run.id).update(**{**again, "stop_reason": None, "wish": "", **fields})
        make.make_refund(make.make_batch_of(run))
    run.refresh_from_db()
    return run


@pytest.fixture
def parked(crew: Access) -> Run:
    """For races that start over and over: of its engine nothing is needed."""
    add_agent(crew.team)
    return launch(crew)


def parks(run: Run, why: str) -> Callable[[], object]:
    return partial(tasks.conclude, run, leases.Lease(run_id=run.id, owner=OWNER), Parked(why=why))


def verdict_on(crew: Access, run: Run, verdict: Verdict = Verdict.APPROVE) -> Callable[[], object]:
    batch = Batch.objects.get(run=run, status="open")
    action = Action.objects.get(batch=batch)
    line = Line(action=action.id, digest=action.digest, verdict=verdict)
    return lambda: inbox.decide(crew, batch.id, 1, [line], channel="api")


def test_deciding_against_parking(crew: Access, parked: Run, race: Race, rings: list[str]) -> None:
    for _ in range(REPETITIONS):
        run = about_to_park(parked)
        rings.clear()
        no_failures(race(parks(run, "approval"), verdict_on(crew, run)))
        run.refresh_from_db()
        assert run.status == "queued", "the verdict was lost"
        assert str(run.id) in rings
        assert run.waiting_since is None


def test_cancelling_against_parking(crew: Access, parked: Run, race: Race) -> None:
    for _ in range(REPETITIONS):
        run = about_to_park(parked)
        no_failures(race(parks(run, "approval"), partial(commands.cancel, crew, run.id)))
        run.refresh_from_db()
        assert run.status == "cancelled", "the wish was lost"
        assert_nothing_is_left(run)


def test_cancelling_against_a_pause(crew: Access, parked: Run, race: Race) -> None:
    for _ in range(REPETITIONS):
        run = about_to_park(parked, wish="pause")
        no_failures(race(parks(run, "paused"), partial(commands.cancel, crew, run.id)))
        run.refresh_from_db()
        assert run.status == "cancelled", "the wish was lost"
        assert_nothing_is_left(run)


def test_resuming_against_a_pause(crew: Access, parked: Run, race: Race) -> None:
    for _ in range(REPETITIONS):
        run = about_to_park(parked, wish="pause")
        no_failures(race(parks(run, "paused"), partial(commands.resume, crew, run.id)))
        run.refresh_from_db()
        assert (run.status, run.wish) == ("queued", ""), "it goes on, whoever was first"


def test_only_one_of_many_gets_the_lease(parked: Run, race: Race) -> None:
    names = [f"worker:{number}:1" for number in range(4)]
    for _ in range(REPETITIONS):
        Run.objects.filter(id=parked.id).update(status="queued", lease_owner="")
        won = race(*[partial(lifecycle.claim_lease, parked.id, name) for name in names])
        no_failures(won)
        parked.refresh_from_db()
        assert won.count(True) == 1
        assert parked.lease_owner == names[won.index(True)]


def test_the_same_message_at_once_advances_once(parked: Run, race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: list[str] = []

    def one_at_a_time(spec: RunSpec, ports: loop.Ports) -> Parked:
        advanced.append(spec.id)
        return Parked(why="approval")

    monkeypatch.setattr(loop, "advance", one_at_a_time)
    for number in range(1, REPETITIONS + 1):
        about_to_park(parked, status="queued", lease_owner="")
        no_failures(race(*[partial(tasks.advance_run, str(parked.id))] * 2))
        parked.refresh_from_db()
        assert (parked.status, len(advanced)) == ("waiting", number)


# --- the same message twice ------------------------------------------------------------------------------------------


def test_the_same_message_at_once_does_each_step_once(crew: Access, shop: LocalShop, model: Model, race: Race) -> None:
    """Before and after a decision that two people take at once: real runs, from their start to their end."""
    model.says(uses(tool(READ, order="48213"), REFUNDS), "One waits.", "Done.")
    other = member(crew, "marco")
    for number in range(REPETITIONS):
        run = launch(crew, task=f"Case {number}")
        shop.change("UPDATE orders SET refunded_cents = 0")
        shop.executed.clear()
        message = partial(tasks.advance_run, str(run.id))

        no_failures(race(message, message))
        no_failures(race(verdict_on(crew, run), verdict_on(other, run)))
        no_failures(race(message, message))

        run.refresh_from_db()
        assert run.status == "completed"
        assert len(model.calls) == 3 * (number + 1)
        assert shop.executed == ["get_order", "issue_refund"]
        assert len(shop.effects()) == number + 1
        assert len(keys(run)) == len(set(keys(run)))
    assert_sound(run)


def assert_nothing_is_left(run: Run) -> None:
    assert not Batch.objects.filter(run=run, status="open").exists()
    assert not run.actions.filter(status__in=["pending", "approved", "executing"]).exists()
