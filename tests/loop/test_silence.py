"""Turns without a call that is made: a silent model, a model that refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runs.engine.fakes import calls, says
from runs.engine.types import ActionStatus, ModelReply, RunStatus, StopReason
from tests.loop.helpers import WAITS, World, assert_sound, use, world

GOOD = use("note")
ASKED = "malformed:3"


# --- empty turns -----------------------------------------------------------------------------------------------------
def silent(*replies: ModelReply) -> World:
    """A model that gives these one after the other: an empty turn leaves no message by which to count."""
    line = iter(replies)
    return world(*[lambda request: next(line)] * 9)


def test_a_silent_model_is_told_twice_and_may_go_on() -> None:
    done = silent(says(""), says(""), says("Done."))

    assert done.ended().result == "Done."

    assert done.keys("malformed-turn:") == ["malformed-turn:1", "malformed-turn:2"]
    assert done.told().count("Your last turn was empty") == 2
    assert_sound(done)


def test_then_it_is_asked_for_words_without_tools() -> None:
    done = silent(says(""), says(""), says(""))
    done.llm.repair = says("All is done.")

    assert done.ended().result == "All is done."

    assert done.llm.requests[-1].tool_choice == {"type": "none"}
    assert done.step("repair:3").title == "Ask for an answer in words"
    assert_sound(done)


def test_then_a_person_is_asked() -> None:
    done = silent(says(""), says(""), says(""), says("Done."))
    done.llm.repair = says("")
    assert done.advance() == WAITS
    assert done.verdicts.questions[ASKED].title == "The agent says nothing"
    done.verdicts.answer(ASKED, "Look at ticket 9.")
    line = iter([says("Done.")])
    done.llm.turns = [lambda request: next(line)] * 9

    assert done.ended().result == "Done."

    assert "Dana Okafor says: Look at ticket 9." in done.told()
    assert_sound(done)


def test_without_tools_the_words_are_asked_for_all_the_same() -> None:
    line = iter([says(""), says(""), says("")])
    done = world(*[lambda request: next(line)] * 9, policies={})
    done.llm.repair = says("unused")

    done.llm.turns = [lambda request: next(line, says("In words."))] * 9
    assert done.ended().result == "In words."
    assert done.llm.requests[-1].tool_choice is None


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turn", [calls(GOOD), says("I will not.")])
def test_a_model_that_refuses_makes_a_question(turn: ModelReply) -> None:
    line = iter([replace(turn, stop_reason="refusal")])
    done = world(lambda request: next(line, says("Done.")))

    assert done.advance() == WAITS

    assert done.effects() == []
    assert done.verdicts.questions["refused:1"].title == "The model refused to go on"
    done.verdicts.answer("refused:1", "It is our own shop.")
    assert done.ended().result == "Done."
    assert "Dana Okafor says: It is our own shop." in done.told()
    assert "I will not." not in done.told()
    assert_sound(done)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (ActionStatus.REJECTED, StopReason.ESCALATION_DECLINED),
        (ActionStatus.EXPIRED, StopReason.CONTENT_FILTER),
    ],
)
def test_a_refusal_that_nobody_resolves_ends_the_run(verdict: ActionStatus, reason: StopReason) -> None:
    done = world(says("I will not.", stop_reason="refusal"))
    assert done.advance() == WAITS
    done.verdicts.decide(verdict, "question:refused:1")

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.STOPPED, reason)
