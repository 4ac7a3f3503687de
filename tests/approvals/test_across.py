"""Deciding across runs: filters, rights, only what was shown, one answer a line; and a thousand actions at once."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from approvals.models import Decision
from runs.engine.types import ActionStatus, JsonObject
from runs.models import Action, Batch, Run
from tests.approvals import factories as make
from tests.approvals.factories import World

PAGE, DECIDE = "approvals:across", "approvals:across_decide"


def text(world: World, query: str = "", who: str = "approver") -> str:
    return str(world.client(who).get(f"{reverse(PAGE)}{query}").content.decode())


def titles(world: World, query: str = "") -> list[str]:
    return re.findall(r'#action-[0-9a-f-]+"><b>([^<]*)</b>', text(world, query))


def post(world: World, *actions: Action, who: str = "approver", **more: Any) -> Any:
    data: JsonObject = {"select": [str(action.id) for action in actions], "submit": "approve", **more}
    data |= {f"digest-{action.id}": action.digest for action in actions}
    data |= {f"version-{action.batch_id}": "1" for action in actions}
    return world.client(who).post(reverse(DECIDE), data)


def three(world: World) -> tuple[Action, Action, Action]:
    """A record change, a refund and an e-mail of three runs."""
    return (
        make.make_update(make.make_batch(world, minutes=30)),
        make.make_refund(make.make_batch(world, minutes=10), 412.5),
        make.make_email(make.make_batch(world, minutes=20)),
    )


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 3),
        ("?risk=critical", 1),
        ("?risk=nonsense", 3),
        ("?type=email", 1),
        ("?least=400", 1),
        ("?least=$1,000", 0),
        ("?most=412.50", 1),
        ("?most=412.49", 0),
        ("?agent=refund-desk", 3),
        ("?agent=other", 0),
        ("?q=C-20917", 1),
        ("?q=412.50", 1),
        ("?q=tagged", 3),
        ("?older=60", 1),
        ("?type=email&risk=critical", 0),
    ],
)
def test_filters(world: World, query: str, count: int) -> None:
    update, *_ = three(world)
    Action.objects.filter(id=update.id).update(created_at=timezone.now() - dt.timedelta(minutes=90))
    assert len(titles(world, query)) == count


def test_soonest_deadline_first_and_what_cannot_be_read_is_said(world: World) -> None:
    three(world)
    assert [title.split()[0] for title in titles(world)] == ["Refund", "Email", "Change"]
    page = text(world, "?least=much&older=soon&q=x%22%3E%3Cscript%3E")
    assert "Write an amount such as 250" in page
    assert "Write whole minutes" in page
    assert 'value="much"' in page, "nothing typed is lost"
    assert "<script>" not in page


def test_decided_once_in_many_batches(world: World) -> None:
    update, refund, email = three(world)
    for action in (refund, email):
        assert "Read it first" in text(world)
        world.client("approver").get(reverse("approvals:whole", args=[action.batch_id, action.id]))
    assert "Read it first" not in text(world)

    answer = post(world, update, refund, email).content.decode()

    assert "3 of 3 approved." in answer
    assert set(Action.objects.values_list("status", flat=True)) == {ActionStatus.APPROVED}
    assert not Batch.objects.filter(status="open").exists()
    assert set(Run.objects.values_list("status", flat=True)) == {"queued"}


def test_what_was_not_opened_is_not_approved_and_the_rest_is(world: World) -> None:
    update, refund, email = three(world)
    answer = post(world, update, refund, email).content.decode()
    assert "1 of 3 approved." in answer
    assert "Look at all of it before you approve it" in answer
    assert [Action.objects.get(id=each.id).status for each in (update, refund, email)] == [
        "approved",
        "pending",
        "pending",
    ]


def test_rejecting_many_gives_each_the_feedback(world: World) -> None:
    actions = three(world)
    post(world, *actions, submit="reject", reason="not_needed", note="Not this week.")
    assert set(Action.objects.values_list("status", "note")) == {("rejected", "Not needed. Not this week.")}


def test_every_line_is_answered_truthfully(world: World) -> None:
    update, *_ = three(world)
    post(world, update, who="second")
    stranger = make.make_update(make.make_batch(world))
    Action.objects.filter(id=stranger.id).update(digest="other")
    answer = post(world, update, stranger).content.decode()
    assert "Lea Moreau approved this already." in answer
    assert "not the one that was shown" in answer
    assert Decision.objects.count() == 1


@pytest.mark.parametrize(
    ("who", "looks", "decides"),
    [
        ("admin", 200, 200),
        ("approver", 200, 200),
        ("operator", 200, 403),
        ("viewer", 200, 403),
        ("outsider", 200, 200),
        ("anonymous", 302, 302),
    ],
)
def test_who_may(world: World, who: str, looks: int, decides: int) -> None:
    update, *_ = three(world)
    assert world.client(who).get(reverse(PAGE)).status_code == looks
    assert post(world, update, who=who).status_code == decides
    assert Decision.objects.exists() is (who in ("admin", "approver"))
    if who == "outsider":
        assert "Change 2 fields" not in text(world, who=who)


@pytest.mark.parametrize("data", [{"select": "x"}, {"version-x": "1"}, {"version-y": "z"}])
def test_a_form_that_means_nothing(world: World, data: JsonObject) -> None:
    assert world.client("approver").post(reverse(DECIDE), data).status_code == 400
    assert world.client("approver").post(reverse(DECIDE), {}).status_code == 200
    assert world.client("approver").get(reverse(DECIDE)).status_code == 405


def test_a_large_batch_is_shown_and_decided_in_parts(world: World) -> None:
    batch = make.make_batch(world)
    actions = [make.make_update(batch) for _ in range(60)]
    client = world.client("approver")
    page = client.get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert page.count('name="select"') == 50
    assert "10 more" in page
    assert "60 actions; 50 of them are shown, and only those are decided here." in page
    rest = client.get(reverse("approvals:batch", args=[batch.id]) + "?from=50").content.decode()
    assert rest.count('name="select"') == 10
    client.post(reverse("approvals:decide", args=[batch.id]), make.form_for(batch, actions[:50]))
    batch.refresh_from_db()
    assert batch.status == "open"
    after = client.get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert after.count('name="select"') == 10, "the page opens where something waits"
