"""Who is told what, when, and how often: rows, quiet hours, digests, claims, retries. Nothing leaves this machine."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Membership, User
from approvals import delivery, notices, senders
from approvals.models import Verdict
from approvals.notice_models import Channel, ChannelKind, Notice, NoticeKind, NoticeState
from approvals.quiet import after_quiet, next_digest
from runs.engine.types import Risk
from runs.models import Batch
from tests.accounts.together import REPETITIONS, Race
from tests.approvals import factories as make
from tests.approvals.deciding import decide, edit
from tests.approvals.factories import World, approve, reject

Sent = list[tuple[Channel, list[Notice]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """In place of the network: what would have gone out."""
    out: Sent = []
    monkeypatch.setattr(senders, "send", lambda channel, told: out.append((channel, list(told))))
    return out


def channel(world: World, who: str | None = "approver", kind: str = ChannelKind.EMAIL, **fields: Any) -> Channel:
    user = world.people[who] if who else None
    values = {"team": world.team, "user": user, "kind": kind, "origin": "https://agentsite.example", **fields}
    return Channel.objects.create(**values)


def states() -> list[str]:
    return list(Notice.objects.order_by("created_at", "id").values_list("state", flat=True))


def at(text: str, zone: str = "UTC") -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


# --- a second person -------------------------------------------------------------------------------------------------


def for_two(world: World, asked: str = "", **fields: Any) -> tuple[Batch, Any]:
    """A batch with an action that needs two, asked of one person by name or of all, whose waiting was told already."""
    batch = make.make_batch(world, **fields)
    if asked:
        batch.asked.add(world.people[asked])
    refund = make.make_refund(batch, needed=2)
    notices.gather()
    delivery.deliver_due()
    return batch, refund


def told_of(sent: Sent, kind: NoticeKind) -> list[str]:
    """User names, `team` for the team's own channel, in the order of the alphabet."""
    found = [told for told, those in sent for notice in those if notice.kind == kind]
    return sorted(told.user.username if told.user else "team" for told in found)


@pytest.mark.parametrize("asked", ["", "approver"], ids=["of all", "of one by name"])
def test_once_one_has_approved_the_others_who_may_are_asked_for_a_second(world: World, sent: Sent, asked: str) -> None:
    for who in ("approver", "second", "viewer", None):
        channel(world, who)
    batch, refund = for_two(world, asked)
    assert not told_of(sent, NoticeKind.SECOND)
    decide(world, "approver", batch, approve(refund))

    for _ in range(3):
        notices.gather()
        delivery.deliver_due()

    assert told_of(sent, NoticeKind.SECOND) == ["lea", "team"], "each once, not who approved, nor who may not decide"


def test_who_is_asked_by_name_is_asked_for_the_second_alone(world: World, sent: Sent) -> None:
    for who in ("approver", "second", "admin", None):
        channel(world, who)
    batch, refund = for_two(world, "approver")
    batch.asked.add(world.people["second"])
    decide(world, "approver", batch, approve(refund))
    notices.gather()
    delivery.deliver_due()

    assert told_of(sent, NoticeKind.SECOND) == ["lea"]


@pytest.mark.parametrize("end", ["approved", "rejected", "edited", "expired"])
def test_nobody_is_called_to_a_second_vote_that_nothing_needs(world: World, sent: Sent, end: str) -> None:
    channel(world, "second")
    channel(world, None, ChannelKind.SLACK)
    batch, refund = for_two(world)
    make.make_email(batch)  # it goes on waiting
    decide(world, "approver", batch, approve(refund))
    notices.gather()
    match end:
        case "approved":
            decide(world, "second", batch, approve(refund))
        case "rejected":
            decide(world, "admin", batch, reject(refund))
        case "edited":
            decide(world, "admin", batch, edit(refund, amount=12))
        case "expired":
            Batch.objects.filter(id=batch.id).update(expires_at=timezone.now())
    delivery.deliver_due()

    assert not told_of(sent, NoticeKind.SECOND)
    assert Notice.objects.filter(kind=NoticeKind.SECOND, state=NoticeState.DROPPED).count() == 2


def test_after_an_edit_who_voted_before_may_be_asked_too(world: World, sent: Sent) -> None:
    channel(world, "approver")
    channel(world, "second")
    batch, refund = for_two(world)
    decide(world, "approver", batch, approve(refund))
    notices.gather()
    delivery.deliver_due()
    decide(world, "second", batch, edit(refund, Verdict.APPROVE, amount=12))
    notices.gather()
    delivery.deliver_due()

    assert told_of(sent, NoticeKind.SECOND) == ["lea", "marco"]


def test_a_second_is_asked_by_the_channels_own_digest_and_quiet_hours(world: World, sent: Sent) -> None:
    with time_machine.travel(at("2026-11-25 21:50"), tick=False):
        channel(world, "second", digest_minutes=15, quiet_from=dt.time(22), quiet_to=dt.time(7))
        batch, refund = for_two(world, minutes=24 * 60)
        decide(world, "approver", batch, approve(refund))
        notices.gather()

    due = Notice.objects.get(kind=NoticeKind.SECOND).due_at
    assert due == at("2026-11-26 07:00"), "the digest would be at 22:00, which is quiet"


def test_a_message_for_a_second_says_so_and_leads_to_the_page_alone(world: World) -> None:
    batch, refund = for_two(world)
    decide(world, "approver", batch, approve(refund))
    hook = channel(world, "second", ChannelKind.WEBHOOK)
    line = senders._line(Notice(channel=hook, batch=batch, kind=NoticeKind.SECOND), batch)

    assert line.headline == f"One person approved, a second one is needed: {batch.title}"
    assert line.url == f"https://agentsite.example/approvals/{batch.id}/"
    assert senders._webhook(hook, [Notice(channel=hook, batch=batch, kind=NoticeKind.SECOND)], [line])["data"][
        "batches"
    ][0]["needs_second"]


def test_looking_for_seconds_takes_a_constant_number_of_queries(world: World) -> None:
    channel(world, "second")
    for _ in range(5):
        batch, refund = for_two(world)
        decide(world, "approver", batch, approve(refund))
    notices.gather()
    with CaptureQueriesContext(connection) as seen:
        notices.gather()

    assert len(seen) == 3, "nobody is left to be told, so nothing is looked at one by one"


# --- who is told -----------------------------------------------------------------------------------------------------


def test_a_batch_that_waits_is_told_once_on_each_channel(world: World, sent: Sent) -> None:
    own, team = channel(world), channel(world, None, ChannelKind.SLACK)
    batch, _ = make.make_full_batch(world)

    for _ in range(3):
        notices.gather()
        delivery.deliver_due()

    assert Counter(to.id for to, _ in sent) == {own.id: 1, team.id: 1}
    assert all(told[0].batch_id == batch.id for _, told in sent)
    assert states() == [NoticeState.SENT] * 2


def test_nothing_of_another_team_is_told(world: World, sent: Sent) -> None:
    other = world.outsider.memberships.get().team
    Channel.objects.create(team=other, user=world.outsider, kind=ChannelKind.EMAIL, origin="https://x.example")
    make.make_full_batch(world)
    assert notices.gather() == 0


@pytest.mark.parametrize("decision", [approve, reject])
def test_nothing_is_told_after_a_decision(world: World, sent: Sent, decision: Any) -> None:
    channel(world)
    batch, actions = make.make_full_batch(world)
    notices.gather()
    decide(world, "second", batch, *map(decision, actions))

    delivery.deliver_due()

    assert sent == []
    assert states() == [NoticeState.DROPPED]


def test_who_approved_already_is_not_told_that_it_waits(world: World, sent: Sent) -> None:
    channel(world)
    channel(world, "second")
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    notices.gather()
    decide(world, "approver", batch, approve(refund))

    delivery.deliver_due()

    assert [to.user for to, _ in sent] == [world.people["second"]]


@pytest.mark.parametrize("lose", ["role", "membership", "active"])
def test_who_may_not_decide_any_more_is_told_nothing(world: World, sent: Sent, lose: str) -> None:
    channel(world)
    make.make_full_batch(world)
    notices.gather()
    member = Membership.objects.filter(user=world.people["approver"])
    if lose == "role":
        member.update(role="viewer")
    elif lose == "membership":
        member.delete()
    else:
        User.objects.filter(id=world.people["approver"].id).update(is_active=False)

    delivery.deliver_due()

    assert sent == []


def test_what_expired_is_not_told(world: World, sent: Sent) -> None:
    channel(world)
    make.make_full_batch(world, minutes=5)
    notices.gather()
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=6)):
        delivery.deliver_due()
    assert sent == []


def test_a_channel_for_severe_risk_hears_of_nothing_else(world: World) -> None:
    channel(world, only_severe=True)
    make.make_update(make.make_batch(world))
    assert notices.gather() == 0
    make.make_action(make.make_batch(world), risk=Risk.HIGH)
    assert notices.gather() == 1


def test_a_reminder_comes_before_a_long_wait_ends(world: World, sent: Sent) -> None:
    channel(world, digest_minutes=1440)
    batch, _ = make.make_full_batch(world, minutes=600)
    make.make_full_batch(world, minutes=20)  # too short for a reminder
    notices.gather()
    with time_machine.travel(timezone.now() + dt.timedelta(minutes=580)):
        Batch.objects.exclude(id=batch.id).update(status="closed")
        notices.gather()
        delivery.deliver_due()

    [reminder] = [notice for _, told in sent for notice in told if notice.kind == NoticeKind.REMINDER]
    assert reminder.batch_id == batch.id


def test_a_new_channel_hears_of_what_comes_not_of_what_was(world: World) -> None:
    first = channel(world)
    make.make_full_batch(world)
    notices.gather()
    channel(world, "second")
    assert notices.gather() == 0
    make.make_full_batch(world)
    assert notices.gather() == 2
    assert Notice.objects.filter(channel=first).count() == 2


# --- when ------------------------------------------------------------------------------------------------------------


def test_a_digest_is_one_message(world: World, sent: Sent) -> None:
    with time_machine.travel(at("2026-11-25T10:20:00")):
        channel(world, digest_minutes=60)
        for _ in range(3):
            make.make_full_batch(world, minutes=600)
        notices.gather()
        delivery.deliver_due()
        assert sent == []
    with time_machine.travel(at("2026-11-25T11:00:01")):
        delivery.deliver_due()

    [(_, told)] = sent
    assert len(told) == 3


@pytest.mark.parametrize(
    ("moment", "minutes", "expected"),
    [
        ("2026-11-25T10:20:00", 0, "2026-11-25T10:20:00"),
        ("2026-11-25T10:20:00", 15, "2026-11-25T10:30:00"),
        ("2026-11-25T10:30:00", 15, "2026-11-25T10:45:00"),
        ("2026-11-25T23:50:00", 60, "2026-11-26T00:00:00"),
        ("2026-11-25T10:20:00", 1440, "2026-11-26T00:00:00"),
    ],
)
def test_when_a_digest_is_due(moment: str, minutes: int, expected: str) -> None:
    assert next_digest(at(moment), minutes) == at(expected)


@pytest.mark.parametrize(
    ("moment", "zone", "expected"),
    [
        ("2026-11-25T21:59:00", "Europe/Lisbon", "2026-11-25T21:59:00"),
        ("2026-11-25T22:00:00", "Europe/Lisbon", "2026-11-26T07:00:00"),
        ("2026-11-26T03:00:00", "Europe/Lisbon", "2026-11-26T07:00:00"),
        ("2026-11-26T07:00:00", "Europe/Lisbon", "2026-11-26T07:00:00"),
        ("2026-11-25T12:30:00", "Asia/Tokyo", "2026-11-25T12:30:00"),  # 21:30 there
        ("2026-11-25T13:30:00", "Asia/Tokyo", "2026-11-25T22:00:00"),  # 22:30 there, until 07:00 there
        ("2026-03-29T00:30:00", "Europe/Berlin", "2026-03-29T05:00:00"),  # the clock goes forward in that night
        ("2026-10-24T22:30:00", "Europe/Berlin", "2026-10-25T06:00:00"),  # and back in that one
    ],
)
def test_nights_are_quiet_where_people_live(moment: str, zone: str, expected: str) -> None:
    quiet = after_quiet(at(moment), dt.time(22), dt.time(7), ZoneInfo(zone))
    assert quiet == at(expected)


def test_quiet_hours_within_a_day_and_none_at_all() -> None:
    noon = at("2026-11-25T12:30:00")
    assert after_quiet(noon, dt.time(12), dt.time(13), ZoneInfo("UTC")) == at("2026-11-25T13:00:00")
    assert after_quiet(noon, dt.time(13), dt.time(14), ZoneInfo("UTC")) == noon
    assert after_quiet(noon, dt.time(9), dt.time(9), ZoneInfo("UTC")) == noon
    assert after_quiet(noon, None, None, ZoneInfo("UTC")) == noon


def test_what_came_in_the_night_is_told_in_the_morning_if_it_still_waits(world: World, sent: Sent) -> None:
    with time_machine.travel(at("2026-11-25T23:00:00")):
        channel(world, quiet_from=dt.time(22), quiet_to=dt.time(7), time_zone="Europe/Lisbon")
        make.make_full_batch(world, minutes=900)
        done, actions = make.make_full_batch(world, minutes=900)
        notices.gather()
        delivery.deliver_due()
        decide(world, "second", done, *map(reject, actions))
    assert sent == []
    with time_machine.travel(at("2026-11-26T07:00:01")):
        delivery.deliver_due()

    [(_, told)] = sent
    assert len(told) == 1


# --- how often -------------------------------------------------------------------------------------------------------


def fails(monkeypatch: pytest.MonkeyPatch, *, again: bool = True) -> None:
    def send(_channel: Channel, _told: object) -> None:
        raise senders.NotDelivered("hooks.example answered with HTTP 503.", again=again)

    monkeypatch.setattr(senders, "send", send)


def test_a_failure_is_tried_again_later_and_later_and_then_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch)
    channel(world)
    make.make_full_batch(world, minutes=6000)
    notices.gather()
    waits = []
    now = timezone.now()
    for _ in range(len(delivery.BACKOFF) + 1):
        with time_machine.travel(now, tick=False):
            delivery.deliver_due()
            notice = Notice.objects.get()
            waits.append(notice.due_at - now)
            assert "503" in notice.error
            now = notice.due_at

    assert waits[:-1] == list(delivery.BACKOFF)
    assert (notice.state, notice.attempts) == (NoticeState.FAILED, len(delivery.BACKOFF) + 1)


def test_what_can_not_help_is_not_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, again=False)
    channel(world)
    make.make_full_batch(world)
    notices.gather()
    delivery.deliver_due()
    assert states() == [NoticeState.FAILED]


def test_a_failure_of_our_own_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, _ = channel(world), channel(world, "second")
    out = []

    def send(to: Channel, told: object) -> None:
        if to.id == broken.id:
            raise ZeroDivisionError
        out.append(to.id)

    monkeypatch.setattr(senders, "send", send)
    make.make_full_batch(world)
    notices.gather()
    delivery.deliver_due()

    assert len(out) == 1
    assert sorted(states()) == [NoticeState.QUEUED, NoticeState.SENT]


def test_a_worker_that_died_while_sending_loses_nothing(world: World, sent: Sent) -> None:
    channel(world)
    make.make_full_batch(world)
    notices.gather()
    notices.claim(Notice.objects.values_list("id", flat=True))  # and dies

    delivery.deliver_due()
    assert sent == []
    with time_machine.travel(timezone.now() + delivery.TAKEN_UP_AGAIN + dt.timedelta(seconds=1)):
        delivery.deliver_due()
    assert len(sent) == 1


def test_workers_at_once_tell_once(shared_world: World, race: Race, monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[object] = []
    monkeypatch.setattr(senders, "send", lambda _channel, told: out.extend(notice.id for notice in told))
    for who in ("approver", "second"):
        channel(shared_world, who)
    for _ in range(REPETITIONS):
        batch = make.make_batch(shared_world)
        make.make_refund(batch)

        assert sorted(race(notices.gather, notices.gather, delivery.deliver_due, delivery.deliver_due)[:2])[1] <= 2
        race(delivery.deliver_due, delivery.deliver_due)

        Batch.objects.filter(id=batch.id).update(status="closed")
    assert Counter(out) == dict.fromkeys(Notice.objects.values_list("id", flat=True), 1)
    assert len(out) == 2 * REPETITIONS


def test_a_browser_takes_what_is_its_own_once(world: World, sent: Sent) -> None:
    channel(world, kind=ChannelKind.BROWSER)
    make.make_full_batch(world)
    notices.gather()
    delivery.deliver_due()
    assert sent == [], "a worker has no browser"
    assert notices.take_for_browser(world.people["second"].id, world.team.id) == []

    assert len(notices.take_for_browser(world.people["approver"].id, world.team.id)) == 1
    assert notices.take_for_browser(world.people["approver"].id, world.team.id) == []
