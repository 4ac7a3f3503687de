"""The later look at what ran alone."""

from __future__ import annotations

import uuid
from functools import partial

import pytest

from accounts import receipts
from accounts.models import Receipt
from approvals import calibration, inbox, sampling
from approvals.models import LaterLook
from runs.engine.types import Evidence, Policy, ToolGrant
from runs.errors import Invalid
from runs.models import Action
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.factories import World

GRANT = ToolGrant(name="shop.update_customer", policy=Policy.AUTO, evidence=1)


def ran_alone(world: World, **fields: object) -> Action:
    batch = make.make_batch(world)
    return make.make_update(batch, needed=0, status="succeeded", **fields)


def drawn(world: World, **fields: object) -> LaterLook:
    action = ran_alone(world, **fields)
    assert sampling.draw(action, 1.0)
    return LaterLook.objects.get(action=action)


# --- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.1, 140, 260)])
def test_the_share_that_is_drawn(share: float, least: int, most: int) -> None:
    ids = [uuid.UUID(int=number * 7919) for number in range(2000)]
    assert least <= sum(sampling.is_drawn(each, share) for each in ids) <= most


def test_the_same_action_is_drawn_once(world: World) -> None:
    action = ran_alone(world)
    assert [sampling.draw(action, 1.0) for _ in range(2)] == [True, True]
    assert LaterLook.objects.count() == 1


# --- looking ---------------------------------------------------------------------------------------------------------


def test_agreeing_and_overturning_count_for_the_floor_of_evidence(world: World) -> None:
    access = world.access("approver")
    sampling.review(access, drawn(world).id, "agree")
    sampling.review(access, drawn(world).id, "overturn", "The customer never asked for it.")

    assert calibration.evidence(world.agent.id, GRANT) == Evidence(decided=2, agreed=1)
    history = calibration.history(world.agent.id)["shop.update_customer"]
    assert (history.approved, history.rejected) == (1, 1)
    assert Receipt.objects.filter(kind="action.looked_at").count() == 2
    assert receipts.verify(world.team) == []


def test_overturning_needs_a_reason_and_keeps_what_was_typed(world: World) -> None:
    look = drawn(world)
    with pytest.raises(Invalid):
        sampling.review(world.access("approver"), look.id, "overturn", "  ")
    response = world.client("approver").post(f"/approvals/later/{look.id}", {"verdict": "perhaps", "note": "Typed"})

    assert response.status_code == 422
    assert "Typed" in response.content.decode()
    look.refresh_from_db()
    assert look.verdict == ""


def test_two_people_at_once_one_word_counts(shared_world: World, race: Race) -> None:
    world = shared_world
    for _ in range(REPETITIONS):
        look = drawn(world)
        answers = race(
            partial(sampling.review, world.access("approver"), look.id, "agree"),
            partial(sampling.review, world.access("second"), look.id, "overturn", "No."),
        )
        assert sum(answer is None for answer in answers) == 1, answers
        assert Receipt.objects.filter(kind="action.looked_at", subject_id=str(look.action_id)).count() == 1


def test_the_queue_shows_what_has_ended_oldest_first(world: World) -> None:
    first, second = drawn(world), drawn(world)
    still = make.make_update(make.make_batch(world), needed=0, status="executing")
    sampling.draw(still, 1.0)

    assert list(sampling.waiting(world.access("viewer"))) == [first, second]
    page = world.client("approver").get("/approvals/later/").content.decode()
    assert page.index(str(first.id)) < page.index(str(second.id))
    assert "It should not have run" in page
    assert "It should not have run" not in world.client("viewer").get("/approvals/later/").content.decode()


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("operator", 403), ("outsider", 404), ("anonymous", 302)])
def test_who_may_look(world: World, who: str, status: int) -> None:
    look = drawn(world)
    client = world.client(who)
    assert client.post(f"/approvals/later/{look.id}", {"verdict": "agree"}).status_code == status
    look.refresh_from_db()
    assert look.verdict == ""


# --- for me -----------------------------------------------------------------------------------------------------------


def test_what_one_may_not_approve_is_not_for_me(world: World) -> None:
    batch = make.make_batch(world, make.make_run(world, owner=world.people["approver"]))
    make.make_refund(batch)

    assert not inbox.for_me(world.access("approver")).exists()
    assert inbox.for_me(world.access("second")).count() == 1
