"""What was approved is not executed once an earlier result of its batch has refuted what it stands on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runs.engine.fakes import calls, says
from runs.engine.forking import Entry, replayed
from runs.engine.types import ActionStatus, Execution, JsonObject, Mode, ModelReply, StepStatus, StopReason
from tests.engine.test_evaluators import verdict
from tests.loop.helpers import APPROVE, WAITS, World, assert_sound, limits, use, world
from tests.loop.test_reviewing import CARD, FIRST_REFUTED, NO_LONGER, STUCK, judging, planned
from tests.loop.test_together import Bank

MODES = pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
CANCELLED, SUCCEEDED = ActionStatus.CANCELLED, ActionStatus.SUCCEEDED
REFUTED = says(verdict(assumptions=FIRST_REFUTED, sentence="The card has expired."))
FINE = says(verdict())


def batch(mode: Mode, *verdicts: ModelReply, plan: ModelReply | None = None) -> World:
    """Two refunds and a note, proposed in one turn for the first step of the plan. The judge says `verdicts` in turn:
    in batch mode the first is on the turn that queues them."""
    turns = [calls(use("refund", id="1"), use("refund", id="2"), use("note")), says("Three wait."), says("Done.")]
    made = world(*turns, mode=mode, planning=True, evaluation="every_step")
    made.llm.plan = plan or planned(("Refund", [CARD]), ("Write", []))
    made.llm.revision = planned(("Refund by voucher", []))
    made.llm.judge = judging(*([FINE] if mode is Mode.BATCH else []), *verdicts)
    return made


def prefix(mode: Mode) -> str:
    return "effect" if mode is Mode.BATCH else "tool"


@MODES
def test_what_stands_on_a_refuted_assumption_is_withdrawn_though_it_was_approved(mode: Mode) -> None:
    done = batch(mode, REFUTED, FINE)
    assert done.advance() == WAITS
    done.verdicts.decide(APPROVE)
    done.ended()

    assert done.effects() == ["shop.refund(1)"]
    assert done.verdicts.claimed == ["action-1:0"]
    assert [done.status(f"1:{number}") for number in range(3)] == [SUCCEEDED, CANCELLED, CANCELLED]
    assert done.verdicts.actions["1:1"].note == NO_LONGER
    before, after = f"{prefix(mode)}:1:0", f"{prefix(mode)}:1:1"
    keys = done.keys()
    assert keys[keys.index(before) :][:4] == [before, "evaluate:after:1:0", "revise:after:1:0", after]
    step = done.step(after)
    assert (step.status, step.plan_step, step.summary) == (StepStatus.DENIED, 0, f"not done, cancelled: {NO_LONGER}")
    assert "1. Refund by voucher" in done.told()
    assert NO_LONGER in done.told(), "in the call's own result"
    assert_sound(done)


@MODES
def test_what_belongs_to_another_step_goes_on(mode: Mode) -> None:
    second = [{"step": 1, "assumption": 0, "status": "did_not_hold"}]
    refuted = says(verdict(assumptions=second, sentence="The card has expired."))
    done = batch(mode, refuted, FINE, plan=planned(("Refund", ["The order is paid."]), ("Write", [CARD])))
    done.to_the_end()

    assert len(done.effects()) == 3
    assert done.keys("revise") == ["revise:after:1:0"]
    assert_sound(done)


@MODES
def test_where_nothing_stands_on_an_assumption_there_is_nothing_to_ask_between(mode: Mode) -> None:
    done = batch(mode, FINE, plan=planned(("Refund", []), ("Write", [CARD])))
    done.to_the_end()

    assert len(done.effects()) == 3
    assert done.keys("evaluate:after") == []


@MODES
def test_what_a_person_rejected_tells_nothing_of_the_world(mode: Mode) -> None:
    done = batch(mode, REFUTED, FINE)
    done.parked()
    done.verdicts.decide(ActionStatus.REJECTED, "1:0", "1:2")
    done.verdicts.decide(APPROVE)
    done.ended()

    assert done.keys("evaluate:after:1:0") == []
    assert done.effects()[0] == "shop.refund(2)"


@MODES
@pytest.mark.parametrize("burn", range(1, 40, 2))
def test_withdrawing_survives_a_crash_anywhere(mode: Mode, burn: int) -> None:
    straight, done = batch(mode, REFUTED, FINE), batch(mode, REFUTED, FINE)
    straight.to_the_end()
    done.fuse.left = burn
    done.to_the_end()

    assert done.keys() == straight.keys()
    assert done.effects() == straight.effects() == ["shop.refund(1)"]
    assert done.journal.plan == straight.journal.plan
    assert_sound(done)


@MODES
@pytest.mark.parametrize(
    ("execution", "refunded", "first"),
    [
        (Execution.INDEPENDENT, ["shop.refund(1)"], SUCCEEDED),
        (Execution.STOP_ON_FAILURE, ["shop.refund(1)"], SUCCEEDED),
        (Execution.ALL_OR_NOTHING, [], CANCELLED),
    ],
)
def test_a_batch_that_lost_a_part_to_the_plan_has_failed_as_a_whole(
    mode: Mode, execution: Execution, refunded: list[str], first: ActionStatus
) -> None:
    done = batch(mode, REFUTED, FINE)
    refund = done.tools["shop.refund"]
    refund._spec = replace(refund.spec, can_undo=True)
    done.verdicts.mode = execution
    done.to_the_end()

    assert (done.effects(), done.status("1:0")) == (refunded, first)
    undone = "undone because “Run shop.refund” was not executed and this batch was all or nothing"
    assert (done.verdicts.actions["1:0"].note == undone) is (first is CANCELLED)
    assert_sound(done)


@MODES
def test_no_judge_is_no_reason_to_hold_back_what_people_approved(mode: Mode) -> None:
    done = batch(mode, says("no verdict"))
    done.to_the_end()

    assert len(done.effects()) == 3
    assert_sound(done)


@pytest.mark.parametrize(("mode", "most"), [(Mode.BATCH, 9), (Mode.INTERACTIVE, 7)])
def test_without_room_for_a_revision_the_steps_fall_and_every_call_has_its_result(mode: Mode, most: int) -> None:
    done = batch(mode, REFUTED, FINE)
    done.run = replace(done.run, limits=limits(max_steps=most))
    end = done.to_the_end()

    assert end.stop_reason is StopReason.MAX_STEPS
    assert done.keys("evaluate:after") == ["evaluate:after:1:0"]
    assert done.keys("revise") == []
    assert (done.effects(), done.status("1:1")) == (["shop.refund(1)"], CANCELLED)
    assert done.journal.plan is not None
    assert done.journal.plan["steps"][0]["status"] == "changed"
    assert_sound(done)


def test_only_whole_turns_count_as_without_progress() -> None:
    done = batch(Mode.INTERACTIVE, STUCK)
    done.to_the_end()

    assert len(done.keys("evaluate:")) >= 3
    assert done.ended().stop_reason is StopReason.DONE


@pytest.mark.parametrize("burn", range(1, 30))
def test_a_turn_that_is_taken_up_again_still_knows_that_it_has_failed(burn: int) -> None:
    done = world(calls(*[use("refund", id=str(number)) for number in (3, 4, 5)]), says("Done."), mode=Mode.INTERACTIVE)
    done.tools["shop.refund"] = Bank("shop.refund", done.tools["shop.refund"].spec.effect, idempotent=True)
    done.verdicts.mode = Execution.STOP_ON_FAILURE
    done.fuse.left = burn
    done.to_the_end()

    assert done.effects() == []
    assert [done.status(f"1:{number}") for number in (1, 2)] == [CANCELLED, CANCELLED]


def test_a_fork_is_not_cut_between_the_actions_of_a_batch() -> None:
    done = batch(Mode.BATCH, REFUTED, FINE)
    done.to_the_end()
    entries = [Entry(number, step.key, step.kind) for number, step in enumerate(done.steps(), 1)]
    seq_of = {entry.key: entry.seq for entry in entries}

    within: JsonObject = {
        key: replayed(entries, seq_of[key])[-1].key for key in ("effect:1:0", "revise:after:1:0", "effect:1:1")
    }
    assert within == dict.fromkeys(within, "model:2")
    last = replayed(entries, seq_of["model:3"])[-1].key
    assert last == "model:3"
