"""Whole runs in the three modes, decided through the inbox."""

from __future__ import annotations

import pytest

from accounts.access import Access
from approvals.models import Verdict
from runs.engine.types import Mode
from runs.models import Action
from tests.flows.conftest import Model, applied, assert_sound, decide, decide_on, keys, told, tool_results, waiting
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, advance, launch, open_batch, results_sent, tool, uses

READS = tool(READ, order="48213")
NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
SMALL = tool(REFUND, order="48213", amount=10.0, reason="late")


@pytest.fixture
def desk(model: Model) -> Model:
    """Reads, leaves a note (which may run alone), asks for a refund, ends; then says that all is done."""
    model.says(uses(READS), uses(NOTES), uses(REFUNDS), "One refund waits.", "All is done.")
    return model


def test_batch_asks_once_for_everything_and_goes_on(
    crew: Access, shop: LocalShop, desk: Model, rings: list[str]
) -> None:
    run = advance(launch(crew))
    assert run.status == "waiting"
    assert shop.effects() == ["update_customer"]
    batch = open_batch(run)
    assert (batch.title, len(waiting(batch))) == ("Refund desk wants to do 1 thing", 1)
    assert run.plan is None
    assert tool_results(desk.calls[3])[-1]["content"].startswith("queued for approval")

    rings.clear()
    assert applied(decide(crew, run))
    assert rings == [str(run.id)]
    run = advance(run)

    assert (run.status, run.stop_reason, run.result) == ("completed", "done", "All is done.")
    assert shop.effects() == ["update_customer", "issue_refund"]
    (line,) = results_sent(desk.calls[-1])
    assert (line["outcome"], line["by"], line["result"]["order"]) == ("succeeded", "Dana", "48213")
    assert run.wait_ms > 0
    assert_sound(run)


def test_a_rejection_is_told_with_its_note(crew: Access, shop: LocalShop, desk: Model) -> None:
    run = advance(launch(crew))
    assert applied(decide(crew, run, Verdict.REJECT, note="The photo is of another kettle."))
    run = advance(run)
    assert run.status == "completed"
    assert shop.effects() == ["update_customer"]
    (line,) = results_sent(desk.calls[-1])
    assert (line["outcome"], line["note"]) == ("rejected", "The photo is of another kettle.")
    assert_sound(run)


def test_some_are_approved_and_some_are_not(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS, SMALL), "Two wait.", "Done.")
    run = advance(launch(crew))
    batch = open_batch(run)
    first, second = waiting(batch)
    assert applied(decide_on(crew, batch, [first], Verdict.REJECT, note="Too much."))
    run.refresh_from_db()
    assert run.status == "waiting", "somebody still has to decide on the other"
    assert applied(decide_on(crew, batch, [second]))
    run = advance(run)
    assert run.status == "completed"
    assert [entry["arguments"]["amount"] for entry in shop.store.ledger()] == [10.0]
    assert [line["outcome"] for line in results_sent(model.calls[-1])] == ["rejected", "succeeded"]
    assert_sound(run)


def test_an_edit_runs_as_edited(crew: Access, shop: LocalShop, desk: Model) -> None:
    run = advance(launch(crew))
    args = {"order": "48213", "amount": 60.0, "reason": "dented, but works"}
    assert applied(decide(crew, run, args=args))
    run = advance(run)
    assert [entry["arguments"]["amount"] for entry in shop.store.ledger() if entry["tool"] == "issue_refund"] == [60.0]
    (line,) = results_sent(desk.calls[-1])
    assert line["edited_by_a_person"] is True
    assert_sound(run)


def test_what_may_run_alone_waits_behind_what_was_asked_before(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), uses(NOTES), uses(READS), "Both wait.", "Done.")
    run = advance(launch(crew))
    assert run.status == "waiting"
    assert shop.effects() == []
    assert "shop.get_order" in run.steps.values_list("tool", flat=True), "reads go on"
    assert len(waiting(open_batch(run))) == 1
    assert applied(decide(crew, run))
    run = advance(run)
    assert shop.effects() == ["issue_refund", "update_customer"]
    assert_sound(run)


def test_interactive_parks_at_the_first_question(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), uses(NOTES, REFUNDS), "All is done.")
    run = advance(launch(crew, Mode.INTERACTIVE))
    assert run.status == "waiting"
    assert shop.effects() == []
    assert len(model.calls) == 2
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, run.result) == ("completed", "All is done.")
    assert shop.effects() == ["update_customer", "issue_refund"]
    note, refund = tool_results(model.calls[-1])[-2:]
    assert '"refund"' in refund["content"]
    assert not note.get("is_error")
    assert_sound(run)


def test_interactive_tells_a_note_with_the_result(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "Done.")
    run = advance(launch(crew, Mode.INTERACTIVE))
    assert applied(decide(crew, run, note="Write to her first next time."))
    run = advance(run)
    (result,) = tool_results(model.calls[-1])
    assert result["content"].startswith("Dana approved this and says: Write to her first next time. {")
    assert not result.get("is_error")
    assert_sound(run)


def test_interactive_tells_a_rejection_as_the_result(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "Then not.")
    run = advance(launch(crew, Mode.INTERACTIVE))
    assert applied(decide(crew, run, Verdict.REJECT, note="Ask for a photo."))
    run = advance(run)
    (result,) = tool_results(model.calls[-1])
    assert result["is_error"]
    assert "rejected by a person (Dana). Note: Ask for a photo." in result["content"]
    assert shop.effects() == []
    assert_sound(run)


def test_a_dry_run_changes_nothing(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), uses(NOTES, REFUNDS), "That is what I would do.")
    run = advance(launch(crew, Mode.DRY_RUN))
    assert (run.status, run.stop_reason) == ("dry_run_ready", "done")
    assert shop.effects() == []
    assert shop.executed == ["get_order"]
    assert [step.status for step in run.steps.filter(kind="tool").order_by("seq")] == ["ok", "simulated", "simulated"]
    assert Action.objects.filter(run=run).count() == 2
    assert "simulated: this is a dry run" in told(model.calls[-1])
    assert_sound(run)


def test_what_the_tool_would_refuse_is_asked_of_nobody(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(tool(REFUND, order="48213", amount=9999.0, reason="much")), "Then not.")
    run = advance(launch(crew))
    assert run.status == "completed"
    assert "the tool would refuse it" in tool_results(model.calls[-1])[0]["content"]
    assert not Action.objects.exists()
    assert_sound(run)


def test_a_resumed_run_repeats_nothing(crew: Access, shop: LocalShop, desk: Model) -> None:
    run = advance(launch(crew))
    before, calls = keys(run), len(desk.calls)
    decide(crew, run)
    run = advance(run)
    assert keys(run)[: len(before)] == before
    assert len(desk.calls) == calls + 1
    assert shop.executed == ["get_order", "update_customer", "issue_refund"]


def test_an_ended_run_is_not_taken_again(crew: Access, shop: LocalShop, model: Model) -> None:
    run = advance(launch(crew))
    steps, calls = run.last_seq, len(model.calls)
    run = advance(run)
    assert (run.last_seq, len(model.calls)) == (steps, calls)
