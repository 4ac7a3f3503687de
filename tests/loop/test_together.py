"""A decided batch as a plan: what a failure means for the rest, what depends on what, and the time to take it back."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from runs.engine.fakes import calls, says
from runs.engine.together import dependencies
from runs.engine.types import (
    Action,
    ActionStatus,
    Effect,
    Execution,
    Finished,
    JsonObject,
    Mode,
    Policy,
    StepStatus,
    ToolGrant,
    ToolResult,
)
from tests.loop.helpers import APPROVE, Workshop, World, assert_sound, use, world

TEN = [use("refund", id=str(number)) for number in range(1, 11)]
INTENTS = [f"1:{index}" for index in range(10)]


def ten(mode: Mode, execution: Execution) -> World:
    """Ten refunds that can be undone, all approved; the third one is declined."""
    done = world(calls(*TEN), says("Ten wait."), says("Done."), mode=mode, policies={"shop.refund": Policy.REVIEW})
    done.tools = {"shop.refund": Bank("shop.refund", Effect.WRITE, idempotent=True, can_undo=True)}
    done.verdicts.mode = execution
    return done


class Bank(Workshop):
    """Declines the third refund, whoever asks how often."""

    declined = "3"

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        if args["id"] == self.declined:
            return ToolResult(content="the card was declined", is_error=True)
        return super().execute(args, idempotency_key=idempotency_key, timeout_s=timeout_s)


@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
@pytest.mark.parametrize(
    ("execution", "kept", "rest"),
    [
        (Execution.INDEPENDENT, [1, 2, 4, 5, 6, 7, 8, 9, 10], ActionStatus.SUCCEEDED),
        (Execution.STOP_ON_FAILURE, [1, 2], ActionStatus.CANCELLED),
        (Execution.ALL_OR_NOTHING, [], ActionStatus.CANCELLED),
    ],
)
def test_item_three_of_ten_fails(mode: Mode, execution: Execution, kept: list[int], rest: ActionStatus) -> None:
    done = ten(mode, execution)
    assert isinstance(done.to_the_end(), Finished)

    assert done.effects() == [f"shop.refund({number})" for number in kept]
    assert done.status("1:2") is ActionStatus.FAILED
    assert {done.status(intent) for intent in INTENTS[3:]} == {rest}
    first = ActionStatus.CANCELLED if execution is Execution.ALL_OR_NOTHING else ActionStatus.SUCCEEDED
    assert {done.status(intent) for intent in INTENTS[:2]} == {first}
    never_begun = [] if execution is Execution.INDEPENDENT else INTENTS[3:]
    assert done.verdicts.claimed == [f"action-{intent}" for intent in INTENTS if intent not in never_begun]
    assert_sound(done)


def test_all_or_nothing_undoes_the_last_first_and_says_why() -> None:
    done = ten(Mode.BATCH, Execution.ALL_OR_NOTHING)
    done.to_the_end()

    assert done.keys("undo:") == ["undo:1:1", "undo:1:0"]
    assert "all or nothing" in done.verdicts.actions["1:0"].note
    assert "all or nothing" in done.verdicts.actions["1:7"].note


def test_what_cannot_be_undone_stays_done_and_is_told() -> None:
    done = ten(Mode.BATCH, Execution.ALL_OR_NOTHING)
    tool = done.tools["shop.refund"]
    tool._spec = replace(tool.spec, can_undo=False)
    done.to_the_end()

    assert done.effects() == ["shop.refund(1)", "shop.refund(2)"]
    assert done.status("1:0") is ActionStatus.SUCCEEDED
    assert "could not be undone" in done.verdicts.actions["1:0"].note
    assert done.step("undo:1:0").status is StepStatus.ERROR


@pytest.mark.parametrize("execution", list(Execution))
def test_a_crash_anywhere_changes_nothing_of_it(execution: Execution) -> None:
    whole = ten(Mode.BATCH, execution)
    whole.to_the_end()
    for fuse in range(1, 60, 3):
        done = ten(Mode.BATCH, execution)
        done.fuse.left = fuse
        done.to_the_end()
        assert done.effects() == whole.effects(), fuse
        assert [done.status(intent) for intent in INTENTS] == [whole.status(intent) for intent in INTENTS], fuse


def test_what_a_person_rejected_is_no_failure() -> None:
    done = ten(Mode.BATCH, Execution.STOP_ON_FAILURE)
    done.tools["shop.refund"].declined = ""  # type: ignore[attr-defined]
    done.parked()
    done.verdicts.decide(ActionStatus.REJECTED, "1:2")
    done.verdicts.decide(APPROVE)
    done.ended()
    assert len(done.effects()) == 9


# --- dependencies ----------------------------------------------------------------------------------------------------


def action(intent: str, tool: str, **args: object) -> Action:
    return Action(
        id=intent, intent=intent, tool_call_id=intent, tool=tool, args=dict(args), digest="", status=APPROVE, title=tool
    )


GRANTS = {"mail": ToolGrant(name="mail", policy=Policy.REVIEW, after=("refund",))}


def test_an_email_depends_on_the_refund_it_speaks_of() -> None:
    plan = [
        action("a", "refund", order="48213", amount=84),
        action("b", "refund", order="48166", amount=412.5),
        action("c", "mail", to="ines@example.com", body="Your refund for order 48213"),
        action("d", "note", order="48213"),
    ]
    assert dependencies(plan, GRANTS) == {"c": ("a",)}


def test_an_email_that_names_none_depends_on_all_before_it() -> None:
    plan = [
        action("a", "refund", order="48213"),
        action("b", "refund", order="48166"),
        action("c", "mail", body="Hello"),
        action("d", "refund", order="48199"),
    ]
    assert dependencies(plan, GRANTS) == {"c": ("a", "b")}
    assert dependencies(plan[2:], GRANTS) == {}


@pytest.mark.parametrize("rejected", [True, False])
def test_a_dependant_falls_with_what_it_depends_on(rejected: bool) -> None:
    done = world(
        calls(use("refund", id="48213"), use("mail", id="48213")), says("Two wait."), says("Done."), mode=Mode.BATCH
    )
    grants = (
        ToolGrant(name="shop.refund", policy=Policy.REVIEW),
        ToolGrant(name="shop.mail", policy=Policy.REVIEW, after=("shop.refund",)),
    )
    done.run = replace(done.run, agent=replace(done.run.agent, tools=grants))
    done.parked()
    if rejected:
        done.verdicts.decide(ActionStatus.REJECTED, "1:0")
    else:
        bank = Bank("shop.refund", Effect.WRITE, idempotent=True)
        bank.declined = "48213"
        done.tools["shop.refund"] = bank
    done.verdicts.decide(APPROVE)
    done.ended()

    assert done.effects() == []
    assert done.status("1:1") is ActionStatus.CANCELLED
    assert "it runs only after" in done.verdicts.actions["1:1"].note
    assert "which did not happen" in done.told()


# --- the time to take it back ----------------------------------------------------------------------------------------


def test_an_approved_action_waits_out_its_window_and_holds_no_worker() -> None:
    done = world(calls(use("refund")), says("One waits."), says("Done."), mode=Mode.BATCH)
    done.parked()
    done.verdicts.decide(APPROVE)
    held_until(done, "1:0", seconds=10)

    parked = done.parked()
    assert parked.why == "retry"
    assert parked.retry_in_s is not None
    assert 9 < parked.retry_in_s <= 10
    assert done.effects() == []
    done.clock.pass_seconds(parked.retry_in_s)
    done.ended()
    assert done.effects() == ["shop.refund(1)"]


def test_what_is_taken_back_in_time_is_asked_again_and_does_not_run() -> None:
    done = world(calls(use("refund")), says("One waits."), says("Done."), mode=Mode.BATCH)
    done.parked()
    done.verdicts.decide(APPROVE)
    held_until(done, "1:0", seconds=10)
    done.parked()
    done.verdicts._change("1:0", status=ActionStatus.PENDING, starts_at=None)
    assert done.parked().why == "approval"
    done.clock.pass_seconds(3600)
    done.verdicts.decide(ActionStatus.REJECTED)
    done.ended()
    assert done.effects() == []


def held_until(done: World, intent: str, *, seconds: float) -> None:
    done.verdicts._change(intent, starts_at=done.clock.time + dt.timedelta(seconds=seconds))
