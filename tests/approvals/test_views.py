"""The pages: who may see and do what, a constant number of queries, and forms that work without scripts."""

from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from approvals import inbox
from approvals.models import Decision
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.factories import World, approve, form_for

HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}


def url(name: str, batch: Batch | None = None, action: Action | None = None) -> str:
    args = [row.id for row in (batch, action) if row is not None]
    return reverse(f"approvals:{name}", args=args)


def text(response: Any) -> str:
    return str(response.content.decode())


# --- who may ----------------------------------------------------------------------------------------------------------

EVERYONE = ["admin", "approver", "operator", "viewer", "outsider", "anonymous"]
LOOK = {"admin": 200, "approver": 200, "operator": 200, "viewer": 200, "outsider": 404, "anonymous": 302}
ACT = {"admin": 200, "approver": 200, "operator": 403, "viewer": 403, "outsider": 404, "anonymous": 302}


@pytest.mark.parametrize("who", EVERYONE)
def test_who_sees_the_list(world: World, who: str) -> None:
    make.make_full_batch(world)

    response = world.client(who).get(url("inbox"))

    assert response.status_code == (302 if who == "anonymous" else 200)
    assert ("Refund $84.00 to Ines Carvalho" in text(response)) is (who not in ("outsider", "anonymous"))


@pytest.mark.parametrize("who", EVERYONE)
def test_who_sees_a_batch(world: World, who: str) -> None:
    batch, _ = make.make_full_batch(world)

    assert world.client(who).get(url("batch", batch)).status_code == LOOK[who]


@pytest.mark.parametrize("who", EVERYONE)
def test_who_decides(world: World, who: str) -> None:
    batch, actions = make.make_full_batch(world)

    response = world.client(who).post(url("decide", batch), form_for(batch, actions), **HTMX)

    assert response.status_code == ACT[who]
    assert Decision.objects.exists() is (ACT[who] == 200)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("who", EVERYONE)
def test_who_edits(world: World, who: str, method: str) -> None:
    batch, (refund, *_) = make.make_full_batch(world)

    response = getattr(world.client(who), method)(
        url("edit", batch, refund), {"arg-order": "48213", "arg-amount": "50", "arg-reason": "x"}, **HTMX
    )

    assert response.status_code == ACT[who]
    changed = Action.objects.filter(supersedes=refund).exists()
    assert changed is (method == "post" and ACT[who] == 200)


def test_the_bar_is_only_for_those_who_may_decide(world: World) -> None:
    batch, _ = make.make_full_batch(world)

    for who, may in (("approver", True), ("viewer", False)):
        page = text(world.client(who).get(url("batch", batch)))
        assert ('id="decide"' in page) is may
        assert ("Edit</a>" in page) is may


@pytest.mark.parametrize("path", ["/approvals/nonsense/", f"/approvals/{make.missing_id()}/"])
def test_a_bad_id_is_404(world: World, path: str) -> None:
    assert world.client("admin").get(path).status_code == 404


def test_nothing_is_decided_by_get(world: World) -> None:
    batch, actions = make.make_full_batch(world)

    assert world.client("approver").get(url("decide", batch), form_for(batch, actions)).status_code == 405
    assert not Decision.objects.exists()


# --- how many queries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/approvals/", "/approvals/?show=decided"])
def test_the_list_takes_as_many_queries_for_twenty_batches_as_for_one(
    world: World, django_assert_max_num_queries: DjangoAssertNumQueries, path: str
) -> None:
    client = world.client("approver")
    fill(world, 1)
    client.get(path)
    with django_assert_max_num_queries(40) as one:
        client.get(path)
    fill(world, 19)
    with django_assert_max_num_queries(len(one.captured_queries)):
        client.get(path)


def fill(world: World, number: int) -> None:
    for _ in range(number):
        batch, (refund, *_) = make.make_full_batch(world)
        make.make_refund(batch, needed=2, to="Amara Diallo", order="48231")
        inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="web")
        ended, actions = make.make_full_batch(world)
        inbox.decide(world.access("second"), ended.id, 1, [approve(each) for each in actions], channel="web")


def test_opening_a_batch_alone_takes_few_queries(
    world: World, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    batch, _ = make.make_full_batch(world)
    client = world.client("approver")
    client.get(url("batch", batch), **HTMX)

    with django_assert_max_num_queries(18):
        client.get(url("batch", batch), **HTMX)


# --- what the pages say -----------------------------------------------------------------------------------------------


def test_soonest_expiry_comes_first(world: World) -> None:
    later, soon = make.make_batch(world, minutes=90), make.make_batch(world, minutes=9)
    make.make_refund(later, to="Later Person")
    make.make_refund(soon, to="Soon Person")

    page = text(world.client("approver").get(url("inbox")))

    assert page.index(f"row-{soon.id}") < page.index(f"row-{later.id}")
    assert "2 actions in 2 batches" in page


def test_the_page_says_what_happens_why_and_what_is_final(world: World) -> None:
    batch, _ = make.make_full_batch(world)

    page = text(world.client("approver").get(url("batch", batch)))

    for words in (
        "Refund $84.00 to Ines Carvalho",
        "Change 2 fields on customer C-20917",
        "Here because <b>confidence is 86%, below the 90% this tool needs to run alone</b>.",
        "Sends $84.00, changes 1 record, emails 1 person.",
        "The refund and the email cannot be undone.",
        "Outside the company",
        "Stays paid",
        "Approve all 3",
    ):
        assert words in page


def test_what_cannot_be_tried_says_so_wherever_it_is_decided(world: World) -> None:
    batch = make.make_batch(world)
    tried = make.make_refund(batch)
    client, words = world.client("approver"), "No preview: this tool cannot be tried dry."
    pages = [url("batch", batch), reverse("approvals:across"), url("whole", batch, tried)]
    assert [words in text(client.get(page)) for page in pages] == [False, False, False]

    action = make.make_action(batch, "crm.merge", {"from": "C-1", "into": "C-2"}, risk="medium")
    pages[2] = url("whole", batch, action)
    assert [words in text(client.get(page)) for page in pages] == [True, True, True]


def test_an_empty_inbox_says_so(world: World) -> None:
    assert "Nothing waits for you" in text(world.client("approver").get(url("inbox")))


def test_filters_show_their_part(world: World) -> None:
    plain, soon, double = make.make_batch(world), make.make_batch(world, minutes=5), make.make_batch(world)
    make.make_refund(plain)
    make.make_refund(soon)
    make.make_refund(double, needed=2)

    def rows(show: str) -> set[str]:
        page = text(world.client("approver").get(url("inbox"), {"show": show}))
        return set(re.findall(r'id="row-([\w-]+)"', page))

    assert rows("two_person") == {str(double.id)}
    assert rows("expiring") == {str(soon.id)}
    assert len(rows("mine")) == 3


def test_two_people_are_told_who_may_be_the_second(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, needed=2)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund)], channel="web")

    other = text(world.client("second").get(url("batch", batch)))
    same = text(world.client("approver").get(url("batch", batch)))

    assert "You can be the second" in other
    assert "1 of 2 approved" in other
    assert "Someone else must be the second" in same
    assert 'id="decide"' not in same


def test_history_lists_what_was_decided_and_by_whom(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(each) for each in actions], channel="web")

    page = text(world.client("viewer").get(url("inbox"), {"show": "decided"}))

    assert "Marco Ruiz approved this batch" in page
    assert "Refund $84.00 to Ines Carvalho" in page


# --- deciding by form -------------------------------------------------------------------------------------------------


def test_the_plain_form_of_the_page_decides_without_scripts(world: World) -> None:
    batch, _ = make.make_full_batch(world)
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.people["approver"], backend="django.contrib.auth.backends.ModelBackend")
    page = text(client.get(url("batch", batch)))

    response = client.post(url("decide", batch), fields_of(page), follow=True)

    assert response.redirect_chain == [(url("batch", batch), 302)]
    assert "3 approved." in text(response)
    assert set(Action.objects.values_list("status", flat=True)) == {ActionStatus.APPROVED}


def fields_of(page: str) -> dict[str, Any]:
    """What a browser sends: every field of the form `decide` as the page has it, and its first approve button."""
    bar = re.search(r'<form class="decide".*?</form>', page, re.DOTALL)
    assert bar is not None
    fields: dict[str, Any] = {"submit": "approve"}
    outside = [tag for tag in re.findall(r"<input[^>]*>", page) if 'form="decide"' in tag]
    for tag in {*outside, *re.findall(r"<input[^>]*>", bar.group())}:
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        ticked = not re.search(r'type="(checkbox|radio)"', tag) or " checked" in tag
        if name and value and ticked:
            fields.setdefault(name.group(1), []).append(value.group(1))
    return fields


def test_some_approved_one_rejected_with_a_note_in_one_post(world: World) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    form = form_for(
        batch,
        [refund, update, email],
        **{
            "reject": [str(email.id)],
            f"note-{email.id}": "Ask her to return it.\r\nLabel is prepaid.",
            f"reason-{email.id}": "tone",
        },
    )

    response = world.client("approver").post(url("decide", batch), form, follow=True)

    assert "2 approved, 1 rejected." in text(response)
    email.refresh_from_db()
    assert email.status == ActionStatus.REJECTED
    assert email.note == "Wrong tone. Ask her to return it.\nLabel is prepaid."


def test_the_bars_own_rejection_gives_every_selected_action_the_same_reason(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    form = form_for(batch, actions, submit="reject", reason="not_needed", note="It was solved by phone.")
    form["select"] = form["select"][:2]

    world.client("approver").post(url("decide", batch), form)

    assert [action.status for action in Action.objects.order_by("position")] == ["rejected", "rejected", "pending"]
    assert set(Decision.objects.values_list("note", "reason")) == {("It was solved by phone.", "not_needed")}


def test_nothing_selected_decides_nothing_and_says_so(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    form = form_for(batch, actions)
    form["select"] = []

    assert "Nothing is selected" in text(world.client("approver").post(url("decide", batch), form))
    assert not Decision.objects.exists()


def test_what_somebody_else_decided_is_said_on_the_card_and_the_rest_applies(world: World) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    form = form_for(batch, [refund, update, email])
    inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="web")

    response = world.client("approver").post(url("decide", batch), form, **HTMX)

    assert response.status_code == 200
    assert "Lea Moreau approved this already." in text(response)
    update.refresh_from_db()
    assert update.status == ActionStatus.APPROVED


def test_htmx_gets_the_batch_and_its_row_and_no_page(world: World) -> None:
    batch, actions = make.make_full_batch(world)

    page = text(world.client("approver").post(url("decide", batch), form_for(batch, actions), **HTMX))

    assert "<html" not in page
    assert 'id="batch"' in page
    assert f'id="row-{batch.id}"' in page
    assert "Marco Ruiz approved this batch" in page


def test_a_note_that_is_too_long_is_422_and_stays(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    note = "long " * 900
    form = form_for(batch, [refund], **{"reject": [str(refund.id)], f"note-{refund.id}": note})

    response = world.client("approver").post(url("decide", batch), form)

    assert response.status_code == 422
    assert note.strip() in text(response)
    assert "A note has at most 4,000 characters." in text(response)


@pytest.mark.parametrize("broken", [{"version": "x"}, {"version": ""}, {"action": ["nonsense"]}])
def test_a_form_the_page_never_showed_is_400(world: World, broken: dict[str, Any]) -> None:
    batch, actions = make.make_full_batch(world)

    assert world.client("approver").post(url("decide", batch), form_for(batch, actions) | broken).status_code == 400
    assert not Decision.objects.exists()


def test_an_unknown_outcome_is_settled_and_a_question_answered_by_form(world: World) -> None:
    batch = make.make_batch(world)
    lost = make.make_refund(batch, kind="unknown", status=ActionStatus.UNKNOWN)
    question = make.make_action(batch, "ask", {"question": "Which card?"}, kind="question")
    form = form_for(
        batch, [lost, question], **{f"settle-{lost.id}": "did_not_happen", f"answer-{question.id}": "The Visa."}
    )

    page = text(world.client("approver").get(url("batch", batch)))
    assert "It is not known whether this happened" in page
    assert "Which card?" in page
    world.client("approver").post(url("decide", batch), form)

    lost.refresh_from_db()
    question.refresh_from_db()
    assert (lost.status, question.status, question.note) == ("failed", "answered", "The Visa.")


# --- editing by form --------------------------------------------------------------------------------------------------


def test_the_edit_form_has_a_field_for_each_argument(world: World) -> None:
    batch, (_refund, _update, email) = make.make_full_batch(world)

    page = text(world.client("approver").get(url("edit", batch, email)))

    assert "<html" in page
    for name in ("arg-to", "arg-subject", "arg-body"):
        assert f'name="{name}"' in page


def test_keeping_changes_makes_a_new_action_with_a_diff(world: World) -> None:
    batch, (_refund, _update, email) = make.make_full_batch(world)
    form = {
        "arg-to": email.args["to"],
        "arg-subject": "About your kettle",
        "arg-body": email.args["body"].replace("\n", "\r\n"),
    }

    response = world.client("approver").post(url("edit", batch, email), form, follow=True)

    new = Action.objects.get(supersedes=email)
    assert new.args == {**email.args, "subject": "About your kettle"}
    assert "Changed by Marco Ruiz" in text(response)
    assert "Your refund for order 48213" in text(response)
    assert f'id="action-{email.id}"' not in text(response)


@pytest.mark.parametrize(
    ("amount", "problem"),
    [
        ("fifty", "Write a number."),
        ("5000", "This must be 1000 or less."),
        ("NaN", "Write a number."),
        ("", "This is needed."),
    ],
)
def test_a_refused_edit_is_422_and_keeps_what_was_typed(world: World, amount: str, problem: str) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    form = {"arg-order": "48213", "arg-amount": amount, "arg-reason": "typed with care"}

    plain: dict[str, Any] = {}
    for headers in (plain, HTMX):
        response = world.client("approver").post(url("edit", batch, refund), form, **headers)

        assert response.status_code == 422
        assert problem in text(response)
        assert f'value="{amount}"' in text(response)
        assert 'value="typed with care"' in text(response)
    refund.refresh_from_db()
    assert refund.status == ActionStatus.PENDING


def test_an_edit_that_changes_nothing_changes_nothing(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    form = {"arg-order": "48213", "arg-amount": "84", "arg-reason": "Dented in transit"}

    assert world.client("approver").post(url("edit", batch, refund), form).status_code == 302
    assert not Decision.objects.exists()


def test_what_was_decided_meanwhile_cannot_be_edited(world: World) -> None:
    batch, (refund, *_) = make.make_full_batch(world)
    inbox.decide(world.access("second"), batch.id, 1, [approve(refund)], channel="web")

    response = world.client("approver").get(url("edit", batch, refund), follow=True)

    assert "Only an action that waits for approval can be changed." in text(response)


# --- hostile text -----------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\u202eevil\u200b\x1b[31m</textarea><img src=x onerror=alert(1)>\"'"


class Elements(HTMLParser):
    """Every element of a page with the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name for name, _ in attrs}))


def test_hostile_text_in_every_field_stays_text_and_is_made_visible(world: World) -> None:
    batch = make.make_batch(world, why=HOSTILE, title=f"{HOSTILE} wants to do 1 thing"[:200])
    make.make_refund(batch, to=HOSTILE, order=HOSTILE, reasoning=HOSTILE, route_reason=HOSTILE)
    make.make_email(batch, body=HOSTILE, note=HOSTILE)
    make.make_action(batch, HOSTILE[:120], {HOSTILE: HOSTILE, "list": [HOSTILE]})
    make.make_action(batch, "ask", {"question": HOSTILE, "options": [HOSTILE]}, kind="question")

    for path in (url("inbox"), url("batch", batch), url("edit", batch, Action.objects.get(tool="shop.send_email"))):
        page = text(world.client("approver").get(path))
        elements = Elements()
        elements.feed(page)
        assert not {name for _, names in elements.found for name in names if name.startswith("on")}
        assert not [tag for tag, names in elements.found if tag == "img" or (tag == "script" and "src" not in names)]
        assert "U+202E" in page
        assert "U+200B" in page
        assert "U+001B" in page


def test_a_long_payload_is_shown_whole(world: World) -> None:
    batch = make.make_batch(world)
    body = "\n".join(f"line {number}" for number in range(100))
    make.make_email(batch, body=body)

    page = text(world.client("approver").get(url("batch", batch)))

    assert "line 99" in page
    assert "data-must-see" in page
    assert "preview-long" in page


def test_a_preview_that_contradicts_the_arguments_is_not_shown(world: World) -> None:
    batch = make.make_batch(world)
    refund = make.make_refund(batch)
    Action.objects.filter(id=refund.id).update(preview={"type": "amount", "amount": "8.40"})

    page = text(world.client("approver").get(url("batch", batch)))

    assert "does not match what would be sent" in page
    assert "Run shop.issue_refund" in page
    assert "$8.40" not in page


def test_todays_numbers_are_those_of_today(world: World) -> None:
    batch, (refund, update, email) = make.make_full_batch(world)
    inbox.decide(world.access("approver"), batch.id, 1, [approve(refund), approve(update)], channel="web")
    start = timezone.now() - dt.timedelta(hours=1)

    today = inbox.today(world.access("viewer"), start)

    assert (today.approved, today.rejected, today.edited, today.median_minutes) == (2, 0, 0, 1)
    assert inbox.today(world.access("outsider"), start).approved == 0
    assert email.status == ActionStatus.PENDING
