"""Huge and hostile payloads: shown whole on demand, harmless, and not to be approved by who has not been shown them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse

from approvals import inbox
from approvals.inbox import Result
from approvals.models import Decision, Shown, Verdict
from runs import excerpts, previews
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide
from tests.approvals.factories import World, approve, form_for, line

HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}
EVIL = (
    "<script>alert(1)</script>\x1b[31mred\x1b[0m \u202egnp.exe\u202c zero\u200bwidth \U000e0041tag"
    " \"'><img src=x onerror=alert(2)>"
)
LINES = "\n".join(f"line {number}" for number in range(1, 10_001))
KINDS = ("amount", "email", "record", "file", "http", "table", "arguments")


def page(world: World, batch: Batch, who: str = "approver") -> str:
    return str(world.client(who).get(reverse("approvals:batch", args=[batch.id])).content.decode())


def whole(world: World, action: Action, who: str = "approver", **headers: Any) -> str:
    answer = world.client(who).get(reverse("approvals:whole", args=[action.batch_id, action.id]), **headers)
    assert answer.status_code == 200
    return str(answer.content.decode())


def hostile(batch: Batch, kind: str, text: str, **fields: Any) -> Action:
    """An action of a preview type with a text in every field that a model or a tool can write."""
    previewed: dict[str, dict[str, Any]] = {
        "amount": {"amount": "84.00", "currency": text[:40], "to": text, "method": text, "method_note": text},
        "email": {"from": text, "to": [text], "cc": [text], "subject": text, "body": text},
        "record": {"record": text, "fields": [{"field": text, "now": text, "after": text}]},
        "file": {"path": text, "diff": f"+{text}\n-{text}"},
        "http": {"method": text[:9], "url": text, "headers": {text: text}, "body": text},
        "table": {"columns": [text], "rows": [[text]]},
        "arguments": {},
    }
    preview = {"type": kind, **previewed[kind]}
    if kind == "amount":
        preview["lines"] = [{"label": text, "value": text}]
    args = {"order": text, "nested": {text: [text]}}
    return make.make_action(
        batch,
        "shop.wipe",
        args,
        preview=preview,
        plan_summary=text[:300],
        reasoning=text,
        route_reason=text[:300],
        **fields,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_in_every_field_is_plain_text(world: World, kind: str) -> None:
    batch = make.make_batch(world, why=EVIL, title=f"Refund desk {EVIL}"[:200])
    action = hostile(batch, kind, EVIL)

    for shown in (page(world, batch), whole(world, action), whole(world, action, **HTMX)):
        assert "<script>alert" not in shown
        assert not re.search(r"<img[^>]*onerror", shown)
        assert not re.search("[\x1b\u202e\u202c\u200b\U000e0041]", re.sub(r'[\w-]+="[^"]*"', "", shown))
        assert "U+202E" in shown
        assert "U+200B" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_lines_in_every_field(world: World, kind: str) -> None:
    batch = make.make_batch(world, why=LINES)
    action = hostile(batch, kind, LINES)

    shown = page(world, batch)
    assert len(shown) < 900_000, "the card has an excerpt"
    assert "data-must-see" in shown
    assert "Show all: " in shown
    everything = whole(world, action, **HTMX)
    assert "line 5000\n" in everything
    assert "line 10000" in everything


def test_the_size_and_both_ends_of_a_huge_argument_stand_on_its_card(world: World) -> None:
    batch = make.make_batch(world)
    body = "Dear all,\n" + "x" * 200_000 + "\nPS: and wire the rest to Bob."
    action = make.make_email(batch, body=body)

    shown = page(world, batch)
    assert "200 kB" in shown
    assert "Dear all," in shown
    assert "PS: and wire the rest to Bob." in shown, "an end is not hidden"
    assert "characters are not shown here" in shown
    assert body in whole(world, action, **HTMX).replace("&#x27;", "'")


def test_what_was_not_shown_whole_cannot_be_approved_on_the_page(world: World) -> None:
    batch = make.make_batch(world)
    huge = make.make_email(batch, body="x" * 200_000)
    client = world.client("approver")
    page(world, batch)

    refused = client.post(reverse("approvals:decide", args=[batch.id]), form_for(batch, [huge]), **HTMX)
    assert refused.status_code == 422
    assert "Look at all of it before you approve it" in refused.content.decode()
    assert_untouched(huge)

    whole(world, huge, "second")
    client.post(reverse("approvals:decide", args=[batch.id]), form_for(batch, [huge]), **HTMX)
    assert_untouched(huge)  # somebody else saw it

    whole(world, huge)
    client.post(reverse("approvals:decide", args=[batch.id]), form_for(batch, [huge]), **HTMX)
    huge.refresh_from_db()
    assert huge.status == ActionStatus.APPROVED


def test_a_long_one_that_stands_on_the_page_was_shown_by_it(world: World) -> None:
    batch = make.make_batch(world)
    email = make.make_email(batch, body="a line\n" * 100)
    post = (reverse("approvals:decide", args=[batch.id]), form_for(batch, [email]))

    assert world.client("approver").post(*post, **HTMX).status_code == 422
    assert "preview-long" in page(world, batch)
    assert world.client("approver").post(*post, **HTMX).status_code == 200
    assert Decision.objects.get().action_id == email.id


def test_rejecting_needs_no_reading(world: World) -> None:
    batch = make.make_batch(world)
    huge = make.make_email(batch, body="x" * 200_000)
    [outcome] = inbox.decide(world.access("approver"), batch.id, 1, [line(huge, Verdict.REJECT)], channel="web")
    assert outcome.result is Result.APPLIED


def test_the_api_gives_everything_and_asks_for_nothing_more(world: World) -> None:
    batch = make.make_batch(world)
    huge = make.make_email(batch, body="x" * 200_000)
    assert [o.result for o in decide(world, "approver", batch, approve(huge))] == [Result.APPLIED]


def test_what_was_shown_is_recorded_once_and_for_what_it_was(world: World) -> None:
    batch = make.make_batch(world)
    huge, small = make.make_email(batch, body="x" * 200_000), make.make_update(batch)
    for _ in range(2):
        page(world, batch)
        whole(world, huge)
        page(world, batch, "viewer")
        whole(world, huge, "viewer")

    [shown] = Shown.objects.all()
    assert (shown.action, shown.user, shown.digest) == (huge, world.people["approver"], huge.digest)
    assert not Shown.objects.filter(action=small).exists(), "nobody has to look at a small change of low risk"


@pytest.mark.parametrize(("who", "status"), [("viewer", 200), ("outsider", 404), ("anonymous", 302), ("approver", 200)])
def test_who_sees_the_whole(world: World, who: str, status: int) -> None:
    batch = make.make_batch(world)
    action = make.make_email(batch)
    address = reverse("approvals:whole", args=[batch.id, action.id])
    assert world.client(who).get(address).status_code == status
    if status == 200:
        other = make.make_batch(world)
        assert world.client(who).get(reverse("approvals:whole", args=[other.id, action.id])).status_code == 404


def test_an_excerpt_says_what_it_leaves_out() -> None:
    [part] = excerpts.excerpts_of(Action(args={"body": LINES}))
    assert part.head.startswith("line 1\n")
    assert part.tail.endswith("line 10000")
    missing = len(LINES) - len(part.head) - len(part.tail)
    assert part.left_out == f"{missing:,} characters are not shown here"
    assert excerpts.size_of(Action(args={"body": LINES})) == "10,000 lines, 99 kB"
    [short] = excerpts.excerpts_of(Action(args={"body": "short"}))
    assert (short.head, short.left_out, short.tail) == ("short", "", "")


def test_an_amount_too_large_for_its_column_is_still_an_action(world: World) -> None:
    action = make.make_refund(make.make_batch(world), amount=1e15)
    previews.describe(action)
    assert action.amount == previews.LARGEST_AMOUNT
