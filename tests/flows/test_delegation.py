"""A run that delegates, on the database: children in runs of their own, one inbox, one budget, one end."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.access import Access
from approvals.models import Verdict
from runs import commands, leases, lifecycle, presenters, tasks, worker
from runs.children import DbChildren
from runs.engine.ports import LeaseLost
from runs.engine.types import Finished, Mode, Parked, Room, RunStatus, StopReason
from runs.models import Batch, Run
from runs.page import live_page
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from tests.accounts.together import REPETITIONS, Race
from tests.flows.conftest import Model, applied, assert_sound, decide, told
from tests.flows.shop import LocalShop
from tests.running import REFUND, add_agent, advance, launch, tool, turns, uses

NOTHING = Room(usd=Decimal(0), input_tokens=0, output_tokens=0)
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


@pytest.fixture
def boss(crew: Access, shop: LocalShop) -> Access:
    """`boss` delegates to `desk`, which delegates to `clerk`."""
    add_agent(crew.team, "clerk", name="Clerk", tools=[])
    add_agent(crew.team, "desk", name="Desk", subagents=["clerk"])
    add_agent(crew.team, "boss", name="Boss", tools=[], subagents=["desk", "clerk"])
    return crew


def delegate(agent: str = "desk", task: str = "Part one.", **also: object) -> ToolCall:
    asked = {"agent": agent, "task": task, "reasoning": "it is theirs", "confidence": 0.9, **also}
    return ToolCall(name="delegate", input=asked)


def by_task(**scripts: Callable[[JsonObject], Reply]) -> Callable[[JsonObject], Reply]:
    """Each run is answered by the script that its task begins with."""

    def respond(body: JsonObject) -> Reply:
        task = str(body["messages"][0]["content"][0]["text"])
        return next(script for name, script in scripts.items() if task.startswith(name))(body)

    return respond


def children(run: Run) -> list[Run]:
    return list(Run.objects.filter(parent=run).order_by("created_at"))


def test_the_whole_way_down_and_back(boss: Access, model: Model, shop: LocalShop, rings: list[str]) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate(), delegate("clerk", "Part two.")), "All is done."),
        Part=turns("My part is done."),
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    assert run.status == "waiting"
    one, two = children(run)
    assert {str(one.id), str(two.id)} <= set(rings)
    assert (one.owner, one.mode, one.number) == (run.owner, run.mode, run.number + 1)

    advance(one)
    run.refresh_from_db()
    assert run.status == "waiting", "one of two has ended"
    advance(two)
    run.refresh_from_db()
    assert (run.status, rings[-1]) == ("queued", str(run.id))

    run = advance(run)
    assert (run.status, run.result) == ("completed", "All is done.")
    assert told(model.calls[-1]).count("My part is done.") == 2
    assert list(run.steps.exclude(child_run=None).values_list("kind", "child_run")) == [
        ("delegate", one.id),
        ("delegate", two.id),
        ("tool", one.id),
        ("tool", two.id),
    ]
    for each in (run, one, two):
        assert_sound(each)


def test_what_sub_agents_cost_stands_beside_what_the_run_itself_cost(boss: Access) -> None:
    """Of a list of runs too, where one is below another, with few queries."""
    runs = [launch(boss, agent="boss", task=f"Part {number}.") for number in range(4)]
    whole, part, deepest, other = runs
    for number, (run, above) in enumerate(((whole, None), (part, whole), (deepest, part), (other, whole)), 1):
        Run.objects.filter(id=run.id).update(
            parent=above, cost_usd=Decimal(number), input_tokens=number, cache_read_tokens=10, unpriced_steps=1
        )
    rows = list(Run.objects.select_related("agent", "agent_version", "owner").order_by("number"))
    with CaptureQueriesContext(connection) as asked:
        found = [each["totals"]["sub_agents"] for each in presenters.runs_json(rows)]
    assert len(asked) == 2

    assert [each["runs"] for each in found] == [3, 1, 0, 0]
    assert [each["cost_usd"] for each in found] == ["9.00", "3.00", "0.00", "0.00"]
    assert found[0]["input_tokens"] == 9
    assert (found[0]["cache_read_tokens"], found[0]["unpriced_steps"]) == (30, 3)
    assert presenters.run_json(rows[0])["totals"]["cost_usd"] == "1.00"
    meters = live_page(boss, rows[0]).meters
    assert (meters.cost_usd, meters.tokens, meters.below.runs) == (Decimal(10), 10 + 40, 3)


def test_what_a_child_asks_is_in_the_inbox_under_its_parents_name(boss: Access, model: Model, shop: LocalShop) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate()), "All is done."), Part=turns(uses(REFUNDS), "Refunded.", "Done.")
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    (child,) = children(run)
    child = advance(child)
    assert child.status == "waiting"
    assert Batch.objects.get(run=child).title == "Boss › Desk wants to do 1 thing"
    worker.sweep()
    run.refresh_from_db()
    assert run.status == "waiting", "its child still works"

    assert applied(decide(boss, child))
    advance(child)
    run = advance(run)
    assert run.status == "completed"
    assert shop.effects() == ["issue_refund"]


def test_what_is_rejected_below_is_told_above(boss: Access, model: Model, shop: LocalShop) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate()), "All is done."), Part=turns(uses(REFUNDS), "It waits.", "A person said no.")
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    (child,) = children(run)
    advance(child)
    assert applied(decide(boss, child, Verdict.REJECT, note="not ours"))
    advance(child)
    advance(run)
    assert "A person said no." in told(model.calls[-1])
    assert shop.effects() == []


def test_cancel_goes_down_the_tree(boss: Access, model: Model, shop: LocalShop) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate(), delegate(task="Asks."))),
        Part=turns(uses(delegate("clerk", "Small."))),
        Small=turns("Done."),
        Asks=turns(uses(REFUNDS)),
    )
    run = advance(launch(boss, Mode.INTERACTIVE, agent="boss", task="Whole."))
    child, asks = children(run)
    child = advance(child)
    assert advance(asks).status == "waiting"
    (grandchild,) = children(child)
    assert lifecycle.claim_lease(grandchild.id, "elsewhere:1:1"), "a worker has it"

    commands.cancel(boss, run.id)
    for each in (run, child, asks, grandchild):
        each.refresh_from_db()
    assert [run.status, child.status, asks.status] == ["cancelled"] * 3
    assert run.stop_detail == "A person cancelled this run; half done: 2 tool calls."
    assert asks.stop_detail == "A person cancelled this run; untouched: 1 proposed action."
    assert (grandchild.status, grandchild.wish) == ("running", "cancel")
    assert not Batch.objects.filter(status="open").exists()
    assert_sound(child)
    assert shop.effects() == []


def test_a_run_that_is_lost_to_another_worker_starts_no_child(boss: Access) -> None:
    run = launch(boss, agent="boss", task="Whole.")
    assert lifecycle.claim_lease(run.id, "this:1:1")
    Run.objects.filter(id=run.id).update(lease_owner="other:1:1")
    run.refresh_from_db()
    with pytest.raises(LeaseLost):
        DbChildren(run, leases.Lease(run_id=run.id, owner="this:1:1")).start("1:0", "desk", "Part one.", None, NOTHING)
    assert children(run) == []


def test_a_childs_limits_are_within_its_parents_and_its_budget(boss: Access) -> None:
    run = launch(boss, agent="boss", task="Whole.", limits={"max_cost_usd": "1.00", "max_output_tokens": 900})
    assert lifecycle.claim_lease(run.id, "this:1:1")
    run.refresh_from_db()
    run.cost_usd, run.output_tokens = Decimal("0.40"), 300
    store = DbChildren(run, leases.Lease(run_id=run.id, owner="this:1:1"))
    store.start("1:0", "desk", "Part one.", None, NOTHING)
    store.start("1:1", "desk", "Part two.", Decimal("0.25"), NOTHING)
    store.start("1:1", "desk", "Part two.", Decimal("0.25"), NOTHING)
    one, two = children(run)
    assert (one.max_cost_usd, one.max_output_tokens, one.max_steps) == (Decimal("0.60"), 600, 60)
    assert two.max_cost_usd == Decimal("0.25")


def test_the_last_child_ends_while_its_parent_parks(boss: Access, race: Race, rings: list[str]) -> None:
    """No parent is left waiting for a child that has ended."""
    done = Finished(status=RunStatus.COMPLETED, stop_reason=StopReason.DONE, stop_detail="", result="Done.")
    for _ in range(REPETITIONS):
        run = launch(boss, agent="boss", task="Whole.")
        assert lifecycle.claim_lease(run.id, "this:1:1")
        run.refresh_from_db()
        lease = leases.Lease(run_id=run.id, owner="this:1:1")
        DbChildren(run, lease).start("1:0", "clerk", "Part one.", None, NOTHING)
        (child,) = children(run)
        assert lifecycle.claim_lease(child.id, "that:1:1")
        child = Run.objects.select_related("team", "agent").get(id=child.id)
        that = leases.Lease(run_id=child.id, owner="that:1:1")
        parks = partial(tasks.conclude, run, lease, Parked(why="children"))
        race(parks, partial(tasks.conclude, child, that, done))
        run.refresh_from_db()
        assert run.status == "queued", "its child has ended"
        assert str(run.id) in rings
