"""The list of runs: its filters, its pages, and that both say the same as the runs' own words."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.utils import timezone

from tests.runs.factories import World, make_batch, make_run, text_of


def test_the_list_filters_and_pages(world: World) -> None:
    for _ in range(51):
        make_run(world, status="completed")
    waiting = make_run(world, status="waiting", waiting_since=timezone.now())
    make_batch(waiting, actions=3)
    client = world.client("viewer")

    assert len(re.findall(r"R-\d+</span>", text_of(client.get("/runs/")))) == 50
    assert "/runs/?before=3" in text_of(client.get("/runs/"))
    assert re.findall(r"R-\d+(?=</span>)", text_of(client.get("/runs/?before=3"))) == ["R-2", "R-1"]
    assert "3 to approve" in text_of(client.get("/runs/?show=waiting"))
    waiting.actions.update(kind="question")
    assert "Needs an answer" in text_of(client.get("/runs/?show=waiting")), "the words of the run's own page"
    waiting.actions.filter(id=waiting.actions.all()[0].id).update(kind="action")
    assert "3 to approve" in text_of(client.get("/runs/?show=waiting"))
    assert "No run is like this" in text_of(client.get("/runs/?show=cancelled"))
    assert client.get("/runs/?show=strange&before=x").status_code == 200


def listed(client: Client, show: str) -> list[str]:
    return re.findall(r"R-\d+(?=</span>)", text_of(client.get(f"/runs/?show={show}")))


@pytest.mark.parametrize(
    ("status", "asks", "label"),
    [
        ("waiting", True, "2 to approve"),
        ("running", True, "Running, 2 to approve"),
        ("queued", True, "Queued, 2 to approve"),
        ("paused", True, "Paused, 2 to approve"),
        ("running", False, ""),
        ("paused", False, ""),
        ("completed", True, ""),
    ],
)
def test_what_needs_approval_is_listed_as_such_and_says_so(world: World, status: str, asks: bool, label: str) -> None:
    run = make_run(world, status=status)
    if asks:
        make_batch(run, actions=2)
    client = world.client("viewer")

    assert (run.short_id in listed(client, "waiting")) is bool(label)
    assert (label or run.short_id) in text_of(client.get("/runs/"))
    assert ("to approve" in text_of(client.get("/runs/"))) is bool(label)


def test_a_run_that_waits_for_its_sub_agents_alone_needs_no_approval(world: World) -> None:
    parent = make_run(world, status="waiting", waiting_since=timezone.now())
    child = make_run(world, status="waiting", waiting_since=timezone.now(), parent=parent)
    make_batch(child, actions=1)
    client = world.client("viewer")

    assert listed(client, "waiting") == [child.short_id]
    beneath = text_of(client.get(f"/runs/{parent.id}/")).split('class="beneath-list"')[1].split("</ul>")[0]
    assert "1 to approve" in beneath
    assert listed(client, "live") == [child.short_id, parent.short_id]
    assert "Needs approval" not in re.sub("<nav.*?</nav>", "", text_of(client.get("/runs/?show=live")), flags=re.DOTALL)
    decided = child.batches.get()
    decided.status = "decided"
    decided.save(update_fields=["status"])
    assert listed(client, "waiting") == []
