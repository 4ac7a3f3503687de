"""A figure of the costs page, and the search it leads to, are the same sum to the last digit."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.test import Client

from accounts.access import access_for_user
from accounts.models import Team, User
from runs.models import Action, Agent, Run, Step
from runs.pricing import SIMULATED
from tests.traces.factories import make_action, make_agent, make_run, make_step, make_team, make_user
from tests.traces.test_pages import sign_in
from traces import caching, cost_page, overview, rollup, search_page
from traces.query import parse

NOW = dt.datetime(2026, 3, 12, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
MODELS = ("claude-sonnet-5-5", "Claude-Sonnet-5-5", "claude-haiku-5-5", "unheard-of", 'odd "one" *', "")
TOOLS = ("shop.get_order", "shop.Get_Order", "shop.*", "")
TYPES = ("refund-late", "Refund-Late", "late parcel", "")
PRICES = ("genai-prices/anthropic/x", "genai-prices/anthropic/x?processing=batch", "override/12", SIMULATED)
ENDS = (
    ("completed", "done"),
    ("completed", "done"),
    ("failed", "model_error"),
    ("failed", "rejected"),
    ("cancelled", "cancelled"),
    ("stopped", "rejected"),
    ("stopped", "escalation_declined"),
    ("stopped", "max_cost"),
)


def world(chance: random.Random, team: Team, dana: User) -> None:
    """Runs of every kind, whose agents, people, models and tools are called confusingly alike, in two teams."""
    agents = [make_agent(team), make_agent(team, "other", "refund-desk"), make_agent(team, "Third", "Third")]
    people = [dana, make_user(team, "emil", "dana", "Roux")]
    elsewhere = make_team("elsewhere", "Elsewhere")
    outsider = make_user(elsewhere, "otto", "Otto", "Brand")
    for _ in range(26):
        fill(chance, some_run(chance, chance.choice(agents), chance.choice(people)))
    for number in range(3):
        fill(chance, some_run(chance, make_agent(elsewhere, f"refund-desk-{number}"), outsider))


def some_run(chance: random.Random, agent: Agent, owner: User) -> Run:
    status, reason = chance.choice((("running", None), *ENDS))
    return make_run(
        agent,
        owner,
        created=NOW - chance.uniform(0, 40) * DAY,
        seconds=None if reason is None else 60,
        status=status,
        stop_reason=reason,
        task_type=chance.choice(TYPES),
    )


def fill(chance: random.Random, run: Run) -> None:
    for number in range(chance.randint(0, 6)):
        model = chance.choice(MODELS)
        cost = chance.choice((None, Decimal(chance.randrange(10**9)).scaleb(-9), Decimal(0)))
        cached = {name: chance.choice((0, 0, chance.randrange(150_000))) for name in ("read", "write_5m", "write_1h")}
        make_step(
            run,
            "model" if model else "tool",
            key=f"model:{number}" if model else f"tool:{number}",
            model=model,
            tool="" if model and chance.random() < 0.8 else chance.choice(TOOLS),
            status=chance.choice(("ok", "ok", "error", "timeout")),
            cost_usd=cost,
            price_id=chance.choice(PRICES) if model else "",
            input_tokens=chance.randrange(9_999),
            output_tokens=chance.randrange(999),
            cache_expired_tokens=chance.choice((0, 77)) if cached["write_5m"] or cached["write_1h"] else 0,
            after=chance.choice((1, 1, 3_600, 86_400 * 9)),
            **{f"cache_{name}_tokens": count for name, count in cached.items()},
        )
        if model and chance.random() < 0.5:
            for position in range(chance.choice((1, 1, 2))):
                decided = chance.choice(("rejected", "rejected", "expired", "succeeded", "superseded"))
                make_action(run, status=decided, intent=f"{number}:{position}", tool_call_id=f"{number}-{position}")


def found(client: Client, query: str) -> Any:
    """What the search page shows of the query, but for its markup."""
    user = User.objects.get(id=client.session["_auth_user_id"])
    return search_page.page(access_for_user(user), parse(query, NOW), "newest", "")


def check_page(client: Client, page: Any, by: str) -> int:
    """How many figures were followed."""
    followed = 0
    for line in page["lines"]:
        shown = found(client, line.query)
        if not line.row.steps:  # only runs were made then, which took their steps later
            assert shown["found"].total == 0
            continue
        for name in ("cost", "steps", "tokens", "unpriced_steps", "calls"):
            assert getattr(shown["steps"], name) == getattr(line.row, name), (by, line.label, line.query, name)
        followed += 1
    for saving in page["savings"]:
        steps, row = found(client, saving["query"])["steps"], saving["line"].row
        assert steps.cache_saved_usd == row.cache_saved_usd, (by, saving["query"])
        followed += 1
    return followed


def check_totals(client: Client, page: Any) -> None:
    total = page["report"].total
    steps = found(client, page["query_all"])["steps"]
    assert (steps.cost, steps.steps, steps.tokens) == (total.cost, total.steps, total.tokens)
    assert found(client, page["query_unpriced"])["steps"].steps == total.unpriced_steps
    assert found(client, page["query_month"])["steps"].cost == page["month"].spent
    assert found(client, page["query_runs"])["overview"].figures.count == total.runs
    columns = {
        "reads": "saved_by_reads",
        "writes": "paid_for_writes",
        "net": "cache_saved_usd",
        "lost": "lost_to_expiry",
    }
    for name, column in columns.items():
        if getattr(total, column):
            steps = found(client, page["ledger"][name])["steps"]
            assert getattr(steps, column) == getattr(total, column), name


def check_outcomes(client: Client, page: Any) -> set[str]:
    for share in page["outcomes"].waste:
        shown = found(client, share.query)
        steps, figures = shown["steps"], shown["overview"].figures
        assert ((figures.count, figures.cost) if steps is None else (steps.steps, steps.cost)) == (
            share.count,
            share.cost,
        ), share.query
    assert found(client, f"status:completed {page['span']}")["overview"].figures.count == page["outcomes"].finished
    return {share.label for share in page["outcomes"].waste}


@pytest.mark.parametrize(("seed", "few"), [(1, True), (2, False)])
@time_machine.travel(NOW, tick=False)
def test_what_the_costs_page_leads_to_is_the_same_sum(
    team: Team, dana: User, monkeypatch: pytest.MonkeyPatch, seed: int, few: bool
) -> None:
    """Whether what indexes find is looked at whole, or is too much for that."""
    chance = random.Random(seed)
    world(chance, team, dana)
    rollup.roll(team.id)
    if not few:
        monkeypatch.setattr("traces.text_index.MOST", 3)
    client = sign_in(dana)
    followed = 0
    for by in cost_page.TABS:
        page = client.get("/costs/", {"by": by}).context
        followed += check_page(client, page, by)
    check_totals(client, page)
    assert len(check_outcomes(client, page)) >= 3
    assert followed > 40


@time_machine.travel(NOW, tick=False)
def test_all_the_runs_found_are_summed_though_few_are_looked_at(
    team: Team, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    world(random.Random(4), team, dana)
    client = sign_in(dana)
    whole = found(client, "since:30d")["overview"].figures
    monkeypatch.setattr(overview, "MOST_RUNS", 2)
    few = found(client, "since:30d")["overview"].figures
    assert (few.capped, few.whole, whole.capped, whole.whole) == (True, True, False, True)
    assert (few.count, few.cost, few.unpriced) == (whole.count, whole.cost, whole.unpriced)
    assert min(whole.count - 2, whole.cost, whole.unpriced) > 0


@time_machine.travel(NOW, tick=False)
def test_a_period_of_hours_leads_to_the_sums_of_these_hours(team: Team, dana: User) -> None:
    run = make_run(make_agent(team), dana, created=dt.datetime(2026, 3, 9, 17, 40, tzinfo=dt.UTC))
    for minutes in range(0, 1500, 20):
        make_step(run, after=minutes * 60, cost_usd=Decimal(1 + minutes).scaleb(-6))
    client = sign_in(dana)
    asked = {"by": "day", "from": "2026-03-09T17:50:00+00:00", "to": "2026-03-10T05:10:00+00:00"}
    page = client.get("/costs/", asked).context
    assert len(page["lines"]) == check_page(client, page, "day") == 2
    assert found(client, page["query_all"])["steps"].cost == page["report"].total.cost


def test_proposals_that_were_edited_count_as_their_edit(team: Team, dana: User) -> None:
    """A turn is refused once nothing of it is left."""
    run = make_run(make_agent(team), dana)
    for number in range(4):
        make_step(run, "model", key=f"model:{number}", model="m", cost_usd=Decimal(1))
    make_step(run, "model", key="model:1:failed:0", model="m", cost_usd=Decimal(1))
    for intent, status in (("1:0", "superseded"), ("1:0", "rejected"), ("2:0", "rejected"), ("2:1", "succeeded")):
        make_action(run, intent=intent, status=status, supersedes=Action.objects.filter(intent=intent).first())
    make_action(run, intent="3:0", status="superseded")
    make_action(run, intent="11:0", status="rejected")
    steps = found(sign_in(dana), "step:{is:refused}")["steps"]
    assert (steps.steps, steps.cost) == (1, Decimal(1))
    assert Step.objects.count() == 5


@time_machine.travel(NOW, tick=False)
def test_prices_that_need_rounding_are_rounded_as_in_the_report(
    team: Team, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    world(random.Random(5), team, dana)
    listed = caching.rate
    monkeypatch.setattr(caching, "rate", lambda *asked: (found := listed(*asked)) and found / 7)
    client = sign_in(dana)
    page = client.get("/costs/").context
    check_totals(client, page)
    assert page["report"].total.saved_by_reads


@time_machine.travel(NOW, tick=False)
def test_sums_of_steps_are_told_apart_from_sums_of_runs_on_the_page(team: Team, dana: User) -> None:
    run = make_run(make_agent(team), dana)
    for model, cost in (("claude-sonnet-5-5", "0.25"), ("claude-haiku-5-5", "0.125"), ("claude-haiku-5-5", None)):
        make_step(run, "model", model=model, cost_usd=cost and Decimal(cost), cache_read_tokens=1_000)
    client = sign_in(dana)
    page = client.get("/traces/?q=step:{model:claude-haiku-5-5}").content.decode()
    for text in ("$0.38", "$0.13", "1 unpriced", "Steps found"):
        assert text in page
    assert "Saved by reads" not in page
    assert "Saved by reads" in client.get("/traces/?q=step:{cache_read:>0}").content.decode()
    assert "Steps found" not in client.get("/traces/?q=model:claude-haiku-5-5").content.decode()
    common = client.get("/traces/?q=step:{claude} step:{tool:x}")
    assert common.context["found"].total == 0
