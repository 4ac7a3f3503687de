"""The judge: known-good and known-bad verdicts, what they mark, and that a failing judge fails no run."""

from __future__ import annotations

from typing import Any

import pytest

from runs.engine.fakes import calls, says
from runs.engine.ports import ModelError
from runs.engine.types import Mode, RunStatus, StepKind, StepStatus, StopReason
from tests.engine.test_evaluators import BAD, verdict
from tests.loop.helpers import limits, then, use, world
from tests.loop.test_planning import plan_text, statuses


# --- in a run --------------------------------------------------------------------------------------------------------
def test_every_step_is_scored_and_the_plan_marked() -> None:
    done = world(calls(use("look")), says("Done."), planning=True, evaluation="every_step")
    done.llm.plan = says(plan_text("Look", "Refund"))
    marks = [{"step": 0, "assumption": 0, "status": "held"}]
    done.llm.judge = says(verdict(plan_steps_done=[0], assumptions=marks))

    done.ended()

    assert done.keys() == ["plan", "model:1", "tool:1:0", "evaluate:1", "model:2", "evaluate:final", "result"]
    step = done.step("evaluate:1")
    assert (step.kind, step.score, step.summary) == (StepKind.EVALUATE, 0.8, "It looked.")
    assert statuses(step.plan) == ["done", "running"]
    assert step.plan is not None
    assert step.plan["steps"][0]["assumptions"][0]["status"] == "held"
    assert step.plan["steps"][0]["actual"] == "It looked."
    assert (step.plan_step, done.step("model:2").plan_step) == (0, 1)


@pytest.mark.parametrize(
    ("evaluation", "keys"),
    [("off", []), ("final", ["evaluate:final"]), ("every_step", ["evaluate:1", "evaluate:final"])],
)
def test_how_often_is_the_agents_choice(evaluation: str, keys: list[str]) -> None:
    done = world(calls(use("look")), says("Done."), evaluation=evaluation)
    done.llm.judge = says(verdict())

    done.ended()

    assert done.keys("evaluate") == keys


def test_the_results_of_a_queue_are_judged_too() -> None:
    done = world(calls(use("refund")), says("All."), says("Done."), mode=Mode.BATCH, evaluation="every_step")
    done.llm.judge = says(verdict())

    done.to_the_end()

    assert done.keys("evaluate") == ["evaluate:1", "evaluate:2", "evaluate:final"]


def test_the_judge_sees_what_happened_and_no_tools() -> None:
    done = world(calls(use("look", id="77")), says("Done."), evaluation="every_step")

    done.ended()

    request = done.llm.requests[1]
    assert request.tools == ()
    assert '"id": "77"' in request.messages[0]["content"][0]["text"]


@pytest.mark.parametrize("text", BAD[:6], ids=lambda text: text[:30])
def test_a_judge_that_makes_no_sense_fails_no_run(text: str) -> None:
    done = world(calls(use("look")), says("Done."), planning=True, evaluation="every_step")
    done.llm.plan, done.llm.judge = says(plan_text("Look")), says(text)

    assert done.ended().status is RunStatus.COMPLETED

    step = done.step("evaluate:1")
    assert (step.status, step.score) == (StepStatus.ERROR, None)
    assert step.error.startswith("No usable verdict: ")
    assert statuses(step.plan) == ["running"]


@pytest.mark.parametrize("retryable", [True, False])
def test_a_judge_that_is_away_fails_no_run(retryable: bool) -> None:
    done = world(calls(use("look")), says("Done."), evaluation="every_step")

    def away(request: object) -> Any:
        raise ModelError("overloaded", "busy", retryable=retryable, retry_after_s=1)

    done.llm.judge = away

    assert done.to_the_end().status is RunStatus.COMPLETED
    assert len(done.keys("evaluate:1")) == (3 if retryable else 1)
    assert done.step("evaluate:1").error == "busy"


def test_without_room_for_a_judge_the_work_goes_on() -> None:
    done = world(calls(use("look")), says("Done."), evaluation="every_step", limits=limits(max_steps=4))
    done.llm.judge = says(verdict())

    done.ended()

    assert done.keys() == ["model:1", "tool:1:0", "evaluate:1", "stopped", "wrap_up", "result"]

    tight = world(says("Done."), evaluation="final", limits=limits(max_steps=2))
    assert tight.ended().stop_reason is StopReason.DONE
    assert tight.keys() == ["model:1", "result"]


def test_cancelled_before_the_judge_is_cancelled() -> None:
    done = world(calls(use("look")), says("Done."), evaluation="every_step")
    done.tool("look").watch = lambda key: setattr(done.controls, "wish", "cancel")

    assert done.ended().status is RunStatus.CANCELLED
    assert done.keys("evaluate") == []


def test_cancelled_during_the_last_judgement_is_cancelled() -> None:
    done = world(says("Done."), evaluation="final")
    done.llm.judge = then(lambda: setattr(done.controls, "wish", "cancel"), says(verdict()))

    assert done.ended().status is RunStatus.CANCELLED


def test_a_run_that_has_ended_is_judged_no_more() -> None:
    """There was no room for a judge; the worker then died before it could tell that the run had ended."""
    done = world(says("Done."), evaluation="final", limits=limits(max_steps=2))
    done.ended()
    done.run = world(evaluation="final").run

    assert done.ended().result == "Done."
    assert done.keys() == ["model:1", "result"]
