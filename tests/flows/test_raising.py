"""A run at its limit asks for more room, through the inbox; and runs of one family spend from the same purse."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from django.test import Client, override_settings

from accounts import receipts
from accounts.access import Access
from approvals.inbox import Result
from approvals.models import Verdict
from runs import leases, lifecycle, previews
from runs.engine.ports import BudgetExceeded
from runs.engine.types import ModelRequest
from runs.llm import AnthropicLlm
from runs.models import Action, Run
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.server import FakeMessagesServer
from runs.store import DbBudget, DbJournal
from tests.accounts.together import together
from tests.flows.conftest import Model, applied, assert_sound, decide, member
from tests.flows.shop import LocalShop
from tests.running import READ, add_agent, advance, launch, open_batch, tool, turns, uses

READS = tool(READ, order="48213")
PRICED = "claude-sonnet-4-5"


@pytest.fixture
def generous(crew: Access, shop: LocalShop) -> None:
    add_agent(crew.team, raise_limits=True)


def at_the_limit(crew: Access, model: Model) -> Run:
    model.says(*[uses(READS)] * 4, "Done.")
    return advance(launch(crew, limits={"max_steps": 6}))


def test_approved_in_the_inbox_the_run_goes_on(crew: Access, generous: None, model: Model) -> None:
    run = at_the_limit(crew, model)
    assert (run.status, run.max_steps) == ("waiting", 6)
    action = Action.objects.get(run=run)
    assert (action.title, action.risk, action.needed) == ("Raise the step limit to 9 steps", "medium", 1)
    assert previews.present(action).fields == (("Step limit", "6 steps", "9 steps"),)  # type: ignore[attr-defined]
    assert applied(decide(crew, run))

    run = advance(run)

    assert (run.status, run.max_steps, run.result) == ("completed", 9, "Done.")
    action.refresh_from_db()
    assert (action.status, action.result) == ("succeeded", f"to 9 steps, by {crew.user.label}")
    assert run.steps.get(key="raise:1").title == "Raised the step limit"
    assert receipts.verify(crew.team) == []
    assert_sound(run)


def test_the_offer_is_no_effect_on_the_world_and_says_each_thing_once(
    crew: Access, generous: None, model: Model, client: Client
) -> None:
    run = at_the_limit(crew, model)
    batch = open_batch(run)
    assert batch.title == "Refund desk has reached a limit"
    client.force_login(crew.user, backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(f"/approvals/{batch.id}/").content.decode()
    assert page.count("Without more room the run sums up what it has.") == 1
    assert "cannot be undone" not in page
    assert "Confidence" not in page
    assert "1 limit" in page
    assert "<dt>limit</dt>" not in page.split('class="action-arguments"')[0], "the table says it"


def test_rejected_it_wraps_up_and_leaves_the_limit(crew: Access, generous: None, model: Model) -> None:
    run = at_the_limit(crew, model)
    assert applied(decide(crew, run, Verdict.REJECT, note="Enough."))

    run = advance(run)

    assert (run.status, run.stop_reason, run.max_steps) == ("stopped", "max_steps", 6)
    step = run.steps.get(key="raise:1")
    assert (step.status, step.summary) == ("denied", "rejected: Enough.")
    assert run.work_steps <= 6
    assert_sound(run)


def test_a_person_gives_another_amount(crew: Access, generous: None, model: Model) -> None:
    run = at_the_limit(crew, model)
    assert applied(decide(crew, run, args={"limit": "max_steps", "by": "20"}))
    edited = Action.objects.get(run=run, supersedes__isnull=False)
    assert edited.title == "Raise the step limit to 26 steps"

    run = advance(run)

    assert (run.status, run.max_steps) == ("completed", 26)
    assert_sound(run)


@pytest.mark.parametrize(
    "args",
    [
        {"limit": "max_steps", "by": "-5"},
        {"limit": "max_steps", "by": "0"},
        {"limit": "speed", "by": "1"},
        {"by": "1"},
    ],
)
def test_an_amount_that_makes_no_sense_is_refused_where_it_was_made(
    crew: Access, generous: None, model: Model, args: JsonObject
) -> None:
    run = at_the_limit(crew, model)
    (outcome,) = decide(crew, run, args=args)
    assert outcome.result is Result.INVALID
    assert open_batch(run).status == "open"


def test_a_viewer_cannot_raise_it(crew: Access, generous: None, model: Model) -> None:
    run = at_the_limit(crew, model)
    with pytest.raises(Exception, match="needs the role approver"):
        decide(member(crew, "vic", role="viewer"), run)
    run.refresh_from_db()
    assert (run.status, run.max_steps) == ("waiting", 6)


@pytest.fixture
def provider(crew: Access, shop: LocalShop, tmp_path: Path) -> Iterator[Model]:
    """A server that is paid for: the model of the request answers, at its price."""
    add_agent(crew.team, model=PRICED, raise_limits=True)
    with (
        FakeMessagesServer(turns("Done."), echo_model=True) as server,
        override_settings(SIMULATED=False, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="test"),
    ):
        yield Model(server)


def test_dollars_are_raised_to_the_cent_and_still_hold(crew: Access, shop: LocalShop, provider: Model) -> None:
    shop.changes["repeatable"] = True  # what never ends here is to end at its limits
    provider.server.respond = lambda body: Reply(text="I look once more. " * 40, tools=(READS,))
    run = advance(launch(crew, limits={"max_cost_usd": "0.10", "max_steps": 200}))
    assert Action.objects.get(run=run).args == {"limit": "max_cost_usd", "by": "0.05"}
    before = run.cost_usd
    assert before <= Decimal("0.10")
    assert applied(decide(crew, run))

    run = advance(run)

    assert (run.status, run.max_cost_usd) == ("waiting", Decimal("0.15"))
    assert before < run.cost_usd <= Decimal("0.15")
    assert applied(decide(crew, run, Verdict.REJECT))
    assert advance(run).stop_reason == "max_cost"
    assert_sound(Run.objects.get(id=run.id))


def test_close_to_the_limit_the_provider_is_asked_to_count(
    crew: Access, provider: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With our own bound of a byte a token this budget does not reach one call; the provider counts four bytes."""
    counted: list[str] = []
    count = AnthropicLlm.count_tokens

    def spy(self: AnthropicLlm, request: ModelRequest) -> int | None:
        counted.append("asked")
        return count(self, request)

    monkeypatch.setattr(AnthropicLlm, "count_tokens", spy)
    assert advance(launch(crew, limits={"max_input_tokens": 12_000})).status == "completed"
    assert counted
    counted.clear()
    assert advance(launch(crew)).status == "completed"
    assert counted == [], "far from every limit nobody counts"


# --- families --------------------------------------------------------------------------------------------------------


def reserve(run: Run, usd: str, tokens: int = 1) -> str:
    """What a worker does before a model call: empty when it fits, else why it does not."""
    if Run.objects.filter(id=run.id, status="queued").exists():
        assert lifecycle.claim_lease(run.id, "worker:1:1")
    row = Run.objects.select_related("team", "agent_version").get(id=run.id)
    lease = leases.Lease(run_id=run.id, owner="worker:1:1")
    try:
        DbBudget(row, lease, DbJournal(row, lease)).reserve(usd=Decimal(usd), input_tokens=tokens, output_tokens=1)
    except BudgetExceeded as exceeded:
        return exceeded.detail
    return ""


def children(crew: Access, parent: Run, number: int, **limits: object) -> list[Run]:
    runs = [launch(crew, limits={"max_cost_usd": None, **limits}) for _ in range(number)]
    Run.objects.filter(id__in=[run.id for run in runs]).update(parent=parent)
    return [Run.objects.get(id=run.id) for run in runs]


def reserved(*runs: Run) -> Decimal:
    return sum(Run.objects.filter(id__in=[run.id for run in runs]).values_list("reserved_usd", flat=True), Decimal(0))


def test_fifty_sub_agents_at_once_cannot_overspend_together(crew: Access, shop: LocalShop) -> None:
    parent = launch(crew, limits={"max_cost_usd": "1"})
    Run.objects.filter(id=parent.id).update(cost_usd=Decimal("0.01"))
    runs = children(crew, parent, 50)

    said = together([partial(reserve, run, "0.03") for run in runs])

    assert not [one for one in said if isinstance(one, Exception)], said
    assert said.count("") == 33
    assert all(parent.short_id in str(one) for one in said if one)
    assert reserved(*runs) == Decimal("0.99")


def test_grandchildren_spend_from_every_purse_above(crew: Access, shop: LocalShop) -> None:
    root = launch(crew, limits={"max_cost_usd": "1"})
    (middle,) = children(crew, root, 1, max_cost_usd="0.50")
    (other,) = children(crew, root, 1)
    first, second = children(crew, middle, 2)

    assert reserve(first, "0.30") == ""
    assert middle.short_id in reserve(second, "0.30"), "the middle one has 0.50"
    assert reserve(second, "0.20") == ""
    assert reserve(other, "0.50") == ""
    assert root.short_id in reserve(other, "0.51"), "a new reservation takes the place of the run's old one"
    assert reserved(first, second, other) == Decimal("1.00")


def test_tokens_of_sub_agents_count_too(crew: Access, shop: LocalShop) -> None:
    parent = launch(crew, limits={"max_input_tokens": 100})
    one, two = children(crew, parent, 2)
    assert reserve(one, "0", tokens=60) == ""
    assert "limit of input tokens" in reserve(two, "0", tokens=60)
    assert reserve(two, "0", tokens=40) == ""


def test_a_parent_counts_what_its_sub_agents_have_spent(crew: Access, shop: LocalShop) -> None:
    add_agent(crew.team, slug="lead", subagents=["desk"])
    parent = launch(crew, agent="lead", limits={"max_cost_usd": "1"})
    (child,) = children(crew, parent, 1)
    Run.objects.filter(id=child.id).update(cost_usd=Decimal("0.80"))
    assert "this run with its sub-agents" in reserve(parent, "0.30")
    assert reserve(parent, "0.20") == ""


def test_a_sub_agent_whose_worker_died_holds_nothing_back(crew: Access, shop: LocalShop) -> None:
    parent = launch(crew, limits={"max_cost_usd": "1"})
    dead, alive = children(crew, parent, 2)
    assert reserve(dead, "0.9") == ""
    assert reserve(alive, "0.9")
    assert lifecycle.free_lost_lease(dead.id, "worker:1:1")
    assert reserve(alive, "0.9") == ""
