"""The page of notifications: who may add what, what is shown of secrets, and that no link of a message decides."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from accounts.models import Receipt
from accounts.secrets import decrypt
from approvals import notices
from approvals.models import Decision
from approvals.notice_models import Channel, ChannelKind, Notice
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.approvals.test_notices import channel

PAGE = "/approvals/notifications/"
HOOK = "https://hooks.example/services/T0/B0/very-secret"


def form(**fields: Any) -> dict[str, Any]:
    return {"for": "person", "kind": "email", "digest_minutes": "0", "time_zone": "Europe/Lisbon", **fields}


def add(world: World, who: str, **fields: Any) -> Any:
    return world.client(who).post(reverse("approvals:add_channel"), form(**fields))


def text(response: Any) -> str:
    return str(response.content.decode())


@pytest.mark.parametrize(
    ("who", "owner", "status"),
    [
        ("approver", "person", 302),
        ("admin", "team", 302),
        ("approver", "team", 403),
        ("viewer", "person", 403),
        ("anonymous", "person", 302),
    ],
)
def test_who_may_add_a_channel(world: World, who: str, owner: str, status: int) -> None:
    response = add(world, who, **{"for": owner, "target": "desk@harborpine.example"})
    assert response.status_code == status
    assert Channel.objects.count() == (status == 302 and who != "anonymous")


@pytest.mark.parametrize("who", ["admin", "approver", "viewer"])
def test_every_member_sees_the_page(world: World, who: str) -> None:
    channel(world, None, ChannelKind.SLACK, label="hooks.example")
    response = world.client(who).get(PAGE)
    assert response.status_code == 200
    assert "hooks.example" in text(response)


def test_a_webhooks_address_is_its_password_and_is_not_shown(world: World) -> None:
    response = add(world, "approver", kind="webhook", target=HOOK)

    assert response.status_code == 201
    [saved] = Channel.objects.all()
    assert decrypt(saved.target) == HOOK
    assert decrypt(saved.secret) in text(response), "shown once"
    again = text(world.client("approver").get(PAGE))
    assert "hooks.example" in again
    assert "very-secret" not in text(response) + again
    assert decrypt(saved.secret) not in again
    assert b"hooks" not in bytes(saved.target)
    receipt = Receipt.objects.get(kind="channel.added")
    assert "very-secret" not in str(receipt.payload)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "slack", "target": ""}, "whole address"),
        ({"kind": "webhook", "target": "ftp://hooks.example/x"}, "whole address"),
        ({"kind": "webhook", "target": "https://[::1"}, "whole address"),
        ({"kind": "email", "target": "nobody"}, "no e-mail address"),
        ({"time_zone": "Mars/Olympus"}, "no such time zone"),
        ({"quiet_from": "22:00"}, "a beginning and an end"),
        ({"digest_minutes": "7"}, "valid choice"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_typed_is_lost(world: World, fields: dict[str, str], words: str) -> None:
    response = add(world, "approver", **fields)

    assert response.status_code == 422
    assert words in text(response)
    assert not Channel.objects.exists()
    for value in fields.values():
        assert value in text(response)


def test_a_channel_of_another_person_or_team_does_not_exist(world: World) -> None:
    own = channel(world)
    for who, status in (("second", 404), ("outsider", 404), ("approver", 302)):
        for name in ("test_channel", "remove_channel"):
            response = world.client(who).post(reverse(f"approvals:{name}", args=[own.id]))
            assert response.status_code == status
    assert not Channel.objects.exists()


def test_a_teams_channel_is_changed_by_admins(world: World) -> None:
    team = channel(world, None, ChannelKind.SLACK)
    for who, status in (("approver", 403), ("admin", 302)):
        assert world.client(who).post(reverse("approvals:test_channel", args=[team.id])).status_code == status
    assert Notice.objects.filter(kind="test").count() == 1


def test_what_became_of_a_test_stands_beside_the_channel(world: World) -> None:
    own = channel(world)
    world.client("approver").post(reverse("approvals:test_channel", args=[own.id]))
    Notice.objects.update(state="failed", error="This installation sends no e-mail: EMAIL_URL is not set.")
    assert "EMAIL_URL is not set" in text(world.client("approver").get(PAGE))


def test_reading_is_get_and_everything_else_is_post(world: World) -> None:
    own = channel(world)
    client = world.client("approver")
    for name, args in (
        ("add_channel", []),
        ("take_notices", []),
        ("test_channel", [own.id]),
        ("remove_channel", [own.id]),
    ):
        assert client.get(reverse(f"approvals:{name}", args=args)).status_code == 405
    assert Channel.objects.count() == 1


def test_a_browser_is_given_its_notices_once(world: World) -> None:
    channel(world, kind=ChannelKind.BROWSER)
    batch, _ = make.make_full_batch(world)
    notices.gather()
    client = world.client("approver")

    first = client.post(reverse("approvals:take_notices")).json()["notices"]
    second = client.post(reverse("approvals:take_notices")).json()["notices"]

    assert [(each["title"], each["url"]) for each in first] == [(batch.title, f"/approvals/{batch.id}/")]
    assert second == []


@pytest.mark.parametrize("who", ["anonymous", "approver"])
def test_the_link_of_a_message_only_shows(world: World, who: str) -> None:
    """As a mail scanner opens it, and as the person does."""
    batch, actions = make.make_full_batch(world)
    path = reverse("approvals:batch", args=[batch.id])

    response = world.client(who).get(path)

    if who == "anonymous":
        assert response.status_code == 302
        assert response["Location"].endswith(f"?next={path}")
    assert not Decision.objects.exists()
    for action in actions:
        action.refresh_from_db()
        assert action.status == "pending"


# --- changing ---------------------------------------------------------------------------------------------------------


def change(world: World, who: str, saved: Channel, **fields: Any) -> Any:
    data = {"digest_minutes": "0", "time_zone": "UTC", **fields}
    return world.client(who).post(reverse("approvals:change_channel", args=[saved.id]), data)


def test_how_often_and_when_not_is_changed_and_the_webhook_stays(world: World) -> None:
    add(world, "approver", kind="webhook", target=HOOK)
    [saved] = Channel.objects.all()
    page = text(world.client("approver").get(PAGE))
    assert reverse("approvals:change_channel", args=[saved.id]) in page
    assert "very-secret" not in page

    fields = {"digest_minutes": "60", "quiet_from": "22:00", "quiet_to": "07:00", "time_zone": "Europe/Lisbon"}
    assert change(world, "approver", saved, **fields, only_severe="on").status_code == 302

    now = Channel.objects.get(id=saved.id)
    assert (now.digest_minutes, str(now.quiet_from), now.time_zone, now.only_severe) == (
        60,
        "22:00:00",
        "Europe/Lisbon",
        True,
    )
    assert (decrypt(now.target), now.secret, now.kind, now.label) == (HOOK, saved.secret, "webhook", "hooks.example")
    receipt = Receipt.objects.get(kind="channel.changed")
    assert receipt.payload["changed"] == ["digest_minutes", "quiet_from", "quiet_to", "only_severe"]
    page = text(world.client("approver").get(PAGE))
    assert 'value="22:00' in page
    assert "Every hour · quiet 22:00 to 07:00 Europe/Lisbon" in page


def test_an_address_is_changed_and_a_persons_own_comes_back(world: World) -> None:
    add(world, "approver", kind="webhook", target=HOOK)
    [hook] = Channel.objects.all()
    change(world, "approver", hook, target="https://other.example/new-secret")
    now = Channel.objects.get(id=hook.id)
    assert decrypt(now.target) == "https://other.example/new-secret"
    assert (now.label, now.secret) == ("other.example", hook.secret)
    assert "secret" not in str(Receipt.objects.get(kind="channel.changed").payload)

    add(world, "approver", target="desk@harborpine.example")
    mail = Channel.objects.get(kind="email")
    assert 'value="desk@harborpine.example"' in text(world.client("approver").get(PAGE))
    change(world, "approver", mail, target="")
    assert (bytes(Channel.objects.get(id=mail.id).target), Channel.objects.get(id=mail.id).label) == (b"", "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "nonsense"}, "Give the whole address of the webhook"),
        ({"time_zone": "Mars"}, "There is no such time zone."),
        ({"quiet_from": "22:00"}, "Quiet hours need a beginning and an end."),
        ({"digest_minutes": "7"}, "Select a valid choice."),
    ],
)
def test_a_change_that_is_wrong_is_said_there_and_kept(world: World, fields: dict[str, str], words: str) -> None:
    add(world, "approver", kind="webhook", target=HOOK)
    [saved] = Channel.objects.all()

    answer = change(world, "approver", saved, **{"time_zone": "Asia/Tokyo", **fields})

    assert answer.status_code == 422
    page = text(answer)
    assert words in page
    assert f'value="{fields.get("time_zone", "Asia/Tokyo")}"' in page
    assert page.count('<details class="acct-more acct-change" open>') == 1
    assert Channel.objects.get(id=saved.id).time_zone == "Europe/Lisbon"
    assert not Receipt.objects.filter(kind="channel.changed").exists()


@pytest.mark.parametrize(
    ("who", "own", "teams"),
    [
        ("admin", 404, 302),
        ("approver", 302, 403),
        ("viewer", 404, 403),
        ("outsider", 404, 404),
        ("anonymous", 302, 302),
    ],
)
def test_who_may_change_a_channel(world: World, who: str, own: int, teams: int) -> None:
    mine = channel(world, "approver", ChannelKind.BROWSER)
    ours = channel(world, None, ChannelKind.SLACK, label="hooks.example")
    assert change(world, who, mine, digest_minutes="60").status_code == own
    assert change(world, who, ours, digest_minutes="60").status_code == teams
    assert Channel.objects.filter(digest_minutes=60).count() == (who in ("admin", "approver"))
    url = reverse("approvals:change_channel", args=[mine.id])
    assert world.client("approver").get(url).status_code == 405
