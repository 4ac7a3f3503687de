"""A batch is put before somebody else: who is asked, who is told, what stands on record, and who may still decide."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.http import Http404
from django.urls import reverse

from accounts.access import MissingRight
from accounts.models import Membership, Receipt
from approvals import evidence, inbox, notices
from approvals.handover import hand_over
from approvals.models import Channel, HandOver, Notice
from runs.errors import Conflict, Invalid
from runs.models import Batch
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.conftest import Bells
from tests.approvals.factories import World, approve, reject


@pytest.fixture
def batch(world: World) -> Batch:
    return make.make_full_batch(world)[0]


def asked(batch: Batch) -> set[str]:
    return {person.username for person in batch.asked.all()}


def is_for(world: World, who: str, batch: Batch) -> bool:
    return inbox.for_me(world.access(who)).filter(id=batch.id).exists()


def test_it_leaves_ones_own_list_and_stands_in_the_others(world: World, batch: Batch) -> None:
    assert is_for(world, "approver", batch)
    assert is_for(world, "admin", batch)

    hand_over(world.access("approver"), batch.id, "lea")

    assert asked(batch) == {"lea"}
    assert [is_for(world, who, batch) for who in ("second", "approver", "admin")] == [True, False, False]
    assert inbox.open_count(world.access("approver")) == 0


def test_only_ones_own_place_is_handed_over(world: World, batch: Batch) -> None:
    batch.asked.set([world.people["approver"], world.people["admin"]])

    hand_over(world.access("approver"), batch.id, "lea")

    assert asked(batch) == {"dana", "lea"}


def test_who_was_not_asked_moves_it_from_all_who_were(world: World, batch: Batch) -> None:
    batch.asked.set([world.people["second"]])

    hand_over(world.access("admin"), batch.id, "marco")

    assert asked(batch) == {"marco"}


def test_one_may_take_it_oneself(world: World, batch: Batch) -> None:
    hand_over(world.access("approver"), batch.id, "marco")

    assert asked(batch) == {"marco"}
    assert not Notice.objects.exists()


def test_everybody_who_may_decide_still_can(world: World, batch: Batch) -> None:
    hand_over(world.access("approver"), batch.id, "lea")
    batch.refresh_from_db()

    outcomes = inbox.decide(
        world.access("admin"), batch.id, batch.version, [reject(each) for each in batch.actions.all()], channel="api"
    )

    assert {outcome.result for outcome in outcomes} == {inbox.Result.APPLIED}


def test_it_is_on_record_with_who_why_and_who_is_asked_now(world: World, batch: Batch, bells: Bells) -> None:
    hand_over(world.access("approver"), batch.id, "lea", "  I am away from noon.  ")

    receipt = Receipt.objects.get(kind="batch.handed_over")
    assert receipt.actor == world.people["approver"]
    assert (receipt.subject_type, receipt.subject_id) == ("batch", str(batch.id))
    assert receipt.payload["to"] == str(world.people["second"].id)
    assert receipt.payload["asked"] == [str(world.people["second"].id)]
    assert receipt.payload["note"] == "I am away from noon."
    assert not [problem for problem in evidence.verify(world.team) if problem.kind != "unrecorded"]
    assert Batch.objects.get(id=batch.id).version == 2


def test_the_new_person_is_told_and_nobody_else(world: World, batch: Batch) -> None:
    for who in ("approver", "second", "admin"):
        Channel.objects.create(team=world.team, user=world.people[who], kind="browser", origin="http://localhost")

    hand_over(world.access("approver"), batch.id, "lea")

    (notice,) = Notice.objects.all()
    assert (notice.channel.user, notice.kind) == (world.people["second"], "handed")
    taken = world.client("second").post(reverse("approvals:take_notices")).json()["notices"]
    assert [each["title"] for each in taken] == ["Handed to you: Refund desk wants to do 3 things"]


def test_what_comes_back_is_told_again(world: World, batch: Batch) -> None:
    Channel.objects.create(team=world.team, user=world.people["second"], kind="browser", origin="http://localhost")
    for who, to in (("approver", "lea"), ("second", "marco"), ("approver", "lea")):
        hand_over(world.access(who), batch.id, to)

    assert Notice.objects.filter(kind="handed").count() == 2
    assert len(notices.take_for_browser(world.people["second"].id, world.team.id)) == 2


@pytest.mark.parametrize(
    ("to", "note", "field"),
    [
        ("nobody", "", "to"),
        ("", "", "to"),
        ("noor", "", "to"),  # a viewer
        ("ana", "", "to"),  # an operator
        ("otto", "", "to"),  # of another team
        ("lea", "x" * 1001, "note"),
        ("lea", "\0", "note"),
    ],
)
def test_what_is_refused(world: World, batch: Batch, to: str, note: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        hand_over(world.access("approver"), batch.id, to, note)

    assert list(refused.value.errors) == [field]
    assert not HandOver.objects.exists()
    assert not Receipt.objects.filter(kind="batch.handed_over").exists()


def test_who_could_do_nothing_with_it_is_not_asked(world: World) -> None:
    """Who launched the run may not approve its risky actions, so asking them would be a dead end."""
    run = make.make_run(world, owner=world.people["second"])
    batch = make.make_batch(world, run)
    make.make_refund(batch)

    with pytest.raises(Invalid, match="Lea Moreau can't decide on anything"):
        hand_over(world.access("approver"), batch.id, "lea")


def test_who_is_asked_already_alone_is_said(world: World, batch: Batch) -> None:
    hand_over(world.access("approver"), batch.id, "lea")

    with pytest.raises(Invalid, match="asked already"):
        hand_over(world.access("admin"), batch.id, "lea")


def test_a_batch_that_is_over_stays_where_it_is(world: World, batch: Batch) -> None:
    inbox.decide(world.access("admin"), batch.id, 1, [reject(each) for each in batch.actions.all()], channel="api")
    with pytest.raises(Conflict, match="no longer open"):
        hand_over(world.access("approver"), batch.id, "lea")
    late = make.make_batch(world, minutes=-1)
    make.make_refund(late)
    with pytest.raises(Conflict, match="time to decide is over"):
        hand_over(world.access("approver"), late.id, "lea")


def test_of_two_who_saw_the_same_page_the_second_is_told(world: World, batch: Batch) -> None:
    hand_over(world.access("approver"), batch.id, "lea", version=1)

    with pytest.raises(Conflict, match="Marco Ruiz handed this to Lea Moreau"):
        hand_over(world.access("admin"), batch.id, "marco", version=1)


def test_two_at_once_are_one_and_a_refusal(shared_world: World, race: Race) -> None:
    world = shared_world

    def giving(who: str, to: str, batch: Batch) -> Callable[[], str]:
        def give() -> str:
            try:
                return hand_over(world.access(who), batch.id, to, version=1).to.username
            except Conflict as refused:
                return refused.detail

        return give

    for _ in range(REPETITIONS):
        batch = make.make_batch(world)
        make.make_refund(batch)
        answers = race(giving("approver", "lea", batch), giving("admin", "marco", batch))

        (winner,) = asked(batch)
        assert winner in answers
        assert sum("meanwhile" in str(answer) for answer in answers) == 1
        assert HandOver.objects.filter(batch=batch).count() == 1


def test_handing_over_meets_the_last_decision(shared_world: World, race: Race) -> None:
    world = shared_world

    def give(batch: Batch) -> str:
        try:
            return hand_over(world.access("approver"), batch.id, "lea").to.username
        except Conflict as refused:
            return refused.detail

    for _ in range(REPETITIONS):
        batch = make.make_batch(world)
        line = reject(make.make_refund(batch))
        handed, outcomes = race(
            partial(give, batch), partial(inbox.decide, world.access("admin"), batch.id, 1, [line], channel="api")
        )

        assert handed in ("lea", "This batch is no longer open.")
        assert [outcome.result for outcome in outcomes] == [inbox.Result.APPLIED]


# --- the second of two people ----------------------------------------------------------------------------------------


def test_once_all_who_were_asked_have_approved_the_others_are_asked(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    hand_over(world.access("approver"), batch.id, "lea")
    inbox.decide(world.access("second"), batch.id, 2, [approve(refund)], channel="api")

    assert asked(batch) == set()
    assert [is_for(world, who, batch) for who in ("approver", "admin", "second")] == [True, True, False]
    assert Receipt.objects.filter(kind="batch.widened", subject_id=str(batch.id)).count() == 1


def test_while_one_of_those_asked_can_still_approve_they_stay_the_ones(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    batch.asked.set([world.people["approver"], world.people["second"]])
    inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="api")

    assert asked(batch) == {"marco", "lea"}


# --- the page --------------------------------------------------------------------------------------------------------


def post(world: World, who: str, batch: Batch | uuid.UUID, to: str = "lea", **more: str) -> Any:
    batch_id = batch.id if isinstance(batch, Batch) else batch
    headers = {"HX-Request": "true"} if more.pop("htmx", "") else {}
    url = reverse("approvals:hand_over", args=[batch_id])
    return world.client(who).post(url, {"to": to, "shown": "1", **more}, headers=headers)


def test_on_the_page_it_is_a_form_and_then_says_who_is_asked(world: World, batch: Batch) -> None:
    page = world.client("approver").get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert reverse("approvals:hand_over", args=[batch.id]) in page
    assert '<option value="lea">Lea Moreau</option>' in page
    assert "noor" not in page

    answer = post(world, "approver", batch, hand_note="Away <b>soon</b>")

    assert answer.status_code == 302
    page = world.client("approver").get(answer["Location"]).content.decode()
    assert "Asked: <b>Lea Moreau</b>" in page
    assert "Marco Ruiz handed it to Lea Moreau" in page
    assert "Away &lt;b&gt;soon&lt;/b&gt;" in page


def test_a_mistake_is_shown_at_its_field_and_what_was_typed_is_kept(world: World, batch: Batch) -> None:
    for htmx in ("", "yes"):
        answer = post(world, "approver", batch, "noor", hand_note="Please look", htmx=htmx)

        page = answer.content.decode()
        assert answer.status_code == 422
        assert "Choose somebody of the team who may decide." in page
        assert 'aria-describedby="hand-to-error"' in page
        assert "Please look</textarea>" in page
    assert answer["HX-Retarget"] == "#hand-over"
    assert "<html" not in page


def test_who_was_slower_is_told_on_the_page(world: World, batch: Batch) -> None:
    post(world, "approver", batch)
    answer = post(world, "admin", batch, "marco", hand_note="Mine")

    assert answer.status_code == 409
    assert "Marco Ruiz handed this to Lea Moreau meanwhile." in answer.content.decode()


@pytest.mark.parametrize(
    ("who", "status"),
    [("admin", 302), ("approver", 302), ("operator", 403), ("viewer", 403), ("outsider", 404), ("anonymous", 302)],
)
def test_who_may(world: World, batch: Batch, who: str, status: int) -> None:
    assert post(world, who, batch).status_code == status
    assert HandOver.objects.exists() is (who in ("admin", "approver"))


def test_other_methods_and_ids_change_nothing(world: World, batch: Batch) -> None:
    client = world.client("approver")
    assert client.get(reverse("approvals:hand_over", args=[batch.id])).status_code == 405
    assert post(world, "approver", make.missing_id()).status_code == 404
    with pytest.raises(Http404):
        hand_over(world.access("outsider"), batch.id, "lea")
    with pytest.raises(MissingRight):
        hand_over(world.access("operator"), batch.id, "lea")


def test_who_lost_the_right_meanwhile_is_not_asked(world: World, batch: Batch) -> None:
    Membership.objects.filter(user=world.people["second"]).update(role="viewer")

    assert post(world, "approver", batch).status_code == 422
