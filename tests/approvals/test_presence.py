"""Who reviews which batch just now: shown to the others, gone with the page, and a hint only."""

from __future__ import annotations

import time
import uuid

import pytest
from asgiref.sync import sync_to_async

from approvals import consumers, inbox, presence
from approvals.live import Shown, catch_up
from runs import live
from runs.models import Batch
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.factories import World, approve
from tests.approvals.test_live import communicator, live_world, watching  # noqa: F401  (a fixture)


@pytest.fixture
def batch(world: World) -> Batch:
    return make.make_full_batch(world)[0]


def reviewing(world: World, who: str, batch: Batch | None) -> Shown:
    """A page of this person, on which that batch is looked at."""
    shown, _ = watching(world, who)
    shown.hear(f"reviewing {batch.id if batch else ''}")
    catch_up(world.access(who), shown)
    return shown


def test_the_others_see_who_reviews_it_in_the_list_and_on_the_batch(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    reviewing(world, "second", batch)

    html = catch_up(world.access("approver"), shown)

    assert f'id="present-{batch.id}"' in html
    assert f'id="reviewers-{batch.id}"' in html
    assert "Lea Moreau is reviewing this" in html
    assert catch_up(world.access("approver"), shown) == ""


def test_nobody_is_shown_to_themselves_whatever_the_number_of_their_pages(world: World, batch: Batch) -> None:
    reviewing(world, "second", batch)
    other_page, _ = watching(world, "second")

    assert "is reviewing" not in catch_up(world.access("second"), other_page)


def test_only_who_may_decide_reviews(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    reviewing(world, "operator", batch)
    reviewing(world, "viewer", batch)

    assert catch_up(world.access("approver"), shown) == ""


def test_it_is_gone_with_the_page(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    theirs = reviewing(world, "second", batch)
    catch_up(world.access("approver"), shown)
    presence.leave(world.team.id, theirs.place)

    html = catch_up(world.access("approver"), shown)

    assert f'id="present-{batch.id}" role="status" hidden' in html
    assert "Lea" not in html


def test_one_of_two_pages_may_close(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    first, _second = reviewing(world, "second", batch), reviewing(world, "second", batch)
    presence.leave(world.team.id, first.place)

    assert "Lea Moreau is reviewing this" in catch_up(world.access("approver"), shown)


def test_a_page_that_no_longer_says_so_ends_by_itself(
    world: World, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed, or its network is gone: nobody said goodbye."""
    shown, _ = watching(world)
    reviewing(world, "second", batch)
    assert "is reviewing" in catch_up(world.access("approver"), shown)
    later = time.time() + presence.STANDS_S + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert "hidden" in catch_up(world.access("approver"), shown)
    assert consumers.HEAL_EVERY_S * 2 < presence.STANDS_S <= 25


def test_going_on_to_another_batch_moves(world: World, batch: Batch) -> None:
    other = make.make_full_batch(world)[0]
    shown, _ = watching(world)
    theirs = reviewing(world, "second", batch)
    catch_up(world.access("approver"), shown)
    theirs.hear(f"reviewing {other.id}")
    catch_up(world.access("second"), theirs)

    html = catch_up(world.access("approver"), shown)

    assert f'id="present-{batch.id}" role="status" hidden' in html
    assert f'id="present-{other.id}" role="status">' in html


def test_a_row_that_is_sent_anew_still_has_it(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    reviewing(world, "second", batch)
    catch_up(world.access("approver"), shown)
    action = batch.actions.all()[0]
    inbox.decide(world.access("admin"), batch.id, 1, [approve(action)], channel="api")

    html = catch_up(world.access("approver"), shown)

    row = html[html.index(f'id="row-{batch.id}"') :]
    assert "Lea Moreau is reviewing this" in row[: row.index("</a>")]


def test_what_a_swap_took_away_is_sent_again(world: World, batch: Batch) -> None:
    shown, _ = watching(world)
    reviewing(world, "second", batch)
    catch_up(world.access("approver"), shown)
    shown.hear(f"reviewing {batch.id}")  # htmx has put the batch's pane anew

    assert "Lea Moreau is reviewing this" in catch_up(world.access("approver"), shown)


def test_another_teams_batch_and_nonsense_are_nothing(world: World, batch: Batch) -> None:
    theirs = reviewing(world, "outsider", batch)
    shown, _ = watching(world)
    for text in ("reviewing x", "reviewing", "reviewing  ", f"reviewing {uuid.uuid4()}:1", "reviewing \0"):
        theirs.hear(text)
        catch_up(world.access("outsider"), theirs)

    assert catch_up(world.access("approver"), shown) == ""


def test_it_holds_nobody_up(world: World, batch: Batch) -> None:
    reviewing(world, "second", batch)

    outcomes = inbox.decide(
        world.access("approver"), batch.id, 1, [approve(each) for each in batch.actions.all()], channel="api"
    )

    assert [outcome.detail for outcome in outcomes] == ["Approved"] * 3


def test_without_redis_nobody_is_shown(world: World, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ask", lambda *commands: None)
    theirs = reviewing(world, "second", batch)

    assert "is reviewing" not in watching(world)[1]
    assert theirs.place.told == ""


def test_the_others_are_rung_when_it_changes_and_not_at_each_reading(world: World, batch: Batch, bells: Bells) -> None:
    theirs = reviewing(world, "second", batch)
    assert bells.inboxes == [world.team.id]
    catch_up(world.access("second"), theirs)
    assert bells.inboxes == [world.team.id]
    presence.leave(world.team.id, theirs.place)
    assert bells.inboxes == [world.team.id] * 2


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ([], ""),
        (["second"], "Lea Moreau is reviewing this"),
        (["second", "approver"], "Lea Moreau and Marco Ruiz are reviewing this"),
        (["second", "approver", "admin", "operator"], "Lea Moreau, Marco Ruiz and 2 others are reviewing this"),
    ],
)
def test_in_words(world: World, who: list[str], words: str) -> None:
    assert presence.words([world.people[name] for name in who]) == words


async def test_over_the_socket(live_world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(consumers, "HEAL_EVERY_S", 0.05)
    batch = (await sync_to_async(make.make_full_batch)(live_world))[0]
    sees, reviews = [await sync_to_async(communicator)(live_world, who) for who in ("approver", "second")]
    for socket in (sees, reviews):
        await socket.connect()
        await socket.receive_from(5)
    await reviews.send_to(f"reviewing {batch.id}")
    assert "Lea Moreau is reviewing this" in await sees.receive_from(5)

    await reviews.disconnect()

    assert f'id="present-{batch.id}" role="status" hidden' in await sees.receive_from(5)
    await sees.disconnect()
