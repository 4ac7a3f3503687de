"""What a page says of an action comes from its arguments; a tool's preview only where the two agree."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from approvals.words import final_line, totals_line
from runs import previews
from runs.models import Action
from runs.previews import (
    AmountPreview,
    ArgumentsPreview,
    EmailPreview,
    FilePreview,
    HttpPreview,
    QuestionPreview,
    RecordPreview,
    TablePreview,
)
from tests.approvals import factories as make
from tests.approvals.factories import World


def action(args: dict[str, Any], preview: dict[str, Any] | None = None, **fields: Any) -> Action:
    return Action(tool="shop.do_it", args=args, preview=preview, **fields)


EMAIL = {"to": "ines@example.com", "subject": "Hello", "body": "Text"}
RECORD = {"type": "record", "record": "customer C-1", "fields": [{"field": "name", "now": None, "after": "Ana"}]}


@pytest.mark.parametrize(
    ("row", "kind", "title"),
    [
        (
            action(
                {"amount": 84}, {"type": "amount", "amount": "84.00", "to": "Ines"}, plan_summary="Refund $1 to Eve"
            ),
            AmountPreview,
            "Refund $84.00 to Ines",
        ),
        (
            action({"amount": 1234.5}, {"type": "amount", "amount": 1234.5, "currency": "EUR"}),
            AmountPreview,
            "Send 1,234.50 EUR",
        ),
        (action(EMAIL, {"type": "email", **EMAIL}), EmailPreview, "Email ines@example.com"),
        (action(EMAIL, {"type": "email", **EMAIL, "to_name": "Ines Carvalho"}), EmailPreview, "Email Ines Carvalho"),
        (
            action({**EMAIL, "to": ["a@x.example", "b@x.example"]}, {"type": "email", "from": "c@x.example"}),
            EmailPreview,
            "Email a@x.example and 1 other",
        ),
        (
            action({"customer": "C-1", "changes": {"name": "Ana"}}, RECORD),
            RecordPreview,
            "Change 1 field on customer C-1",
        ),
        (action({}, RECORD, plan_summary="Create customer"), RecordPreview, "Create customer C-1"),
        (
            action(
                {"ids": ["E-1", "E-2"]},
                {"type": "table", "columns": ["Id"], "rows": [["E-1"], ["E-2"]]},
                plan_summary="Delete 2",
            ),
            TablePreview,
            "Delete 2 records",
        ),
        (
            action({}, {"type": "file", "path": "a.txt", "diff": "--- a\n+++ b\n-x\n+y\n z"}),
            FilePreview,
            "Change a.txt",
        ),
        (
            action({}, {"type": "http", "method": "post", "url": "https://x.example/"}),
            HttpPreview,
            "Call https://x.example/",
        ),
        (action({"a": 1}), ArgumentsPreview, "Run shop.do_it"),
        (action({"a": 1}, {"type": "hologram"}), ArgumentsPreview, "Run shop.do_it"),
        (action({"question": "Which?"}, kind="question"), QuestionPreview, "Answer a question"),
    ],
)
def test_each_type_has_its_preview_and_its_title(row: Action, kind: type, title: str) -> None:
    preview = previews.present(row)

    assert type(preview) is kind
    assert preview.title == title


@pytest.mark.parametrize(
    ("args", "preview"),
    [
        ({"amount": 8400}, {"type": "amount", "amount": "84.00", "to": "Ines"}),
        ({**EMAIL, "to": "eve@example.com"}, {"type": "email", **EMAIL}),
        ({**EMAIL, "body": "Other"}, {"type": "email", **EMAIL}),
        ({"changes": {"name": "Eve"}}, RECORD),
    ],
)
def test_a_preview_that_contradicts_the_arguments_is_dropped(args: dict[str, Any], preview: dict[str, Any]) -> None:
    shown = previews.present(action(args, preview))

    assert isinstance(shown, ArgumentsPreview)
    assert shown.contradicted
    assert shown.title == "Run shop.do_it"


@pytest.mark.parametrize(
    "preview",
    [
        {"type": "amount", "amount": "lots"},
        {"type": "amount", "amount": "NaN"},
        {"type": "amount", "amount": True},
        {"type": "amount", "amount": "1", "lines": ["no"]},
        {"type": "email"},
        {"type": "record"},
        {"type": "record", "fields": [{}]},
        {"type": "table", "columns": 3, "rows": []},
        {"type": "file"},
        {"type": "http", "method": "GET"},
        {"type": "http", "method": "GET", "url": "x", "headers": [1]},
        {"type": ["list"]},
    ],
)
def test_a_preview_that_cannot_be_read_gives_way_to_the_arguments(preview: dict[str, Any]) -> None:
    assert isinstance(previews.present(action({"x": 1}, preview)), ArgumentsPreview)


def test_a_summary_picks_a_verb_and_nothing_else() -> None:
    row = action(
        {"amount": 5}, {"type": "amount", "amount": 5, "to": "Ines"}, plan_summary="Approved already, just click"
    )

    assert previews.present(row).title == "Send $5.00 to Ines"


def test_arguments_that_the_preview_does_not_show_stand_beside_it() -> None:
    amount = {"type": "amount", "amount": 5, "lines": [{"label": "Order #48213", "amount": 9}]}
    email = {"type": "email", **EMAIL}

    assert previews.present(action({"amount": 5, "order": "48213", "reason": "Dent"}, amount)).rest == (
        ("reason", "Dent"),
    )
    assert previews.present(action({**EMAIL, "bcc": "eve@example.com"}, email)).rest == (("bcc", "eve@example.com"),)
    assert previews.present(action({"customer": "C-1", "changes": {"name": "Ana"}}, RECORD)).rest == ()
    assert previews.present(action({"changes": {"name": "Ana", "role": "admin"}}, RECORD)).rest != ()


@pytest.mark.parametrize(("to", "outside"), [("a@harborpine.example", False), ("a@evil.example", True)])
def test_recipients_outside_the_company_are_marked_whatever_the_tool_says(to: str, outside: bool) -> None:
    args = {**EMAIL, "to": to}
    preview = {"type": "email", "from": "care@harborpine.example", "outside": False, **args}
    shown = previews.present(action(args, preview))

    assert isinstance(shown, EmailPreview)
    assert shown.outside is outside


def test_a_long_payload_is_known_as_long() -> None:
    short, long = ({**EMAIL, "body": text} for text in ("word " * 20, "line\n" * 40))

    assert not previews.present(action(short, {"type": "email", **short})).is_long
    assert previews.present(action(long, {"type": "email", **long})).is_long
    assert previews.present(action({"blob": "x" * 200_000})).is_long


def test_totals_add_up_and_people_count_once() -> None:
    rows = [
        action({"amount": "0.10"}, {"type": "amount", "amount": "0.10"}),
        action({"amount": "0.20"}, {"type": "amount", "amount": "0.20"}),
        action({"amount": "5"}, {"type": "amount", "amount": "5", "currency": "EUR"}),
        action(EMAIL, {"type": "email", **EMAIL}),
        action({**EMAIL, "to": "INES@example.com"}, {"type": "email", **EMAIL, "to": "INES@example.com"}),
        action({}, RECORD),
        action({"a": 1}),
    ]
    effects = [previews.present(row).effect for row in rows]

    assert totals_line(effects) == "Sends $0.30 and 5.00 EUR, emails 1 person, changes 1 record, runs 1 action."
    assert totals_line([]) == ""
    assert final_line(["refund", "email"]) == "The refund and the email cannot be undone."
    assert final_line(["refund", "refund", "email"]) == "2 refunds and the email cannot be undone."
    assert final_line([]) == ""


def test_after_an_edit_only_what_still_holds_is_kept() -> None:
    amount = {"type": "amount", "amount": "84.00", "to": "Ines", "lines": [{"label": "Stays paid", "amount": "45.00"}]}

    assert previews.after_edit(amount, {"amount": 50}) == {"type": "amount", "amount": 50, "to": "Ines"}
    assert previews.after_edit({"type": "email", **EMAIL, "to_name": "Ines"}, {**EMAIL, "to": "x@example.com"}) == {
        "type": "email",
        **EMAIL,
        "to": "x@example.com",
    }
    assert previews.after_edit(RECORD, {}) is None
    assert previews.after_edit(None, {}) is None


@pytest.mark.parametrize(
    ("row", "untried"),
    [
        (action({"amount": 84}), True),
        (action({"amount": 84}, plan_summary="Refund $84.00 to Ines"), False),
        (action({"amount": 84}, preconditions={"refunded": "0.00"}), False),
        (action({"amount": 84}, {"type": "amount", "amount": "1.00"}), False),
        (action({"amount": 84}, kind="unknown"), False),
    ],
    ids=["no plan twin", "a summary alone", "preconditions alone", "a preview that contradicts", "unknown outcome"],
)
def test_only_a_tool_that_cannot_be_tried_is_said_to_have_no_preview(row: Action, untried: bool) -> None:
    shown = previews.present(row)

    assert isinstance(shown, ArgumentsPreview)
    assert shown.untried is untried


def test_each_cell_of_a_table_says_its_column_and_none_is_left_out() -> None:
    rows = [["E-1001", "Orders"], ["E-1002", "Carts", "one too many"]]
    shown = previews.present(action({}, {"type": "table", "columns": ["Record", "Label"], "rows": rows}))

    assert isinstance(shown, TablePreview)
    assert shown.rows[0] == (("Record", "E-1001"), ("Label", "Orders"))
    assert shown.rows[1] == (("Record", "E-1002"), ("Label", "Carts"), ("", "one too many"))


def test_a_table_on_the_page_of_a_batch(world: World) -> None:
    batch = make.make_batch(world)
    preview = {"type": "table", "columns": ["Record", "Label"], "rows": [["E-1001", "Orders & more"]]}
    make.make_action(batch, "shop.delete_records", {"kind": "exports"}, preview=preview, preview_type="table")
    page = world.client("approver").get(reverse("approvals:batch", args=[batch.id])).content.decode()

    assert '<td data-column="Record">E-1001</td><td data-column="Label">Orders &amp; more</td>' in page
