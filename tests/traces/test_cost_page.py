"""What the costs page says beyond sums: drift, forecast, outcomes, what is promised."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
import time_machine
from django.test import Client

from accounts.access import Access, access_for_user
from accounts.models import Team, User
from runs.models import Agent, AgentVersion, Run
from tests.traces.factories import make_action, make_model_step, make_run, make_step
from tests.traces.test_pages import sign_in
from traces import cost_page, drift, month, outcomes, rollup

NOW = dt.datetime(2026, 3, 12, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def access(team: Team, agent: Agent, dana: User) -> Access:
    return access_for_user(dana)


def run_of(agent: Agent, dana: User, days_ago: float, cost: str | None, **fields: Any) -> Run:
    run = make_run(agent, dana, created=NOW - days_ago * DAY, **fields)
    make_model_step(run, cost)
    return run


# --- drift -----------------------------------------------------------------------------------------------------------


def history(agent: Agent, dana: User, before: list[str], after: list[str]) -> None:
    for index, cost in enumerate(before):
        run_of(agent, dana, 8 + index % 20, cost, task_type="refund-late")
    agent.current = AgentVersion.objects.create(agent=agent, number=2, definition={"name": "Refund desk"})
    agent.save()
    for index, cost in enumerate(after):
        run_of(agent, dana, 1 + index % 5, cost, task_type="refund-late")


@pytest.mark.parametrize("rolled", [False, True], ids=["from steps", "from summaries"])
@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [(["0.50"] * 30, ["0.66"] * 30, True), (["0.50"] * 30, ["0.59"] * 30, False), (["0.50"] * 30, ["0.30"] * 30, True)],
)
def test_drift_is_flagged_from_a_fifth_with_its_version(
    access: Access, agent: Agent, dana: User, before: list[str], after: list[str], flagged: bool, rolled: bool
) -> None:
    history(agent, dana, before, after)
    if rolled:
        rollup.roll(agent.team_id)
    found = drift.drifts(access, NOW)
    assert set(found) == {("refund-desk", None), ("refund-desk", "refund-late")}
    one = found["refund-desk", None]
    assert (one.before, one.after, one.flagged) == (Decimal(before[0]), Decimal(after[0]), flagged)
    assert one.version == (2 if flagged else None)
    if flagged:
        assert one.since == NOW - 5 * DAY


def test_drift_needs_thirty_runs_on_both_sides(access: Access, agent: Agent, dana: User) -> None:
    history(agent, dana, ["0.50"] * 30, ["0.90"] * 29)
    assert drift.drifts(access, NOW) == {}


# --- forecast --------------------------------------------------------------------------------------------------------


def test_the_forecast_is_the_pace_of_the_month_while_history_is_short(
    access: Access, team: Team, agent: Agent, dana: User
) -> None:
    access.team.month_budget_usd = Decimal(20)
    run_of(agent, dana, 3, "11.5")  # in 11.5 days: one dollar a day
    found = month.month(access, NOW)
    assert (found.spent, found.by_weekday) == (Decimal("11.5"), False)
    assert found.forecast == pytest.approx(Decimal(31))
    assert found.over == pytest.approx(Decimal("0.55"))
    assert found.over_on == dt.date(2026, 3, 21)  # the 20th ends at the budget itself
    assert found.band_points == ""


def test_the_forecast_follows_weekdays_once_there_are_four_weeks(access: Access, agent: Agent, dana: User) -> None:
    for back in range(1, 43):
        day = NOW - back * DAY
        run_of(agent, dana, back, "1" if day.weekday() < 5 else "0.1")
    found = month.month(access, NOW)
    ahead = [Decimal("0.5")] + [
        Decimal(1) if dt.date(2026, 3, day).weekday() < 5 else Decimal("0.1") for day in range(13, 32)
    ]
    assert found.by_weekday
    assert found.forecast == found.spent + sum(ahead)
    assert found.band_points == ""  # every weekday cost the same


def test_reservations_and_unfinished_runs_are_in_the_forecast(access: Access, agent: Agent, dana: User) -> None:
    for _ in range(3):
        run_of(agent, dana, 2, "4")
    run_of(agent, dana, 0, "1", seconds=None, reserved_usd=Decimal("0.5"))  # running: 3 more to the median
    make_run(agent, dana, created=NOW, status="waiting", stop_reason=None, ended_at=None, max_cost_usd=Decimal(2))
    found = month.month(access, NOW).committed
    assert (found.runs, found.reserved, found.expected) == (2, Decimal("0.5"), Decimal(5))
    with time_machine.travel(NOW, tick=False):
        last = month.month(access, NOW.replace(day=31, hour=23, minute=59))
    assert last.forecast is not None
    assert last.forecast >= last.spent + 5


# --- outcomes --------------------------------------------------------------------------------------------------------


def test_outcomes_share_the_cost_among_what_was_finished(access: Access, agent: Agent, dana: User) -> None:
    run_of(agent, dana, 1, "1")
    good = run_of(agent, dana, 1, "1")
    make_action(good, status="succeeded")
    make_step(good, "model", key="model:1:failed:0", status="error", cost_usd=Decimal("0.25"))
    run_of(agent, dana, 1, "0.5", status="failed", stop_reason="model_error")
    run_of(agent, dana, 1, "0.125", status="cancelled", stop_reason="cancelled")
    run_of(agent, dana, 1, "0.0625", status="stopped", stop_reason="rejected")
    refused = run_of(agent, dana, 1, "2")
    refused.steps.update(key="model:1")
    make_action(refused, status="rejected")
    run_of(agent, dana, 1, "9", seconds=None)  # not ended: in no share
    found = outcomes.outcomes(access, NOW - 7 * DAY, NOW, "since:7d")
    assert (found.finished, found.approved) == (3, 1)
    assert found.total == Decimal("4.9375")
    assert found.per_finished == found.total / 3
    assert {share.label: share.cost for share in found.waste} == {
        "Failed runs": Decimal("0.5"),
        "Cancelled runs": Decimal("0.125"),
        "Runs ended by a rejection": Decimal("0.0625"),
        "Proposals that were not taken": Decimal(2),
        "Tries that failed": Decimal("0.25"),
    }
    assert found.wasted == Decimal("2.9375")


def test_the_page_says_all_of_it(access: Access, agent: Agent, dana: User) -> None:
    history(agent, dana, ["0.50"] * 30, ["0.66"] * 30)
    run_of(agent, dana, 1, "0.5", status="failed", stop_reason="model_error")
    run_of(agent, dana, 0, "1", seconds=None, reserved_usd=Decimal("0.5"))
    client = Client()
    client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
    with time_machine.travel(NOW, tick=False):
        page = client.get("/costs/?range=30d").content.decode()
        by_day = client.get("/costs/?by=day&range=7d").content.decode()
    assert "p50 up 32% since v2" in page
    assert "Refund desk v2 live, 7 Mar" in page
    assert "1 unfinished run" in page
    assert "Failed runs" in page
    assert "Lost to expiry" in page
    assert "?q=step%3A%7Bstarted%3A%5B2026-03-11%20TO%202026-03-11%5D%7D" in by_day


@time_machine.travel(NOW, tick=False)
def test_figures_lead_to_the_runs_they_are_made_of(agent: Agent, dana: User) -> None:
    for cost in ("1", "2", None):
        run_of(agent, dana, 0.1, cost)
    make_run(agent, dana, created=NOW - 0.1 * DAY, seconds=None)
    client = sign_in(dana)
    response = client.get("/costs/?by=user")
    page = response.content.decode()
    assert response.context["lines"][0].label == "Dana Okafor"
    assert response.context["lines"][0].row.key == "dana"
    for query, found in (
        (response.context["query_month"], 3),
        (response.context["query_all"], 3),
        (response.context["query_runs"], 3),
        ("is:live", 1),
        (response.context["query_unpriced"], 1),
    ):
        assert f"?q={quote(query, safe='/')}" in page
        assert client.get("/traces/", {"q": query}).context["found"].total == found


def test_only_what_is_whole_is_a_hundred_percent() -> None:
    assert [cost_page._share(*each) for each in ((8788, 8789), (9, 9), (0, 3), (0, 0))] == [0.999, 1, 0, None]
