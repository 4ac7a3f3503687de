"""The inbox's socket: who may listen, and that what it sends is what the pages are made of."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connections

from accounts.models import Membership
from agentsite.asgi import application
from approvals import consumers, inbox
from approvals.live import Shown, catch_up
from runs.live import inbox_group
from runs.models import Batch
from tests.approvals import factories as make
from tests.approvals.factories import World, approve

NOTHING = uuid.UUID(int=0)


def watching(world: World, who: str = "approver", opened: Batch | None = None) -> tuple[Shown, str]:
    newest = max(Batch.objects.values_list("id", flat=True), default=NOTHING)
    shown = Shown(newest=newest, opened=opened.id if opened else None)
    return shown, catch_up(world.access(who), shown)


def test_nothing_new_sends_nothing(world: World) -> None:
    make.make_full_batch(world)
    shown, _ = watching(world)

    assert catch_up(world.access("approver"), shown) == ""


def test_what_an_answer_may_have_put_back_is_sent_again(world: World) -> None:
    batch, _ = make.make_full_batch(world)
    shown, _ = watching(world, opened=batch)
    shown.forget()

    html = catch_up(world.access("approver"), shown)

    assert 'class="action-state"' in html
    assert 'id="nav-count-approvals"' in html


def test_a_new_batch_is_a_pill_and_a_count_and_never_a_row_above_the_others(world: World) -> None:
    make.make_full_batch(world)
    shown, first = watching(world)
    assert "1 new batch" not in first
    make.make_full_batch(world)

    html = catch_up(world.access("approver"), shown)

    assert "1 new batch" in html
    assert 'id="nav-count-approvals"' in html
    assert ">2<" in html


def test_a_decision_by_another_greys_the_row_and_says_who_on_the_card(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    shown, _ = watching(world, opened=batch)
    inbox.decide(world.access("second"), batch.id, 1, [approve(each) for each in actions], channel="web")

    html = catch_up(world.access("approver"), shown)

    assert "batch-row--decided" in html
    assert "Lea Moreau approved this batch" in html
    for action in actions:
        assert f'id="state-{action.id}" data-status="approved"' in html


def test_execution_shows_although_it_raises_no_version(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="web")
    shown, _ = watching(world, opened=batch)
    type(refund).objects.filter(id=refund.id).update(status="executing")

    assert 'data-status="executing"' in catch_up(world.access("approver"), shown)


def test_what_the_socket_sends_is_what_the_page_has(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    page = world.client("approver").get(f"/approvals/{batch.id}/").content.decode()
    _, html = watching(world, opened=batch)

    state = next(part for part in html.split("<div") if f'id="state-{refund.id}"' in part)
    assert state.strip() in page


def test_another_teams_batches_are_never_sent(world: World) -> None:
    batch, _ = make.make_full_batch(world)

    _, html = watching(world, "outsider", opened=batch)

    assert str(batch.id) not in html


def test_catching_up_takes_a_constant_number_of_queries(world: World, django_assert_max_num_queries: object) -> None:
    for _ in range(20):
        make.make_full_batch(world)
    shown, _ = watching(world)
    access = world.access("approver")

    with django_assert_max_num_queries(5):  # type: ignore[operator]
        catch_up(access, shown)


# --- over the socket --------------------------------------------------------------------------------------------------


@pytest.fixture
async def live_world(shared_world: World) -> AsyncIterator[World]:
    """Sockets read in a thread of their own, whose connection would outlive the test's database."""
    yield shared_world
    await sync_to_async(connections.close_all)()


def communicator(world: World, who: str, query: str = "") -> WebsocketCommunicator:
    headers = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
    if who != "anonymous":
        headers.append((b"cookie", f"sessionid={world.client(who).cookies['sessionid'].value}".encode()))
    return WebsocketCommunicator(application, f"/ws/inbox/{query}", headers=headers)


async def closing_code(socket: WebsocketCommunicator) -> int:
    while True:
        message = await socket.receive_output(5)
        if message["type"] == "websocket.close":
            return int(message["code"])


async def test_without_a_session_the_socket_closes_with_4401(live_world: World) -> None:
    socket = await sync_to_async(communicator)(live_world, "anonymous")
    await socket.connect()

    assert await closing_code(socket) == 4401


async def test_without_a_team_it_closes_with_4403(live_world: World) -> None:
    socket = await sync_to_async(communicator)(live_world, "viewer")
    await Membership.objects.filter(user=live_world.people["viewer"]).adelete()
    await socket.connect()

    assert await closing_code(socket) == 4403


@pytest.mark.parametrize("query", ["", "?newest=nonsense&batch=", "?batch=00000000-0000-0000-0000-000000000000"])
async def test_any_query_is_answered(live_world: World, query: str) -> None:
    await sync_to_async(make.make_full_batch)(live_world)
    socket = await sync_to_async(communicator)(live_world, "viewer", query)
    await socket.connect()

    assert "row-" in await socket.receive_from(5)
    await socket.disconnect()


async def test_a_missed_ring_heals_by_itself(live_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "HEAL_EVERY_S", 0.05)
    newest = (await sync_to_async(make.make_full_batch)(live_world))[0].id
    socket = await sync_to_async(communicator)(live_world, "approver", f"?newest={newest}")
    await socket.connect()
    await socket.receive_from(5)
    await sync_to_async(make.make_full_batch)(live_world)

    assert "1 new batch" in await socket.receive_from(5)
    await socket.disconnect()


async def test_a_ring_is_answered_at_once(live_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "HEAL_EVERY_S", 60.0)
    newest = (await sync_to_async(make.make_full_batch)(live_world))[0].id
    socket = await sync_to_async(communicator)(live_world, "approver", f"?newest={newest}")
    await socket.connect()
    await socket.receive_from(5)
    assert await socket.receive_nothing(0.3)
    await sync_to_async(make.make_full_batch)(live_world)

    await sync_to_async(ring)(live_world)

    assert "1 new batch" in await socket.receive_from(5)
    await socket.disconnect()


def ring(world: World) -> None:
    """As a worker does it; the fixture has silenced `ring_inbox` itself."""
    live_module = __import__("runs.live", fromlist=["_send"])
    live_module._send(live_module._message(inbox_group(world.team.id), {"type": "ring"}))


async def test_who_leaves_the_team_or_signs_out_is_cut_off(live_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "HEAL_EVERY_S", 0.05)
    left, signed_out = [await sync_to_async(communicator)(live_world, who) for who in ("approver", "second")]
    for socket in (left, signed_out):
        await socket.connect()
    await Membership.objects.filter(user=live_world.people["approver"]).adelete()
    await sync_to_async(forget_sessions)(live_world)

    codes = await asyncio.gather(closing_code(left), closing_code(signed_out))

    assert list(codes) == [4403, 4401]


def forget_sessions(world: World) -> None:
    from django.contrib.sessions.models import Session

    for session in Session.objects.all():
        if session.get_decoded().get("_auth_user_id") == str(world.people["second"].id):
            session.delete()
