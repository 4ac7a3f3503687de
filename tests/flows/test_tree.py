"""Pause, resume and cancel go down the tree of runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.access import Access
from runs import commands, leases, lifecycle
from runs.children import DbChildren
from runs.engine.types import Mode
from runs.errors import Conflict
from runs.fragments import FAMILY_EVERY_S, Watcher
from runs.models import Run
from runs.page import live_page
from runs.samples.simulated.reply import JsonObject, Reply
from tests.flows.conftest import Model, applied, assert_sound, decide
from tests.flows.shop import LocalShop
from tests.flows.test_delegation import NOTHING, REFUNDS, by_task, children, delegate
from tests.flows.test_midstream import SOON_S, STALLS, pulse, working  # noqa: F401  a fixture
from tests.running import add_agent, advance, launch, turns, uses


@pytest.fixture
def boss(crew: Access, shop: LocalShop) -> Access:
    add_agent(crew.team, "clerk", name="Clerk", tools=[])
    add_agent(crew.team, "desk", name="Desk", subagents=["clerk"])
    add_agent(crew.team, "boss", name="Boss", tools=[], subagents=["desk", "clerk"])
    return crew


def family(boss: Access, model: Model) -> tuple[Run, Run, Run, Run]:
    """A run with two sub-agents: one queued; one that waits for its own, which is queued too."""
    model.server.respond = by_task(
        Whole=turns(uses(delegate("clerk", "Small one."), delegate(task="Part.")), "All is done."),
        Part=turns(uses(delegate("clerk", "Small two.")), "My part is done."),
        Small=turns("Done."),
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    small, part = children(run)
    part = advance(part)
    (deepest,) = children(part)
    return run, small, part, deepest


def statuses(*runs: Run) -> list[str]:
    for run in runs:
        run.refresh_from_db()
    return [run.status for run in runs]


def test_a_paused_run_pauses_what_works_below_and_resumes_it(boss: Access, model: Model, rings: list[str]) -> None:
    run, small, part, deepest = family(boss, model)
    assert statuses(run, small, part, deepest) == ["waiting", "queued", "waiting", "queued"]

    commands.pause(boss, run.id)
    assert statuses(run, small, part, deepest) == ["paused"] * 4
    assert (run.paused_with, deepest.paused_with) == (None, run.id)
    assert live_page(boss, part).status.label == "Paused with the run above it"
    assert advance(small).status == "paused"

    rings.clear()
    commands.resume(boss, run.id)
    assert statuses(run, small, part, deepest) == ["queued"] * 4
    assert {str(each.id) for each in (run, small, part, deepest)} <= set(rings)
    assert deepest.paused_with is None
    assert (advance(run).status, advance(part).status) == ("waiting", "waiting")
    advance(small)
    advance(deepest)
    advance(part)
    run = advance(run)
    assert (run.status, run.result) == ("completed", "All is done.")
    for each in (run, small, part, deepest):
        each.refresh_from_db()
        assert_sound(each)


def test_what_a_person_paused_by_itself_is_not_resumed_with_the_rest(boss: Access, model: Model) -> None:
    run, small, part, deepest = family(boss, model)
    commands.pause(boss, small.id)
    commands.pause(boss, run.id)
    commands.resume(boss, run.id)
    assert statuses(run, small, part, deepest) == ["queued", "paused", "queued", "queued"]
    commands.pause(boss, run.id)
    commands.resume(boss, deepest.id)
    assert statuses(run, small, part, deepest) == ["paused", "paused", "paused", "queued"], "one goes on by itself"


def test_a_sub_agent_that_asks_pauses_before_it_goes_on(boss: Access, model: Model, shop: LocalShop) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate(task="Asks.")), "All is done."), Asks=turns(uses(REFUNDS), "Refunded.", "Done.")
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    (child,) = children(run)
    assert advance(child).status == "waiting"
    commands.pause(boss, run.id)
    assert statuses(run, child) == ["paused", "waiting"]
    assert live_page(boss, child).status.label == "Pauses after the decision"
    assert applied(decide(boss, child))
    child = advance(child)
    assert (child.status, shop.effects()) == ("paused", [])

    commands.resume(boss, run.id)
    child = advance(child)
    assert (child.status, shop.effects()) == ("completed", ["issue_refund"])
    assert advance(run).status == "completed"


def test_a_run_that_waits_for_people_alone_has_nothing_to_pause(boss: Access, model: Model, shop: LocalShop) -> None:
    model.says(uses(REFUNDS), "One waits.")
    run = advance(launch(boss))
    assert live_page(boss, run).actions.can_pause is False
    with pytest.raises(Conflict):
        commands.pause(boss, run.id)


def test_what_is_started_while_a_pause_is_said_is_paused_too(boss: Access) -> None:
    run = launch(boss, agent="boss", task="Whole.")
    assert lifecycle.claim_lease(run.id, "this:1:1")
    commands.pause(boss, run.id)
    run.refresh_from_db()
    DbChildren(run, leases.Lease(run_id=run.id, owner="this:1:1")).start("1:0", "desk", "Part.", None, NOTHING)
    (child,) = children(run)
    assert (child.status, child.paused_with) == ("paused", run.id)


def test_cancelling_a_paused_run_ends_what_was_paused_with_it(boss: Access, model: Model) -> None:
    run, small, part, deepest = family(boss, model)
    commands.pause(boss, run.id)
    commands.cancel(boss, run.id)
    assert statuses(run, small, part, deepest) == ["cancelled"] * 4


@pytest.mark.parametrize(("change", "status"), [(commands.cancel, "cancelled"), (commands.pause, "paused")])
@pytest.mark.usefixtures("pulse")
def test_a_sub_agent_stops_within_two_seconds_in_mid_stream(
    boss: Access, model: Model, change: Callable[[Access, str], Run], status: str
) -> None:
    """Said to the run above it."""

    def respond(body: JsonObject) -> Reply:
        whole = str(body["messages"][0]["content"][0]["text"]) == "Whole."
        return uses(delegate(task="Part.")) if whole else STALLS

    model.server.respond = respond
    run = advance(launch(boss, Mode.INTERACTIVE, agent="boss", task="Whole."))
    (child,) = children(run)
    worker = working(child, model, 2)
    began = time.monotonic()
    change(boss, str(run.id))
    worker.join(30)
    took = time.monotonic() - began
    assert statuses(run, child) == [status, status]
    assert took < SOON_S, f"it took {took:.1f} s"
    assert_sound(child)


@pytest.mark.parametrize(("change", "status"), [(commands.cancel, "cancelled"), (commands.pause, "paused")])
@pytest.mark.usefixtures("pulse")
def test_two_levels_down_it_stops_within_two_seconds_too(
    boss: Access, model: Model, change: Callable[[Access, str], Run], status: str
) -> None:
    """Both runs above it are parked, and no worker looks at them."""
    model.server.respond = by_task(
        Whole=turns(uses(delegate(task="Part.")), "All is done."),
        Part=turns(uses(delegate("clerk", "Small.")), "My part is done."),
        Small=turns(STALLS),
    )
    run = advance(launch(boss, Mode.INTERACTIVE, agent="boss", task="Whole."))
    (child,) = children(run)
    advance(child)
    (deepest,) = children(child)
    assert statuses(run, child, deepest) == ["waiting", "waiting", "queued"]
    worker = working(deepest, model, 3)
    began = time.monotonic()
    change(boss, str(run.id))
    worker.join(30)
    took = time.monotonic() - began
    assert statuses(run, child, deepest) == [status] * 3
    assert took < SOON_S, f"it took {took:.1f} s"
    assert_sound(deepest)


# --- what the page of the run above shows ----------------------------------------------------------------------------


def test_the_page_shows_what_the_sub_agents_do(boss: Access, model: Model, client: Client) -> None:
    run, small, part, deepest = family(boss, model)
    client.force_login(boss.user, backend="django.contrib.auth.backends.ModelBackend")
    page = live_page(boss, run)
    assert page.status.status == "delegating"
    assert page.waits is None
    assert [(each.id, each.status) for each in page.beneath.agents] == [(small.id, "queued"), (part.id, "delegating")]
    assert page.beneath.at_work == 2
    assert page.beneath.agents[1].doing.startswith("Delegate to Clerk")

    advance(small)
    advance(deepest)
    part.refresh_from_db()
    deepest.refresh_from_db()
    page = live_page(boss, run)
    assert page.beneath.at_work == 1, "one has ended"
    assert page.beneath.agents[1].cost_usd == part.cost_usd + deepest.cost_usd, "with all below it"
    html = client.get(f"/runs/{run.id}/").content.decode()
    assert f'href="/runs/{small.id}/"' in html
    assert "1 of 2 at work" in html
    assert "Waits for sub-agents" in html
    assert "Needs approval" not in html.split('id="run-status"')[1][:400]

    trace = client.get(f"/traces/{run.id}/").content.decode()
    assert "This run waits for its sub-agents." in trace
    assert "Waiting for sub-agents" in trace
    assert ">Review<" not in trace
    assert "Waits for sub-agents" in client.get("/runs/").content.decode()


def test_what_a_sub_agent_asks_waits_on_the_page_above_too(boss: Access, model: Model) -> None:
    model.server.respond = by_task(
        Whole=turns(uses(delegate(task="Asks.")), "All is done."), Asks=turns(uses(REFUNDS), "Refunded.", "Done.")
    )
    run = advance(launch(boss, agent="boss", task="Whole."))
    (child,) = children(run)
    advance(child)
    page = live_page(boss, run)
    assert page.status.status == "delegating"
    assert page.waits is not None
    assert page.waits.actions == 1
    assert page.beneath.agents[0].status == "waiting"


def test_the_page_asks_as_often_for_twenty_sub_agents_as_for_one(boss: Access) -> None:
    run = launch(boss, agent="boss", task="Whole.")

    def add() -> int:
        make_run(boss, run)
        with CaptureQueriesContext(connection) as seen:
            live_page(boss, run)
        return len(seen)

    one = add()
    assert [add() for _ in range(4)] == [one] * 4


def make_run(access: Access, parent: Run) -> Run:
    child = launch(access, agent="desk", task="Part.")
    Run.objects.filter(id=child.id).update(parent=parent)
    return child


def test_a_run_with_sub_agents_at_work_is_read_again_soon(
    boss: Access, model: Model, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them rings it."""
    monkeypatch.setattr("runs.fragments.REGIONS_EVERY_S", 0.0)
    run, small, *_ = family(boss, model)
    client.force_login(boss.user, backend="django.contrib.auth.backends.ModelBackend")
    watcher = Watcher(boss.user, client.session, str(run.id), 0)
    assert watcher.catch_up().again_in_s == FAMILY_EVERY_S
    Run.objects.filter(id=small.id).update(cost_usd="0.25")
    assert "$0.25" in watcher.catch_up().html
    commands.cancel(boss, run.id)
    assert watcher.catch_up().again_in_s > FAMILY_EVERY_S
