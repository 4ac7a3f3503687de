"""Questions of the engine: chosen, typed or answered by a corrected call; or the run is stopped."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
from django.urls import reverse

from approvals import api
from approvals.inbox import Result
from approvals.models import Decision, Verdict
from runs.engine.types import ActionStatus
from runs.models import Action, Batch
from tests.approvals import factories as make
from tests.approvals.deciding import assert_untouched, decide
from tests.approvals.factories import World, form_for, line

WRONG = {"order": "48213", "amount": "84"}
RIGHT = {"order": "48213", "amount": 84, "reason": "Dented"}


def ask(batch: Batch, *, tool: str = "shop.issue_refund", **args: Any) -> Action:
    asked = {
        "title": "A call could not be read",
        "question": "What should be called?",
        "options": [],
        "tried": ["told the model twice", "asked for this call alone"],
        "call": WRONG,
        **args,
    }
    return make.make_action(batch, tool, asked, kind="question", tool_version="", risk="low", confidence=None)


@pytest.fixture
def batch(world: World) -> Batch:
    return make.make_batch(world)


def test_a_corrected_call_is_an_answer(world: World, batch: Batch) -> None:
    question = ask(batch)

    [outcome] = decide(world, "approver", batch, line(question, Verdict.ANSWER, args=RIGHT, answer="The number."))

    assert outcome.result is Result.APPLIED
    question.refresh_from_db()
    assert (question.status, question.note, question.result) == (ActionStatus.ANSWERED, "The number.", {"args": RIGHT})
    assert Batch.objects.get(id=batch.id).status == "closed"
    assert Decision.objects.get(action=question).verdict == "answer"


@pytest.mark.parametrize("args", [WRONG, {}, {**RIGHT, "amount": -1}, {**RIGHT, "tip": 1}, {**RIGHT, "order": "\0"}])
def test_a_call_that_still_does_not_fit_is_refused_and_asked_on(
    world: World, batch: Batch, args: dict[str, object]
) -> None:
    question = ask(batch)

    [outcome] = decide(world, "approver", batch, line(question, Verdict.ANSWER, args=args))

    assert outcome.result is Result.INVALID
    assert outcome.errors
    assert_untouched(question)


@pytest.mark.parametrize("about", [{"call": None}, {"tool": ""}, {"tool": "shop.gone"}])
def test_a_question_about_no_known_call_takes_a_text_only(world: World, batch: Batch, about: dict[str, Any]) -> None:
    question = ask(batch, **about)

    [outcome] = decide(world, "approver", batch, line(question, Verdict.ANSWER, args=RIGHT))

    assert outcome.result is Result.INVALID
    assert_untouched(question)


def test_over_the_api_with_args_and_answer(world: World, batch: Batch) -> None:
    question = ask(batch)
    decision = {"action": str(question.id), "digest": question.digest, "verdict": "answer", "args": RIGHT}
    payload = api.DecisionsIn.model_validate({"version": 1, "decisions": [decision]})

    answer = api.decide_json(world.access("approver"), batch.id, payload)

    assert [each["outcome"] for each in answer["results"]] == ["applied"]
    [item] = api.list_batches(world.access("viewer"), "decided")["items"]
    assert (item["actions"][0]["kind"], item["actions"][0]["result"]) == ("question", {"args": RIGHT})


# --- the page --------------------------------------------------------------------------------------------------------
def url(name: str, *args: object) -> str:
    return reverse(f"approvals:{name}", args=args)


def page(world: World, who: str, batch: Batch) -> str:
    return world.client(who).get(url("batch", batch.id)).content.decode()


def test_the_page_says_what_was_tried_and_offers_the_ways_out(world: World, batch: Batch) -> None:
    ask(batch, options=["Try again", "Give up"])

    shown = page(world, "approver", batch)

    for text in ("A call could not be read", "told the model twice", "Correct the call", "Stop the run", "Give up"):
        assert text in shown
    assert "Correct the call" not in page(world, "viewer", batch)


def test_an_option_is_chosen_by_form_and_a_typed_answer_goes_before_it(world: World, batch: Batch) -> None:
    first, second = ask(batch, options=["Try again"]), ask(batch, options=["Try again"])
    form = form_for(batch, [first, second])
    form |= {f"choice-{first.id}": "Try again", f"choice-{second.id}": "Try again", f"answer-{second.id}": "Wait."}

    world.client("approver").post(url("decide", batch.id), form)

    assert list(Action.objects.filter(batch=batch).order_by("position").values_list("note", flat=True)) == [
        "Try again",
        "Wait.",
    ]


@pytest.mark.parametrize("closed", [False, True])
def test_where_the_agent_reads_no_answer_none_is_asked_for(world: World, batch: Batch, closed: bool) -> None:
    question = ask(batch, tool="", call=None, options=["Try again"], closed=closed)

    shown = world.client("approver").get(f"/approvals/{batch.id}/").content.decode()

    assert ("The agent reads it." in shown) is not closed
    assert (f'name="answer-{question.id}"' in shown) is not closed
    assert f'name="choice-{question.id}"' in shown


def test_stopping_the_run_by_form(world: World, batch: Batch) -> None:
    question = ask(batch)

    form = form_for(batch, [question], reject=[str(question.id)], **{f"note-{question.id}": "Not today."})
    world.client("approver").post(url("decide", batch.id), form)

    question.refresh_from_db()
    assert (question.status, question.note) == (ActionStatus.REJECTED, "Not today.")


def edit_form(question: Action, **typed: str) -> dict[str, str]:
    return {"digest": question.digest, "version": "1", **{f"arg-{name}": text for name, text in typed.items()}}


def test_correcting_the_call_by_form(world: World, batch: Batch) -> None:
    question = ask(batch)
    client, edit = world.client("approver"), url("edit", batch.id, question.id)

    form = client.get(edit).content.decode()
    assert "Send the corrected call" in form
    assert str(question.args["question"]) in unescape(form), "what is wrong stays in sight"
    refused = client.post(edit, edit_form(question, order="48213", amount="much", reason="Dented"))
    assert refused.status_code == 422
    assert 'value="much"' in refused.content.decode()
    assert_untouched(question)
    accepted = client.post(edit, edit_form(question, order="48213", amount="84", reason="Dented"))

    assert accepted.status_code == 302
    question.refresh_from_db()
    assert (question.status, question.result) == (ActionStatus.ANSWERED, {"args": RIGHT})


def test_a_question_about_no_call_has_no_form(world: World, batch: Batch) -> None:
    question = ask(batch, call=None)

    assert world.client("approver").get(url("edit", batch.id, question.id)).status_code == 302
    for who, status in (("viewer", 403), ("operator", 403), ("outsider", 404)):
        assert world.client(who).get(url("edit", batch.id, question.id)).status_code == status
