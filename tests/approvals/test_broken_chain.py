"""The end of a team's audit log was changed in the database: nothing that needs a receipt happens, and people are told
what to do, with all they had typed."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Team
from accounts.schemas import Scope
from accounts.tokens import create_token
from approvals import seen
from approvals.models import Viewing
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched
from tests.approvals.factories import World
from tests.approvals.test_evidence import recorded

WORDS = "verify_receipts"
NOTE = "Ring her first."


@pytest.fixture
def token(world: World) -> str:
    return create_token(world.people["approver"], world.team, name="t", scopes=[Scope.APPROVALS])[1]


@pytest.fixture
def refund(world: World, token: str) -> Action:
    _, (refund, *_) = recorded(world)
    Team.objects.filter(id=world.team.id).update(receipts_seq=1)
    return refund


@pytest.fixture
def batch(refund: Action) -> Batch:
    assert refund.batch is not None
    return refund.batch


def test_the_page_of_a_batch_says_it_and_keeps_what_was_typed(world: World, batch: Batch, refund: Action) -> None:
    fields = make.form_for(batch, [refund], **{"reject": [str(refund.id)], f"note-{refund.id}": NOTE})
    answer = world.client("approver").post(reverse("approvals:decide", args=[batch.id]), fields)

    assert answer.status_code == 503
    page = answer.content.decode()
    assert WORDS in page
    assert NOTE in page
    assert_untouched(refund)


def test_the_page_across_runs_says_it_and_keeps_the_selection(world: World, batch: Batch, refund: Action) -> None:
    seen.record(world.access("approver"), [(refund.id, refund.digest)])
    fields = {
        "select": str(refund.id),
        f"digest-{refund.id}": refund.digest,
        f"version-{batch.id}": 1,
        "submit": "reject",
        "note": NOTE,
        "reason": "tone",
    }
    answer = world.client("approver").post(reverse("approvals:across_decide"), fields)

    assert answer.status_code == 503
    page = answer.content.decode()
    assert WORDS in page
    assert NOTE in page
    assert page.count(" checked") == 2, "the action and the reason"
    assert_untouched(refund)


def test_an_edit_says_it_and_keeps_the_fields(world: World, batch: Batch, refund: Action) -> None:
    address = reverse("approvals:edit", args=[batch.id, refund.id])
    fields = {f"arg-{name}": str(value) for name, value in {**refund.args, "amount": 77.25}.items()}
    answer = world.client("approver").post(address, {**fields, "digest": refund.digest, "version": 1})

    assert answer.status_code == 422
    page = answer.content.decode()
    assert WORDS in page
    assert "77.25" in page
    assert_untouched(refund)


def test_the_api_answers_with_a_problem(world: World, token: str, batch: Batch, refund: Action) -> None:
    decision = {"action": str(refund.id), "digest": refund.digest, "verdict": "approve"}
    answer = Client(headers={"Authorization": f"Bearer {token}"}).post(
        f"/api/v1/approvals/{batch.id}/decisions",
        {"version": 1, "decisions": [decision]},
        content_type="application/json",
    )

    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert WORDS in answer.json()["detail"]
    assert_untouched(refund)


def test_it_can_still_be_read(world: World, batch: Batch, refund: Action) -> None:
    assert world.client("approver").get(reverse("approvals:batch", args=[batch.id])).status_code == 200
    assert not Viewing.objects.exists()


def test_any_other_page_says_that_nothing_was_changed(world: World, batch: Batch) -> None:
    answer = world.client("approver").post(reverse("approvals:extend", args=[batch.id]))

    assert answer.status_code == 503
    assert WORDS in answer.content.decode()
    batch.refresh_from_db()
    assert batch.extended_at is None
