"""Summaries are the sum of their steps, whatever was late, changed or interrupted."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from io import StringIO
from unittest import mock

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accounts.access import access_for_user
from accounts.models import Team, User
from runs import stale
from runs.caches import expired_tokens
from runs.engine import types
from runs.models import Agent, Run, StaleHour, Step
from tests.traces.factories import T0, make_agent, make_model_step, make_run, make_step, make_user
from traces import costs, rollup
from traces.distribution import Distribution
from traces.models import Rollup, Usage
from traces.tally import SUMS, Place, Tally, tally

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
MIDNIGHT = T0.replace(hour=0, minute=0)
START, END = MIDNIGHT - 2 * DAY, MIDNIGHT + 30 * DAY


def report(user: User, by: str, start: dt.datetime = START, end: dt.datetime = END) -> costs.Report:
    return costs.report(access_for_user(user), by=by, start=start, end=end)


def late(run: Run, cost: str | None, after: float) -> Step:
    """As the store writes it: the step, and the mark of its hours."""
    step = make_model_step(run, cost, after=after)
    stale.mark(run.team_id, step.started_at, run.created_at)
    return step


def everything(user: User) -> dict[str, list[tuple[object, ...]]]:
    """All that reports show, without where it comes from."""
    found = {}
    for by in (*costs.BY, "task_type,day", "user,week"):
        made = report(user, by)
        found[by] = [
            tuple(getattr(row, name) for name in costs.Row.__dataclass_fields__) for row in (*made.rows, made.total)
        ]
    return found


amounts = st.decimals(min_value=0, max_value=90, places=9, allow_nan=False, allow_infinity=False)
any_step = st.tuples(
    st.integers(0, 3),
    st.one_of(st.none(), amounts),
    st.floats(0, 60 * 3600),
    st.sampled_from(["claude-sonnet-5-5", "claude-haiku-5-5", "unheard-of"]),
    st.sampled_from(["", "shop.get_order", "shop.issue_refund"]),
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    early=st.lists(any_step, max_size=10),
    after=st.lists(any_step, max_size=6),
    new_price=st.one_of(st.none(), amounts),
    drained=st.booleans(),
)
def test_reports_are_the_sum_of_the_steps_before_and_after_late_and_repriced_ones(
    team: Team,
    agent: Agent,
    dana: User,
    early: list[tuple[int, Decimal | None, float, str, str]],
    after: list[tuple[int, Decimal | None, float, str, str]],
    new_price: Decimal | None,
    drained: bool,
) -> None:
    for model in (Run, StaleHour, Usage, Rollup):
        model.objects.all().delete()
    runs = [make_run(agent, dana, task_type=kind) for kind in ("refund-late", "refund-damaged", "", "odd")]

    def write(one: tuple[int, Decimal | None, float, str, str]) -> None:
        index, cost, second, model, tool = one
        step = make_step(
            runs[index],
            "model",
            model=model,
            tool=tool,
            cost_usd=cost,
            after=second,
            input_tokens=7,
            cache_read_tokens=30,
            cache_write_5m_tokens=9,
            cache_expired_tokens=4,
        )
        stale.mark(team.id, step.started_at, runs[index].created_at)

    for one in early:
        write(one)
    rollup.roll(team.id)
    assert rollup.differing(team.id) == []
    for one in after:
        write(one)
    changed = Step.objects.order_by("id").first()
    if changed is not None:
        Step.objects.filter(id=changed.id).update(cost_usd=new_price)
        stale.mark(team.id, changed.started_at, runs[0].created_at)
        stale.mark(team.id, changed.run.created_at)
    if drained:
        rollup.roll(team.id)
        assert not StaleHour.objects.exists()
    expected = sum((step.cost_usd for step in Step.objects.exclude(cost_usd=None)), Decimal(0))
    rolled = everything(dana)
    for by in costs.BY:
        made = report(dana, by)
        assert (made.total.cost or 0) == sum((row.cost or Decimal(0) for row in made.rows), Decimal(0)) == expected
        assert made.total.steps == sum(row.steps for row in made.rows) == Step.objects.count()
        assert made.total.tokens == 46 * Step.objects.count()
    Rollup.objects.all().delete()
    assert everything(dana) == rolled
    assert (
        sum(run.cost_usd for run in Run.objects.all())
        - (changed.cost_usd or 0 if changed else 0)
        + ((new_price or 0) if changed else 0)
        == expected
    )


def test_summaries_alone_give_the_report_of_what_is_over(team: Team, agent: Agent, dana: User) -> None:
    make_model_step(make_run(agent, dana, task_type="refund-late"), "0.1")
    before = everything(dana)
    rollup.roll(team.id)
    Step.objects.all().update(cost_usd=None)  # nobody marked it: the summary is what is shown
    assert everything(dana) == before
    source = report(dana, "agent").source
    assert (len(source.days), source.hours, source.raw) == (32, (), ())


def test_a_late_step_is_read_until_its_hour_is_made_again(team: Team, agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, "0.1")
    rollup.roll(team.id)
    late(run, "0.25", after=3 * 3600)
    assert StaleHour.objects.count() == 2
    made = report(dana, "agent")
    assert (made.total.cost, made.total.p50, made.source.stale_hours) == (Decimal("0.35"), Decimal("0.35"), 2)
    assert len(made.source.raw) == 2
    assert rollup.roll(team.id) == 2
    made = report(dana, "agent")
    assert (made.total.cost, made.total.p50, made.source.stale_hours) == (Decimal("0.35"), Decimal("0.35"), 0)


def test_a_mark_left_while_an_hour_is_made_stands(team: Team, agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, "0.1")
    rollup.roll(team.id)
    late(run, "0.2", after=60)

    def slow(team_id: object, ranges: object) -> object:
        made = tally(team_id, ranges)  # type: ignore[arg-type]
        with mock.patch.object(rollup, "tally", tally):
            late(run, "0.4", after=120)
        return made

    with mock.patch.object(rollup, "tally", slow):
        rollup.roll(team.id, most=1)
    assert StaleHour.objects.exists()
    assert report(dana, "agent").total.cost == Decimal("0.7")
    rollup.roll(team.id)
    assert not StaleHour.objects.exists()
    assert report(dana, "agent").total.cost == Decimal("0.7")


def test_a_worker_that_lost_its_claim_writes_nothing(team: Team, agent: Agent, dana: User) -> None:
    make_model_step(make_run(agent, dana), "0.1")

    def taken(team_id: object, ranges: object) -> object:
        Rollup.objects.filter(team=team).update(worker="another")
        return tally(team_id, ranges)  # type: ignore[arg-type]

    with mock.patch.object(rollup, "tally", taken), pytest.raises(rollup.Busy):
        rollup.roll(team.id)
    assert not Usage.objects.exists()
    with pytest.raises(rollup.Busy):
        rollup.roll(team.id)


@pytest.mark.parametrize(
    ("minute", "marked", "rolled"), [(59, False, False), (60.5, False, False), (62, True, False), (66, True, True)]
)
def test_writers_mark_an_hour_well_before_it_is_summed_up(
    team: Team, agent: Agent, dana: User, minute: float, marked: bool, rolled: bool
) -> None:
    hour = T0.replace(minute=0)
    run = make_run(agent, dana, created=hour)
    make_model_step(run, "0.1")
    with time_machine.travel(hour + dt.timedelta(minutes=minute), tick=False):
        stale.mark(team.id, hour, hour)
        rollup.roll(team.id)
    assert StaleHour.objects.filter(hour=hour).exists() is (marked and not rolled)
    assert Usage.objects.filter(start=hour).exists() is rolled


def test_the_present_hour_comes_from_the_steps(team: Team, agent: Agent, dana: User) -> None:
    with time_machine.travel(T0 + 3 * HOUR, tick=False):
        run = make_run(agent, dana)
        make_model_step(run, "0.1")
        rollup.roll(team.id)
        make_model_step(run, "0.2", after=3 * 3600)
        made = report(dana, "agent")
        assert made.total.cost == Decimal("0.3")
        assert made.source.rolled_to == T0.replace(minute=0) + 3 * HOUR
        part = report(dana, "agent", T0 + dt.timedelta(minutes=30), END)
        assert part.total.cost == Decimal("0.2")


def test_pruned_hours_outlive_their_steps(team: Team, agent: Agent, dana: User) -> None:
    make_model_step(make_run(agent, dana), "0.1")
    rollup.roll(team.id)
    Rollup.objects.update(kept_from=T0 + DAY)
    Run.objects.all().delete()
    stale.mark(team.id, T0)
    rollup.rebuild(team.id)
    assert report(dana, "agent").total.cost == Decimal("0.1")


def test_rebuilding_repairs_what_nobody_marked(team: Team, agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, "0.1")
    rollup.roll(team.id)
    make_model_step(run, "0.2", after=7200)
    Usage.objects.filter(by="agent").update(cost=1)
    assert len(rollup.differing(team.id)) == 2
    with pytest.raises(SystemExit):
        call_command("rollup", check=True, stdout=StringIO())
    out = StringIO()
    call_command("rollup", rebuild=True, json=True, stdout=out)
    assert json.loads(out.getvalue())[team.slug]["hours summed up"] > 0
    assert rollup.differing(team.id) == []
    assert report(dana, "agent").total.cost == Decimal("0.3")


def test_the_chore_sums_up_every_team_and_then_rests(team: Team, agent: Agent, dana: User) -> None:
    make_model_step(make_run(agent, dana), "0.1")
    with time_machine.travel(T0 + DAY, tick=False):
        rollup.roll_due()
        assert report(dana, "agent").source.rolled_to == T0.replace(minute=0) + DAY
        with CaptureQueriesContext(connection) as queries:
            rollup.roll_due()
    assert len(queries) == 1


def test_a_report_of_ninety_days_takes_few_queries(team: Team, agent: Agent, dana: User) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz")
    for day in range(5):
        make_model_step(make_run(make_agent(team, f"a{day}"), marco, created=T0 + day * DAY), "0.1")
    rollup.roll(team.id)
    with CaptureQueriesContext(connection) as queries:
        costs.report(access_for_user(dana), by="task_type,day", start=END - 90 * DAY, end=END)
    assert len(queries) == 4  # one is who asks, two how far it is summed up, one the sums; no step is read
    assert report(dana, "user").rows[0].key == "marco"


# --- values ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.floats(0, 1))
@example([*range(24), 64], 1.0)
def test_a_distribution_is_exact_while_small_and_near_when_large(costs_of_runs: list[int], share: float) -> None:
    whole = Distribution()
    for value in costs_of_runs:
        whole.add(value)
    kept = Distribution()
    half = Distribution()
    for value in costs_of_runs[::2]:
        half.add(value)
    rest = Distribution()
    for value in costs_of_runs[1::2]:
        rest.add(value)
    kept.merge(Distribution(half.to_bytes()))
    kept.merge(Distribution(rest.to_bytes()))
    exact, near = whole.percentile(share), kept.percentile(share)
    assert exact is not None
    assert near is not None
    if len(costs_of_runs) <= 24:
        assert near == exact
    assert abs(near - exact) <= exact * Decimal("0.017")
    again = Distribution(kept.to_bytes())  # rounded now, if it was not before
    rounded = again.percentile(share)
    assert rounded is not None
    assert abs(rounded - exact) <= exact * Decimal("0.017")
    assert Distribution(again.to_bytes()).percentile(share) == rounded
    again.merge(Distribution())
    assert again.to_bytes() == kept.to_bytes()
    assert sum(again.counts.values()) == len(costs_of_runs)


def test_every_field_of_a_summary_is_added(team: Team) -> None:
    columns = {field.name for field in Usage._meta.get_fields()} - {
        "id", "team", "grain", "start", "by", "key", "sub", "costs",
    }  # fmt: skip
    assert columns == set(SUMS)
    one, other = Tally(*range(1, len(SUMS) + 1)), Tally(*range(100, 100 + len(SUMS)))
    one.add(other)
    assert [getattr(one, name) for name in SUMS] == [101 + 2 * n for n in range(len(SUMS))]
    assert Place(T0, "", "").sub == ""


def call(at: float, **usage: int) -> types.Step:
    return types.Step(
        kind=types.StepKind.MODEL,
        title="Decide",
        model="m",
        usage=types.Usage(**usage),  # type: ignore[arg-type]
        started_at=T0 + dt.timedelta(seconds=at),
        duration_ms=10_000,
    )


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (call(0, cache_write_5m_tokens=900), call(200, cache_write_5m_tokens=950), 0),
        (call(0, cache_write_5m_tokens=900), call(400, cache_write_5m_tokens=950), 900),
        (call(0, cache_write_5m_tokens=900), call(400, cache_read_tokens=600, cache_write_5m_tokens=950), 300),
        (call(0, cache_read_tokens=500, cache_write_5m_tokens=900), call(400, cache_write_5m_tokens=950), 950),
        (call(0, cache_write_1h_tokens=900), call(400, cache_write_1h_tokens=950), 0),
        (call(0, cache_write_1h_tokens=900), call(3700, cache_write_1h_tokens=950), 900),
        (call(0), call(400, cache_write_5m_tokens=950), 0),
        (None, call(400, cache_write_5m_tokens=950), 0),
    ],
)
def test_what_a_late_call_writes_again_was_lost(before: types.Step | None, after: types.Step, lost: int) -> None:
    assert expired_tokens(after, before) == lost
