"""What a team pays instead of the list price, how a call was served, and pricing history again."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from accounts.models import Receipt, Team, User
from accounts.receipts import verify
from runs import pricing, rates
from runs.engine.types import Usage
from runs.models import Agent, PriceOverride, Run, StaleHour, Step, TeamMonth
from runs.pricing import Override
from runs.replies import usage_of
from tests.traces import factories
from tests.traces.factories import T0, make_model_step, make_run

MODEL = "claude-opus-5-5"  # 4 in, 20 out, 0.20 read, 5 and 8 written; fast 8 and 40
AT = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


@pytest.fixture
def team(db: None) -> Team:
    return factories.make_team()


@pytest.fixture
def dana(team: Team) -> User:
    return factories.make_user(team)


@pytest.fixture
def agent(team: Team) -> Agent:
    return factories.make_agent(team)


def override(**values: Any) -> Override:
    given = {"id": "0" * 32, "model": "*", "geo": "", "starts_on": dt.date(2026, 1, 1), "ends_on": None, "factor": None}
    return Override(**{**given, "rates": {}, **values})


def cost(*overrides: Override, terms: str = "", model: str = MODEL, at: dt.datetime = AT) -> tuple[Decimal | None, str]:
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, terms=terms)
    found = pricing.price(model, usage, simulated=False, at=at, overrides=overrides)
    return found.usd, found.price_id


LIST = f"{pricing.PRICE_LIST}/anthropic/{MODEL}"


@pytest.mark.parametrize(
    ("terms", "usd", "mark"),
    [
        ("", "6", ""),
        ("batch", "3", "?batch"),
        ("fast", "12", "?fast"),
        ("geo=us", "6.6", "?geo=us*1.1"),
        ("batch;geo=us", "3.3", "?batch&geo=us*1.1"),
        ("geo=eu", "6", ""),
    ],
)
def test_how_a_call_was_served_is_in_its_price_and_its_id(terms: str, usd: str, mark: str) -> None:
    assert cost(terms=terms) == (Decimal(usd), LIST + mark)


def test_the_terms_are_what_the_provider_says() -> None:
    said = {"input_tokens": 1, "service_tier": "batch", "speed": "fast", "inference_geo": "US"}
    assert usage_of(said).terms == "batch;fast;geo=us"
    assert usage_of({"service_tier": "standard", "inference_geo": "global"}).terms == ""
    assert usage_of({"inference_geo": "a;b\n" * 99, "speed": 7}).terms == ""


def test_a_factor_is_of_the_list_price() -> None:
    assert cost(override(factor=Decimal("0.85")))[0] == Decimal("5.1")
    assert cost(override(factor=Decimal("0.85"), model="claude-haiku-*"))[0] == 6
    assert cost(override(factor=Decimal("0.85"), starts_on=dt.date(2026, 11, 21)))[0] == 6
    assert cost(override(factor=Decimal("0.85"), ends_on=dt.date(2026, 11, 20)))[0] == 6
    price_id = cost(override(factor=Decimal("0.85")), terms="geo=us")[1]
    assert price_id == f"{LIST}?override-{'0' * 12}*0.85&geo=us*1.1"


def test_a_factor_for_a_place_stands_instead_of_ours() -> None:
    here = override(geo="us", factor=Decimal("1.05"))
    assert cost(here, terms="geo=us")[0] == Decimal("6.3")
    assert cost(here)[0] == 6


def test_own_rates_price_what_the_list_does_not_know() -> None:
    own = override(model="house-*", rates={"input_tokens": Decimal(1), "output_tokens": Decimal(2)})
    assert cost(model="house-model") == (None, "")
    assert cost(own, model="house-model") == (Decimal("1.2"), f"override/{'0' * 12}")
    later = override(id="f" * 32, model="house-*", starts_on=dt.date(2026, 6, 1), rates={"input_tokens": Decimal(3)})
    assert cost(own, later, model="house-model")[0] == 3


def test_the_worst_case_is_reserved_at_the_teams_prices() -> None:
    plain = pricing.worst_price(MODEL, 1_000_000, 0)
    assert plain == 8  # written for an hour
    assert pricing.worst_price(MODEL, 1_000_000, 0, terms="geo=us") == Decimal("8.8")
    assert pricing.worst_price(MODEL, 1_000_000, 0, overrides=[override(factor=Decimal("0.5"))]) == 4
    assert pricing.worst_price("unheard-of", 1, 1) is None


def test_history_is_priced_again_with_its_sums(team: Team, agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    step = make_model_step(run, None, model="house-model", price_id="")
    make_model_step(run, "0", price_id=pricing.SIMULATED, model="simulated")
    live = make_run(agent, dana, seconds=None)
    make_model_step(live, None, model="house-model", price_id="")
    TeamMonth.objects.create(team=team, month=T0.date().replace(day=1), spent_usd=Decimal(1))
    values = dict.fromkeys(rates.RATES, Decimal(0)) | {"output": Decimal(1000)}
    rates.add(team, dana, {"model": "house-*", "starts_on": T0.date(), **values})

    looked = rates.reprice(team, write=False)
    assert (looked.by_model["house-model"].after, looked.skipped) == (Decimal("1.18"), 1)
    assert Step.objects.get(id=step.id).cost_usd is None

    out = StringIO()
    call_command("reprice", team=team.slug, json=True, stdout=out)
    told = json.loads(out.getvalue())[team.slug]
    assert told["models"]["house-model"] == {
        "calls": 1, "changed": 1, "before": "0", "after": "1.180000000", "unpriced_before": 1, "unpriced_after": 0,
    }  # fmt: skip
    assert told["runs_skipped"] == 1
    step.refresh_from_db()
    run.refresh_from_db()
    assert step.cost_usd == run.cost_usd == Decimal("1.18")
    assert step.price_id.startswith("override/")
    assert (run.unpriced_steps, Run.objects.get(id=live.id).unpriced_steps) == (0, 1)
    assert TeamMonth.objects.get().spent_usd == Decimal("2.18")
    assert StaleHour.objects.filter(hour=T0.replace(minute=0)).exists()
    assert list(Receipt.objects.order_by("seq").values_list("kind", flat=True)) == ["price.added", "price.repriced"]
    assert verify(team) == []
    assert rates.reprice(team).by_model["house-model"].changed == 0
    call_command("reprice", dry_run=True, stdout=out)
    assert "Nothing was changed." in out.getvalue()


def test_a_lost_reply_is_not_priced_by_what_is_known_of_it(team: Team, agent: Agent, dana: User) -> None:
    """Its output is unknown, and with it what it cost; a call whose model had no price has one now."""
    run = make_run(agent, dana, created=T0)
    lost = make_model_step(run, cost=None, status="error", output_tokens=1)
    unpriced = make_model_step(run, cost=None, price_id="")
    (found,) = rates.reprice(team).by_model.values()
    assert (found.calls, found.changed, found.unpriced_before, found.unpriced_after) == (2, 1, 2, 1)
    for step in (lost, unpriced, run):
        step.refresh_from_db()
    assert (lost.cost_usd, run.unpriced_steps, run.cost_usd) == (None, 1, unpriced.cost_usd)


def test_an_override_ends_once(team: Team, dana: User) -> None:
    row = rates.add(team, dana, {"model": "*", "starts_on": T0.date(), "factor": Decimal("0.9")})
    today = timezone.now().date()
    assert rates.end(row, dana, today)
    assert not rates.end(row, dana, today)
    assert PriceOverride.objects.get().ends_on == today
