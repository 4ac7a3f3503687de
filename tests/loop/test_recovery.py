"""Malformed turns: the parser, the layers, and what a run makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runs.engine import recovery
from runs.engine.fakes import FakeTool, calls, says
from runs.engine.policy import route
from runs.engine.ports import ModelError
from runs.engine.recovery import Layer, Streak, Trouble, gentler, lower, trouble_of
from runs.engine.types import (
    Action,
    ActionStatus,
    Call,
    Effect,
    JsonObject,
    ModelReply,
    ModelRequest,
    Policy,
    RunStatus,
    StepKind,
    StepStatus,
    StopReason,
    ToolGrant,
)
from tests.loop.helpers import POLICIES, WAITS, Answer, World, assert_sound, limits, then, use, world

BAD: tuple[str, JsonObject] = ("shop__note", {"wrong": 1})
UNKNOWN: tuple[str, JsonObject] = ("shop__fly", {"id": "1"})
GOOD = use("note")
ASKED, QUESTION = "malformed:3", "question:malformed:3"


# --- the parser of a turn --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reply", "stop_reason", "trouble"),
    [
        (calls(use("look")), "tool_use", None),
        (calls(use("look")), "end_turn", Trouble.NOT_ENDED),
        (calls(use("look")), None, Trouble.NOT_ENDED),
        (calls(use("look")), "max_tokens", Trouble.CUT),
        (calls(use("look")), "refusal", Trouble.REFUSED),
        (calls(use("look")), "model_context_window_exceeded", Trouble.OVERFLOW),
        (says("Done."), "end_turn", None),
        (says("Done."), "tool_use", None),
        (says("Do"), "max_tokens", Trouble.LONG),
        (says(""), "end_turn", Trouble.EMPTY),
        (says(" \n"), "end_turn", Trouble.EMPTY),
        (says(""), "tool_use", Trouble.EMPTY),
        (replace(says(""), content=()), "end_turn", Trouble.EMPTY),
    ],
)
def test_what_is_wrong_with_a_turn(reply: ModelReply, stop_reason: str | None, trouble: Trouble | None) -> None:
    assert trouble_of(replace(reply, stop_reason=stop_reason)) is trouble


# --- the layers alone ------------------------------------------------------------------------------------------------
def test_two_tries_then_simpler_then_from_the_start() -> None:
    streak = Streak()

    assert [streak.failed(["a"]) for _ in range(4)] == [Layer.TELL, Layer.TELL, Layer.SIMPLIFY, Layer.SIMPLIFY]
    streak.worked()
    assert streak.failed(["a"]) is Layer.TELL


def test_another_tool_than_before_is_doubtful() -> None:
    streak = Streak()
    assert streak.doubt(["a"]) == ""

    streak.failed(["shop__pay", ""])

    assert streak.doubt(["shop__wipe"]) == (
        "after a malformed call of an unnamed tool, shop.pay the model called another tool"
    )
    assert streak.doubt(["shop__wipe", "shop__pay"]) == ""


@pytest.mark.parametrize(
    ("effort", "less"),
    [("max", "xhigh"), ("xhigh", "high"), ("high", "medium"), ("medium", "low"), ("low", "low"), (None, None)],
)
def test_one_effort_lower(effort: str | None, less: str | None) -> None:
    assert lower(effort) == less


def test_a_request_is_gentler_after_a_failure_only() -> None:
    request = ModelRequest(model="m", system="", messages=(), effort="high")

    assert gentler(request, 0) is request
    assert gentler(request, 1) == replace(request, effort="medium", temperature=0.0)


def test_the_simplified_request_holds_one_tool_and_forces_it() -> None:
    spec = FakeTool("shop.pay").spec
    base = ModelRequest(model="m", system="long", messages=({"role": "user", "content": []},), effort="high")

    one = recovery.simplified(base, task="Help Ana", plan_step="Pay", tools=[(spec, {"type": "object"})], written="bad")
    several = recovery.simplified(base, task="Help Ana", plan_step="", tools=[(spec, {})] * 2, written="bad")

    assert (one.model, one.effort, one.temperature) == ("m", "medium", 0.0)
    assert one.tool_choice == {"type": "tool", "name": "shop__pay", "disable_parallel_tool_use": True}
    assert [(tool["name"], tool["strict"]) for tool in one.tools] == [("shop__pay", True)]
    [message] = one.messages
    [block] = message["content"]
    assert "Help Ana" in block["text"]
    assert "Pay" in block["text"]
    assert (several.tool_choice or {})["type"] == "any"
    assert "Current step" not in str(several.messages)


def test_what_was_written_is_shown_within_bounds() -> None:
    text = recovery.what_was_written("", {"x": "y" * 9999}, "It is long.")

    assert text.startswith("A call of no named tool could not be used: It is long.")
    assert len(text) < 2500


@pytest.mark.parametrize("known", [True, False])
def test_only_a_call_of_a_known_tool_can_be_corrected(known: bool) -> None:
    question = recovery.malformed_question("3", "shop.pay", known, {"x": 1}, "Wrong.", ["told"])

    assert (question.key, question.tried) == ("malformed:3", ("told",))
    assert (question.tool, question.args) == (("shop.pay", {"x": 1}) if known else ("", None))
    assert ("Correct the call" in question.text) is known
    assert recovery.malformed_question("3", "", False, {}, "", []).title == "A call of an unknown tool does not work"


def test_a_model_that_says_nothing_is_a_question_without_a_call() -> None:
    question = recovery.empty_question(4, ["told"])

    assert (question.key, question.tried, question.tool, question.args) == ("malformed:4", ("told",), "", None)


@pytest.mark.parametrize(("said", "tried"), [("No.", ("It said: No.",)), ("", ())])
def test_a_refusal_is_quoted_and_nobodys_answer_ends_it_as_such(said: str, tried: tuple[str, ...]) -> None:
    question = recovery.refusal_question(2, said)

    assert (question.tried, question.unanswered) == (tried, StopReason.CONTENT_FILTER)


# --- first layer: the model is told, twice ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "bad",
    [
        BAD,
        UNKNOWN,
        ("shop__note", {"id": "1", "extra": 1}),
        ("", {"id": "1"}),
    ],
    ids=["missing", "unknown", "extra", "unnamed"],
)
def test_the_error_goes_back_as_the_calls_result(bad: tuple[str, JsonObject]) -> None:
    done = world(calls(bad), calls(bad), calls(GOOD), says("Done."), effort="high")

    done.to_the_end()

    assert [request.effort for request in done.llm.requests] == ["high", "medium", "medium", "high"]
    assert [request.temperature for request in done.llm.requests] == [None, 0.0, 0.0, None]
    for turn in (1, 2):
        step = done.step(f"malformed-turn:{turn}")
        assert (step.kind, step.attempt) == (StepKind.GUARDRAIL, turn)
        assert done.step(f"tool:{turn}:0").status is StepStatus.ERROR
    assert done.effects() == ["shop.note(1)"]
    assert_sound(done)


@pytest.mark.parametrize("written", ["", '{"id": ', "<html>", None, [1], 7])
def test_input_that_is_no_object_goes_back_too(written: object) -> None:
    reply = calls(GOOD)
    [block] = reply.content
    done = world(replace(reply, content=({**block, "input": written},)), calls(GOOD), says("Done."))

    assert done.ended().stop_reason is StopReason.DONE
    [said] = done.contents()
    assert said.startswith("The input was not a JSON object.")
    assert said.endswith(f"It begins with: {written}") is bool(written and isinstance(written, str))
    assert_sound(done)


def test_good_calls_beside_a_bad_one_are_made() -> None:
    done = world(calls(use("look"), BAD, GOOD), calls(GOOD), says("Done."))

    done.ended()

    assert done.effects() == ["shop.note(1)", "shop.note(1)"]
    assert [result["is_error"] for result in done.results()] == [False, True, False]


@pytest.mark.parametrize("stop_reason", ["max_tokens", "end_turn"])
def test_calls_of_a_broken_turn_are_malformed(stop_reason: str) -> None:
    broken = replace(calls(GOOD), stop_reason=stop_reason)
    done = world(broken, broken, broken, says("Done."))
    done.llm.repair = calls(use("note", id="7"))

    assert done.ended().stop_reason is StopReason.DONE

    assert done.effects() == ["shop.note(7)"]
    assert_sound(done)


# --- another tool than before ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [BAD, UNKNOWN])
def test_valid_json_that_calls_another_tool_is_asked_about(bad: tuple[str, JsonObject]) -> None:
    done = world(calls(bad), calls(use("mail")), says("Done."))

    assert done.advance() == WAITS

    [action] = done.verdicts.waiting()
    assert (action.tool, action.kind) == ("shop.mail", "action")
    assert done.effects() == []


def test_a_read_of_another_tool_is_let_be_and_the_same_tool_too() -> None:
    done = world(calls(BAD), calls(use("look")), calls(BAD), calls(GOOD, use("mail")), says("Done."))

    assert done.ended().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.note(1)", "shop.mail(1)"]


# --- second layer: the call alone ------------------------------------------------------------------------------------
def stuck(*more: Answer, bad: tuple[str, JsonObject] = BAD, **agent: object) -> World:
    return world(calls(bad), calls(bad), calls(bad), *more, says("Done."), **agent)  # type: ignore[arg-type]


def test_the_call_alone_is_asked_for_and_made() -> None:
    done = stuck()
    done.llm.repair = calls(use("note", id="7"))

    assert done.ended().stop_reason is StopReason.DONE

    assert done.effects() == ["shop.note(7)"]
    step = done.step("repair:3")
    assert (step.kind, step.status, step.title) == (StepKind.MODEL, StepStatus.OK, "Ask for this call alone")
    [content] = done.contents(3)
    assert "Your call could not be used; shop.note was called with" in content
    assert [len(request.messages) for request in done.llm.requests][3] == 1
    assert_sound(done)


def test_a_crash_makes_the_mended_call_once() -> None:
    for fuse in range(6, 14):
        done = stuck()
        done.llm.repair = calls(use("note", id="7"))
        done.fuse.left = fuse
        assert done.to_the_end().stop_reason is StopReason.DONE
        assert done.effects() == ["shop.note(7)"]
        assert_sound(done)


def test_after_a_mended_call_the_tries_begin_anew() -> None:
    done = stuck(calls(BAD), calls(GOOD))
    done.llm.repair = calls(use("note", id="7"))

    done.ended()

    assert done.keys("repair:") == ["repair:3"]


def test_for_a_tool_that_does_not_exist_every_tool_is_offered_and_doubted() -> None:
    done = stuck(bad=UNKNOWN)
    done.llm.repair = calls(use("mail"))

    assert done.advance() == WAITS

    [action] = done.verdicts.waiting()
    assert (action.tool, action.kind) == ("shop.mail", "action")
    [request] = [request for request in done.llm.requests if (request.tool_choice or {}).get("type") == "any"]
    assert len(request.tools) == 5


def test_an_agent_without_tools_is_not_offered_any() -> None:
    done = stuck(bad=UNKNOWN, policies={})

    assert done.advance() == WAITS
    assert done.keys("repair:") == []


# --- third layer: a person -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "repair",
    [
        says("I can't."),
        calls(BAD),
        calls(use("mail")),
        calls(GOOD, GOOD),
        calls(GOOD, stop_reason="max_tokens"),
    ],
    ids=["words", "malformed", "another tool", "two", "cut"],
)
def test_what_the_simple_request_does_not_give_a_person_is_asked_for(repair: ModelReply) -> None:
    done = stuck()
    done.llm.repair = repair

    assert done.advance() == WAITS

    question = done.verdicts.questions[ASKED]
    assert (question.tool, question.args) == ("shop.note", {"wrong": 1})
    assert len(question.tried) == 3
    assert done.effects() == []
    assert done.step(f"ask:{ASKED}").title == "Asked a person"


def test_a_simple_request_that_fails_is_a_question_too() -> None:
    done = stuck()
    done.llm.repair = failing

    assert done.advance() == WAITS
    assert done.step("repair:3").status is StepStatus.ERROR


def failing(request: ModelRequest) -> ModelReply:
    raise ModelError("invalid_request", "no such tool choice", retryable=False)


def answered(done: World, text: str = "", args: JsonObject | None = None) -> World:
    assert done.advance() == WAITS
    done.verdicts.answer(ASKED, text, args)
    return done


def test_a_corrected_read_is_made_at_once() -> None:
    bad: tuple[str, JsonObject] = ("shop__look", {})
    done = answered(stuck(bad=bad), args={"id": "7"})

    assert done.ended().stop_reason is StopReason.DONE

    assert len(done.tool("look").keys) == 1
    [content] = done.contents(3)
    assert 'Dana Okafor corrected your call to {"id":"7"}.' in content
    assert_sound(done)


def test_a_corrected_effect_is_shown_to_a_person_before_it_happens() -> None:
    """The answer is no approval: nobody has seen yet what the call would do."""
    done = answered(stuck(), "Mind the id.", {"id": "7"})

    assert done.advance() == WAITS
    assert done.effects() == []
    [action] = done.verdicts.waiting()
    assert (action.kind, action.args) == ("action", {"id": "7"})
    done.verdicts.decide(ActionStatus.APPROVED)
    assert done.ended().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.note(7)"]
    assert "Dana Okafor says: Mind the id." in done.contents(3)[0]
    assert_sound(done)


def test_a_call_whose_input_is_unreadable_can_be_corrected_too() -> None:
    """Its tool is known all the same, and is named as people know it."""
    unreadable = replace(calls(GOOD), content=({**calls(GOOD).content[0], "input": '{"id": 1,, '},))
    done = world(unreadable, unreadable, unreadable, says("Done."))
    done = answered(done, args={"id": "7"})
    [question] = [action for action in done.verdicts.actions.values() if action.kind == "question"]
    assert question.tool == "shop.note"

    assert done.advance() == WAITS
    done.verdicts.decide(ActionStatus.APPROVED)
    assert done.ended().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.note(7)"]
    assert_sound(done)


def test_a_hint_is_the_calls_result_and_the_layers_begin_anew() -> None:
    done = answered(stuck(calls(BAD), calls(GOOD)), "Its id is 1.")

    assert done.ended().stop_reason is StopReason.DONE

    assert "Dana Okafor says: Its id is 1." in done.contents(3)[0]
    assert done.effects() == ["shop.note(1)"]
    assert done.step("malformed-turn:4").attempt == 1
    assert_sound(done)


@pytest.mark.parametrize(
    ("verdict", "detail"),
    [
        (ActionStatus.REJECTED, "Stopped: Dana Okafor ended the run: No use"),
        (ActionStatus.EXPIRED, "Stopped: nobody answered in time: A call of shop.note does not work"),
    ],
)
def test_a_person_stops_the_run(verdict: ActionStatus, detail: str) -> None:
    done = stuck()
    assert done.advance() == WAITS
    done.verdicts.decide(verdict, QUESTION, note="No use.")

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.STOPPED, StopReason.ESCALATION_DECLINED)
    assert end.stop_detail.startswith(detail)
    assert end.result == "wrapped up"
    assert done.effects() == []
    assert_sound(done)


def test_a_tool_that_changed_since_the_answer_is_refused_again() -> None:
    done = answered(stuck(calls(GOOD)), args={"id": "7", "gone": 1})

    assert done.ended().stop_reason is StopReason.DONE
    assert done.step("tool:3:0").status is StepStatus.ERROR


@pytest.mark.parametrize("most", range(6, 12))
def test_at_its_limits_a_run_mends_nothing_and_still_answers_each_call(most: int) -> None:
    done = stuck(limits=limits(max_steps=most))
    done.llm.repair = calls(use("note", id="7"))

    assert done.to_the_end().stop_reason in (StopReason.MAX_STEPS, StopReason.DONE)
    assert done.verdicts.questions == {}

    assert done.journal.spent().steps <= most
    assert_sound(done)


def test_cancelled_while_the_call_alone_is_asked_for() -> None:
    done = stuck()
    done.llm.repair = then(lambda: setattr(done.controls, "wish", "cancel"), says("no"))

    assert done.ended().status is RunStatus.CANCELLED


def test_questions_name_whoever_there_is() -> None:
    done = stuck()
    assert done.advance() == WAITS
    done.verdicts.decide(ActionStatus.REJECTED, QUESTION, by="")
    done.verdicts.actions[QUESTION] = nameless(done.verdicts.actions[QUESTION])

    assert done.ended().stop_detail.startswith("Stopped: a person ended the run")


def nameless(action: Action) -> Action:
    return replace(action, decisions=())


def test_policies_stay_as_they_are_for_doubtful_calls() -> None:
    """Doubt never lets through what a policy forbids, and asks one person where nobody would be asked."""
    done = world(calls(BAD), calls(use("wipe")), says("Done."), policies={**POLICIES, "shop.wipe": Policy.TWO_PERSON})

    assert done.advance() == WAITS


@pytest.mark.parametrize("doubt", ["", "a doubt"])
def test_a_standing_grant_does_not_cover_a_doubtful_call(doubt: str) -> None:
    call = Call(intent="1:0", tool_call_id="c", tool="shop.pay", args={}, confidence=0.9, doubt=doubt)

    chosen = route(call, FakeTool("shop.pay", Effect.WRITE).spec, ToolGrant(name="shop.pay", policy=Policy.REVIEW))

    assert (chosen.outcome, chosen.grantable) == ("ask", not doubt)


def test_a_call_that_a_limit_refused_is_not_mended_once_the_limit_is_raised() -> None:
    """It has its one result already; the model may make it again."""
    done = stuck(calls(GOOD), limits=limits(max_steps=6), raise_limits=True)
    done.llm.repair = calls(use("note", id="7"))

    assert done.to_the_end().stop_reason is StopReason.DONE

    assert done.keys("repair:") == []
    assert done.effects() == ["shop.note(1)"]
    assert_sound(done)
