"""Following `next` gives every row once, in order, whatever is added meanwhile."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from runs.models import Batch, Run
from tests.api.client import Caller, answer
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World


def pages(caller: Caller, path: str, **query: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = answer(caller.get(path, **query, **({"cursor": cursor} if cursor else {})))
        found.append([row.get("id") or row["run"]["id"] for row in page["items"]])
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.mark.parametrize("path", ["/runs", "/traces"])
def test_runs_newest_first(world: World, as_: As, path: str) -> None:
    runs = [make.make_run(world) for _ in range(5)]
    same = timezone.now()
    Run.objects.filter(id__in=[run.id for run in runs[1:4]]).update(
        created_at=same
    )  # the same moment, to the microsecond
    Run.objects.filter(id=runs[4].id).update(created_at=same + dt.timedelta(seconds=1))
    expected = [str(runs[number].id) for number in (4, 3, 2, 1, 0)]
    assert pages(as_("viewer"), path, limit=2) == [expected[:2], expected[2:4], expected[4:]]
    assert pages(as_("viewer"), path, limit=5) == [expected]
    assert pages(as_("viewer"), path) == [expected]


def test_what_is_added_meanwhile_moves_nothing(world: World, as_: As) -> None:
    runs = [make.make_run(world) for _ in range(4)]
    viewer = as_("viewer")
    first = answer(viewer.get("/runs", limit=2))
    make.make_run(world)
    second = answer(viewer.get("/runs", limit=2, cursor=first["next"]))
    assert [run["id"] for run in second["items"]] == [str(runs[1].id), str(runs[0].id)]
    assert second["next"] is None


@pytest.mark.parametrize("status", ["pending", "decided", "all"])
def test_batches(world: World, as_: As, status: str) -> None:
    batches = [make.make_batch(world, minutes=number) for number in (10, 20, 30)]
    if status == "decided":
        for number, batch in enumerate(batches):
            closed = timezone.now() - dt.timedelta(minutes=number)
            Batch.objects.filter(id=batch.id).update(status="closed", closed_at=closed)
    expected = [str(batch.id) for batch in batches]
    if status == "all":
        expected.reverse()
    assert pages(as_("viewer"), "/approvals", limit=2, status=status) == [expected[:2], expected[2:]]


def test_a_cursor_shows_no_row_of_another_team(world: World, as_: As) -> None:
    for _ in range(3):
        make.make_run(world)
    cursor = answer(as_("viewer").get("/runs", limit=1))["next"]
    assert answer(as_("outsider").get("/runs", cursor=cursor))["items"] == []
