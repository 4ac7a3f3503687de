"""Delegation: children are started once, side by side, waited for, and answer their call with one result."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from runs.engine.budget import RESULT_TOKENS, TOLD_TOKENS, WRAP_UP_TOKENS
from runs.engine.delegating import DEEPEST, MOST_AT_ONCE, Delegate, budget_of
from runs.engine.fakes import Crash, calls, says
from runs.engine.ports import InvalidArguments
from runs.engine.types import ActionStatus, JsonObject, Parked, RunStatus, StepKind, StepStatus, StopReason, Usage
from tests.loop.helpers import Answer, World, assert_each_call_has_one_result, limits, use, world

AGENTS = (("searcher", "Finds sources."), ("summariser", ""))
WAITS = Parked(why="children")


def boss(*turns: Answer, ancestors: tuple[str, ...] = (), **also: Any) -> World:
    made = world(*turns, subagents=tuple(slug for slug, _ in AGENTS), **also)
    return replace(made, run=replace(made.run, subagents=AGENTS, ancestors=ancestors))


def delegate(agent: str = "searcher", task: str = "Find it.", **also: Any) -> tuple[str, JsonObject]:
    return "delegate", {"agent": agent, "task": task, **also}


def test_two_in_one_turn_run_side_by_side_and_answer_in_the_models_order() -> None:
    done = boss(calls(delegate(), delegate("summariser", "Sum it up.", budget=0.25)), says("Both answered."))

    assert done.parked() == WAITS
    assert done.children.asked == [("searcher", "Find it.", None), ("summariser", "Sum it up.", Decimal("0.25"))]
    done.children.end("1:1", result="Short.")
    assert done.parked() == WAITS
    done.children.end("1:0", result="Found.")
    end = done.ended()

    assert end.stop_reason is StopReason.DONE
    assert [json.loads(text)["answer"] for text in done.contents()] == ["Found.", "Short."]
    assert [(s.key, s.kind, s.child_run) for s in done.steps() if s.child_run] == [
        ("delegate:1:0", StepKind.DELEGATE, "child-1:0"),
        ("delegate:1:1", StepKind.DELEGATE, "child-1:1"),
        ("tool:1:0", StepKind.TOOL, "child-1:0"),
        ("tool:1:1", StepKind.TOOL, "child-1:1"),
    ]
    assert_each_call_has_one_result(done.llm.conversations()[-1])


@pytest.mark.parametrize("status", [RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_a_child_that_gives_up_is_told_with_its_reason(status: RunStatus) -> None:
    done = boss(calls(delegate()), says("It failed."))
    done.parked()
    done.children.end("1:0", status, result="", why="Stopped: the limit of 3 steps is reached.")
    done.ended()

    assert done.results()[0]["is_error"]
    assert json.loads(done.contents()[0])["why"] == "Stopped: the limit of 3 steps is reached."
    assert done.step("tool:1:0").status is StepStatus.ERROR


@pytest.mark.parametrize("crash", range(1, 9))
def test_a_crash_anywhere_starts_no_child_twice(crash: int) -> None:
    done = boss(calls(delegate(), delegate("summariser")), says("Done."))
    done.fuse.left = crash
    for _ in range(6):
        try:
            outcome = done.advance()
        except Crash:
            continue
        if outcome != WAITS:
            break
        for intent in ("1:0", "1:1"):
            done.children.end(intent)

    assert done.journal.recorded("result") is not None
    assert len(done.children.asked) == 2


def test_reads_and_effects_of_the_same_turn_go_on_while_children_work() -> None:
    done = boss(calls(use("look"), delegate(), use("note")), says("Done."))

    assert done.parked() == WAITS
    assert done.effects() == ["shop.note(1)"]
    done.children.end("1:1")
    done.ended()
    assert [block["tool_use_id"] for block in done.results()] == [
        done.step(f"tool:1:{index}").tool_call_id for index in range(3)
    ]


def test_more_than_allowed_at_once_are_refused() -> None:
    done = boss(calls(*[delegate(task=f"Part {n}.") for n in range(MOST_AT_ONCE + 2)]), says("Done."))
    done.parked()
    for number in range(MOST_AT_ONCE):
        done.children.end(f"1:{number}")
    done.ended()

    assert len(done.children.asked) == MOST_AT_ONCE
    assert [s.status for s in done.steps() if s.tool == "delegate"].count(StepStatus.DENIED) == 2


@pytest.mark.parametrize(
    ("ancestors", "offered"),
    [
        ((), ["searcher", "summariser"]),
        (("searcher",), ["summariser"]),
        (("searcher", "summariser"), []),
        (("other",) * DEEPEST, []),
    ],
    ids=["first", "a cycle is not offered", "none is left", "too deep"],
)
def test_who_may_be_asked(ancestors: tuple[str, ...], offered: list[str]) -> None:
    done = boss(says("Done."), ancestors=ancestors)
    done.ended()
    (request,) = done.llm.requests
    tool = next((tool for tool in request.tools if tool["name"] == "delegate"), None)
    assert (tool["input_schema"]["properties"]["agent"]["enum"] if tool else []) == offered


def test_a_call_of_a_sub_agent_that_is_not_there_starts_nothing() -> None:
    done = boss(calls(delegate("stranger")), says("Done."))
    done.ended()
    assert done.children.asked == []
    assert done.results()[0]["is_error"]


def test_an_agent_without_sub_agents_has_no_such_tool() -> None:
    done = world(calls(delegate()), says("Done."))
    done.ended()
    assert "There is no tool named 'delegate'" in done.contents()[0]


def test_cancel_while_children_work() -> None:
    done = boss(calls(delegate()), says("Done."))
    done.parked()
    done.controls.wish = "cancel"
    assert done.ended().status is RunStatus.CANCELLED


def test_a_step_is_kept_for_each_answer() -> None:
    """Model, start, answer and the wrap-up: a limit of four steps leaves room for just that."""
    done = boss(calls(delegate()), says("Done."), limits=limits(max_steps=4))
    done.parked()
    done.children.end("1:0")
    end = done.ended()
    assert end.stop_reason in (StopReason.DONE, StopReason.MAX_STEPS)
    assert done.journal.spent().steps <= 4


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"agent": "searcher"}, "task"),
        ({"agent": "searcher", "task": " "}, "task"),
        ({"agent": "searcher", "task": "x" * 200_000}, "task"),
        ({"agent": "nobody", "task": "x"}, "agent"),
        ({"agent": "searcher", "task": "x", "budget": 0}, "budget"),
        ({"agent": "searcher", "task": "x", "budget": "0.5"}, "budget"),
        ({"agent": "searcher", "task": "x", "budget": float("nan")}, "budget"),
        ({"agent": "searcher", "task": "x", "budget": True}, "budget"),
        ({"agent": "searcher", "task": "x", "mode": "auto"}, "mode"),
    ],
)
def test_what_does_not_fit_is_refused(args: JsonObject, field: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        Delegate(AGENTS).validate(args)
    assert [name for name, _ in refused.value.errors] == [field]


def test_budgets_are_exact() -> None:
    assert budget_of({"budget": 0.1}) == Decimal("0.1")
    assert budget_of({}) is None


@pytest.mark.parametrize("first", [True, False], ids=["delegated first", "effect first"])
def test_no_child_starts_while_a_person_decides_on_the_same_turn(first: bool) -> None:
    turn = [delegate(), use("refund")] if first else [use("refund"), delegate()]
    done = boss(calls(*turn), says("Done."))
    child = "1:0" if first else "1:1"

    assert done.parked() == Parked(why="approval")
    assert done.children.asked == []
    done.verdicts.decide(ActionStatus.APPROVED)
    assert done.parked() == WAITS
    assert done.effects() == ["shop.refund(1)"]
    done.children.end(child, result="Found.")

    assert done.ended().stop_reason is StopReason.DONE
    assert_each_call_has_one_result(done.llm.conversations()[-1])


def test_a_person_who_says_no_says_no_to_what_the_turn_would_hand_on() -> None:
    done = boss(calls(use("refund"), delegate()), says("I see."))
    done.parked()
    done.verdicts.decide(ActionStatus.REJECTED, note="Not this one.")

    assert done.ended().stop_reason is StopReason.DONE
    assert done.children.asked == []
    assert "a person rejected" in done.contents()[1]
    assert done.step("tool:1:1").status is StepStatus.DENIED


def test_past_a_limit_nothing_is_started_and_each_call_is_answered() -> None:
    done = boss(calls(delegate(), delegate("summariser")), says("Done."), limits=limits(max_steps=2))
    end = done.ended()
    assert (end.stop_reason, done.children.asked) == (StopReason.MAX_STEPS, [])
    assert_each_call_has_one_result(done.llm.conversations()[-1])


def test_what_a_run_needs_to_answer_is_kept_from_the_runs_it_starts() -> None:
    """Its conversation so far as it was billed, room for each answer, and the last reply."""
    turn = calls(delegate(), delegate("summariser", "Sum it up."))
    done = boss(replace(turn, usage=Usage(input_tokens=700, output_tokens=90)))
    done.parked()

    [kept, _] = done.children.kept
    assert (kept.input_tokens, kept.output_tokens) == (700 + 90 + 2 * RESULT_TOKENS + TOLD_TOKENS, WRAP_UP_TOKENS)
    assert kept.usd == done.budget.worst_price("fake", kept.input_tokens, kept.output_tokens)
