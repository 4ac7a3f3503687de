"""Limits of steps and money, with real prices: no total passes its limit, whatever the model does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from accounts.access import Access
from accounts.models import Team
from runs import leases, lifecycle
from runs.engine.ports import BudgetExceeded
from runs.models import Run, TeamMonth
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.server import FakeMessagesServer
from runs.store import DbBudget, DbJournal
from tests.accounts.together import together
from tests.flows.conftest import Model, assert_sound
from tests.flows.shop import LocalShop
from tests.running import READ, add_agent, advance, launch, through_tries, tool, turns, uses
from tests.traces.factories import make_model_step

READS = tool(READ, order="48213")
PRICED = "claude-sonnet-4-5"


def month() -> dt.date:
    return timezone.now().date().replace(day=1)


@pytest.fixture
def provider(crew: Access, shop: LocalShop, tmp_path: Path) -> Iterator[Model]:
    """A server that is paid for: the model of the request answers, at its price."""
    add_agent(crew.team, model=PRICED)
    shop.changes["repeatable"] = True  # what never ends here is to end at its limits
    with (
        FakeMessagesServer(turns("Done."), echo_model=True) as server,
        override_settings(SIMULATED=False, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="test"),
    ):
        yield Model(server)


def never_ends(_: JsonObject) -> Reply:
    """A model that goes on calling tools as long as it has any."""
    return Reply(text="I look once more. " * 40, tools=(READS,))


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 5])
def test_steps(crew: Access, shop: LocalShop, model: Model, most: int) -> None:
    model.server.respond = lambda body: Reply(text="Out of steps.") if body.get("tool_choice") else never_ends(body)
    run = advance(launch(crew, limits={"max_steps": most}))
    assert (run.status, run.stop_reason) == ("stopped", "max_steps")
    assert run.work_steps <= most
    assert run.result == "Out of steps."
    assert_sound(run)


# --- dollars ---------------------------------------------------------------------------------------------------------


def test_a_paid_run_adds_up(crew: Access, shop: LocalShop, provider: Model) -> None:
    provider.says(uses(READS), uses(READS), "Done.")
    run = advance(launch(crew))
    assert (run.status, run.simulated, run.unpriced_steps) == ("completed", False, 0)
    paid = run.steps.filter(kind="model")
    assert all(step.cost_usd and step.cost_usd > 0 for step in paid)
    assert all(step.price_id.endswith(f"/anthropic/{PRICED}") for step in paid)
    assert run.cost_usd > 0
    assert_sound(run)


@pytest.mark.parametrize("most", ["0.02", "0.05", "0.30"])
def test_a_limit_of_dollars_is_never_passed(crew: Access, shop: LocalShop, provider: Model, most: str) -> None:
    provider.server.respond = never_ends
    run = advance(launch(crew, limits={"max_cost_usd": most, "max_steps": 200}))
    assert (run.status, run.stop_reason) == ("stopped", "max_cost")
    assert run.cost_usd <= Decimal(most)
    assert_sound(run)


def test_replies_that_were_lost_are_within_the_limit(crew: Access, shop: LocalShop, provider: Model) -> None:
    """Every other reply breaks off: it may have been billed as far as it came, and no sum knows of it."""
    said, rate = 3000, {"in": Decimal(3) / 10**6, "out": Decimal(15) / 10**6}
    billed: list[Decimal] = []

    def breaks_off(body: JsonObject) -> Reply:
        if len(provider.server.calls) % 2 == 0:
            return never_ends(body)
        billed.append(2000 * rate["in"] + said * rate["out"])
        return Reply(text="x" * said, usage={"input_tokens": 2000}, cut_after=said)

    provider.server.respond = breaks_off
    run = through_tries(launch(crew, limits={"max_cost_usd": "0.30", "max_steps": 200}), most=60)
    assert (run.status, run.stop_reason) == ("stopped", "max_cost")
    assert 1 < len(billed) <= run.unpriced_steps
    assert sum(billed) <= run.lost_usd
    assert run.cost_usd + run.lost_usd <= Decimal("0.30")
    assert_sound(run)


def test_what_is_reserved_covers_what_is_paid(crew: Access, shop: LocalShop, provider: Model) -> None:
    """Looked at while each call is made: spent and reserved together stay within the limit."""
    seen: list[tuple[Decimal, Decimal]] = []

    def watched(body: JsonObject) -> Reply:
        try:
            seen.append(Run.objects.values_list("cost_usd", "reserved_usd").get())
        finally:
            connection.close()
        return never_ends(body)

    provider.server.respond = watched
    run = advance(launch(crew, limits={"max_cost_usd": "0.10", "max_steps": 200}))
    assert len(seen) > 2
    assert all(reserved > 0 for _, reserved in seen)
    assert all(spent + reserved <= Decimal("0.10") for spent, reserved in seen)
    for (spent, reserved), (after, _) in pairwise(seen):
        assert after - spent <= reserved
    assert run.reserved_usd == 0


def test_a_model_without_a_price_is_not_free(crew: Access, shop: LocalShop, provider: Model) -> None:
    add_agent(crew.team, model="a-model-of-our-own")
    run = advance(launch(crew))
    assert (run.status, run.cost_usd, run.unpriced_steps) == ("completed", 0, 1)
    assert run.steps.get(kind="model").cost_usd is None
    assert_sound(run)


# --- the team's month ------------------------------------------------------------------------------------------------


def set_budget(team: Team, usd: str) -> None:
    Team.objects.filter(id=team.id).update(month_budget_usd=Decimal(usd))
    team.refresh_from_db()


def test_the_month_counts_what_its_runs_cost(crew: Access, shop: LocalShop, provider: Model) -> None:
    set_budget(crew.team, "5")
    runs = [advance(launch(crew)) for _ in range(2)]
    assert [run.status for run in runs] == ["completed"] * 2
    sums = TeamMonth.objects.get(team=crew.team, month=month())
    assert sums.spent_usd == sum(run.cost_usd for run in runs) > 0
    assert sums.reserved_usd == 0


@pytest.mark.parametrize("own", [{"max_cost_usd": "3"}, {"max_cost_usd": None}], ids=["own limit", "no own limit"])
def test_the_month_is_never_passed(crew: Access, shop: LocalShop, provider: Model, own: dict[str, object]) -> None:
    provider.server.respond = never_ends
    set_budget(crew.team, "0.25")
    run = advance(launch(crew, limits={**own, "max_steps": 300, "max_output_tokens": None, "max_input_tokens": None}))
    assert (run.status, run.stop_reason) == ("stopped", "max_cost")
    assert "the team's budget of $0.25 for this month is used up" in run.stop_detail
    sums = TeamMonth.objects.get(team=crew.team)
    assert sums.spent_usd == run.cost_usd <= Decimal("0.25")
    assert sums.reserved_usd == 0
    assert_sound(run)
    later = advance(launch(crew, limits=own))
    assert later.stop_reason == "max_cost"
    assert run.cost_usd + later.cost_usd <= Decimal("0.25")


def test_a_budget_set_in_the_middle_of_a_month_counts_what_was_spent(
    crew: Access, shop: LocalShop, provider: Model
) -> None:
    before = launch(crew)
    lifecycle.claim_lease(before.id, "x:1:1")
    make_model_step(before, cost="4.99", after=0)
    make_model_step(before, cost="7", started_at=timezone.now() - dt.timedelta(days=40))
    set_budget(crew.team, "5")
    run = advance(launch(crew))
    assert (run.stop_reason, run.model_calls) == ("max_cost", 0)


def test_a_worker_that_died_holds_nothing_back(crew: Access, shop: LocalShop, provider: Model) -> None:
    set_budget(crew.team, "1")
    dead = launch(crew, limits={"max_cost_usd": "2"})
    reserve(dead, "0.9")
    assert TeamMonth.objects.get().reserved_usd == Decimal("0.9")
    assert advance(launch(crew)).stop_reason == "max_cost", "while it is alive, its reservation counts"
    assert lifecycle.free_lost_lease(dead.id, "worker:1:1")
    assert advance(launch(crew)).status == "completed"
    assert TeamMonth.objects.get().reserved_usd == 0


def reserve(run: Run, usd: str) -> bool:
    """What a worker does before a model call; False when it does not fit."""
    if Run.objects.filter(id=run.id, status="queued").exists():
        assert lifecycle.claim_lease(run.id, "worker:1:1")
    row = Run.objects.select_related("team", "agent_version").get(id=run.id)
    lease = leases.Lease(run_id=run.id, owner="worker:1:1")
    try:
        DbBudget(row, lease, DbJournal(row, lease)).reserve(usd=Decimal(usd), input_tokens=1, output_tokens=1)
    except BudgetExceeded:
        return False
    return True


def test_many_runs_at_once_do_not_pass_the_month_together(crew: Access, shop: LocalShop) -> None:
    set_budget(crew.team, "1")
    with override_settings(SIMULATED=False):
        runs = [launch(crew, limits={"max_cost_usd": "2"}) for _ in range(6)]
    fitted = together([partial(reserve, run, "0.3") for run in runs])
    assert (fitted.count(True), fitted.count(False)) == (3, 3), fitted
    assert TeamMonth.objects.get().reserved_usd == Decimal("0.9")


def test_a_reservation_against_the_run_is_one_condition(crew: Access, shop: LocalShop) -> None:
    run = launch(crew, limits={"max_cost_usd": "0.5", "max_input_tokens": 10, "max_output_tokens": 10})
    assert reserve(run, "0.5")
    assert not reserve(run, "0.500000001")
    Run.objects.filter(id=run.id).update(lost_usd=Decimal("0.1"))
    assert (reserve(run, "0.4"), reserve(run, "0.400000001")) == (True, False)
    Run.objects.filter(id=run.id).update(lost_usd=0)
    Run.objects.filter(id=run.id).update(input_tokens=10)
    assert not reserve(run, "0.1")
    Run.objects.filter(id=run.id).update(input_tokens=0, lease_owner="another:1:1")
    assert not reserve(run, "0.1")
