"""The loop in its three modes: interactive, batch and dry run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runs.engine.acting import Hands
from runs.engine.asking import Asking
from runs.engine.breakers import NeverOpen
from runs.engine.calls import FORBIDDEN
from runs.engine.context import HELD, QUEUED
from runs.engine.deciding import Caller
from runs.engine.fakes import calls, says
from runs.engine.planning import PlanState
from runs.engine.types import (
    ActionStatus,
    Mode,
    Policy,
    RunStatus,
    StepKind,
    StepStatus,
    StopReason,
    ToolGrant,
)
from tests.loop.helpers import (
    APPROVE,
    REJECT,
    WAITS,
    World,
    assert_sound,
    use,
    world,
)

BATCH, DRY_RUN, INTERACTIVE = Mode.BATCH, Mode.DRY_RUN, Mode.INTERACTIVE


# --- the shortest lives ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "status"),
    [
        (INTERACTIVE, RunStatus.COMPLETED),
        (BATCH, RunStatus.COMPLETED),
        (DRY_RUN, RunStatus.DRY_RUN_READY),
    ],
)
def test_an_answer_ends_the_run(mode: Mode, status: RunStatus) -> None:
    done = world(says("All good."), mode=mode)

    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (status, StopReason.DONE, "All good.")
    assert done.keys() == ["model:1", "result"]


@pytest.mark.parametrize("mode", list(Mode))
def test_reads_run_at_once(mode: Mode) -> None:
    done = world(calls(use("look", id="7"), text="I look first."), says("Seen."), mode=mode)

    assert done.ended().result == "Seen."
    assert done.contents() == ['{"ok":true}']
    assert done.step("tool:1:0").confidence == 0.95
    assert done.step("tool:1:0").reasoning == "because"
    assert done.verdicts.actions == {}


def test_an_ended_run_stays_as_it_ended() -> None:
    done = world(calls(use("note")), says("Done."))
    first, steps = done.ended(), done.steps()

    assert done.ended() == first
    assert done.steps() == steps
    assert len(done.llm.requests) == 2


# --- interactive -----------------------------------------------------------------------------------------------------
def test_what_may_run_alone_runs_at_once() -> None:
    done = world(calls(use("note", id="1"), use("mail", id="2")), says("Done."))

    done.ended()

    assert done.effects() == ["shop.note(1)", "shop.mail(2)"]
    assert done.verdicts.batches == {}
    assert_sound(done)


def test_what_needs_a_person_parks_the_run() -> None:
    done = world(calls(use("refund"), text="The photo shows a dent."), says("Refunded."))

    assert done.parked() == WAITS
    assert done.effects() == []
    assert done.status("1:0") is ActionStatus.PENDING
    assert done.keys() == ["model:1", "ask:turn:1"]


def test_waiting_costs_nothing_however_often_it_is_looked_at() -> None:
    done = world(calls(use("refund")), says("Refunded."))
    done.parked()
    steps = done.steps()

    assert done.parked() == WAITS
    assert done.steps() == steps
    assert len(done.llm.requests) == 1
    assert list(done.verdicts.batches) == ["turn:1"]


def test_approved_means_done_and_told() -> None:
    done = world(calls(use("refund", id="48213")), says("Refunded."))
    done.parked()
    done.clock.pass_seconds(90)
    done.verdicts.decide(APPROVE, by="Marco Ruiz")

    assert done.ended().result == "Refunded."
    assert done.effects() == ["shop.refund(48213)"]
    assert done.tool("refund").keys == [done.verdicts.actions["1:0"].id]
    assert done.status("1:0") is ActionStatus.SUCCEEDED
    assert done.contents() == ['{"ok":true}']
    waited = done.step("waited:turn:1")
    assert waited.kind is StepKind.APPROVAL
    assert waited.duration_ms >= 90_000
    assert waited.summary == "1 approved"
    assert waited.output[0]["by"] == ["Marco Ruiz"]


def test_rejected_means_not_done_and_told_why() -> None:
    done = world(calls(use("refund")), says("I see."))
    done.parked()
    done.verdicts.decide(REJECT, note="Too much.", by="Marco Ruiz")

    assert done.ended().status is RunStatus.COMPLETED
    assert done.effects() == []
    assert done.results()[0]["is_error"] is True
    assert done.contents() == ["rejected by a person (Marco Ruiz). Note: Too much."]
    assert done.step("tool:1:0").status is StepStatus.DENIED


@pytest.mark.parametrize(
    "status", [ActionStatus.EXPIRED, ActionStatus.ANSWERED, ActionStatus.CANCELLED, ActionStatus.REVOKED]
)
def test_no_other_verdict_releases(status: ActionStatus) -> None:
    done = world(calls(use("refund")), says("I see."))
    done.parked()
    done.verdicts.decide(status, note="Ask Ana first.")

    done.ended()

    assert done.effects() == []
    assert done.contents() == [f"not done, {status.value}: Ask Ana first."]


def test_an_edit_runs_with_the_persons_arguments_and_the_model_is_told() -> None:
    done = world(calls(use("refund", id="1")), says("I see."))
    done.parked()
    done.verdicts.edit("1:0", {"id": "2"})

    done.ended()

    assert done.effects() == ["shop.refund(2)"]
    assert done.contents() == ['A person changed the arguments to {"id":"2"}. {"ok":true}']
    assert done.step("tool:1:0").output == {"ok": True}


def test_a_note_on_an_approval_is_told_with_the_result_of_its_call() -> None:
    done = world(calls(use("refund", id="1"), use("wipe", id="2")), says("I see."))
    done.parked()
    done.verdicts.edit("1:0", {"id": "3"})
    done.verdicts.decide(APPROVE, "1:1", note="Say sorry, too.", by="Marco Ruiz")

    done.ended()

    changed, noted = done.contents()
    assert changed == 'A person changed the arguments to {"id":"3"}. {"ok":true}'
    assert noted == 'Marco Ruiz approved this and says: Say sorry, too. {"ok":true}'
    assert done.step("tool:1:1").output == {"ok": True}, "the trace keeps what the tool said"


def test_a_note_is_told_in_the_same_words_whatever_becomes_of_its_row() -> None:
    done = world(calls(use("refund", id="1")), calls(use("refund", id="2")), says("I see."))
    done.parked()
    done.verdicts.decide(APPROVE, note="Only this once.")
    done.parked()
    done.verdicts.take_back(done.verdicts.actions["1:0"], "could not be undone", undone=False)
    done.verdicts.decide(APPROVE)

    done.ended()

    assert done.contents() == ['Dana Okafor approved this and says: Only this once. {"ok":true}']
    assert done.contents(2) == ['{"ok":true}']


def test_a_part_of_the_verdicts_is_not_enough() -> None:
    done = world(calls(use("refund", id="1"), use("wipe", id="2")), says("I see."))
    done.parked()
    done.verdicts.decide(APPROVE, "1:0")

    assert done.parked() == WAITS
    assert done.effects() == []

    done.verdicts.decide(REJECT, "1:1")
    done.ended()
    assert done.effects() == ["shop.refund(1)"]
    assert [result["is_error"] for result in done.results()] == [False, True]
    assert_sound(done)


def test_nothing_of_a_turn_happens_beside_a_question_but_reading() -> None:
    done = world(calls(use("note", id="1"), use("refund", id="2"), use("look", id="3")), says("Done."))

    done.parked()

    assert done.effects() == []
    assert done.verdicts.actions["1:0"].held
    assert len(done.tool("look").keys) == 1
    assert done.verdicts.batches == {"turn:1": ["1:1"]}


@pytest.mark.parametrize(
    ("verdict", "effects"), [(APPROVE, ["shop.note(1)", "shop.refund(2)"]), (REJECT, ["shop.note(1)"])]
)
def test_what_was_held_runs_after_the_verdict_whatever_it_was(verdict: ActionStatus, effects: list[str]) -> None:
    done = world(calls(use("note", id="1"), use("refund", id="2")), says("Done."))
    done.parked()
    done.verdicts.decide(verdict)

    done.ended()

    assert done.effects() == effects
    assert done.keys("tool:") == ["tool:1:0", "tool:1:1"]
    assert_sound(done)


def test_each_turn_asks_anew() -> None:
    done = world(calls(use("refund", id="1")), calls(use("refund", id="2")), says("Done."))

    done.to_the_end()

    assert done.verdicts.batches == {"turn:1": ["1:0"], "turn:2": ["2:0"]}
    assert done.effects() == ["shop.refund(1)", "shop.refund(2)"]
    assert_sound(done)


# --- batch -----------------------------------------------------------------------------------------------------------
def batch() -> World:
    """Turn 1 queues a refund, turn 2 finds a note held behind it and wipes, then the model rests."""
    return world(
        calls(use("look", id="0"), use("refund", id="1")),
        calls(use("note", id="2"), use("look", id="3"), use("wipe", id="4")),
        says("Queued what I could."),
        says("All done."),
        mode=BATCH,
    )


def test_batch_goes_on_while_actions_are_queued_then_asks_for_all_at_once() -> None:
    done = batch()

    assert done.parked() == WAITS

    assert done.effects() == []
    assert len(done.tool("look").keys) == 2
    assert done.verdicts.batches == {"queue:1": ["1:1", "2:0", "2:2"]}
    assert done.contents(1) == ['{"ok":true}', QUEUED]
    assert done.contents(2) == [HELD, '{"ok":true}', QUEUED]
    assert done.contents(1)[1].startswith("queued for approval")
    assert done.contents(2)[0].startswith("queued for approval")


def test_batch_gives_all_real_results_in_one_message() -> None:
    done = batch()
    done.parked()
    done.verdicts.decide(APPROVE, "1:1", by="Marco Ruiz")
    done.verdicts.decide(REJECT, "2:2", note="Keep them.")

    assert done.ended().result == "All done."

    assert done.effects() == ["shop.note(2)", "shop.refund(1)"]
    [message] = done.llm.conversations()[-1][-1]["content"]
    head, *lines = message["text"].split("\n")
    assert head == "Results of the queued actions"
    read = [json.loads(line) for line in lines]
    assert [(line["tool"], line["outcome"], line["note"]) for line in read] == [
        ("shop__refund", "succeeded", ""),
        ("shop__note", "succeeded", ""),
        ("shop__wipe", "rejected", "Keep them."),
    ]
    assert read[0]["result"] == {"ok": True}
    assert read[0]["by"] == "Marco Ruiz"
    assert_sound(done)


def test_batch_carries_out_in_the_order_of_the_calls() -> None:
    done = batch()

    done.to_the_end()

    assert done.keys("effect:") == ["effect:1:1", "effect:2:0", "effect:2:2"]


def test_batch_runs_alone_what_may_while_nothing_is_queued() -> None:
    done = world(calls(use("note", id="1")), calls(use("mail", id="2")), says("Done."), mode=BATCH)

    assert done.ended().result == "Done."
    assert done.effects() == ["shop.note(1)", "shop.mail(2)"]
    assert done.verdicts.batches == {}


def test_batch_queues_again_after_a_verdict() -> None:
    done = world(
        calls(use("refund", id="1")),
        says("That is all."),
        calls(use("note", id="2"), use("refund", id="3")),
        says("And that."),
        says("Done."),
        mode=BATCH,
    )

    assert done.to_the_end().result == "Done."

    assert done.verdicts.batches == {"queue:1": ["1:0"], "queue:2": ["3:0", "3:1"]}
    assert done.effects() == ["shop.note(2)", "shop.refund(1)", "shop.refund(3)"]
    assert_sound(done)


def test_batch_tells_of_an_edit() -> None:
    done = world(calls(use("refund")), says("That is all."), says("Done."), mode=BATCH)
    done.parked()
    done.verdicts.edit("1:0", {"id": "2"})

    done.ended()

    assert done.effects() == ["shop.refund(2)"]
    line = json.loads(done.llm.conversations()[-1][-1]["content"][0]["text"].split("\n")[1])
    assert line["edited_by_a_person"] is True
    assert_sound(done)


def test_a_turn_without_content_can_end_the_queueing() -> None:
    """The API takes an empty turn from a model, but refuses one that is sent to it."""
    rests = iter([says(""), says("Done.")])
    done = world(calls(use("refund")), lambda request: next(rests), mode=BATCH)

    assert done.to_the_end().result == "Done."
    assert all(message["content"] for message in done.llm.conversations()[-1])


# --- dry run ---------------------------------------------------------------------------------------------------------
def test_a_dry_run_reads_but_only_simulates_effects() -> None:
    done = world(calls(use("look"), use("note"), use("refund"), use("wipe")), says("That is the plan."), mode=DRY_RUN)

    end = done.ended()

    assert (end.status, end.result) == (RunStatus.DRY_RUN_READY, "That is the plan.")
    assert done.effects() == []
    assert done.verdicts.claimed == []
    assert len(done.tool("look").keys) == 1
    assert [done.step(f"tool:1:{n}").status for n in range(4)] == [StepStatus.OK] + [StepStatus.SIMULATED] * 3
    assert done.contents()[2].endswith("shop.refund would act")
    assert done.contents()[3].startswith("simulated:")
    assert [result["is_error"] for result in done.results()] == [False] * 4
    assert done.verdicts.batches == {}


def test_a_dry_run_keeps_every_action_for_the_report() -> None:
    done = world(calls(use("note"), use("refund")), says("That is the plan."), mode=DRY_RUN)

    done.ended()

    assert {intent: action.tool for intent, action in done.verdicts.actions.items()} == {
        "1:0": "shop.note",
        "1:1": "shop.refund",
    }


# --- forbidden -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", list(Mode))
def test_a_forbidden_tool_is_not_offered_and_not_run(mode: Mode) -> None:
    done = world(calls(use("ban")), says("I see."), mode=mode)

    done.ended()

    assert "shop__ban" not in [tool["name"] for tool in done.llm.requests[0].tools]
    assert done.effects() == []
    assert done.results()[0]["is_error"] is True
    assert done.contents() == [FORBIDDEN]
    step = done.step("tool:1:0")
    assert (step.kind, step.status, step.title) == (StepKind.TOOL, StepStatus.DENIED, "shop.ban")
    assert done.keys("malformed-turn") == [], "writing it anew would not help"


def test_a_forbidden_call_is_no_malformed_one_however_often_it_comes() -> None:
    turns = [calls(use("ban", id=str(number))) for number in range(5)]
    done = world(*turns, calls(use("look"), use("ban")), says("I see."))

    assert done.ended().status is RunStatus.COMPLETED
    assert (done.keys("malformed-turn"), done.keys("repair"), done.keys("ask")) == ([], [], [])
    assert done.contents(6)[1] == FORBIDDEN
    assert done.step("tool:6:0").status is StepStatus.OK


def test_a_forbidden_call_does_not_make_the_model_trusted_again() -> None:
    done = world(calls(("shop__note", {"wrong": 1})), calls(use("ban")), calls(use("mail")), says("Done."))

    assert done.parked() == WAITS

    assert [action.tool for action in done.verdicts.waiting()] == ["shop.mail"], "it would have run alone"


def test_the_same_forbidden_call_again_and_again_is_a_loop() -> None:
    done = world(*[calls(use("ban"))] * 9)

    assert done.ended().stop_reason is StopReason.LOOP


@pytest.mark.parametrize(
    ("grants", "why"),
    [
        ((), "Not done: this agent has no permission for the tool."),
        ((ToolGrant(name="shop.ban", policy=Policy.FORBIDDEN),), FORBIDDEN),
    ],
)
def test_hands_refuse_what_was_not_granted_even_when_they_hold_it(grants: tuple[ToolGrant, ...], why: str) -> None:
    done = world()
    run = replace(done.run, agent=replace(done.run.agent, tools=grants))
    caller = Caller(run, done.journal, done.llm, done.budget, done.controls, done.clock, NeverOpen())
    hands = Hands(run, caller, Asking(done.journal, done.verdicts, done.clock, PlanState()), done.tools, NeverOpen())

    [step] = hands.act(1, calls(use("ban")).tool_uses, "")

    assert (step.status, step.output) == (StepStatus.DENIED, why)
    assert done.effects() == []
    assert done.verdicts.actions == {}
