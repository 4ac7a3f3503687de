"""Malformed calls in whole runs: the model is told, the call alone is asked for, a person corrects it."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import receipts
from accounts.access import Access
from approvals.models import Verdict
from runs import commands
from runs.models import Action, Batch, Run
from runs.page import live_page, render_region
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from tests.flows.conftest import Model, applied, assert_sound, decide, decide_on, keys, tool_results, waiting
from tests.flows.shop import LocalShop
from tests.running import READ, REFUND, advance, launch, tool, turns, uses

WRONG = tool(REFUND, order="48213", amount="84")
RIGHT: dict[str, Any] = {"order": "48213", "amount": 84.0, "reason": "dented in transit"}


def says(model: Model, repair: Reply | str, *replies: Reply | str) -> None:
    """`repair` answers the request for the call alone."""
    conversation, alone = turns(*replies), turns(repair)

    def respond(body: JsonObject) -> Reply:
        forced = "disable_parallel_tool_use" in (body.get("tool_choice") or {})
        return alone(body) if forced else conversation(body)

    model.server.respond = respond


def stuck(crew: Access, model: Model) -> Run:
    says(model, "I can't.", uses(WRONG), uses(WRONG), uses(WRONG), "One waits.", "Done.")
    return advance(launch(crew))


def test_the_call_alone_is_strict_and_forced_and_its_effect_is_asked_for(
    crew: Access, shop: LocalShop, model: Model
) -> None:
    says(model, uses(tool(REFUND, **RIGHT)), uses(WRONG), uses(WRONG), uses(WRONG), "One waits.", "Done.")

    run = advance(launch(crew))

    assert run.status == "waiting"
    [alone] = [body for body in model.calls if "disable_parallel_tool_use" in (body.get("tool_choice") or {})]
    assert [each["name"] for each in alone["tools"]] == ["shop__issue_refund"]
    assert len(alone["messages"]) == 1
    assert "temperature" not in alone
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
    assert_sound(run)


def test_a_person_corrects_the_call_and_approves_its_effect(crew: Access, shop: LocalShop, model: Model) -> None:
    run = stuck(crew, model)
    question = Action.objects.get(run=run, kind="question")
    assert (run.status, question.tool, question.batch_id is not None) == ("waiting", REFUND, True)
    page = live_page(crew, run)
    assert page.status.label == "Needs an answer"
    assert "1 question waits for you" in render_region("waits", page)
    assert "at lower effort" not in run.steps.get(key="malformed-turn:1").summary, "this agent names none"
    assert question.args["call"] == {"order": "48213", "amount": "84"}
    assert len(question.args["tried"]) == 3

    assert applied(decide(crew, run, Verdict.ANSWER, args=RIGHT, answer="The amount is a number."))
    run = advance(run)
    assert (run.status, shop.effects()) == ("waiting", []), "the corrected call is asked for like any other"
    assert applied(decide(crew, run))
    run = advance(run)

    assert (run.status, shop.effects()) == ("completed", ["issue_refund"])
    assert any("corrected your call" in str(result["content"]) for result in tool_results(model.calls[-1]))
    assert receipts.verify(run.team) == []
    assert_sound(run)


def test_two_questions_of_a_turn_wait_side_by_side(crew: Access, shop: LocalShop, model: Model) -> None:
    says(model, "I can't.", uses(WRONG), uses(WRONG), uses(WRONG, tool(READ)), "Done.", "Done.")
    run = advance(launch(crew))
    one, two = Batch.objects.filter(run=run, status="open").order_by("created_at")
    assert (run.status, keys(run)[-2:]) == ("waiting", ["ask:malformed:3", "ask:malformed:3:1"])

    assert applied(decide_on(crew, two, waiting(two), Verdict.ANSWER, args={"order": "48213"}))
    run.refresh_from_db()
    assert run.status == "waiting", "one of two is answered"
    assert applied(decide_on(crew, one, waiting(one), Verdict.ANSWER, answer="Leave the refund."))
    run = advance(run)

    assert (run.status, shop.effects()) == ("completed", [])
    first, second = tool_results(model.calls[-1])[-2:]
    assert "Leave the refund." in str(first["content"])
    assert "corrected your call" in str(second["content"])
    assert_sound(run)


def test_a_person_gives_a_hint(crew: Access, shop: LocalShop, model: Model) -> None:
    run = stuck(crew, model)
    assert applied(decide(crew, run, Verdict.ANSWER, answer="Leave the refund."))
    run = advance(run)
    assert (run.status, shop.effects()) == ("completed", [])
    assert any("Leave the refund." in str(result["content"]) for result in tool_results(model.calls[-1]))
    assert_sound(run)


def test_a_person_stops_the_run(crew: Access, shop: LocalShop, model: Model) -> None:
    run = stuck(crew, model)
    assert applied(decide(crew, run, Verdict.REJECT, note="No use"))
    run = advance(run)
    assert (run.status, run.stop_reason, shop.effects()) == ("stopped", "escalation_declined", [])
    assert "ended the run: No use" in run.stop_detail
    assert_sound(run)


def test_cancelling_withdraws_the_question(crew: Access, shop: LocalShop, model: Model) -> None:
    run = stuck(crew, model)
    commands.cancel(crew, run.id)
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert Action.objects.get(run=run, kind="question").status == "cancelled"
    assert_sound(run)


def test_the_question_is_asked_once_whatever_happens(crew: Access, shop: LocalShop, model: Model) -> None:
    run = stuck(crew, model)
    Run.objects.filter(id=run.id).update(status="queued", waiting_since=None)
    run = advance(run)
    assert run.status == "waiting"
    assert Batch.objects.filter(run=run).count() == 1
    assert keys(run).count("ask:malformed:3") == 1


@pytest.mark.parametrize(
    "written",
    ['{"order": "48213", "amount"', "", "<html><body>502</body></html>", "[1, 2]", '{"amount": NaN}', '{"a":1,"a":2}'],
    ids=["cut", "empty", "html", "list", "nan", "twice"],
)
def test_unreadable_input_goes_back_to_the_model(crew: Access, shop: LocalShop, model: Model, written: str) -> None:
    broken = Reply(tools=[ToolCall(name="shop__issue_refund", raw_input=written)])
    model.says(broken, uses(tool(REFUND, **RIGHT)), "One waits.", "Done.")

    run = advance(launch(crew))

    assert run.status == "waiting"
    assert Action.objects.get(run=run).kind == "action"
    assert_sound(run)


@pytest.mark.parametrize("page", [Reply.raw("<html>busy</html>"), Reply.raw('{"no": "message"}')])
def test_a_page_instead_of_a_reply_is_tried_again(crew: Access, shop: LocalShop, model: Model, page: Reply) -> None:
    line: list[Any] = [page]
    model.server.respond = lambda body: line.pop() if line else Reply(text="Done.")

    run = advance(launch(crew))
    assert run.status == "queued"
    assert run.due_at is not None
    Run.objects.filter(id=run.id).update(due_at=None)
    run = advance(run)

    assert (run.status, keys(run)) == ("completed", ["model:1:failed:1", "model:1", "result"])
