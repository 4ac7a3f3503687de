"""Pausing, resuming, cancelling and steering at every point of a run's life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from accounts.access import Access
from runs import commands, leases, lifecycle
from runs.asked import RunMessage
from runs.engine.types import Mode
from runs.errors import Conflict
from runs.models import Run
from runs.samples.simulated.reply import Reply
from tests.flows.conftest import Model, applied, assert_sound, decide, keys, told
from tests.flows.shop import LocalShop
from tests.running import READ, REFUND, advance, launch, open_batch, tool, uses, without_breakers

READS = tool(READ, order="48213")
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
Change = Callable[..., Run]


def again(run: Run) -> Run:
    run.refresh_from_db()
    return run


# --- pause and resume ------------------------------------------------------------------------------------------------


def test_a_queued_run_pauses_at_once(crew: Access, shop: LocalShop, model: Model, rings: list[str]) -> None:
    run = launch(crew)
    commands.pause(crew, run.id)
    assert advance(run).status == "paused"
    assert not model.calls
    rings.clear()
    commands.resume(crew, run.id)
    assert rings == [str(run.id)]
    run = advance(run)
    assert run.status == "completed"
    assert run.wait_ms >= 0
    assert_sound(run)


def test_a_running_run_pauses_after_the_call_in_flight(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    model.meanwhile(1, lambda: commands.pause(crew, run.id))
    run = advance(run)
    assert (run.status, run.wish, keys(run)) == ("paused", "", ["model:1"])
    commands.resume(crew, run.id)
    run = advance(run)
    assert run.status == "completed"
    assert len(model.calls) == 2, "the answer that had come is not asked for again"
    assert_sound(run)


def test_a_call_in_flight_is_broken_off_when_the_pulse_sees_the_wish(
    crew: Access, shop: LocalShop, model: Model
) -> None:
    run = launch(crew)
    model.server.pace = 2
    model.says("A very long answer that nobody is going to wait for, as it turns out. " * 20)

    def pause() -> None:
        commands.pause(crew, run.id)
        leases.watch()

    model.meanwhile(1, pause)
    run = advance(run)
    assert run.status == "paused"
    (step,) = run.steps.all()
    assert (step.key, step.status) == ("model:1:interrupted:1", "error")
    model.server.pace = 0
    model.says("Short.")
    commands.resume(crew, run.id)
    run = advance(run)
    assert (run.status, run.result) == ("completed", "Short.")
    assert_sound(run)


def test_pausing_while_it_asks_pauses_it_after_the_decision(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = launch(crew)
    model.meanwhile(2, lambda: commands.pause(crew, run.id))
    assert advance(run).status == "waiting"
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("paused", [])
    commands.resume(crew, run.id)
    assert advance(run).status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert_sound(run)


@pytest.mark.parametrize(("change", "status"), [(commands.resume, "queued"), (commands.cancel, "cancelled")])
def test_a_change_of_mind_just_before_the_pause(
    crew: Access, shop: LocalShop, model: Model, monkeypatch: pytest.MonkeyPatch, change: Change, status: str
) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    model.meanwhile(1, lambda: commands.pause(crew, run.id))
    park = lifecycle.park_paused

    def too_late(*args: object) -> bool:
        change(crew, run.id)
        return park(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lifecycle, "park_paused", too_late)
    run = advance(run)
    assert (run.status, run.wish) == (status, "")
    assert_sound(advance(run))


def test_a_pause_that_a_retry_overtook_is_not_heard_twice(crew: Access, shop: LocalShop, model: Model) -> None:
    model.server.respond = lambda _: Reply.error(529, retry_after=30)
    run = launch(crew)
    model.meanwhile(1, lambda: commands.pause(crew, run.id))
    assert advance(run).status == "queued"
    commands.pause(crew, run.id)
    commands.resume(crew, run.id)
    model.says("Done.")
    without_breakers()
    assert advance(run).status == "completed"


@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
def test_a_waiting_run_can_not_be_paused(crew: Access, shop: LocalShop, model: Model, mode: Mode) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew, mode))
    with pytest.raises(Conflict) as refused:
        commands.pause(crew, run.id)
    assert refused.value.status == "waiting"


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_cancelling_what_is_queued_or_paused(crew: Access, shop: LocalShop, model: Model) -> None:
    queued, paused = launch(crew), launch(crew)
    commands.pause(crew, paused.id)
    for run in (queued, paused):
        assert commands.cancel(crew, run.id).status == "cancelled"
        assert_sound(advance(run))
        run.refresh_from_db()
        assert run.stop_detail.endswith("untouched: the whole task, for no tool was called.")
    assert not model.calls


def test_cancelling_what_waits_withdraws_its_questions(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    batch = open_batch(run)
    run = commands.cancel(crew, run.id)
    batch.refresh_from_db()
    action = run.actions.get()
    assert (run.status, run.stop_reason, batch.status) == ("cancelled", "cancelled", "closed")
    assert (action.status, action.note) == ("cancelled", "The run was cancelled.")
    assert run.wait_ms > 0
    assert run.stop_detail == "A person cancelled this run; untouched: 1 proposed action."
    assert_sound(advance(run))
    assert shop.effects() == []


def test_cancelling_during_a_model_call(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    model.meanwhile(1, lambda: commands.cancel(crew, run.id))
    run = advance(run)
    assert (run.status, run.stop_reason) == ("cancelled", "cancelled")
    assert shop.executed == []
    assert len(model.calls) == 1, "a cancelled run does not wrap up"
    assert_sound(run)


def test_cancelling_during_an_effect_records_what_happened(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS, tool(REFUND, order="48213", amount=1.0, reason="late")), "Two wait.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    shop.before = lambda _: commands.cancel(crew, run.id) if not shop.executed else None
    run = advance(run)
    assert run.status == "cancelled"
    assert shop.effects() == ["issue_refund"]
    assert sorted(run.actions.values_list("status", flat=True)) == ["cancelled", "succeeded"]
    assert_sound(run)


def test_cancelling_just_before_it_parks(
    crew: Access, shop: LocalShop, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = launch(crew)
    park = lifecycle.park_waiting

    def cancelled_first(*args: object) -> bool:
        commands.cancel(crew, run.id)
        return park(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lifecycle, "park_waiting", cancelled_first)
    run = advance(run)
    assert run.status == "cancelled"
    assert run.actions.get().status == "cancelled"
    assert_sound(run)


def test_cancelling_while_a_failed_call_is_put_off(crew: Access, shop: LocalShop, model: Model) -> None:
    """The wish comes before the run is back in the queue: it must not wait for the next try."""
    model.server.respond = lambda _: Reply.error(529, retry_after=60)
    run = launch(crew)
    model.meanwhile(1, lambda: commands.cancel(crew, run.id))
    run = advance(run)
    assert run.status == "cancelled"
    assert_sound(run)


def test_an_effect_that_a_crash_left_open_is_not_called_done(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    decide(crew, run)
    action = run.actions.get()
    assert lifecycle.begin_execution(action.id, action.digest)
    run = commands.cancel(crew, run.id)
    action.refresh_from_db()
    assert (run.status, action.status, action.kind) == ("cancelled", "unknown", "unknown")
    assert "not known" in action.note
    assert_sound(run)


def test_ended_runs_can_not_be_changed(crew: Access, shop: LocalShop, model: Model) -> None:
    run = advance(launch(crew))
    assert run.status == "completed"
    for change in (commands.pause, commands.resume, commands.cancel):
        with pytest.raises(Conflict) as refused:
            change(crew, run.id)
        assert refused.value.status == "completed"
    with pytest.raises(Conflict):
        commands.steer(crew, run.id, "One more thing.")
    assert again(run).status == "completed"


# --- steering --------------------------------------------------------------------------------------------------------


def test_a_message_is_read_before_the_next_model_call(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    model.meanwhile(1, lambda: commands.steer(crew, run.id, "Leave the kettle."))
    run = advance(run)
    assert "Leave the kettle." not in told(model.calls[0])
    assert told(model.calls[1]).count("Message from Dana, who watches this run:\nLeave the kettle.") == 1
    message = RunMessage.objects.get()
    assert message.delivered_seq == run.steps.get(kind="message").seq
    assert_sound(run)


def test_messages_before_the_start_are_heard_in_order(crew: Access, shop: LocalShop, model: Model) -> None:
    run = launch(crew)
    commands.steer(crew, run.id, "First.")
    commands.steer(crew, run.id, "Second.")
    run = advance(run)
    text = told(model.calls[0])
    assert text.index("First.") < text.index("Second.")
    assert [step.kind for step in run.steps.order_by("seq")][:2] == ["message", "message"]


def test_a_message_during_the_last_turn_is_answered(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says("All sorted.", "The toaster too.")
    run = launch(crew)
    model.meanwhile(1, lambda: commands.steer(crew, run.id, "And the toaster?"))
    run = advance(run)
    assert (run.status, run.result) == ("completed", "The toaster too.")
    assert "And the toaster?" in told(model.calls[1])
    assert_sound(run)


def test_a_message_to_a_waiting_run_is_heard_after_the_decision(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    commands.steer(crew, run.id, "Be quick.")
    decide(crew, run)
    run = advance(run)
    assert run.status == "completed"
    assert told(model.calls[-1]).count("Be quick.") == 1
    assert len(model.calls) == 3
    assert_sound(run)
