"""How reviewing goes: figures from decisions that are known exactly."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from approvals import inbox
from approvals.measures import Measures, measure
from approvals.models import Viewing
from runs import pricing
from runs.engine.types import Usage
from runs.models import Batch, Run, Step
from tests.approvals import factories as make
from tests.approvals.deciding import edit
from tests.approvals.factories import World, approve, reject

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
MODEL = "claude-sonnet-4-5"


def measured(world: World, days: int = 30) -> Measures:
    with time_machine.travel(NOW + dt.timedelta(hours=1)):
        return measure(world.access("admin"), timezone.now() - dt.timedelta(days=days))


def decided(world: World, who: str, *, waited: float, looked: float | None, say: Any = approve, **more: Any) -> Batch:
    """One refund, decided at NOW after so many seconds of waiting and of looking at it."""
    with time_machine.travel(NOW - dt.timedelta(seconds=waited), tick=False):
        batch = make.make_batch(world, minutes=6000)
        refund = make.make_refund(batch, **more)
    if looked is not None:
        seen_at = NOW - dt.timedelta(seconds=looked)
        Viewing.objects.create(batch=batch, user=world.people[who], version=1, at=seen_at)
    with time_machine.travel(NOW, tick=False):
        [outcome] = inbox.decide(world.access(who), batch.id, 1, [say(refund)], channel="web")
    assert outcome.result == "applied", outcome
    return batch


def test_times_shares_and_groups(world: World) -> None:
    for waited, looked in ((60, 10), (120, 20), (600, 60)):
        decided(world, "approver", waited=waited, looked=looked)
    decided(world, "second", waited=60, looked=None, say=reject, risk="high")

    found = measured(world)

    total = found.total
    assert (total.decisions, total.approvals, total.rejected) == (4, 3, 0.25)
    assert (total.review_median_ms, total.wait_median_ms, total.wait_p90_ms) == (20_000, 90_000, 600_000)
    assert [(row.name, row.decisions) for row in found.by_risk] == [("critical", 3), ("high", 1)]
    assert [row.name for row in found.by_person] == ["Lea Moreau", "Marco Ruiz"]
    assert found.by_person[0].review_median_ms is None


def test_an_approval_that_was_taken_back_later_is_overturned(world: World) -> None:
    with time_machine.travel(NOW, tick=False):
        batch = make.make_batch(world)
        refund = make.make_refund(batch, needed=2)
        inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")
    with time_machine.travel(NOW + dt.timedelta(minutes=1), tick=False):
        inbox.decide(world.access("second"), batch.id, 1, [reject(refund)], channel="web")
    decided(world, "approver", waited=60, looked=1)

    total = measured(world).total

    assert (total.approvals, total.overturned) == (2, 1)


def test_an_edit_counts_as_a_change(world: World) -> None:
    decided(world, "approver", waited=60, looked=5, say=lambda refund: edit(refund, amount=50))
    assert measured(world).total.changed == 1


def test_what_is_older_or_of_another_team_does_not_count(world: World) -> None:
    decided(world, "approver", waited=60, looked=5)
    with time_machine.travel(NOW + dt.timedelta(days=8)):
        assert measure(world.access("admin"), timezone.now() - dt.timedelta(days=7)).total.decisions == 0
        assert measure(world.access("outsider"), NOW - dt.timedelta(days=90)).total.decisions == 0


def step(run: Run, seq: int, kind: str, **fields: Any) -> Step:
    values = {"key": f"{kind}:{seq}", "status": "ok", "title": kind, "started_at": NOW, **fields}
    return Step.objects.create(run=run, seq=seq, kind=kind, **values)


@pytest.mark.parametrize(("minutes", "cold"), [(4, 0), (6, 1)])
def test_a_wait_that_outlived_the_cache_has_its_price(world: World, minutes: int, cold: int) -> None:
    with time_machine.travel(NOW):
        run = make.make_run(world, wait_ms=minutes * 60_000)
        make.make_full_batch(world, run=run)
    step(run, 1, "model", model=MODEL, cache_write_5m_tokens=9_999_999)  # before the wait
    step(run, 2, "approval", key="waited:queue:1", duration_ms=minutes * 60_000)
    step(run, 3, "model", model=MODEL, cache_write_5m_tokens=100_000)
    step(run, 4, "model", model=MODEL, cache_write_5m_tokens=9_999_999)  # not the first after it

    waiting = measured(world).waiting

    def usd(**tokens: Any) -> Decimal:
        found = pricing.price(MODEL, Usage(**tokens), simulated=False, at=NOW).usd
        assert found is not None
        return found

    expected = usd(cache_write_5m_tokens=100_000) - usd(cache_read_tokens=100_000)
    assert expected > 0
    assert (waiting.cold, waiting.cache_usd) == (cold, expected * cold)
    assert (waiting.runs, waiting.idle_ms, waiting.waits, waiting.batches) == (1, minutes * 60_000, 1, 1)


def test_an_unknown_price_is_named_not_zero(world: World) -> None:
    run = make.make_run(world)
    step(run, 1, "approval", key="waited:queue:1", duration_ms=600_000)
    step(run, 2, "model", model="nobody-knows-1", cache_write_5m_tokens=1000)

    waiting = measured(world).waiting

    assert (waiting.cache_usd, waiting.unpriced) == (Decimal(0), 1)


@pytest.mark.parametrize(("who", "status"), [("admin", 200), ("approver", 403), ("viewer", 403), ("anonymous", 302)])
def test_who_may_see_them(world: World, who: str, status: int) -> None:
    assert world.client(who).get("/approvals/measures/").status_code == status


@pytest.mark.parametrize("days", ["7", "90", "x", "0", ""])
def test_the_page(world: World, days: str) -> None:
    client = world.client("admin")
    assert "Nothing was decided" in client.get("/approvals/measures/", {"days": days}).content.decode()
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")

    shown = client.get("/approvals/measures/", {"days": days}).content.decode()

    assert "Time to decide" in shown
    assert shown.index("By risk") < shown.index("Marco Ruiz"), "sums first"


def test_a_constant_number_of_queries(world: World, django_assert_max_num_queries: Any) -> None:
    client = world.client("admin")
    for _ in range(2):
        decided(world, "approver", waited=60, looked=5)
    client.get("/approvals/measures/")
    with django_assert_max_num_queries(40) as few:
        client.get("/approvals/measures/")
    for _ in range(10):
        decided(world, "approver", waited=60, looked=5)
    with django_assert_max_num_queries(len(few.captured_queries)):
        client.get("/approvals/measures/")
