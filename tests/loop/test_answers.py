"""An agent that has to answer in a form of its own: every answer is held against it, and one that does not fit goes the
way of every malformed turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runs.engine.fakes import calls, says
from runs.engine.types import ActionStatus, JsonObject, Mode, StopReason
from tests.loop.helpers import WAITS, World, assert_sound, limits, use, world

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["order", "amount"],
    "additionalProperties": False,
}
GOOD = json.dumps({"order": "48213", "amount": 84})
BAD = json.dumps({"order": "48213", "amount": "a lot"})
ASKED = "malformed:3"


def with_form(*turns: Any, **more: Any) -> World:
    done = world(*turns, output_schema=SCHEMA, **more)
    done.misfit = misfit
    return done


def misfit(text: str) -> str:
    try:
        answer = json.loads(text)
    except ValueError:
        return "it is not JSON"
    fits = isinstance(answer, dict) and isinstance(answer.get("amount"), int)
    return "" if fits else "the amount is not a number"


def test_the_form_is_asked_for_and_an_answer_in_it_is_the_result() -> None:
    done = with_form(calls(use("look", id="1")), says(GOOD))

    assert done.ended().result == GOOD
    assert [request.output_schema for request in done.llm.requests] == [SCHEMA, SCHEMA]
    assert_sound(done)


@pytest.mark.parametrize("bad", ["84 dollars for order 48213.", BAD, "[]", "{", f"```json\n{GOOD}\n```"])
def test_an_answer_in_another_form_is_given_anew(bad: str) -> None:
    done = with_form(says(bad), says(GOOD))

    ended = done.ended()
    assert (ended.stop_reason, ended.result) == (StopReason.DONE, GOOD)
    told = json.dumps(done.llm.sent[-1][-1])
    assert "has not the form that is asked for" in told
    assert "required" in told
    assert done.step("malformed-turn:1").attempt == 1
    assert_sound(done)


def test_who_does_not_learn_it_is_helped_by_a_person() -> None:
    done = with_form(says(BAD), says(BAD), says(BAD), says(GOOD))
    assert done.advance() == WAITS
    [question] = done.verdicts.waiting()
    assert question.kind == "question"
    done.verdicts.answer(ASKED, "The amount is a number.")

    assert done.ended().result == GOOD
    assert "Dana Okafor says: The amount is a number." in json.dumps(done.llm.sent[-1])
    assert_sound(done)


def test_or_stopped_by_one() -> None:
    done = with_form(says(BAD), says(BAD), says(BAD))
    assert done.advance() == WAITS
    done.verdicts.decide(ActionStatus.REJECTED)

    assert done.ended().stop_reason is StopReason.ESCALATION_DECLINED


def test_what_is_said_before_the_queue_is_settled_need_have_no_form() -> None:
    done = with_form(calls(use("refund", id="1")), says("One refund waits."), says(GOOD), mode=Mode.BATCH)
    assert done.advance() == WAITS
    done.verdicts.decide(ActionStatus.APPROVED)

    assert done.ended().result == GOOD
    assert_sound(done)


def test_what_a_stopped_run_says_at_last_is_not_sent_back() -> None:
    done = with_form(calls(use("look", id="1")), limits=limits(max_steps=3))
    done.llm.wrap_up = says("So far nothing.")

    ended = done.ended()
    assert (ended.stop_reason, ended.result) == (StopReason.MAX_STEPS, "So far nothing.")


def test_a_crash_changes_nothing_of_it() -> None:
    for steps in range(1, 6):
        done = with_form(says(BAD), says(GOOD))
        done.fuse.left = steps
        assert done.to_the_end().result == GOOD
        assert_sound(done)
