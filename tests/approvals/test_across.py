"""Deciding across runs: filters, rights, only what was shown, one answer a line; and a thousand actions at once."""

from __future__ import annotations

import datetime as dt
import html
import re
import uuid
from typing import Any

import pytest
from django.conf import LazySettings
from django.urls import reverse
from django.utils import timezone

from approvals import across, seen
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


@pytest.mark.parametrize(
    ("query", "shown", "is_open"),
    [
        ("", "Filters</summary>", False),
        ("?q=ines", "Filters</summary>", False),
        ("?q=ines&risk=high&older=5", 'Filters <b>2<span class="visually-hidden"> set</span></b></summary>', False),
        ("?least=many", "set</span></b></summary>", True),
    ],
)
def test_folded_filters_say_how_many_are_set_and_open_on_a_mistake(
    world: World, query: str, shown: str, is_open: bool
) -> None:
    page = text(world, query)

    assert shown in page
    assert ('<details class="across-fold" open>' in page) is is_open


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


def test_what_waits_beyond_a_page_is_loaded_further(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "PAGE", 2)
    for minutes in range(5):
        make.make_update(make.make_batch(world, minutes=10 + minutes))
    client, seen_ids = world.client("approver"), list[str]()
    url, headers = f"{reverse(PAGE)}?risk=medium", dict[str, str]()
    for left in (3, 1, 0):
        page = client.get(url, headers=headers).content.decode()
        seen_ids += re.findall(r'name="select" value="([^"]+)"', page)
        assert (f"{left} more wait" in page, "<html" in page) == (left > 0, not headers)
        further = re.search(r'href="([^"]+cursor=[^"]+)"', page)
        url, headers = (html.unescape(further[1]) if further else ""), {"HX-Request": "true"}
    expected = Action.objects.order_by("expires_at").values_list("id", flat=True)
    assert seen_ids == [str(each) for each in expected]
    assert client.get(f"{reverse(PAGE)}?cursor=nonsense").status_code == 400


def test_a_form_of_a_thousand_actions_is_read(world: World) -> None:
    ids = [uuid.UUID(int=number) for number in range(1000)]
    fields = {f"digest-{each}": "x" for each in ids} | {f"version-{each}": "1" for each in ids}
    response = world.client("approver").post(reverse(DECIDE), {"select": [str(each) for each in ids], **fields})
    assert response.status_code == 200


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


# --- taking back what was approved together --------------------------------------------------------------------------


@pytest.fixture
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 60


def opened(world: World, *actions: Action) -> tuple[Action, ...]:
    """What must be seen whole was seen by who decides here."""
    seen.record(world.access("approver"), [(action.id, action.digest) for action in actions])
    return actions


def take_back(world: World, *actions: Action, who: str = "approver", **more: str) -> Any:
    data: JsonObject = {"action": [str(action.id) for action in actions], **more}
    data |= {f"digest-{action.id}": action.digest for action in actions}
    return world.client(who).post(reverse("approvals:across_undo"), data)


def status_of(*actions: Action) -> list[str]:
    return [Action.objects.get(id=action.id).status for action in actions]


def test_one_undo_takes_back_what_was_approved_in_many_runs(world: World, window: None) -> None:
    actions = opened(world, *three(world)[:2])
    page = post(world, *actions, risk="medium").content.decode()
    assert "2 actions in 2 runs approved." in page
    assert page.count('name="action"') == 2
    assert "They begin at" in page

    page = take_back(world, *actions, risk="medium").content.decode()

    assert "2 approvals were taken back. Nothing of it has run." in page
    assert "Not taken back" not in page
    assert status_of(*actions) == ["revoked", "revoked"]
    waiting = Action.objects.filter(status=ActionStatus.PENDING, supersedes__in=actions)
    assert waiting.count() == 2
    assert set(Run.objects.filter(actions__in=actions).values_list("status", flat=True)) == {"waiting"}
    assert 'value="medium" selected' in page or "<option selected>medium" in page, "the filter stays"


def test_what_has_begun_is_said_and_the_rest_is_taken_back(world: World, window: None) -> None:
    update, refund, _email = opened(world, *three(world))
    post(world, update, refund)
    Action.objects.filter(id=refund.id).update(status=ActionStatus.EXECUTING)

    page = take_back(world, update, refund).content.decode()

    assert "1 approval was taken back." in page
    assert "Not taken back:" in page
    assert "it is executing" in page
    assert status_of(update, refund) == ["revoked", "executing"]


def test_where_every_tool_has_a_window_of_its_own_the_page_says_both_times(world: World, window: None) -> None:
    tools = [{**tool, "undo_s": 600 if "refund" in str(tool["name"]) else 30} for tool in make.DEFINITION["tools"]]
    make.define(world, {**make.DEFINITION, "tools": tools})
    update, refund, _email = opened(world, *three(world))

    assert "The first begins at" in post(world, update, refund).content.decode()


def test_without_a_window_nothing_is_offered(world: World) -> None:
    page = post(world, *opened(world, *three(world)[:2])).content.decode()

    assert "2 of 2 approved." in page
    assert reverse("approvals:across_undo") not in page


def test_a_first_of_two_votes_is_told_as_such_and_is_no_approval_yet(world: World, window: None) -> None:
    batch = make.make_batch(world)
    actions = opened(world, make.make_refund(batch, needed=2), make.make_update(batch))
    page = post(world, *actions).content.decode()

    assert "1 of 2 waiting for a second person." in page
    assert "1 action approved." in page


@pytest.mark.parametrize(("who", "status"), [("operator", 403), ("viewer", 403), ("outsider", 200), ("anonymous", 302)])
def test_who_may_not_take_back(world: World, window: None, who: str, status: int) -> None:
    update, *_ = three(world)
    post(world, update)

    answer = take_back(world, update, who=who)

    assert answer.status_code == status
    assert status_of(update) == ["approved"]
    if who == "outsider":
        assert "There is no such action." in answer.content.decode()


def test_the_same_undo_twice_changes_nothing_more(world: World, window: None) -> None:
    update, *_ = three(world)
    post(world, update)
    take_back(world, update)

    page = take_back(world, update).content.decode()

    assert "Not taken back:" in page
    assert Action.objects.filter(supersedes=update).count() == 1
    client = world.client("approver")
    assert client.post(reverse("approvals:across_undo"), {"action": "x"}).status_code == 400
    assert client.get(reverse("approvals:across_undo")).status_code == 405
