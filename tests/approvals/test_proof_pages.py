"""The evidence page and the audit log: what they show, to whom, and that they say when something was changed."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import reverse

from accounts import receipts
from accounts.models import Receipt
from approvals import evidence
from approvals.models import Decision, Viewing
from runs import audit
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve, form_for, reject
from tests.approvals.test_evidence import recorded

HOSTILE = '<script>alert(1)</script>\u202e "x"'


def page(world: World, who: str, action: Action, **query: Any) -> Any:
    return world.client(who).get(reverse("approvals:evidence", args=[action.id]), query)


def text(response: Any) -> str:
    return str(response.content.decode())


@pytest.mark.parametrize(
    ("who", "status"), [("admin", 200), ("approver", 200), ("viewer", 200), ("outsider", 404), ("anonymous", 302)]
)
def test_who_may_see_evidence(world: World, who: str, status: int) -> None:
    _, (refund, *_) = recorded(world)
    assert page(world, who, refund).status_code == status


@pytest.mark.parametrize(("who", "status"), [("admin", 200), ("approver", 403), ("viewer", 403), ("anonymous", 302)])
@pytest.mark.parametrize("name", ["log", "export"])
def test_who_may_see_the_audit_log(world: World, who: str, status: int, name: str) -> None:
    recorded(world)
    assert world.client(who).get(reverse(f"approvals:{name}")).status_code == status


def test_no_such_action(world: World) -> None:
    response = world.client("admin").get(reverse("approvals:evidence", args=[make.missing_id()]))
    assert response.status_code == 404


def test_it_shows_what_the_approver_saw_and_who_decided(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    client = world.client("approver")
    client.get(reverse("approvals:batch", args=[batch.id]))
    client.post(reverse("approvals:decide", args=[batch.id]), form_for(batch, [refund], note="Photos fit"))

    shown = text(page(world, "viewer", refund))

    assert "Unchanged." in shown
    assert "$84.00" in shown
    assert "this tool always needs a person" in shown
    assert shown.count("Marco Ruiz") >= 3  # saw it, decided, receipts
    assert "saw it" in shown
    assert refund.digest in shown
    for receipt in evidence.receipts_of(refund):
        assert receipt.hash in shown


def test_a_change_in_the_database_is_said_at_the_top(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    Action.objects.filter(id=refund.id).update(args={"order": "1", "amount": 1, "reason": "x"})

    shown = text(page(world, "viewer", refund))

    assert "not what was recorded" in shown
    assert "Unchanged." not in shown


def test_a_changed_receipt_is_said_too(world: World) -> None:
    _, (refund, *_) = recorded(world)
    Receipt.objects.filter(subject_id=str(refund.id), kind="action.asked").update(actor_label="Somebody")
    assert "this receipt is not what was written" in text(page(world, "viewer", refund))


def test_hostile_text_stays_text(world: World) -> None:
    batch = make.make_batch(world, why=HOSTILE)
    action = make.make_action(batch, args={"order": HOSTILE, "amount": 1.0, "reason": HOSTILE}, reasoning=HOSTILE)
    audit.record(action, "action.proposed")
    decide(world, "approver", batch, reject(action, note=HOSTILE))

    shown = text(page(world, "viewer", action))

    assert "<script>alert" not in shown
    assert "\u202e" not in shown


def test_a_view_is_a_row_and_a_receipt_once_a_version(world: World) -> None:
    batch, _ = recorded(world)
    for who in ("approver", "approver", "viewer"):
        world.client(who).get(reverse("approvals:batch", args=[batch.id]))
    Batch.objects.filter(id=batch.id).update(version=2)
    world.client("approver").get(reverse("approvals:batch", args=[batch.id]))

    seen = [(each.user.username, each.version) for each in Viewing.objects.select_related("user")]
    assert seen == [("marco", 1), ("noor", 1), ("marco", 2)]
    assert Receipt.objects.filter(kind="batch.viewed").count() == 3
    assert evidence.verify(world.team) == []


def test_the_list_counts_as_a_view_of_the_batch_it_shows(world: World) -> None:
    recorded(world)
    world.client("approver").get(reverse("approvals:inbox"))
    assert Viewing.objects.count() == 1


def test_looking_at_what_was_decided_is_no_view(world: World) -> None:
    batch, actions = recorded(world)
    decide(world, "approver", batch, *map(reject, actions))
    world.client("viewer").get(reverse("approvals:batch", args=[batch.id]))
    assert not Viewing.objects.exists()


def test_what_was_changed_before_a_person_saw_it_is_found(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    Action.objects.filter(id=refund.id).update(plan_summary="Harmless")
    world.client("approver").get(reverse("approvals:batch", args=[batch.id]))
    Action.objects.filter(id=refund.id).update(plan_summary=refund.plan_summary)

    [problem] = evidence.verify(world.team)

    assert "when Marco Ruiz saw it" in problem.detail


@pytest.mark.parametrize(("opened", "known"), [(True, True), (False, False), (None, None)])
def test_a_decision_says_how_the_person_worked(world: World, opened: bool | None, known: bool | None) -> None:
    batch, (refund, update, _) = recorded(world)
    client = world.client("approver")
    client.get(reverse("approvals:batch", args=[batch.id]))
    more = {} if opened is None else {"opened": str(refund.id) if opened else ""}
    client.post(reverse("approvals:decide", args=[batch.id]), form_for(batch, [refund, update], **more))

    said = Decision.objects.get(action=refund)

    assert said.viewed_at == Viewing.objects.get().at
    assert said.opened_details is known
    assert said.decided_together == 2


def test_exported_lines_are_the_chain(world: World) -> None:
    batch, (refund, *_) = recorded(world)
    decide(world, "approver", batch, approve(refund))
    response = world.client("admin").get(reverse("approvals:export"))

    lines = [json.loads(line) for line in text(response).splitlines()]

    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["prev_hash"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    assert all(receipts.digest_of({k: v for k, v in line.items() if k != "hash"}) == line["hash"] for line in lines)
    out = StringIO()
    call_command("export_receipts", "--team", world.team.slug, stdout=out)
    assert out.getvalue() == text(response)


def test_one_actions_lines(world: World) -> None:
    _, (refund, *_) = recorded(world)
    lines = text(page(world, "viewer", refund, format="jsonl")).splitlines()
    assert {json.loads(line)["subject_id"] for line in lines} == {str(refund.id)}


def test_the_log_checks_itself_when_asked(world: World) -> None:
    recorded(world)
    client = world.client("admin")
    assert "Nothing was changed" in text(client.post(reverse("approvals:log")))

    Receipt.objects.filter(seq=2).update(kind="action.rejected")
    assert "problem" in text(client.post(reverse("approvals:log")))


def test_the_log_has_pages(world: World, django_assert_max_num_queries: Any) -> None:
    for _ in range(40):
        recorded(world)
    client = world.client("admin")
    with django_assert_max_num_queries(14):
        first = text(client.get(reverse("approvals:log"), {"kind": "action."}))
    assert "Earlier ones" in first
    assert 'receipt-1"' not in first
    assert 'receipt-1"' in text(client.get(reverse("approvals:log"), {"before": "20"}))
