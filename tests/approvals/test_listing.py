"""The list of batches that wait, page by page: in order, whole, with figures that hold for all pages."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from approvals import inbox, listing
from approvals.listing import Show
from approvals.live import Shown, catch_up
from approvals.paging import BadCursor
from runs.models import Batch
from tests.approvals import factories as make
from tests.approvals.factories import World, approve

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 4)


@transaction.atomic
def fill(world: World, number: int, **fields: Any) -> list[Batch]:
    batches = [make.make_batch(world, minutes=60 + place // 3, **fields) for place in range(number)]
    same = batches[0].expires_at  # three at a time have the very same deadline
    for place, batch in enumerate(batches):
        batch.expires_at = same + dt.timedelta(minutes=place // 3)
        batch.save(update_fields=["expires_at"])
        make.make_refund(batch, expires_at=batch.expires_at)
    return batches


def rows_of(html: str) -> list[str]:
    return re.findall(r'id="row-([0-9a-f-]+)"', html)


def more_of(html: str) -> str:
    found = re.search(r'hx-get="([^"]+)"[^>]*data-more', html)
    return found[1].replace("&amp;", "&") if found else ""


def walk(world: World, url: str, *, htmx: bool = True, who: str = "approver") -> list[str]:
    """All rows, by following "Show more" as a browser does with scripts, or without."""
    client = world.client(who)
    seen: list[str] = []
    while url:
        html = client.get(url, headers=HTMX if htmx and seen else {}).content.decode()
        seen += rows_of(html)
        url = more_of(html)
    return seen


@pytest.mark.parametrize("htmx", [True, False], ids=["scripts", "no scripts"])
def test_all_batches_are_reached_in_order_and_none_twice(world: World, htmx: bool) -> None:
    fill(world, 11)

    expected = [str(batch.id) for batch in Batch.objects.order_by("expires_at", "id")]

    assert walk(world, "/approvals/", htmx=htmx) == expected


def test_a_further_page_is_rows_alone_for_scripts_and_a_page_without(world: World) -> None:
    fill(world, 5)
    client = world.client("approver")
    url = more_of(client.get("/approvals/").content.decode())

    fragment = client.get(url, headers=HTMX).content.decode()
    page = client.get(url).content.decode()

    assert "<html" not in fragment
    assert "<html" in page
    assert "Soonest deadline first" in page
    assert "5 actions in 5 batches" in page


def test_what_comes_meanwhile_shifts_no_page(world: World) -> None:
    fill(world, 8)
    client = world.client("approver")
    first = client.get("/approvals/").content.decode()
    make.make_refund(make.make_batch(world, minutes=5))

    second = rows_of(client.get(more_of(first), headers=HTMX).content.decode())

    assert not set(second) & set(rows_of(first))
    assert len(second) == 4


def test_a_batch_that_stands_above_the_list_comes_once(world: World) -> None:
    last = fill(world, 9)[-1]

    seen = walk(world, f"/approvals/{last.id}/")

    assert seen[0] == str(last.id)
    assert len(seen) == len(set(seen)) == 9


def test_figures_hold_for_all_pages_and_filters_show_what_they_count(world: World) -> None:
    fill(world, 6)
    for batch in fill(world, 6):
        make.make_refund(batch, needed=2, expires_at=batch.expires_at)
    Batch.objects.filter(id__in=[batch.id for batch in fill(world, 5)]).update(
        expires_at=timezone.now() + dt.timedelta(minutes=20)
    )
    counts = listing.counts(world.access("approver"))

    assert (counts.words, counts.mine, counts.two_person, counts.expiring) == ("23 actions in 17 batches", 17, 6, 5)
    for show, number in counts.chips:
        assert len(walk(world, f"/approvals/?show={show}")) == number


def test_what_has_ones_vote_already_is_not_for_one_and_still_needs_two(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")

    for who, mine in (("approver", 0), ("second", 1), ("viewer", 0)):
        counts = listing.counts(world.access(who))
        assert (counts.mine, counts.two_person) == (mine, 1)
        assert len(listing.listed(world.access(who), Show.MINE).batches) == mine


@pytest.mark.parametrize(
    ("stated", "risk", "mine"),
    [
        (None, "medium", True),
        (None, "critical", False),
        ("refused", "medium", False),
        ("refused", "critical", False),
        ("allowed", "critical", True),
    ],
)
def test_for_me_follows_the_tools_own_policy(world: World, stated: str | None, risk: str, mine: bool) -> None:
    tools = [{"name": "shop.issue_refund", "policy": "review", **({"own_approval": stated} if stated else {})}]
    make.define(world, {"name": "Refund desk", "tools": tools})
    batch = make.make_batch(world, make.make_run(world, owner=world.people["approver"]))
    refund = make.make_refund(batch, risk=risk)

    access = world.access("approver")

    assert inbox.for_me(access).exists() is mine
    [outcome] = inbox.decide(access, batch.id, 1, [approve(refund)], channel="api")
    assert (outcome.result == "applied") is mine, "what is said to be for me can be decided by me"


def test_a_damaged_link_leads_to_the_first_page(world: World) -> None:
    fill(world, 5)
    client = world.client("approver")

    for asked in ("?after=nonsense", "?after=%00", "?after=MjAyNg==&show=nonsense&above=x"):
        assert len(rows_of(client.get(f"/approvals/{asked}").content.decode())) == 4
    with pytest.raises(BadCursor):
        listing.listed(world.access("approver"), Show.ALL, "nonsense")


def test_another_teams_batches_are_on_no_page(world: World) -> None:
    fill(world, 5)

    assert walk(world, "/approvals/", who="outsider") == []
    assert listing.counts(world.access("outsider")) == listing.Counts()


def test_what_is_new_is_not_what_is_on_a_later_page(world: World) -> None:
    fill(world, 9)
    shown = Shown(newest=listing.newest(world.access("approver")))

    assert "new batch" not in catch_up(world.access("approver"), shown).replace("0 new batches", "")


def test_many_pages_take_as_many_queries_as_few(world: World) -> None:
    def queries() -> list[int]:
        client = world.client("approver")
        further = more_of(client.get("/approvals/").content.decode())
        counted = []
        for url, headers in (("/approvals/", {}), (further, HTMX), (further, {})):
            with CaptureQueriesContext(connection) as seen:
                client.get(url, headers=headers)
            counted.append(len(seen))
        return counted

    fill(world, 9)
    few = queries()
    fill(world, 31)

    assert min(few) > 3
    assert queries() == few


def test_decided_batches_with_one_moment_are_paged_without_a_gap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approvals.views.DECIDED_PAGE", 2)
    moment = timezone.now()
    ids = {str(batch.id) for batch in fill(world, 5, status="closed", closed_at=moment)}
    client, url = world.client("approver"), "/approvals/?show=decided"
    seen: list[str] = []
    while url:
        html = client.get(url).content.decode()
        seen += re.findall(r'<div class="history-head"><a href="/approvals/([0-9a-f-]+)/"', html)
        found = re.search(r'href="([^"]+)">Earlier ones', html)
        url = found[1].replace("&amp;", "&") if found else ""

    assert len(seen) == 5
    assert set(seen) == ids
