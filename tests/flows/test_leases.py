"""A worker that lost its run writes nothing; what a dead worker left is taken up again."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import sys

import pytest
from django.utils import timezone

from accounts.access import Access
from runs import commands, leases, lifecycle, tasks
from runs.engine.ports import LeaseLost
from runs.engine.types import Step, StepKind
from runs.models import Action, Run
from runs.store import DbBudget, DbControls, DbJournal
from runs.verdicts import DbVerdicts
from tests.flows.conftest import Model, applied, assert_sound, decide, keys
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, advance, launch, open_batch, tool, uses

READS = tool(READ, order="48213")
NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
OTHER = "elsewhere:1:1"


def take_over(run: Run) -> None:
    """The first worker was too slow to renew its lease, and another one has the run now."""
    owner = Run.objects.values_list("lease_owner", flat=True).get(id=run.id)
    assert lifecycle.free_lost_lease(run.id, owner)
    assert lifecycle.claim_lease(run.id, OTHER)


def give_back(run: Run) -> None:
    assert lifecycle.free_lost_lease(run.id, OTHER)


def test_a_model_call_of_the_first_owner_is_not_recorded(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    model.meanwhile(1, lambda: take_over(run))
    run = advance(run)
    assert (run.status, run.lease_owner, run.last_seq, keys(run)) == ("running", OTHER, 0, [])
    assert run.input_tokens == 0
    give_back(run)
    run = advance(run)
    assert run.status == "completed"
    # What the first was told is dropped; that it had asked is known, because it may be billed.
    assert keys(run) == ["model:1:interrupted:1", "model:1", "tool:1:0", "model:2", "result"]
    assert_sound(run)


def test_an_effect_is_not_begun_by_the_first_owner(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    # The plan is asked again just before the claim: the moment at which the lease goes.
    tools = shop.tools_for(run)
    plan = type(tools[REFUND]).plan

    def slow(self: object, args: object) -> object:
        if Run.objects.filter(id=run.id, status="running").exclude(lease_owner=OTHER).exists():
            take_over(run)
        return plan(self, args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tools[REFUND]), "plan", slow)
        before = keys(run)
        run = advance(run)
    assert (run.lease_owner, keys(run)) == (OTHER, [*before, "waited:queue:1"])
    assert shop.effects() == []
    assert run.actions.get().status == "approved"
    give_back(run)
    assert advance(run).status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


def test_an_effect_in_flight_is_done_once_by_both(crew: Access, shop: LocalShop, model: Model) -> None:
    """The first owner's record is refused; the second calls again under the same key, and the shop knows it."""
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    shop.before = lambda _: take_over(run) if not shop.executed else None
    before = keys(run)
    run = advance(run)
    assert keys(run) == [*before, "waited:queue:1"]
    assert shop.effects() == ["issue_refund"]
    give_back(run)
    run = advance(run)
    assert run.status == "completed"
    assert shop.executed == ["issue_refund", "issue_refund"]
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


def test_nothing_is_written_without_the_lease(crew: Access, shop: LocalShop) -> None:
    run = launch(crew)
    assert lifecycle.claim_lease(run.id, "first:1:1")
    run = Run.objects.select_related("team", "agent", "agent_version").get(id=run.id)
    lease = leases.Lease(run_id=run.id, owner="first:1:1")
    journal, verdicts, controls = DbJournal(run, lease), DbVerdicts(run, lease), DbControls(run, lease)
    step = Step(kind=StepKind.TOOL, title="A step")
    journal.once("first", StepKind.TOOL, lambda: step)
    Run.objects.filter(id=run.id).update(lease_owner=OTHER)
    for write in (
        lambda: journal.once("second", StepKind.TOOL, lambda: step),
        lambda: verdicts.ask("queue:1", [], "why"),
        controls.check,
    ):
        with pytest.raises(LeaseLost):
            write()
    assert not lifecycle.finish(run.id, "first:1:1", "completed", "done", "", "")  # type: ignore[arg-type]
    assert not lifecycle.park_waiting(run.id, "first:1:1")
    run.refresh_from_db()
    assert (keys(run), run.last_seq, run.status, run.lease_owner) == (["first"], 1, "running", OTHER)


def test_a_step_is_recorded_once_even_by_its_owner(crew: Access, shop: LocalShop) -> None:
    """Two journals of one lease: the second finds that the run has moved on."""
    run = launch(crew)
    assert lifecycle.claim_lease(run.id, "first:1:1")
    lease = leases.Lease(run_id=run.id, owner="first:1:1")
    rows = [Run.objects.select_related("team", "agent_version").get(id=run.id) for _ in range(2)]
    one, two = (DbJournal(row, lease) for row in rows)
    step = Step(kind=StepKind.TOOL, title="A step")
    assert one.once("a", StepKind.TOOL, lambda: step).seq == 1
    with pytest.raises(LeaseLost):
        two.once("b", StepKind.TOOL, lambda: step)
    assert keys(run) == ["a"]
    assert one.once("a", StepKind.TOOL, lambda: pytest.fail("it was recorded")).seq == 1
    assert DbBudget(rows[0], lease, one).worst_price("claude-sonnet-5-5", 10, 10) == 0


# --- workers that are gone -------------------------------------------------------------------------------------------


def crashed_as(run: Run, owner: str, *, until: dt.datetime | None = None) -> None:
    Run.objects.filter(id=run.id).update(
        status="running", lease_owner=owner, lease_until=until or timezone.now() + dt.timedelta(seconds=20)
    )


def dead_process() -> str:
    """A process of this host that has ended: its name as a worker's."""
    code = "import os; print(os.getpid())"
    pid = int(subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True).stdout)
    return f"{socket.gethostname()}:{pid}:12345:abcd"


def test_the_run_of_a_dead_process_is_freed_at_once(crew: Access, shop: LocalShop) -> None:
    run = launch(crew)
    crashed_as(run, dead_process())
    Run.objects.filter(id=run.id).update(reserved_usd="0.5")
    assert leases.free_lost() == [run.id]
    run.refresh_from_db()
    assert (run.status, run.lease_owner, run.lease_until, run.reserved_usd) == ("queued", "", None, 0)


def test_a_number_that_is_used_again_is_another_process(crew: Access, shop: LocalShop) -> None:
    run = launch(crew)
    crashed_as(run, f"{socket.gethostname()}:{os.getpid()}:1:abcd")
    assert leases.free_lost() == [run.id]


@pytest.mark.parametrize(
    "owner",
    [f"{leases.process_name()}:abcd", "another-host:1:1:abcd", "nonsense"],
    ids=["alive", "elsewhere", "unreadable"],
)
def test_a_live_or_unknown_worker_keeps_its_run_until_the_lease_ends(crew: Access, shop: LocalShop, owner: str) -> None:
    run = launch(crew)
    crashed_as(run, owner)
    assert leases.free_lost() == []
    crashed_as(run, owner, until=timezone.now() - dt.timedelta(seconds=1))
    assert leases.free_lost() == [run.id]


def test_leases_are_renewed_while_a_model_streams(crew: Access, shop: LocalShop, model: Model) -> None:
    run = launch(crew)
    seen: list[dt.datetime | None] = []

    def renew() -> None:
        Run.objects.filter(id=run.id).update(lease_until=timezone.now())
        leases.renew()
        seen.append(Run.objects.get(id=run.id).lease_until)

    model.meanwhile(1, renew)
    assert advance(run).status == "completed"
    assert seen[0]
    assert seen[0] > timezone.now() + lifecycle.LEASE / 2
    leases.renew()
    assert leases._owners() == []


def test_the_pulse_stops_what_is_no_longer_ours(crew: Access, shop: LocalShop) -> None:
    run = launch(crew)
    with leases.claimed(run.id) as lease:
        assert lease is not None
        leases.watch()
        assert not lease.stopped.is_set()
        commands.pause(crew, run.id)
        leases.watch()
        assert lease.stopped.is_set()
        lease.stopped.clear()
        commands.resume(crew, run.id)
        Run.objects.filter(id=run.id).update(lease_owner=OTHER)
        leases.watch()
        assert lease.stopped.is_set()
    with leases.claimed(run.id) as second:
        assert second is None


def test_a_run_whose_worker_died_in_an_effect_of_a_plain_tool_asks_a_person(
    crew: Access, shop: LocalShop, model: Model
) -> None:
    shop.changes, shop.outcome = {"idempotent": False}, "unknown"
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    action = Action.objects.get(run=run)
    crashed_as(run, dead_process())
    assert lifecycle.begin_execution(action.id, action.digest)
    leases.free_lost()
    tasks.advance_run(str(run.id))
    run.refresh_from_db()
    assert run.status == "waiting"
    assert shop.executed == [], "never a blind retry"
    batch = open_batch(run)
    assert batch.title == "Refund desk does not know whether 1 thing happened"
    assert batch.actions.get().status == "unknown"
