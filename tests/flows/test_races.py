"""The same moment twice: real threads, committed rows. One lease, each step once, no verdict lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from django.utils import timezone

from accounts.access import Access
from approvals import inbox
from approvals.inbox import Line
from approvals.models import Verdict
from runs import commands, leases, lifecycle, settled, tasks
from runs.engine.types import Mode, Parked
from runs.models import Action, Agent, Batch, Run
from runs.verdicts import DbVerdicts
from tests.accounts.together import together
from tests.approvals import factories as make
from tests.flows.conftest import Model, applied, assert_sound, decide, keys, member
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, add_agent, advance, launch, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})


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


def about_to_park(crew: Access) -> Run:
    """A run whose worker has asked and is about to park."""
    if not Agent.objects.exists():
        add_agent(crew.team)
    run = launch(crew)
    assert lifecycle.claim_lease(run.id, OWNER)
    expires = timezone.now() + dt.timedelta(hours=1)
    make.make_refund(Batch.objects.create(run=run, key="queue:1", number=1, title="1 thing", expires_at=expires))
    run.refresh_from_db()
    return run


def parks(run: Run, why: str) -> Callable[[], object]:
    return partial(tasks.conclude, run, leases.Lease(run_id=run.id, owner=OWNER), Parked(why=why))


def verdict_on(crew: Access, run: Run, verdict: Verdict = Verdict.APPROVE) -> Callable[[], object]:
    batch = Batch.objects.get(run=run)
    action = Action.objects.get(batch=batch)
    line = Line(action=action.id, digest=action.digest, verdict=verdict)
    return lambda: inbox.decide(crew, batch.id, 1, [line], channel="api")


def test_deciding_against_parking_twenty_times(crew: Access, rings: list[str]) -> None:
    for _ in range(20):
        run = about_to_park(crew)
        rings.clear()
        no_failures(together([parks(run, "approval"), verdict_on(crew, run)]))
        run.refresh_from_db()
        assert run.status == "queued", "the verdict was lost"
        assert str(run.id) in rings
        assert run.waiting_since is None


def test_cancelling_against_parking(crew: Access) -> None:
    for _ in range(10):
        run = about_to_park(crew)
        no_failures(together([parks(run, "approval"), partial(commands.cancel, crew, run.id)]))
        run.refresh_from_db()
        assert run.status == "cancelled", "the wish was lost"
        assert_sound(run)


def test_cancelling_against_a_pause(crew: Access) -> None:
    for _ in range(10):
        run = about_to_park(crew)
        Run.objects.filter(id=run.id).update(wish="pause")
        no_failures(together([parks(run, "paused"), partial(commands.cancel, crew, run.id)]))
        run.refresh_from_db()
        assert run.status == "cancelled", "the wish was lost"


def test_resuming_against_a_pause(crew: Access) -> None:
    for _ in range(10):
        run = about_to_park(crew)
        Run.objects.filter(id=run.id).update(wish="pause")
        no_failures(together([parks(run, "paused"), partial(commands.resume, crew, run.id)]))
        run.refresh_from_db()
        assert (run.status, run.wish) == ("queued", ""), "it goes on, whoever was first"


# --- the same message twice ------------------------------------------------------------------------------------------


def test_the_same_message_at_once_does_each_step_once(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(tool(READ, order="48213")), uses(NOTES), "Done.")
    run = launch(crew)
    no_failures(together([lambda: tasks.advance_run(str(run.id))] * 4))
    run.refresh_from_db()
    assert run.status == "completed"
    assert len(model.calls) == 3
    assert shop.executed == ["get_order", "update_customer"]
    assert_sound(run)


def test_the_same_message_at_once_after_a_decision(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS, NOTES), "Both wait.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    no_failures(together([lambda: tasks.advance_run(str(run.id))] * 4))
    run.refresh_from_db()
    assert run.status == "completed"
    assert shop.executed == ["issue_refund", "update_customer"]
    assert shop.effects() == ["issue_refund", "update_customer"]
    assert len(keys(run)) == len(set(keys(run)))
    assert_sound(run)


def test_only_one_of_many_gets_the_lease(crew: Access) -> None:
    for _ in range(5):
        run = about_to_park(crew)
        Run.objects.filter(id=run.id).update(status="queued", lease_owner="")
        names = [f"worker:{number}:1" for number in range(6)]
        won = together([partial(lifecycle.claim_lease, run.id, name) for name in names])
        no_failures(won)
        run.refresh_from_db()
        assert won.count(True) == 1
        assert run.lease_owner == names[won.index(True)]


def test_two_people_decide_and_the_effect_happens_once(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew, Mode.BATCH))
    other = member(crew, "marco")
    no_failures(together([verdict_on(crew, run), verdict_on(other, run)]))
    no_failures(together([lambda: tasks.advance_run(str(run.id))] * 2))
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


def test_cancelling_against_the_claim_of_an_effect(crew: Access, shop: LocalShop, model: Model) -> None:
    """Whoever is first at the run's row wins: either nothing happened, or it happened and is recorded."""
    model.says(uses(REFUNDS), "One waits.", "Done.")
    for number in range(4):
        run = advance(launch(crew, task=f"Case {number}"))
        before = len(shop.effects())
        args = {"order": "48213", "amount": 1.0 + number, "reason": "late"}
        assert applied(decide(crew, run, args=args))
        advances: Callable[[], object] = partial(tasks.advance_run, str(run.id))
        no_failures(together([advances, partial(settled.cancel_idle, run.id, "a person")]))
        if Run.objects.get(id=run.id).status == "queued":
            tasks.advance_run(str(run.id))
        run.refresh_from_db()
        assert run.status in ("cancelled", "completed")
        done = run.actions.filter(status="succeeded").count()
        assert len(shop.effects()) - before == done
        assert run.steps.filter(kind="tool", status="ok").count() == done
        assert_sound(run)
