"""Actions whose ground the work refutes, queued or approved: withdrawn on the row, in the receipt, in the trace, and
told to people and to the model."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from accounts import receipts
from accounts.access import Access
from accounts.models import Receipt
from runs.engine.types import Mode
from runs.models import Action, Batch
from runs.samples.simulated.reply import JsonObject, Reply
from tests.flows.conftest import Model, applied, assert_sound, decide, told
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, add_agent, advance, launch, tool, turns, uses

ASSUMED = "The order is paid."
PLAN = {"steps": [{"title": "Refund", "needs_person": True, "assumptions": [{"text": ASSUMED, "check": "get_order"}]}]}
HELD_NOT = [{"step": 0, "assumption": 0, "status": "did_not_hold"}]
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
NOTES = tool(NOTE, customer="C-20917", changes={"notes": "Not paid yet."}, confidence=0.2)


def verdict(assumptions: list[JsonObject]) -> Reply:
    found = {"score": 0.9, "progress": True, "sentence": "The order is not paid.", "plan_steps_done": []}
    return Reply(text=json.dumps({**found, "assumptions": assumptions}))


def test_what_was_queued_is_withdrawn_and_says_why(crew: Access, shop: LocalShop, model: Model) -> None:
    add_agent(crew.team, planning=True, evaluation="every_step")
    conversation = turns(uses(REFUNDS), uses(tool(READ, order="48213")), uses(NOTES), "One waits.", "Done.")

    def respond(body: JsonObject) -> Reply:
        schema = (body.get("output_config") or {}).get("format", {}).get("schema", {})
        if "steps" in schema.get("properties", {}):
            again = "did not hold" in told(body)
            return Reply(text=json.dumps({"steps": []} if again else PLAN))
        if schema:
            return verdict(HELD_NOT if "get_order" in told(body) else [])
        return conversation(body)

    model.server.respond = respond
    run = advance(launch(crew, Mode.BATCH))

    refund = Action.objects.get(run=run, tool=REFUND)
    why = "the plan no longer holds, because “The order is paid” did not hold (The order is not paid)"
    assert (refund.status, refund.note, refund.batch_id) == ("cancelled", why, None)
    receipt = Receipt.objects.get(subject_id=refund.id, kind="action.cancelled")
    assert receipt.payload["reason"] == why
    step = run.steps.get(key="effect:1:0")
    assert (step.status, step.tool) == ("denied", REFUND)
    assert why in step.summary
    batch = Batch.objects.get(run=run)
    assert batch.why.startswith("One waits.\n\nWithdrawn: ")
    assert [action.tool for action in batch.actions.all()] == [NOTE]

    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["update_customer"])
    assert receipts.verify(run.team) == []
    assert_sound(run)


# --- approved, and not executed after all ----------------------------------------------------------------------------
SECOND = tool(REFUND, order="48231", amount=58.0, reason="a cracked glass")


@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
def test_what_was_approved_is_withdrawn_when_the_action_before_it_refutes_its_ground(
    crew: Access, shop: LocalShop, model: Model, client: Client, mode: Mode
) -> None:
    add_agent(crew.team, planning=True, evaluation="every_step")
    conversation = turns(uses(REFUNDS, SECOND), "Two wait.", "Done.")

    def respond(body: JsonObject) -> Reply:
        schema = (body.get("output_config") or {}).get("format", {}).get("schema", {})
        if "steps" in schema.get("properties", {}):
            return Reply(text=json.dumps({"steps": []} if "did not hold" in told(body) else PLAN))
        if schema:
            return verdict(HELD_NOT if '"refund"' in told(body) or "refunded" in told(body) else [])
        return conversation(body)

    model.server.respond = respond
    run = advance(launch(crew, mode))
    batch = Batch.objects.get(run=run)
    assert applied(decide(crew, run, note="Both look right."))
    run = advance(run)

    assert (run.status, shop.executed, len(shop.effects())) == ("completed", ["issue_refund"], 1)
    done, withdrawn = batch.actions.order_by("position")
    why = "the plan no longer holds, because “The order is paid” did not hold (The order is not paid)"
    assert (done.status, withdrawn.status, withdrawn.note) == ("succeeded", "cancelled", why)
    assert withdrawn.executed_at is None
    kinds = Receipt.objects.filter(subject_id=withdrawn.id).order_by("seq").values_list("kind", flat=True)
    assert list(kinds)[-1] == "action.cancelled"
    assert "action.executing" not in kinds
    step = run.steps.get(key=f"{'effect' if mode is Mode.BATCH else 'tool'}:1:1")
    assert (step.status, step.summary) == ("denied", f"not done, cancelled: {why}"[:300])
    assert why in told([body for body in model.calls if "output_config" not in body][-1])

    client.force_login(crew.user, backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(f"/approvals/{batch.id}/").content.decode()
    words = page.split(f'id="state-{withdrawn.id}"')[1].split("</div>")[0]
    assert f"Not executed: {why}." in words
    assert "approved by Dana" in words
    assert "Both look right." in words, "what the person said stands beside it"
    assert "Allow more like this" not in words
    assert "Not executed" not in page.split(f'id="state-{done.id}"')[1].split("</div>")[0]
    assert receipts.verify(run.team) == []
    assert_sound(run)
