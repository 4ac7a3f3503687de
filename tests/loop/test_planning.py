"""The plan: asked for first, marked by the evaluator, never the reason for a failed run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runs.engine import planning
from runs.engine.context import NOTICE
from runs.engine.fakes import calls, says
from runs.engine.ports import ModelError
from runs.engine.types import JsonObject, RunStatus, StepKind, StepStatus, StopReason
from tests.loop.helpers import limits, use, world


def plan_text(*titles: str) -> str:
    assumptions = [{"text": "The order is there.", "check": "Look it up."}]
    return json.dumps(
        {"steps": [{"title": title, "needs_person": True, "assumptions": assumptions} for title in titles]}
    )


def statuses(plan: JsonObject | None) -> list[str]:
    assert plan is not None
    return [step["status"] for step in plan["steps"]]


# --- in a run --------------------------------------------------------------------------------------------------------
def test_a_plan_is_made_before_the_first_decision() -> None:
    done = world(calls(use("look")), says("Done."), planning=True)
    done.llm.plan = says(plan_text("Look", "Refund"))

    done.ended()

    step = done.step("plan")
    assert done.keys()[0] == "plan"
    assert (step.kind, step.status, step.summary) == (StepKind.PLAN, StepStatus.OK, "2 steps: Look; Refund")
    assert statuses(step.plan) == ["running", "not_started"]
    assert done.step("model:1").plan_step == 0
    assert done.step("tool:1:0").plan_step == 0
    assert statuses(done.journal.plan) == ["done", "done"]


def test_the_planner_is_told_of_the_task_and_the_tools_but_has_none() -> None:
    done = world(says("Done."), planning=True)

    done.ended()

    request = done.llm.requests[0]
    assert request.output_schema == planning.PLAN_SCHEMA
    assert request.tools == ()
    text = request.messages[0]["content"][0]["text"]
    assert "Help Ana" in text
    assert "shop.look" in text
    assert "shop.ban" not in text


def test_the_plan_follows_the_task_in_the_conversation() -> None:
    done = world(says("Done."), planning=True)
    done.llm.plan = says(plan_text("Look"))

    done.ended()

    [message] = done.llm.sent[1]
    task, plan = (block["text"] for block in message["content"])
    assert task == "Help Ana"
    assert plan.startswith(NOTICE)
    assert "1. Look\n   assumes: The order is there." in plan


def test_without_planning_nobody_plans() -> None:
    done = world(says("Done."))

    done.ended()

    assert done.keys("plan") == []
    assert done.journal.plan is None


BAD_PLANS = [
    "no JSON",
    "",
    "[]",
    "{}",
    '{"steps": []}',
    '{"steps": "look"}',
    '{"steps": ["look"]}',
    '{"steps": [{"title": " "}]}',
    '{"steps": [{}]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", BAD_PLANS, ids=lambda text: text[:20])
def test_a_plan_that_is_none_leaves_the_run_without_one(text: str) -> None:
    done = world(calls(use("look")), says("Done."), planning=True)
    done.llm.plan = says(text)

    assert done.ended().status is RunStatus.COMPLETED

    step = done.step("plan")
    assert step.status is StepStatus.ERROR
    assert step.error.startswith("No usable plan: ")
    assert step.plan is None
    assert done.step("model:1").plan_step is None


@pytest.mark.parametrize(
    ("error", "parks"),
    [(ModelError("invalid_request", "no", retryable=False), 0), (ModelError("overloaded", "busy", retryable=True), 2)],
)
def test_a_planner_that_fails_leaves_the_run_without_a_plan(error: ModelError, parks: int) -> None:
    done = world(says("Done."), planning=True)
    done.llm.errors.extend([error] * (parks + 1))
    for _ in range(parks):
        assert done.parked().why == "retry"

    assert done.ended().result == "Done."
    assert (done.step("plan").status, done.step("plan").error) == (StepStatus.ERROR, error.detail)


def test_no_room_for_a_plan_stops_the_run() -> None:
    done = world(planning=True, limits=limits(max_steps=1))

    assert done.ended().stop_reason is StopReason.MAX_STEPS
    assert done.keys("plan") == []


def test_a_stopped_run_leaves_its_open_steps_unbegun() -> None:
    done = world(calls(use("look")), planning=True, limits=limits(max_steps=4))
    done.llm.plan = says(plan_text("Look", "Refund"))

    end = done.ended()

    assert statuses(done.journal.plan) == ["not_started", "not_started"]
    assert end.stop_detail == (
        "Stopped: the limit of 4 steps is reached; half done: “Look”; untouched: “Refund”; perhaps because the task is "
        "ambiguous (it has only 2 words)."
    )


# --- reading and marking ---------------------------------------------------------------------------------------------
def test_what_is_read_is_bounded() -> None:
    plan = planning.read_plan(plan_text(*["x" * 500] * 30))

    assert len(plan["steps"]) == planning.MOST_STEPS
    assert len(plan["steps"][0]["title"]) == 200


@pytest.mark.parametrize("assumptions", [None, "none", [], [1], [{}], [{"text": ""}]])
def test_assumptions_may_be_missing(assumptions: Any) -> None:
    text = json.dumps({"steps": [{"title": "Look", "assumptions": assumptions}]})

    [step] = planning.read_plan(text)["steps"]

    assert step == {"title": "Look", "status": "running", "needs_person": False, "assumptions": []}


def test_marking_moves_on_and_changes_no_plan_in_place() -> None:
    plan = planning.read_plan(plan_text("A", "B", "C"))

    marked = planning.mark(plan, done=[0, 2], assumptions=[{"step": 1, "assumption": 0, "status": "held"}])

    assert statuses(marked) == ["done", "running", "done"]
    assert marked["steps"][1]["assumptions"][0]["status"] == "held"
    assert statuses(plan) == ["running", "not_started", "not_started"]
    assert plan["steps"][1]["assumptions"][0]["status"] == "not_checked"


@pytest.mark.parametrize("done", [[-1], [3], [99]])
def test_marking_what_is_not_there_marks_nothing(done: list[int]) -> None:
    plan = planning.read_plan(plan_text("A", "B", "C"))
    strays = [{"step": step, "assumption": one, "status": "held"} for step, one in [(-1, 0), (9, 0), (0, -1), (0, 9)]]

    assert planning.mark(plan, done=done, assumptions=strays) == plan


def test_the_current_step_is_the_first_that_is_not_done() -> None:
    plan = planning.read_plan(plan_text("A", "B"))

    assert planning.current_step(None) is None
    assert planning.current_step(plan) == 0
    assert planning.current_step(planning.mark(plan, done=[0])) == 1
    assert planning.current_step(planning.mark(plan, done=[0, 1])) is None


def test_ended_plans() -> None:
    plan = planning.mark(planning.read_plan(plan_text("A", "B", "C")), done=[0])

    assert statuses(planning.mark_ended(plan, finished=True)) == ["done"] * 3
    assert statuses(planning.mark_ended(plan, finished=False)) == ["done", "not_started", "not_started"]
    assert planning.mark_ended(None, finished=True) is None
