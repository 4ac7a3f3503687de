"""Each call of a turn gets exactly one result, whatever happened (invariant 11)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from runs.engine.fakes import calls, says
from runs.engine.ports import PlanRefused, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import (
    ActionStatus,
    JsonObject,
    Mode,
    ModelReply,
    RunStatus,
    StepKind,
    StepStatus,
    StopReason,
    ToolResult,
)
from tests.loop.helpers import WAITS, assert_sound, limits, use, world


def raw(given: Any, name: str = "shop__look") -> ModelReply:
    """A turn with one call whose input is exactly `given`."""
    block = {"type": "tool_use", "id": "toolu_raw", "name": name, "input": given}
    return replace(calls(), content=(block,))


# --- calls that can't be made ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("turn", "says_so"),
    [
        (calls(("shop__fly", {"id": "1"})), "There is no tool named 'shop__fly'. Tools: shop__look, "),
        (calls(("", {"id": "1"})), "There is no tool named ''"),
        (calls(("shop__look", {})), "The arguments do not fit: id: is required."),
        (calls(use("look", colour="red")), "The arguments do not fit: colour: is not known."),
        (calls(("shop__refund", {})), "The arguments do not fit: id: is required."),
        (raw("not an object"), "The input was not a JSON object."),
        (raw(None), "The input was not a JSON object."),
        (raw([1]), "The input was not a JSON object."),
    ],
)
def test_a_call_that_cannot_be_made_is_answered(turn: ModelReply, says_so: str) -> None:
    done = world(turn, says("I see."))

    assert done.ended().result == "I see."

    [result] = done.results()
    assert result["is_error"] is True
    assert result["content"].startswith(says_so)
    assert done.step("tool:1:0").status is StepStatus.ERROR
    assert done.verdicts.actions == {}
    assert not any(tool.keys for tool in done.tools.values())
    assert_sound(done)


@pytest.mark.parametrize(
    "confidence", [math.nan, math.inf, -0.1, 1.1, "0.99", None, True, 10**400], ids=lambda value: str(value)[:9]
)
def test_an_unusable_confidence_goes_to_a_person(confidence: object) -> None:
    done = world(calls(use("note", confidence=confidence)), says("Done."))

    assert done.parked() == WAITS
    assert done.effects() == []

    done.to_the_end()
    assert done.effects() == ["shop.note(1)"]
    assert_sound(done)


def test_an_unusable_confidence_does_not_stop_a_read() -> None:
    done = world(calls(use("look", confidence=math.nan)), says("Done."))

    done.ended()

    assert done.contents() == ['{"ok":true}']
    assert done.step("tool:1:0").confidence is None


# --- reads that fail -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (ToolResult(content="no such order", is_error=True), StepStatus.ERROR, "no such order"),
        (ToolTimeout("late"), StepStatus.TIMEOUT, "The tool did not answer in time: late (tried 3 times)"),
        (ToolUnavailable("down"), StepStatus.ERROR, "The tool is unavailable: down (tried 3 times)"),
        (ToolConnectionLost("cut"), StepStatus.ERROR, "The tool is unavailable: cut (tried 3 times)"),
    ],
)
def test_a_read_that_fails_is_told(answer: ToolResult | Exception, status: StepStatus, text: str) -> None:
    done = world(calls(use("look")), says("I see."))
    done.tool("look").answers.extend([answer] * 3)

    done.to_the_end()

    step = done.step("tool:1:0")
    assert (step.status, step.error) == (status, text)
    assert (done.results()[0]["is_error"], done.contents()) == (True, [text])


def test_a_grant_may_set_the_timeout() -> None:
    done = world(calls(use("look"), use("note")), says("Done."))
    grants = tuple(
        replace(grant, timeout_s=2.5) if grant.name == "shop.look" else grant for grant in done.run.agent.tools
    )
    done.run = replace(done.run, agent=replace(done.run.agent, tools=grants))

    done.ended()

    assert (done.tool("look").timeouts, done.tool("note").timeouts) == ([2.5], [30.0])


# --- effects that fail -----------------------------------------------------------------------------------------------
def test_an_effect_that_was_refused_is_told_and_settled() -> None:
    done = world(calls(use("note")), says("I see."))
    done.tool("note").answers.append(ToolResult(content="already paid", is_error=True))

    done.ended()

    assert done.status("1:0") is ActionStatus.FAILED
    assert done.verdicts.actions["1:0"].result == "already paid"
    assert (done.results()[0]["is_error"], done.contents()) == (True, ["already paid"])


@pytest.mark.parametrize("name", ["note", "mail"])
def test_an_effect_that_never_reached_its_tool_failed_for_sure(name: str) -> None:
    done = world(calls(use(name)), says("I see."))
    done.tool(name).answers.extend([ToolUnavailable("down")] * (3 if name == "note" else 1))

    done.to_the_end()

    assert done.effects() == []
    assert done.status("1:0") is ActionStatus.FAILED
    assert done.verdicts.batches == {}, "nothing happened for sure, so nobody is asked"
    assert done.contents() == ["The tool is unavailable: down"]


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (PlanRefused("no such order"), "Not done: the tool would refuse it: no such order"),
        (ToolTimeout("late"), "Not done: the tool is unavailable: late"),
        (ToolUnavailable("down"), "Not done: the tool is unavailable: down"),
        (ToolConnectionLost("cut"), "Not done: the tool is unavailable: cut"),
    ],
)
def test_what_the_tool_would_refuse_is_asked_of_nobody(refusal: Exception, text: str) -> None:
    done = world(calls(use("refund")), says("I see."))
    done.tool("refund").refuses_to_plan = refusal

    done.ended()

    assert done.contents() == [text]
    assert done.step("tool:1:0").status is StepStatus.DENIED
    assert done.verdicts.actions == {}


# --- turns that did not end to use tools -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("stop_reason", "goes_on"),
    [
        ("end_turn", "Go on."),
        ("stop_sequence", "Go on."),
        (None, "Go on."),
        ("max_tokens", "Your last turn was cut off by its token limit. Go on, more briefly."),
    ],
)
def test_calls_of_a_turn_that_did_not_end_to_use_tools_are_not_made(stop_reason: str | None, goes_on: str) -> None:
    cut = replace(calls(use("note"), use("look"), use("refund")), stop_reason=stop_reason)
    done = world(cut, says("Done."))

    assert done.ended().result == "Done."

    assert not any(tool.keys for tool in done.tools.values())
    assert done.verdicts.actions == {}
    cut_off = "Not done: the turn was cut off by its token limit, so this call may be incomplete."
    not_ended = "Not done: the turn did not end in order to use tools."
    assert done.contents() == [cut_off if stop_reason == "max_tokens" else not_ended] * 3
    assert done.llm.conversations()[-1][-1]["content"][-1] == {"type": "text", "text": goes_on}
    assert_sound(done)


def test_a_cut_answer_is_continued() -> None:
    done = world(says("The first ha", stop_reason="max_tokens"), says("lf and the rest."))

    assert done.ended().result == "lf and the rest."


def test_a_turn_for_tools_without_calls_is_an_answer() -> None:
    assert world(says("Nothing to do.", stop_reason="tool_use")).ended().result == "Nothing to do."


@pytest.mark.parametrize("stop_reason", ["model_context_window_exceeded"])
@pytest.mark.parametrize("turn", [calls(use("note")), says("Half of")])
def test_a_turn_that_outgrew_the_model_stops_the_run_without_another_call(stop_reason: str, turn: ModelReply) -> None:
    done = world(replace(turn, stop_reason=stop_reason))

    end = done.ended()

    assert (end.status, end.stop_reason) == (RunStatus.STOPPED, StopReason.CONTENT_FILTER)
    assert stop_reason in end.stop_detail
    assert len(done.llm.requests) == 1
    assert done.effects() == []


# --- turns with many calls -------------------------------------------------------------------------------------------
def test_results_stand_in_the_models_order_whatever_became_of_each() -> None:
    turn = calls(
        use("note", id="1"),
        ("shop__fly", {}),
        use("look", id="2"),
        use("refund", id="3"),
        ("shop__mail", {}),
        use("look", id="4"),
    )
    done = world(turn, says("Done."))
    done.tool("look").answers += [*[ToolTimeout("late")] * 3, ToolResult(content="fine")]

    done.to_the_end()

    assert [result["tool_use_id"] for result in done.results()] == [block["id"] for block in turn.tool_uses]
    assert [result["is_error"] for result in done.results()] == [False, True, True, False, True, False]
    assert_sound(done)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_same_call_twice_in_a_turn_is_two_actions(mode: Mode) -> None:
    done = world(calls(use("note"), use("note")), says("Done."), mode=mode)

    done.to_the_end()

    assert len(done.results()) == 2
    assert set(done.verdicts.actions) == {"1:0", "1:1"}
    assert len(done.effects()) == (0 if mode is Mode.DRY_RUN else 2)


@pytest.mark.parametrize(
    "call", [use("look"), use("note"), use("refund"), ("shop__fly", {}), ("shop__look", {})], ids=str
)
def test_calls_past_a_limit_are_answered_too(call: tuple[str, JsonObject]) -> None:
    done = world(calls(use("look"), call, call), limits=limits(max_steps=3))

    end = done.ended()

    assert end.stop_reason is StopReason.MAX_STEPS
    assert done.contents()[1:] == ["Not done: the limit of 3 steps is reached."] * 2
    assert done.step("tool:1:1").kind is StepKind.GUARDRAIL
    assert done.journal.spent().steps <= 3
    assert_sound(done)


def test_tools_are_offered_under_names_without_dots_and_ask_for_reasons() -> None:
    done = world(says("Hello."))

    done.ended()

    names = [tool["name"] for tool in done.llm.requests[0].tools]
    assert names == ["shop__look", "shop__note", "shop__mail", "shop__refund", "shop__wipe"]
    assert {"reasoning", "confidence", "id"} == set(done.llm.requests[0].tools[0]["input_schema"]["required"])
