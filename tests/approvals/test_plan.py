"""A batch as a plan on its page: order, dependencies, what a failure means, what stands out; and taking back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.urls import reverse

from approvals import inbox, presenter
from approvals.presenter import BatchView
from runs.engine.types import ActionStatus, Execution, JsonObject, RunStatus
from runs.models import Action, Batch, Run
from tests.approvals import factories as make
from tests.approvals.factories import World, form_for

HTMX: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}
EVERYONE = {"admin": 200, "approver": 200, "operator": 403, "viewer": 403, "outsider": 404, "anonymous": 302}


def view(world: World, batch: Batch, who: str = "approver") -> BatchView:
    return presenter.view_batch(inbox.with_actions(Batch.objects.filter(id=batch.id)).get(), world.access(who))


def post(world: World, name: str, batch: Batch, data: JsonObject, who: str = "approver", **headers: Any) -> Any:
    return world.client(who).post(reverse(f"approvals:{name}", args=[batch.id]), data, **headers)


def taken(*actions: Action) -> JsonObject:
    ids = [str(action.id) for action in actions]
    return {"action": ids, **{f"digest-{action.id}": action.digest for action in actions}}


# --- order and dependencies ------------------------------------------------------------------------------------------


def test_dependencies_are_said_on_both_cards(world: World) -> None:
    tools = [
        {**t, **({"after": ["shop.issue_refund"]} if "mail" in t["name"] else {})} for t in make.DEFINITION["tools"]
    ]
    make.define(world, {**make.DEFINITION, "tools": tools})
    batch, _ = make.make_full_batch(world)

    refund, update, email = view(world, batch).actions

    assert email.needs == ("Refund $84.00 to Ines Carvalho",)
    assert refund.needed_by == (email.title,)
    assert (update.needs, update.needed_by) == ((), ())
    page = world.client("approver").get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert "Runs only after “Refund $84.00 to Ines Carvalho” has happened." in page
    assert f"“{email.title}” falls with it." in page


def test_what_a_failure_means_is_chosen_with_the_decision(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    post(world, "decide", batch, form_for(batch, actions, execution="stop_on_failure"), **HTMX)
    batch.refresh_from_db()
    assert batch.execution == Execution.STOP_ON_FAILURE


def test_all_or_nothing_is_offered_only_where_everything_can_be_undone(world: World) -> None:
    final, _ = make.make_full_batch(world)
    reversible = make.make_batch(world)
    for _n in range(2):
        make.make_update(reversible)
    pages = [
        world.client("approver").get(reverse("approvals:batch", args=[batch.id])).content.decode()
        for batch in (final, reversible)
    ]
    assert "everything is undone" not in pages[0]
    assert "Not all can be undone: the refund and the email." in pages[0]
    assert "everything is undone" in pages[1]


def test_a_mode_that_the_page_never_offered_decides_nothing(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    assert post(world, "decide", batch, form_for(batch, actions, execution="some"), **HTMX).status_code == 400
    assert {action.status for action in Action.objects.all()} == {ActionStatus.PENDING}


# --- many alike ------------------------------------------------------------------------------------------------------


def test_what_stands_out_of_many_keeps_its_card_in_its_place(world: World) -> None:
    batch = make.make_batch(world)
    for number, amount in enumerate([12.0, 14.0, 18.0, 412.5, 15.0, 13.0, 16.0]):
        make.make_refund(batch, amount, order=f"4820{number}", confidence=0.9 if number != 5 else 0.6)
    make.make_email(batch)

    runs = view(world, batch).runs

    assert [(words, len(actions)) for words, actions in runs] == [
        ("3 refunds, $12.00 to $18.00", 3),
        ("", 1),
        ("", 1),
        ("", 1),
        ("", 1),
        ("", 1),
    ]
    unusual = {action.title: action.unusual for _, actions in runs for action in actions if action.unusual}
    assert unusual == {
        "Refund $412.50 to Ines Carvalho": "half of these 7 are at most $15.00",
        "Refund $13.00 to Ines Carvalho": "the agent is surer of the others (90%)",
    }
    page = world.client("approver").get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert "<details" in page
    assert page.index("3 refunds, $12.00 to $18.00") < page.index("Stands out: half of these 7")


def test_few_alike_are_never_folded(world: World) -> None:
    batch = make.make_batch(world)
    for amount in (10, 10, 10, 500):
        make.make_refund(batch, float(amount))
    assert {words for words, _ in view(world, batch).runs} == {""}
    assert Decimal(500) in {action.preview.effect.amount for action in view(world, batch).actions}


# --- taking back -----------------------------------------------------------------------------------------------------


@pytest.fixture
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10


def test_the_answer_to_an_approval_offers_to_take_it_back(world: World, window: None) -> None:
    batch, actions = make.make_full_batch(world)

    answer = post(world, "decide", batch, form_for(batch, actions), **HTMX).content.decode()
    assert "3 actions approved." in answer
    assert 'data-key-click="z"' in answer
    assert reverse("approvals:undo", args=[batch.id]) in answer

    back = post(world, "undo", batch, taken(*actions), **HTMX).content.decode()
    assert "3 approvals were taken back." in back
    assert "data-approve" in back, "the batch can be decided again at once"
    assert Run.objects.get(id=batch.run_id).status == RunStatus.WAITING


def test_without_a_window_nothing_is_offered(world: World) -> None:
    batch, actions = make.make_full_batch(world)
    answer = post(world, "decide", batch, form_for(batch, actions), **HTMX).content.decode()
    assert "data-undo-toast" not in answer
    assert reverse("approvals:undo", args=[batch.id]) not in answer


def test_taking_back_works_without_scripts(world: World, window: None) -> None:
    batch, actions = make.make_full_batch(world)
    assert post(world, "decide", batch, form_for(batch, actions)).status_code == 302
    page = world.client("second").get(reverse("approvals:batch", args=[batch.id])).content.decode()
    assert f'action="{reverse("approvals:undo", args=[batch.id])}"' in page
    assert "3 approved actions begin at" in page

    answer = post(world, "undo", batch, taken(*actions), "second")
    assert answer.status_code == 302
    assert Action.objects.filter(batch=batch, status=ActionStatus.PENDING).count() == 3


@pytest.mark.parametrize(("who", "status"), EVERYONE.items())
def test_who_takes_back(world: World, window: None, who: str, status: int) -> None:
    batch, actions = make.make_full_batch(world)
    post(world, "decide", batch, form_for(batch, actions), **HTMX)

    assert post(world, "undo", batch, taken(*actions), who, **HTMX).status_code == status
    revoked = Action.objects.filter(status=ActionStatus.REVOKED).count()
    assert revoked == (3 if status == 200 else 0)


@pytest.mark.parametrize("data", [{}, {"action": "x"}, {"action": str(make.missing_id())}])
def test_a_form_that_means_nothing_changes_nothing(world: World, window: None, data: JsonObject) -> None:
    batch, actions = make.make_full_batch(world)
    post(world, "decide", batch, form_for(batch, actions), **HTMX)
    assert post(world, "undo", batch, data, **HTMX).status_code in (200, 400)
    assert world.client("approver").get(reverse("approvals:undo", args=[batch.id])).status_code == 405
    assert not Action.objects.filter(status=ActionStatus.REVOKED).exists()
