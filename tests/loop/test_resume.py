"""Start, resume after a wait and resume after a crash are one: the same journal, the same effects, the same talk."""

from __future__ import annotations

import pytest

from runs.engine.fakes import Crash, FakeJournal, calls, says
from runs.engine.ports import (
    JournalMismatch,
    ModelError,
    NotReleased,
    PlanRefused,
    ToolConnectionLost,
    ToolTimeout,
    ToolUnavailable,
)
from runs.engine.types import (
    ActionStatus,
    Finished,
    Mode,
    Parked,
    Policy,
    RunStatus,
    Step,
    StepKind,
    StepStatus,
    StopReason,
)
from tests.loop.helpers import (
    APPROVE,
    DID_NOT_HAPPEN,
    HAPPENED,
    WAITS,
    World,
    assert_sound,
    limits,
    use,
    world,
)

TURNS = (
    calls(use("look", id="1"), use("note", id="2"), text="First."),
    calls(use("refund", id="3"), use("note", id="4"), ("shop__fly", {})),
    says("That is all."),
    says("Done."),
)
PLAN = '{"steps": [{"title": "Look", "needs_person": false, "assumptions": []}]}'
VERDICT = '{"score": 0.5, "progress": true, "sentence": "Fine.", "plan_steps_done": [0], "assumptions": []}'


def long_world(mode: Mode) -> World:
    """Keyed tools only, so that every crash can be repaired without a person."""
    done = world(*TURNS, mode=mode, planning=True, evaluation="final")
    done.llm.plan, done.llm.judge = says(PLAN), says(VERDICT)
    return done


def trace(done: World) -> list[tuple[object, ...]]:
    return [(s.seq, s.key, s.kind, s.status, s.output, s.plan, s.plan_step) for s in done.steps()]


def drive(done: World) -> None:
    """To the end, approving, unless the worker dies."""
    while not isinstance(done.advance(), Finished):
        done.settle_waiting(APPROVE, HAPPENED)


def crashes(done: World) -> bool:
    try:
        drive(done)
    except Crash:
        return True
    return False


# --- crashes, each at every place ------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", list(Mode))
def test_a_crash_before_any_record_changes_nothing(mode: Mode) -> None:
    whole = long_world(mode)
    end = whole.to_the_end()
    assert len(whole.steps()) >= 10

    for nth in range(1, len(whole.steps()) + 1):
        again = long_world(mode)
        again.journal.crash_before = nth
        with pytest.raises(Crash):
            drive(again)
        assert len(again.steps()) == nth - 1
        again.journal.crash_before = None

        assert again.to_the_end() == end
        assert trace(again) == trace(whole)
        assert again.effects() == whole.effects()
        assert again.llm.sent[-1] == whole.llm.sent[-1]
        assert_sound(again)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_crash_at_any_commit_changes_nothing(mode: Mode) -> None:
    """Also right after an action was proposed, asked about or claimed, and twice in a row."""
    whole = long_world(mode)
    end = whole.to_the_end()

    for burns in range(1, 500):
        again = long_world(mode)
        again.fuse.left = burns
        with_crash = crashes(again)
        again.fuse.left = burns % 3 + 1 if with_crash else None

        assert again.to_the_end() == end
        assert trace(again) == trace(whole)
        assert sorted(again.effects()) == sorted(whole.effects())
        assert_sound(again)
        if not with_crash:
            assert burns > len(whole.steps())
            return
    raise AssertionError("the fuse is longer than any run")


def test_a_crash_after_a_stop_keeps_its_reason_and_its_answer() -> None:
    turn = calls(use("look"))

    def stopped() -> World:
        return world(turn, limits=limits(max_steps=3))

    whole = stopped()
    end = whole.ended()
    assert (end.stop_reason, end.result) == (StopReason.MAX_STEPS, "wrapped up")

    for nth in range(1, len(whole.steps()) + 1):
        again = stopped()
        again.journal.crash_before = nth
        with pytest.raises(Crash):
            again.advance()
        again.journal.crash_before = None

        assert again.ended() == end
        assert trace(again) == trace(whole)


def test_the_reason_of_a_stop_survives_its_wrap_up() -> None:
    """The wrap-up takes the last step, so that after a crash two limits are reached: the first one is the reason."""
    done = world(calls(use("look")), limits=limits(max_seconds=60, max_steps=4))
    done.tool("look").watch = lambda key: done.clock.pass_seconds(61)
    done.journal.crash_before = 5
    with pytest.raises(Crash):
        done.advance()
    assert done.keys() == ["model:1", "tool:1:0", "stopped", "wrap_up"]
    done.journal.crash_before = None

    assert done.ended().stop_reason is StopReason.MAX_SECONDS


def test_a_failed_run_does_not_come_back_to_life() -> None:
    """The worker died between the last record and telling that the run had failed; the model is well again."""
    done = world(says("Too late."))
    done.llm.errors.append(ModelError("invalid_request", "no", retryable=False))
    first = done.ended()
    assert first.status is RunStatus.FAILED

    assert done.ended() == first
    assert len(done.llm.requests) == 1


# --- between effect and record ---------------------------------------------------------------------------------------
def crashed_in(name: str, *, acted: bool) -> World:
    """The worker died inside the tool's call, before or after the effect."""
    done = world(calls(use(name)), says("Done."))
    (done.tool(name).answers if acted else done.tool(name).lost).append(Crash())
    with pytest.raises(Crash):
        done.advance()
    assert done.effects() == ([f"shop.{name}(1)"] if acted else [])
    assert done.status("1:0") is ActionStatus.EXECUTING
    return done


@pytest.mark.parametrize("acted", [True, False])
def test_a_keyed_tool_is_called_again_under_the_same_key(acted: bool) -> None:
    done = crashed_in("note", acted=acted)

    assert done.ended().result == "Done."

    assert done.effects() == ["shop.note(1)"]
    assert done.tool("note").keys == [done.verdicts.actions["1:0"].id] * 2
    assert len(done.verdicts.claimed) == 1
    assert done.contents() == ['{"ok":true}']


@pytest.mark.parametrize("acted", [True, False])
@pytest.mark.parametrize(
    ("said", "status", "text"),
    [
        (HAPPENED, StepStatus.OK, "A person confirmed that this happened. I saw the mail."),
        (DID_NOT_HAPPEN, StepStatus.ERROR, "A person confirmed that this did not happen. I saw the mail."),
    ],
)
def test_an_unkeyed_tool_is_never_called_again(acted: bool, said: ActionStatus, status: StepStatus, text: str) -> None:
    done = crashed_in("mail", acted=acted)

    assert done.parked() == WAITS
    assert done.parked() == WAITS
    assert done.status("1:0") is ActionStatus.UNKNOWN
    assert done.verdicts.batches == {"unknown:1:0": ["1:0"]}

    done.verdicts.decide(said, note="I saw the mail.")
    assert done.ended().result == "Done."
    assert len(done.tool("mail").keys) == 1
    assert done.step("tool:1:0").status is status
    assert (done.contents(), done.results()[0]["is_error"]) == ([text], status is StepStatus.ERROR)
    assert done.status("1:0") is said


@pytest.mark.parametrize(
    ("outcome", "status", "settled"),
    [
        ("happened", StepStatus.OK, ActionStatus.SUCCEEDED),
        ("did_not_happen", StepStatus.ERROR, ActionStatus.FAILED),
    ],
)
def test_a_tool_that_can_tell_what_happened_spares_the_question(
    outcome: str, status: StepStatus, settled: ActionStatus
) -> None:
    done = crashed_in("mail", acted=outcome == "happened")
    done.tool("mail").outcome = outcome

    assert done.ended().result == "Done."

    assert len(done.tool("mail").keys) == 1
    assert (done.step("tool:1:0").status, done.status("1:0")) == (status, settled)
    assert done.verdicts.batches == {}


@pytest.mark.parametrize(("name", "tries"), [("note", 3), ("mail", 1)])
@pytest.mark.parametrize("error", [ToolTimeout("late"), ToolConnectionLost("cut")])
def test_an_answer_that_is_lost_makes_a_question_not_a_blind_repeat(name: str, tries: int, error: Exception) -> None:
    """A tool that recognises a repeat is called again under its key first."""
    done = world(calls(use(name, id="1"), use(name, id="2")), says("Done."))
    done.tool(name).answers.extend([error] * tries)

    for _ in range(tries - 1):
        assert done.parked().why == "retry"
    assert done.parked() == WAITS
    assert done.effects() == [f"shop.{name}(1)"]
    assert done.status("1:0") is ActionStatus.UNKNOWN

    done.to_the_end(unknown=HAPPENED)
    assert done.effects() == [f"shop.{name}(1)", f"shop.{name}(2)"]
    assert len(done.tool(name).keys) == tries + 1
    assert len(set(done.tool(name).keys)) == 2


@pytest.mark.parametrize(("outcome", "is_error"), [("happened", False), ("did_not_happen", True)])
def test_an_answer_that_is_lost_is_asked_of_the_tool_first(outcome: str, is_error: bool) -> None:
    done = world(calls(use("mail")), says("Done."))
    done.tool("mail").lost.append(ToolTimeout("late"))
    done.tool("mail").outcome = outcome

    done.ended()

    assert done.results()[0]["is_error"] is is_error


def test_in_batch_the_rest_of_the_queue_waits_for_what_is_unknown() -> None:
    done = world(
        calls(use("wipe", id="1"), use("refund", id="2")), says("That is all."), says("Done."), mode=Mode.BATCH
    )
    done.parked()
    done.verdicts.decide(APPROVE)
    done.tool("wipe").answers.append(ToolConnectionLost("cut"))

    assert done.parked() == WAITS
    assert done.effects() == ["shop.wipe(1)"]

    assert done.to_the_end(unknown=DID_NOT_HAPPEN).result == "Done."
    assert sorted(done.effects()) == ["shop.refund(2)", "shop.wipe(1)"]
    assert_sound(done)


def test_a_keyed_tool_that_is_away_after_a_crash_is_tried_again_later() -> None:
    """Unlike at a first try, here it may have happened already: not a failure."""
    done = crashed_in("note", acted=True)
    done.tool("note").lost.append(ToolUnavailable("down"))

    assert done.parked() == Parked(why="retry", retry_in_s=1)
    assert done.status("1:0") is ActionStatus.EXECUTING

    done.ended()
    assert done.effects() == ["shop.note(1)"]
    assert done.status("1:0") is ActionStatus.SUCCEEDED


def test_a_crash_between_doubt_and_question_asks_all_the_same() -> None:
    done = world(calls(use("mail")), says("Done."))
    done.tool("mail").answers.append(ToolTimeout("late"))
    done.fuse.left = 6
    with pytest.raises(Crash):
        done.advance()

    assert done.parked() == WAITS
    assert done.status("1:0") is ActionStatus.UNKNOWN
    assert len(done.tool("mail").keys) == 1


def test_a_crash_between_question_and_its_record_asks_once() -> None:
    done = world(calls(use("refund")), says("Done."))
    done.journal.crash_before = 2
    with pytest.raises(Crash):
        done.advance()
    assert list(done.verdicts.batches) == ["turn:1"]
    done.verdicts.decide(APPROVE)
    done.journal.crash_before = None

    done.ended()

    assert list(done.verdicts.batches) == ["turn:1"]
    assert done.keys() == ["model:1", "ask:turn:1", "waited:turn:1", "tool:1:0", "model:2", "result"]


# --- a tool that has gone --------------------------------------------------------------------------------------------
def test_a_tool_that_went_away_before_its_call_did_nothing_for_sure() -> None:
    done = world(calls(use("refund")), says("I see."))
    done.parked()
    done.verdicts.decide(APPROVE)
    done.tools.pop("shop.refund")

    done.ended()

    assert done.contents()[0].startswith("There is no tool named")
    assert_sound(done)


def test_in_batch_a_tool_that_went_away_fails_without_a_question() -> None:
    done = world(calls(use("refund")), says("That is all."), says("Done."), mode=Mode.BATCH)
    done.parked()
    done.verdicts.decide(APPROVE)
    done.tools.pop("shop.refund")

    assert done.ended().result == "Done."
    assert done.status("1:0") is ActionStatus.FAILED
    assert "The tool is not there any more." in done.told()


def test_in_batch_a_tool_that_went_away_in_the_middle_leaves_a_question() -> None:
    done = world(calls(use("wipe")), says("That is all."), says("Done."), mode=Mode.BATCH)
    done.parked()
    done.verdicts.decide(APPROVE)
    done.tool("wipe").answers.append(Crash())
    with pytest.raises(Crash):
        done.advance()
    done.tools.pop("shop.wipe")

    assert done.parked() == WAITS
    assert done.status("1:0") is ActionStatus.UNKNOWN


# --- refused just before the effect ----------------------------------------------------------------------------------
def approved() -> World:
    done = world(calls(use("refund")), says("I see."))
    done.parked()
    done.verdicts.decide(APPROVE)
    return done


def test_a_world_that_changed_since_makes_the_action_stale() -> None:
    done = approved()
    done.tool("refund").preconditions = {"version": 2}

    done.ended()

    assert done.effects() == []
    assert done.status("1:0") is ActionStatus.STALE
    assert done.contents() == ["not done, stale: what it was planned on has changed"]
    assert done.results()[0]["is_error"] is True


@pytest.mark.parametrize(
    "refusal", [PlanRefused("no such order"), PlanRefused(""), ToolTimeout("late"), ToolUnavailable("down")]
)
def test_a_tool_that_cannot_plan_any_more_makes_the_action_stale(refusal: Exception) -> None:
    done = approved()
    done.tool("refund").refuses_to_plan = refusal

    done.ended()

    assert done.effects() == []
    assert done.status("1:0") is ActionStatus.STALE


def test_other_arguments_than_the_approved_ones_are_revoked() -> None:
    done = approved()
    done.verdicts.tamper("1:0", {"id": "999"})

    done.ended()

    assert done.effects() == []
    assert done.status("1:0") is ActionStatus.REVOKED
    assert "not done, revoked: the action differs from what was approved" in done.contents()[0]


@pytest.mark.parametrize("status", [ActionStatus.EXPIRED, ActionStatus.CANCELLED, ActionStatus.REVOKED])
@pytest.mark.parametrize("name", ["note", "refund"])
def test_a_claim_that_is_refused_means_no_effect_and_no_second_try(status: ActionStatus, name: str) -> None:
    done = world(calls(use(name)), says("I see."))
    done.verdicts.refusals["1:0"] = NotReleased(status, "its time ran out before it ran")

    end = done.to_the_end()

    assert end.status is RunStatus.COMPLETED
    assert not done.tool(name).keys
    assert done.step("tool:1:0").status is StepStatus.DENIED
    assert done.contents() == [f"not done, {status.value}: its time ran out before it ran"]


def test_a_crash_after_a_refused_claim_tells_the_same() -> None:
    done = approved()
    done.tool("refund").preconditions = {"version": 2}
    done.journal.crash_before = 4
    with pytest.raises(Crash):
        done.advance()
    assert done.status("1:0") is ActionStatus.STALE
    done.journal.crash_before = None

    done.ended()

    assert done.contents() == ["not done, stale: what it was planned on has changed"]


def test_one_refused_claim_leaves_its_siblings_alone() -> None:
    done = world(calls(use("refund", id="1"), use("refund", id="2"), use("note", id="3")), says("I see."))
    done.verdicts.refusals["1:0"] = NotReleased(ActionStatus.EXPIRED, "too late")

    done.to_the_end()

    assert done.effects() == ["shop.note(3)", "shop.refund(2)"]
    assert [result["is_error"] for result in done.results()] == [True, False, False]


@pytest.mark.parametrize(("policy", "plans"), [(Policy.AUTO, 1), (Policy.REVIEW, 2)])
def test_only_what_waited_is_planned_again(policy: Policy, plans: int) -> None:
    done = world(calls(use("refund")), says("Done."), policies={"shop.refund": policy})

    done.to_the_end()

    assert done.effects() == ["shop.refund(1)"]
    assert done.tool("refund").planned == plans


# --- the journal ------------------------------------------------------------------------------------------------------
def test_a_key_of_another_kind_is_an_error_never_a_guess() -> None:
    journal = FakeJournal()
    journal.once("k", StepKind.TOOL, lambda: Step(kind=StepKind.TOOL, title="t"))

    with pytest.raises(JournalMismatch, match="k was recorded as tool, not model"):
        journal.once("k", StepKind.MODEL, lambda: Step(kind=StepKind.MODEL, title="m"))


def test_a_step_is_shown_while_it_is_in_flight() -> None:
    done = world(calls(use("look"), use("note"), text="Hm."), says("Done."))

    assert isinstance(done.advance(), Finished)

    assert done.journal.shown == ["model:1", "Hm.", "tool:1:0", "tool:1:1", "model:2", "Done."]
