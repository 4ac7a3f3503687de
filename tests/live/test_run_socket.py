"""A browser at a run: what it catches up on, what it is sent as it happens, and what closes it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client
from django.urls import path

from accounts.models import Membership
from runs import consumers, fragments, live, step_rows
from runs.consumers import RunConsumer
from runs.models import Run
from tests.runs.factories import PLAN, World, make_batch, make_run, make_step, make_world

pytestmark = pytest.mark.django_db(transaction=True)
application = AuthMiddlewareStack(URLRouter([path("ws/runs/<str:run_id>/", RunConsumer.as_asgi())]))
SOON = 3.0
QUIET_S = 0.4


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def run(world: World) -> Run:
    run = make_run(world, plan=PLAN)
    make_step(run, plan_step=0)
    make_step(run, "model", plan_step=1)
    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heals a lost ring at once."""
    monkeypatch.setattr(consumers, "HEAL_EVERY_S", 0.1)


class Browser:
    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self.communicator = communicator
        self.got = ""

    async def until(self, found: Callable[[str], Any], timeout_s: float = SOON) -> str:
        """Everything received, as soon as it holds what is looked for."""
        deadline = time.monotonic() + timeout_s
        while not found(self.got):
            left = deadline - time.monotonic()
            assert left > 0, f"not received in time; got {self.got[-2000:]}"
            self.got += await self.communicator.receive_from(left)
        return self.got

    async def rows(self, *numbers: int) -> str:
        return await self.until(lambda html: all(f'id="step-{number}"' in html for number in numbers))

    async def closed(self) -> int:
        while True:
            output = await self.communicator.receive_output(SOON)
            if output["type"] == "websocket.close":
                return int(output["code"])


@contextlib.asynccontextmanager
async def browser(client: Client, run_id: object, after: object = 0) -> AsyncIterator[Browser]:
    cookies = (
        f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}" if client.cookies else ""
    )
    headers = [(b"cookie", cookies.encode())]
    communicator = WebsocketCommunicator(application, f"/ws/runs/{run_id}/?after={after}", headers)
    accepted, _ = await communicator.connect(SOON)
    assert accepted
    try:
        yield Browser(communicator)
    finally:
        await communicator.disconnect()


async def db(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await sync_to_async(function)(*args, **kwargs)


def numbers(html: str) -> list[int]:
    return [int(number) for number in re.findall(r'<li class="step[^"]*" id="step-(\d+)"', html)]


# --- who -------------------------------------------------------------------------------------------------------------


async def test_without_a_session_it_closes_with_4401(world: World, run: Run) -> None:
    async with browser(await db(world.client, "anonymous"), run.id) as page:
        assert await page.closed() == 4401


@pytest.mark.parametrize("run_id", ["0199f3a0-0000-7000-8000-000000000000", "not-an-id", "a b.c"])
async def test_an_unknown_run_closes_with_4403(world: World, run_id: str) -> None:
    async with browser(await db(world.client, "admin"), run_id.replace(" ", "%20")) as page:
        assert await page.closed() == 4403


async def test_another_teams_run_closes_with_4403(world: World, run: Run) -> None:
    async with browser(await db(world.client, "outsider"), run.id) as page:
        assert await page.closed() == 4403


async def test_who_leaves_the_team_is_sent_nothing_more(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id) as page:
        await page.rows(1, 2)
        await db(Membership.objects.filter(user=world.people["viewer"]).delete)
        await db(make_step, run)
        await db(live.ring, run.id, 3)

        assert await page.closed() == 4403
        assert 3 not in numbers(page.got)


async def test_who_signs_out_is_sent_nothing_more(world: World, run: Run, quick: None) -> None:
    client = await db(world.client, "viewer")
    async with browser(client, run.id) as page:
        await page.rows(1, 2)
        await db(client.session.delete)

        assert await page.closed() == 4401


async def test_a_page_that_an_answer_may_have_put_back_gets_its_regions_again(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id) as page:
        await page.until(lambda html: 'id="run-status"' in html)
        page.got = ""
        await page.communicator.send_to(text_data="afresh")
        await page.until(lambda html: 'id="run-status"' in html and 'id="run-actions"' in html)

        assert numbers(page.got) == []


# --- catching up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2]), (1, [2]), ("x", [1, 2]), ("-1", [1, 2]), (99, [])])
async def test_it_catches_up_after_the_number(world: World, run: Run, after: object, expected: list[int]) -> None:
    async with browser(await db(world.client, "viewer"), run.id, after) as page:
        html = await page.until(lambda html: 'id="run-cancel"' in html)

        assert numbers(html) == expected
        assert 'id="run-meters"' in html


async def test_rows_are_the_pages_rows(world: World, run: Run) -> None:
    client = await db(world.client, "viewer")
    page_html = (await db(client.get, f"/runs/{run.id}/")).content.decode()
    async with browser(client, run.id) as page:
        html = await page.rows(1, 2)

    rows = await db(step_rows.rows_after, run, 0)
    for row in rows:
        assert step_rows.render_row(row) in html
        assert step_rows.render_row(row).strip() in page_html


async def test_a_ring_brings_the_next_step(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        await db(make_step, run)
        await db(live.ring, run.id, 3)

        assert numbers(await page.rows(3)) == [3]


async def test_a_lost_ring_heals_by_itself(world: World, run: Run, quick: None) -> None:
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        await db(make_step, run)

        assert numbers(await page.rows(3)) == [3]


async def test_it_heals_within_five_seconds() -> None:
    assert consumers.HEAL_EVERY_S <= 4


async def test_a_big_gap_asks_for_a_reload(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "MOST_STEPS", 1)
    async with browser(await db(world.client, "viewer"), run.id, 0) as page:
        html = await page.until(lambda html: "data-reload" in html)

        assert numbers(html) == []


async def test_nothing_is_sent_twice(world: World, run: Run, quick: None) -> None:
    async with browser(await db(world.client, "viewer"), run.id) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        await db(live.ring, run.id, 2)

        assert await page.communicator.receive_nothing(QUIET_S)


# --- regions ---------------------------------------------------------------------------------------------------------


async def test_a_change_of_status_comes_at_once(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "REGIONS_EVERY_S", 60.0)
    async with browser(await db(world.client, "approver"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        page.got = ""
        await db(make_batch, run, actions=2)
        await db(live.ring, run.id, 2)

        assert "2 actions wait for you" in await page.until(lambda html: "to approve" in html)


async def test_other_regions_wait_their_turn_and_then_come(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "REGIONS_EVERY_S", 0.7)
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        page.got, began = "", time.monotonic()
        await db(make_step, run)
        await db(live.ring, run.id, 3)

        assert 'id="run-meters"' not in await page.rows(3)
        await page.until(lambda html: 'aria-label="Steps: 3 of 60, 5%"' in html)
        assert time.monotonic() - began > 0.3


async def test_the_figure_beside_approvals_follows_other_runs_too(
    world: World, run: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "BADGE_EVERY_S", 0.0)
    async with browser(await db(world.client, "approver"), run.id, 2) as page:
        await page.until(lambda html: 'id="tab-count-approvals"' in html)
        page.got = ""
        await db(lambda: make_batch(make_run(world), actions=2))

        await page.until(lambda html: '<span aria-hidden="true">1</span>' in html)


async def test_who_may_not_decide_has_nothing_waiting(world: World, run: Run) -> None:
    await db(make_batch, run, actions=2)
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        assert '<span aria-hidden="true">0</span>' in await page.until(lambda html: 'id="nav-count-approvals"' in html)


# --- text in flight --------------------------------------------------------------------------------------------------


def begun(seq: int, key: str = "model:9") -> dict[str, Any]:
    return {"key": key, "kind": "model", "title": "Decide", "tool": "", "model": "m", "seq": seq, "started_at": ""}


async def test_text_streams_and_the_step_takes_its_place(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        await db(live.in_flight, run.id, begun(3))
        assert "step--flight" in await page.rows(3)
        await db(live.delta, run.id, begun(3), "I look", 0)
        await page.until(lambda html: "I look" in html)
        await db(live.delta, run.id, begun(3), "I look <b>at", 6)
        assert "&lt;b&gt;at" in await page.until(lambda html: 'data-offset="6"' in html)
        page.got = ""
        await db(make_step, run, "model")
        await db(live.landed, run.id, 3)

        assert re.search(r'<li class="step" id="step-3"', await page.rows(3))


async def test_a_late_joiner_sees_the_text_so_far(world: World, run: Run) -> None:
    await db(live.delta, run.id, begun(3), "I look at the photos", 7)
    async with browser(await db(world.client, "viewer"), run.id, 1) as page:
        html = await page.rows(2, 3)
        assert numbers(html) == [2, 3]
        assert 'data-length="20">I look at the photos</div>' in html
        await db(live.delta, run.id, begun(3), "I look at the photos now", 20)
        await page.until(lambda html: 'data-text-append="#flight-3" data-offset="20"> now<' in html)


async def test_text_after_a_lost_piece_is_read_whole(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await db(live.in_flight, run.id, begun(3))
        await page.rows(3)
        await db(live._send, live._kept(run.id, {**begun(3), "text": "I look at"}))  # stored, but its message is lost
        await db(live.delta, run.id, begun(3), "I look at the photos", 9)

        await page.until(lambda html: text_in_flight(html, 3) == "I look at the photos")


def text_in_flight(html: str, seq: int) -> str:
    """As the browser puts it together: of a piece only what goes beyond the text so far, and nothing after a gap. Which
    pieces there are depends on how soon the reading that the call's begin asked for comes."""
    text = ""
    for offset, piece in re.findall(rf'data-text-append="#flight-{seq}" data-offset="(\d+)">([^<]*)<', html):
        if int(offset) <= len(text):
            text += piece[len(text) - int(offset) :]
    return text


async def test_a_call_that_never_lands_is_taken_away(world: World, run: Run) -> None:
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await db(live.in_flight, run.id, begun(3))
        await page.rows(3)
        await db(Run.objects.filter(id=run.id).update, status="paused")
        await db(live.ring, run.id, 2)

        assert 'data-remove="#step-3"' in await page.until(lambda html: "data-remove" in html)


async def test_a_call_whose_predecessor_is_not_shown_waits(world: World, run: Run) -> None:
    """Otherwise its row would stand above the row of the step before it."""
    async with browser(await db(world.client, "viewer"), run.id, 2) as page:
        await page.until(lambda html: 'id="run-cancel"' in html)
        await db(live.in_flight, run.id, begun(4))
        assert await page.communicator.receive_nothing(QUIET_S)
        await db(make_step, run)
        await db(live.ring, run.id, 3)

        assert numbers(await page.rows(3, 4)) == [3, 4]


async def test_two_browsers_get_the_same(world: World, run: Run) -> None:
    async with (
        browser(await db(world.client, "viewer"), run.id, 2) as one,
        browser(await db(world.client, "admin"), run.id, 0) as two,
    ):
        await asyncio.gather(*(page.until(lambda html: 'id="run-cancel"' in html) for page in (one, two)))
        await db(make_step, run)
        await db(live.ring, run.id, 3)
        first, second = await asyncio.gather(one.rows(3), two.rows(3))

        row = step_rows.render_row((await db(step_rows.rows_after, run, 2))[0])
        assert row in first
        assert row in second
