"""What a run needs in order to answer is kept back from the runs below it, whatever they spend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from django.db.models import Sum
from django.test import override_settings

from accounts.access import Access
from runs import family, leases, lifecycle
from runs.children import DbChildren
from runs.engine.ports import BudgetExceeded
from runs.engine.types import Room
from runs.models import Run
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from runs.samples.simulated.server import FakeMessagesServer
from tests.flows.conftest import Model, assert_sound
from tests.flows.shop import LocalShop
from tests.flows.test_budgets import PRICED, READS
from tests.running import add_agent, advance, launch, uses

NOTHING = Room(usd=Decimal(0), input_tokens=0, output_tokens=0)


def part(task: str) -> ToolCall:
    return ToolCall(name="delegate", input={"agent": "desk", "task": task, "reasoning": "theirs", "confidence": 0.9})


def spends_all(body: JsonObject) -> Reply:
    """The sub-agents go on until nothing is left; their parent delegates once and then would answer at length."""
    task = str(body["messages"][0]["content"][0]["text"])
    if body.get("tool_choice"):
        return Reply(text="Two parts were begun." if task == "Whole." else "This far I came. " * 40)
    if task.startswith("Part"):
        return Reply(text="I look once more. " * 40, tools=(READS,))
    return uses(part("Part one."), part("Part two."), part("Part three."))


@pytest.fixture
def provider(crew: Access, shop: LocalShop, tmp_path: Path) -> Iterator[Model]:
    add_agent(crew.team, model=PRICED)
    add_agent(crew.team, "boss", name="Boss", tools=[], subagents=["desk"], model=PRICED)
    shop.changes["repeatable"] = True  # what never ends here is to end at its limits
    with (
        FakeMessagesServer(spends_all, echo_model=True) as server,
        override_settings(SIMULATED=False, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="test"),
    ):
        yield Model(server)


@pytest.mark.parametrize(
    ("limit", "most", "used"),
    [
        ("max_cost_usd", "0.20", ("cost_usd",)),
        ("max_input_tokens", 45_000, ("input_tokens", "cache_read_tokens", "cache_write_tokens")),
        ("max_output_tokens", 6_000, ("output_tokens",)),
    ],
)
def test_sub_agents_that_spend_all_leave_their_parent_its_answer(
    crew: Access, provider: Model, limit: str, most: object, used: tuple[str, ...]
) -> None:
    run = advance(launch(crew, agent="boss", task="Whole.", limits={limit: most}))
    children = list(Run.objects.filter(parent=run))
    assert len(children) == 3
    ended = [advance(child).status for child in children]
    assert "stopped" in ended
    run = advance(run)

    assert run.status in ("completed", "stopped")
    assert run.result == "Two parts were begun."
    spent = Run.objects.aggregate(**{name: Sum(name) for name in used})
    assert sum(spent.values()) <= Decimal(str(most))
    for each in (run, *children):
        each.refresh_from_db()
        assert_sound(each)


def test_a_reservation_below_leaves_what_every_run_that_waits_has_kept(crew: Access, shop: LocalShop) -> None:
    """Also what a sister keeps for the runs below her; nothing of a run that has ended, nor of one's own."""
    add_agent(crew.team, "clerk", name="Clerk", tools=[])
    add_agent(crew.team, "desk", name="Desk", tools=[], subagents=["clerk"])
    add_agent(crew.team, "boss", name="Boss", tools=[], subagents=["desk"])
    run = launch(crew, agent="boss", task="Whole.", limits={"max_cost_usd": "1.00"})
    assert lifecycle.claim_lease(run.id, "this:1:1")
    run.refresh_from_db()
    store = DbChildren(run, leases.Lease(run_id=run.id, owner="this:1:1"))
    kept = replace(NOTHING, usd=Decimal("0.10"))
    store.start("1:0", "desk", "Part one.", None, kept)
    store.start("1:1", "desk", "Part two.", None, kept)
    one, two = Run.objects.filter(parent=run).order_by("created_at")
    assert one.max_cost_usd == two.max_cost_usd == Decimal("0.90")
    Run.objects.filter(id=two.id).update(kept_usd=Decimal("0.20"))

    def holds(usd: str) -> bool:
        Run.objects.filter(id=one.id).update(reserved_usd=Decimal(usd), kept_usd=Decimal("0.50"))
        try:
            family.check(family.family_of(one))
        except BudgetExceeded:
            return False
        return True

    assert (holds("0.70"), holds("0.71")) == (True, False)
    assert lifecycle.request_cancel(two.id) == "ended"
    assert (holds("0.90"), holds("0.91")) == (True, False)
