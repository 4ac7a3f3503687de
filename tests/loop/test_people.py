"""What people do to a run while it runs: messages, pause, cancel."""

from __future__ import annotations

import pytest

from runs.engine.fakes import Crash, calls, says
from runs.engine.ports import ModelError
from runs.engine.types import (
    ActionStatus,
    Mode,
    ModelReply,
    Parked,
    RunStatus,
    StepKind,
    StopReason,
)
from tests.loop.helpers import APPROVE, Answer, World, assert_sound, then, use, world

FIRST = ("m1", "Dana Okafor", "Only this week.")
SECOND = ("m2", "Marco Ruiz", "And in Spanish.")


def heard(text: str, sender: str) -> dict[str, str]:
    return {"type": "text", "text": f"Message from {sender}, who watches this run:\n{text}"}


def said_during(done: World, message: tuple[str, str, str], reply: ModelReply) -> Answer:
    """A turn during which a person sends a message, once."""
    said = done.controls.said
    return then(lambda: message in said or said.append(message), reply)  # type: ignore[func-returns-value]


# --- messages --------------------------------------------------------------------------------------------------------
def test_a_message_before_the_start_stands_behind_the_task() -> None:
    done = world(says("Done."))
    done.controls.said += [FIRST, SECOND]

    done.ended()

    [message] = done.llm.sent[0]
    assert message["content"] == [
        {"type": "text", "text": "Help Ana"},
        heard("Only this week.", "Dana Okafor"),
        heard("And in Spanish.", "Marco Ruiz"),
    ]
    assert done.keys() == ["message:m1", "message:m2", "model:1", "result"]
    assert (done.step("message:m1").kind, done.step("message:m1").summary) == (StepKind.MESSAGE, "Only this week.")


def test_a_message_is_delivered_once_behind_the_results_of_the_turn() -> None:
    done = world()
    done.llm.turns = [said_during(done, FIRST, calls(use("look"))), calls(use("look")), says("Done.")]

    done.ended()

    blocks = done.llm.sent[1][2]["content"]
    assert [block["type"] for block in blocks] == ["tool_result", "text"]
    assert blocks[1] == heard("Only this week.", "Dana Okafor")
    assert done.told().count("Only this week.") == 1
    assert_sound(done)


@pytest.mark.parametrize("nth", range(4, 8))
def test_a_message_stays_at_its_place_after_a_crash(nth: int) -> None:
    turns = (calls(use("look")), calls(use("look")), says("Done."))

    def told() -> World:
        done = world()
        done.llm.turns = [turns[0], said_during(done, FIRST, turns[1]), turns[2]]
        return done

    whole, again = told(), told()
    whole.ended()
    again.journal.crash_before = nth
    with pytest.raises(Crash):
        again.advance()
    again.journal.crash_before = None

    again.ended()

    assert again.llm.sent[-1] == whole.llm.sent[-1]
    assert sorted(again.keys()) == sorted(whole.keys())
    assert_sound(again)


def test_a_message_while_the_run_waits_for_a_person_comes_after_the_results() -> None:
    done = world(calls(use("refund")), says("Done."))
    done.parked()
    done.controls.said.append(FIRST)
    done.verdicts.decide(APPROVE)

    done.ended()

    assert [block["type"] for block in done.llm.sent[1][2]["content"]] == ["tool_result", "text"]


def test_a_message_between_two_tries_of_a_call_is_in_the_second() -> None:
    done = world(says("Done."))
    done.llm.errors.append(ModelError("overloaded", "too busy", retryable=True))
    done.parked()
    done.controls.said.append(FIRST)

    done.ended()

    assert "Only this week." in done.told()
    assert_sound(done)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("nth", [2, 3, 4, 99])
def test_a_message_during_the_last_turn_is_answered_too(mode: Mode, nth: int) -> None:
    done = world(mode=mode)
    done.llm.turns = [said_during(done, FIRST, says("Done.")), says("Only this week, then.")]
    done.journal.crash_before = nth
    try:
        done.advance()
    except Crash:
        done.journal.crash_before = None

    assert done.ended().result == "Only this week, then."
    assert done.keys() == ["model:1", "message:m1", "model:2", "result"]
    assert_sound(done)


def test_a_message_after_the_end_changes_nothing() -> None:
    done = world(says("Done."))
    end = done.ended()
    done.controls.said.append(FIRST)

    assert done.ended() == end
    assert done.keys() == ["model:1", "result"]


# --- pause and cancel ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_is_heeded_before_the_first_step(wish: str) -> None:
    done = world(says("Done."), planning=True)
    done.controls.wish = wish

    outcome = done.advance()

    assert outcome == Parked(why="paused") if wish == "pause" else done.step("result").output == ""
    assert done.llm.requests == []


def test_a_cancelled_run_does_nothing_more_and_does_not_wrap_up() -> None:
    done = world(calls(use("look"), use("note"), use("look")))
    done.tool("look").watch = lambda key: setattr(done.controls, "wish", "cancel")

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.CANCELLED, StopReason.CANCELLED)
    assert end.stop_detail == "A person cancelled this run; untouched: the whole task, for no tool was called."
    assert (len(done.tool("look").keys), done.effects()) == (1, [])
    assert len(done.llm.requests) == 1


def test_a_paused_turn_goes_on_where_it_was() -> None:
    done = world(calls(use("look"), use("look"), use("note")), says("Done."))
    done.tool("look").watch = lambda key: setattr(done.controls, "wish", "pause")
    assert done.parked() == Parked(why="paused")
    assert done.keys() == ["model:1", "tool:1:0"]
    assert done.parked() == Parked(why="paused")
    done.tool("look").watch = lambda key: None
    done.controls.wish = None

    assert done.ended().result == "Done."
    assert (len(done.tool("look").keys), done.effects()) == (2, ["shop.note(1)"])
    assert_sound(done)


@pytest.mark.parametrize(
    ("wish", "mode"), [(w, m) for w in ("pause", "cancel") for m in (Mode.INTERACTIVE, Mode.BATCH)]
)
def test_a_wish_holds_back_what_was_approved_but_not_begun(wish: str, mode: Mode) -> None:
    done = world(calls(use("refund", id="1"), use("refund", id="2")), says("All."), says("Done."), mode=mode)
    done.parked()
    done.verdicts.decide(APPROVE)
    done.tool("refund").watch = lambda key: setattr(done.controls, "wish", wish)

    done.advance()

    assert done.effects() == ["shop.refund(1)"]
    assert done.status("1:1") is ActionStatus.APPROVED
    if wish == "pause":
        done.tool("refund").watch = lambda key: None
        done.controls.wish = None
        done.ended()
        assert done.effects() == ["shop.refund(1)", "shop.refund(2)"]
        assert_sound(done)


def test_cancelled_while_a_person_was_to_decide() -> None:
    """The row is withdrawn by whoever cancels; the engine only has to stop."""
    done = world(calls(use("refund")), says("Done."))
    done.parked()
    done.verdicts.decide(ActionStatus.CANCELLED)
    done.controls.wish = "cancel"

    assert done.ended().status is RunStatus.CANCELLED
    assert done.effects() == []
