"""A queued action whose ground the work refutes: withdrawn on its row, in its receipt, in the trace, above the next
question."""

from __future__ import annotations

import json

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
    why = "it stands on “The order is paid”, which did not hold"
    assert (refund.status, refund.note, refund.batch_id) == ("cancelled", why, None)
    receipt = Receipt.objects.get(subject_id=refund.id, kind="action.cancelled")
    assert receipt.payload["reason"] == why
    step = run.steps.get(key="effect:1:0")
    assert (step.status, step.tool) == ("denied", REFUND)
    assert why in step.summary
    batch = Batch.objects.get(run=run)
    assert batch.why.startswith("One waits.\n\nWithdrawn, because it stands on")
    assert [action.tool for action in batch.actions.all()] == [NOTE]

    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["update_customer"])
    assert receipts.verify(run.team) == []
    assert_sound(run)
