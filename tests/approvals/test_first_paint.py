"""The lists with many that wait: as many queries as with few, and a first paint that does not grow with them."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.template.base import Template
from django.test import Client
from django.test.utils import CaptureQueriesContext, _TestState
from django.urls import reverse

from accounts.schemas import Scope
from accounts.tokens import create_token
from approvals import grants, sampling
from approvals.grants import Wish
from approvals.schemas import MatcherIn
from runs import audit
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve, reject

FULL = int(os.environ.get("LOAD_ACTIONS", "0"))
MOST_MS = 300
PAGES = ("/approvals/", "/approvals/?show=decided", "/approvals/actions/", "/approvals/later/", "/approvals/grants/")

WISH = Wish(
    matchers=tuple(
        MatcherIn(argument=name, test="equals", value=value)
        for name, value in {"order": "48213", "amount": 84.0, "reason": "Dented in transit"}.items()
    ),
    uses=1,
    days=1,
)


def fill(world: World, batches: int, per_batch: int = 5) -> None:
    """Pairs of batches, one that waits with a vote here and there, and one that was decided: with a standing permission
    that came of it, and an action to look at later."""
    with transaction.atomic():
        for number in range(batches):
            batch, actions = asked(world, per_batch, minutes=60 + number)
            decide(world, "second", batch, approve(actions[0]))
        for _ in range(batches):
            batch, (refund, *rest) = asked(world, per_batch, needed=1)
            decide(world, "approver", batch, approve(refund), *map(reject, rest))
            refund.refresh_from_db()
            grants.give(world.access("approver"), refund.id, WISH)
            Action.objects.filter(id=refund.id).update(status="succeeded")
            sampling.draw(refund, 1.0)


def asked(world: World, count: int, *, needed: int = 2, **fields: Any) -> tuple[Batch, list[Action]]:
    batch = make.make_batch(world, **fields)
    kinds = (make.make_refund, make.make_update, make.make_email)
    actions = [kinds[place % 3](batch, needed=needed if place == 0 else 1) for place in range(count)]
    for action in actions:
        audit.record(action, "action.proposed")
    return batch, actions


def queries(client: Client, path: str) -> int:
    client.get(path)  # what is read once in a process is not what is counted
    with CaptureQueriesContext(connection) as seen:
        assert client.get(path).status_code == 200
    return len(seen)


def test_two_hundred_rows_take_as_many_queries_as_ten(world: World) -> None:
    client = world.client("approver")
    fill(world, 1)
    few = {path: queries(client, path) for path in PAGES}
    fill(world, 19)
    many = {path: queries(client, path) for path in PAGES}

    assert min(few.values()) > 3, "nothing was counted"
    assert many == few


@pytest.mark.parametrize(("less", "more"), [(6, 40), (60, 200)], ids=["whole", "in parts"])
def test_a_large_batch_takes_as_many_queries_as_a_small_one(world: World, less: int, more: int) -> None:
    client = world.client("approver")
    few, many = (address(asked_now(world, count)) for count in (less, more))

    assert 3 < queries(client, few) == queries(client, many)


@transaction.atomic
def asked_now(world: World, count: int) -> Batch:
    return asked(world, count)[0]


def address(batch: Batch) -> str:
    return reverse("approvals:batch", args=[batch.id])


def test_the_api_lists_many_with_as_many_queries_as_few(world: World) -> None:
    token = create_token(world.people["approver"], world.team, name="t", scopes=[Scope.READ])[1]
    client = Client(headers={"Authorization": f"Bearer {token}"})
    fill(world, 2)
    few = queries(client, "/api/v1/approvals?status=all&limit=200")
    fill(world, 8)

    assert 3 < few == queries(client, "/api/v1/approvals?status=all&limit=200")


@pytest.mark.skipif(not FULL, reason="a measurement: python -m tests.bench deciding")
def test_the_first_paint_with_a_thousand_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in production: tests else keep a copy of the context of every template that was rendered.
    monkeypatch.setattr(Template, "_render", _TestState.saved_data.template_render)  # type: ignore[attr-defined]
    with transaction.atomic():
        for number in range(FULL // 5):
            asked(world, 5, minutes=60 + number)
        big, _ = asked(world, 200, minutes=2)
    client = world.client("approver")
    worst = 0.0
    for path in ("/approvals/", "/approvals/actions/", address(big)):
        client.get(path)
        times = []
        for _ in range(15):
            began = time.perf_counter()
            size = len(client.get(path).content)
            times.append(1000 * (time.perf_counter() - began))
        worst = max(worst, statistics.median(times))
        print(f"{FULL:,} wait: {path[:24]:24} median {statistics.median(times):.0f} ms, {size:,} bytes")
    assert worst < MOST_MS
