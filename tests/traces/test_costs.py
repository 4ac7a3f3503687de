from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.access import access_for_user
from accounts.models import Team, User
from runs import pricing
from runs.engine.types import Usage
from runs.models import Agent, Run
from tests.traces.factories import T0, make_agent, make_model_step, make_run, make_step, make_team, make_user
from traces import caching, costs
from traces.stats import percentile

DAY = dt.timedelta(days=1)
START, END = T0 - DAY, T0 + 30 * DAY


def report(user: User, by: str, start: dt.datetime = START, end: dt.datetime = END) -> costs.Report:
    return costs.report(access_for_user(user), by=by, start=start, end=end)


amounts = st.decimals(min_value=0, max_value=90, places=9, allow_nan=False, allow_infinity=False)
step_of_any_cost = st.tuples(
    st.integers(0, 3),
    st.one_of(st.none(), amounts),
    st.integers(0, 20),
    st.sampled_from(["claude-sonnet-5-5", "claude-haiku-5-5", "unheard-of"]),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(step_of_any_cost, max_size=12))
def test_every_report_sums_to_its_steps_to_the_last_digit(
    agent: Agent, dana: User, made: list[tuple[int, Decimal | None, int, str]]
) -> None:
    Run.objects.all().delete()
    runs = [make_run(agent, dana, task_type=kind) for kind in ("refund-late", "refund-damaged", "", "odd")]
    for index, cost, day, model in made:
        make_step(
            runs[index], "model", model=model, cost_usd=cost, after=day * 86_400, input_tokens=7, cache_read_tokens=3
        )
    expected = sum((cost for _, cost, _, _ in made if cost is not None), Decimal(0))
    unpriced = sum(cost is None for _, cost, _, _ in made)
    for by in costs.BY:
        found = report(dana, by)
        assert sum((row.cost or Decimal(0) for row in found.rows), Decimal(0)) == expected
        assert (found.total.cost or Decimal(0)) == expected
        assert sum(row.unpriced_steps for row in found.rows) == found.total.unpriced_steps == unpriced
        assert sum(row.steps for row in found.rows) == found.total.steps == len(made)
        assert sum(row.tokens for row in found.rows) == 10 * len(made)
    per_day = report(dana, "task_type,day")
    assert sum((row.cost or Decimal(0) for row in per_day.rows), Decimal(0)) == expected


def test_amounts_that_floating_point_cannot_add_are_added(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    for cost in ("0.1", "0.2", "0.000000001", "1234567.123456789"):
        make_model_step(run, cost)
    assert report(dana, "agent").total.cost == Decimal("1234567.423456790")


def test_rows_by_each_grouping(agent: Agent, dana: User, team: Team) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz")
    cleanup = make_agent(team, "nightly-cleanup", "Nightly cleanup")
    first = make_run(agent, dana, task_type="refund-late")
    make_model_step(first, "0.50")
    make_step(first, tool="shop.get_order", after=86_400)
    second = make_run(cleanup, marco, task_type="cleanup")
    make_model_step(second, "0.10", model="claude-haiku-5-5", after=86_400 * 7)

    def shown(by: str) -> dict[str, Decimal | None]:
        return {row.key: row.cost for row in report(dana, by).rows}

    half, tenth = Decimal("0.5"), Decimal("0.1")
    assert shown("agent") == {"refund-desk": half, "nightly-cleanup": tenth}
    assert shown("task_type") == {"refund-late": half, "cleanup": tenth}
    assert shown("user") == {"dana": half, "marco": tenth}
    assert shown("model") == {"claude-sonnet-5-5": half, "claude-haiku-5-5": tenth, "": Decimal(0)}
    assert shown("tool") == {"": Decimal("0.6"), "shop.get_order": Decimal(0)}
    assert shown("day") == {"2026-03-12": half, "2026-03-13": Decimal(0), "2026-03-19": tenth}
    assert shown("week") == {"2026-03-09": half, "2026-03-16": tenth}


def test_an_unknown_grouping_is_refused(dana: User) -> None:
    with pytest.raises(costs.UnknownBy, match="task_type, agent, model"):
        report(dana, "moon")


def test_a_day_is_one_of_the_readers_zone(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, created=dt.datetime(2026, 3, 12, 23, 30, tzinfo=dt.UTC))
    make_model_step(run, "0.5")
    zone = dt.timezone(dt.timedelta(hours=1))
    found = report(dana, "day", START.astimezone(zone), END.astimezone(zone))
    assert [row.key for row in found.rows] == ["2026-03-13"]


def test_only_steps_of_the_period_count(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, "0.5")
    make_model_step(run, "0.25", after=86_400)
    assert report(dana, "agent", T0, T0 + DAY).total.cost == Decimal("0.5")
    assert report(dana, "agent", T0 + DAY, END).total.cost == Decimal("0.25")


def test_unpriced_is_counted_and_is_never_zero(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, None, model="unheard-of", price_id="")
    make_step(run, tool="shop.get_order")
    row = report(dana, "agent").rows[0]
    assert (row.cost, row.unpriced_steps, row.p50, row.cache_saved_usd) == (None, 1, None, None)
    make_model_step(run, "0.5")
    row = report(dana, "agent").rows[0]
    assert (row.cost, row.unpriced_steps) == (Decimal("0.5"), 1)


def test_percentiles_are_of_the_cost_per_run(agent: Agent, dana: User) -> None:
    for cents in range(1, 21):
        run = make_run(agent, dana)
        make_model_step(run, f"0.{cents:02d}")
        make_model_step(run, "1")
    row = report(dana, "agent").rows[0]
    assert (row.runs, row.p50, row.p95) == (20, Decimal("1.105"), Decimal("1.1905"))


def test_percentile_of_one_and_of_none() -> None:
    assert percentile([], 0.5) is None
    assert percentile([Decimal("0.3")], 0.95) == Decimal("0.3")
    assert percentile([1.0, 2.0], 0.5) == 1.5


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-haiku-4-5", "claude-opus-5-5"])
@pytest.mark.parametrize("read", [900, 128_955, 400_000])
def test_savings_are_those_of_the_price_list(agent: Agent, dana: User, model: str, read: int) -> None:
    usage = Usage(
        input_tokens=5,
        cache_read_tokens=read,
        cache_write_5m_tokens=1_000,
        cache_write_1h_tokens=253,
        output_tokens=500,
    )
    run = make_run(agent, dana)
    make_model_step(
        run,
        model=model,
        input_tokens=5,
        cache_read_tokens=read,
        cache_write_5m_tokens=1_000,
        cache_write_1h_tokens=253,
        output_tokens=500,
    )
    saved = report(dana, "model").rows[0].cache_saved_usd
    expected = pricing.cache_saved(model, usage, at=run.started_at)
    assert saved is not None
    assert expected is not None
    assert abs(saved - expected) < Decimal("0.00000001")


def test_the_parts_of_a_step_are_its_price() -> None:
    counts = {
        "input_tokens": 2_800,
        "cache_read_tokens": 20_400,
        "cache_write_5m_tokens": 3_100,
        "output_tokens": 1_180,
    }
    parts = caching.split("claude-sonnet-5-5", "", counts, T0.date())
    usage = Usage(**counts)  # type: ignore[arg-type]
    whole = pricing.price("claude-sonnet-5-5", usage, simulated=False, at=T0).usd
    assert parts is not None
    assert sum(parts.values()) == whole


def test_the_simulated_model_saves_nothing(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, simulated=True)
    make_model_step(run, "0", price_id="simulated")
    assert report(dana, "agent").rows[0].cache_saved_usd == 0


def test_costs_of_another_team_are_not_in_the_sums(agent: Agent, dana: User) -> None:
    other = make_team("elsewhere", "Elsewhere")
    otto = make_user(other, "otto", "Otto", "Brand")
    make_model_step(make_run(make_agent(other), otto), "5")
    assert report(dana, "agent").rows == ()
    assert report(otto, "agent").total.cost == 5


def test_two_queries_whatever_the_number_of_runs(agent: Agent, dana: User) -> None:
    for _ in range(3):
        make_model_step(make_run(agent, dana))
    with CaptureQueriesContext(connection) as queries:
        report(dana, "agent")
    assert len([query for query in queries if "runs_step" in query["sql"]]) == 2
