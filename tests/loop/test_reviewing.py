"""Plans that turn out wrong, work that leads nowhere, and answers that are not good enough."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from runs.engine import planning
from runs.engine.evaluators import PATIENCE, Evaluation, Progress
from runs.engine.fakes import Crash, calls, says
from runs.engine.ports import ModelError
from runs.engine.types import (
    ActionStatus,
    JsonObject,
    Mode,
    ModelReply,
    ModelRequest,
    RunStatus,
    StepKind,
    StepStatus,
    StopReason,
)
from tests.engine.test_evaluators import verdict
from tests.loop.helpers import UNLIMITED, WAITS, World, assert_sound, limits, use, world
from tests.loop.test_planning import statuses

CARD = "The card is valid."


def planned(*steps: tuple[str, list[str]]) -> ModelReply:
    """A plan of (title, assumptions)."""
    return says(
        json.dumps(
            {
                "steps": [
                    {"title": t, "needs_person": False, "assumptions": [{"text": a, "check": "look"} for a in assumed]}
                    for t, assumed in steps
                ]
            }
        )
    )


PLAN = planned(("Look", []), ("Refund", [CARD]), ("Write", []))
REFUTED = [{"step": 1, "assumption": 0, "status": "did_not_hold"}]


def judging(*verdicts: ModelReply) -> Any:
    """Each verdict once, the last one for ever; a crash gets the same one again, by what the judge is shown."""
    seen: dict[str, ModelReply] = {}
    left = list(verdicts)

    def judge(request: ModelRequest) -> ModelReply:
        shown = json.dumps(request.messages)
        if shown not in seen:
            seen[shown] = left.pop(0) if len(left) > 1 else left[0]
        return seen[shown]

    return judge


def doubted(*turns: ModelReply, **agent: Any) -> World:
    """A world whose first evaluation refutes the assumption under the second step."""
    done = world(*turns, planning=True, evaluation="every_step", **agent)
    done.llm.plan = PLAN
    done.llm.revision = planned(("Refund by voucher", []))
    done.llm.judge = judging(
        says(verdict(plan_steps_done=[0], assumptions=REFUTED, sentence="The card has expired.")), says(verdict())
    )
    return done


# --- wrong plans -----------------------------------------------------------------------------------------------------
def test_a_failed_assumption_revises_what_stands_on_it_before_the_next_decision() -> None:
    done = doubted(calls(use("look")), says("Done."))

    done.ended()

    assert done.keys()[:6] == ["plan", "model:1", "tool:1:0", "evaluate:1", "revise:1", "model:2"]
    step = done.step("revise:1")
    assert (step.kind, step.title, step.status) == (StepKind.PLAN, "Revise the plan", StepStatus.OK)
    assert step.summary == "“The card is valid.” did not hold. 1 new step: Refund by voucher"
    assert statuses(step.plan) == ["done", "changed", "running", "not_started"]
    assert [s["title"] for s in step.plan["steps"]] == ["Look", "Refund", "Refund by voucher", "Write"]  # type: ignore[index]
    assert done.step("model:2").plan_step == 2
    assert "Do not act on the steps that stood on it" in done.told()
    assert "1. Refund by voucher" in done.told()


# --- what was queued for a step whose ground is gone -----------------------------------------------------------------
NO_LONGER = "the plan no longer holds, because “The card is valid” did not hold (The card has expired)"
FIRST_REFUTED = [{"step": 0, "assumption": 0, "status": "did_not_hold"}]


def queued_then_refuted(*more: ModelReply, done: list[int] | None = None) -> World:
    """Two effects are queued for the first step of the plan; what is read in the next turn refutes its ground."""
    turns = (calls(use("refund"), use("note")), calls(use("look")), *more, says("All."), says("Done."))
    made = world(*turns, planning=True, evaluation="every_step", mode=Mode.BATCH)
    made.llm.plan = planned(("Refund", [CARD]), ("Write", []))
    made.llm.revision = planned(("Refund by voucher", []))
    refuted = verdict(assumptions=FIRST_REFUTED, sentence="The card has expired.")
    made.llm.judge = judging(says(verdict(plan_steps_done=done or [])), says(refuted), says(verdict()))
    return made


@pytest.mark.parametrize("finished", [[], [0]], ids=["open", "counts as done"])
def test_queued_actions_that_stand_on_a_refuted_assumption_are_withdrawn(finished: list[int]) -> None:
    done = queued_then_refuted(done=finished)

    assert done.ended().stop_reason is StopReason.DONE, "nobody is asked about what was withdrawn"

    for number in (0, 1):
        action = done.verdicts.actions[f"1:{number}"]
        assert (action.status, action.asked) == (ActionStatus.CANCELLED, False)
        assert action.note == NO_LONGER
        step = done.step(f"effect:1:{number}")
        assert (step.kind, step.status) == (StepKind.TOOL, StepStatus.DENIED)
        assert NO_LONGER in step.summary
    assert done.effects() == []
    assert "were withdrawn and will not happen, because “The card is valid” did not hold" in done.told()
    assert_sound(done)


def test_what_is_queued_afterwards_is_asked_with_a_word_on_what_was_withdrawn() -> None:
    done = queued_then_refuted(calls(use("refund", id="2")))

    assert done.advance() == WAITS
    [asked] = done.verdicts.waiting()
    assert asked.args == {"id": "2"}
    withdrawn = "Withdrawn: Run shop.refund; Run shop.note. The plan no longer holds, because “The card is valid”"
    assert withdrawn in done.verdicts.whys["queue:1"]
    assert done.to_the_end().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.refund(2)"]
    assert_sound(done)


@pytest.mark.parametrize("burn", range(4, 24))
def test_withdrawing_survives_a_crash_anywhere(burn: int) -> None:
    done = queued_then_refuted(calls(use("refund", id="2")))
    done.fuse.left = burn

    assert done.to_the_end().stop_reason is StopReason.DONE

    assert done.effects() == ["shop.refund(2)"]
    assert [done.status(f"1:{number}") for number in (0, 1)] == [ActionStatus.CANCELLED] * 2
    assert_sound(done)


def test_plan_and_actual_stand_side_by_side() -> None:
    done = doubted(calls(use("look")), says("Done."))

    done.ended()

    look, refund, voucher, write = done.journal.plan["steps"]  # type: ignore[index]
    assert look["actual"] == "The card has expired."
    assert refund["actual"] == "“The card is valid.” did not hold. The card has expired."
    assert (refund["status"], voucher["status"], write["status"]) == ("changed", "done", "done")


def test_effects_of_the_very_turn_that_refutes_their_assumption_do_not_happen() -> None:
    done = doubted(calls(use("look"), use("note"), use("refund")), calls(use("note")), says("Done."))

    done.to_the_end()

    assert done.keys()[2:6] == ["tool:1:0", "evaluate:1:reads", "revise:1:reads", "tool:1:1"]
    assert [done.step(f"tool:1:{n}").status for n in (1, 2)] == [StepStatus.DENIED] * 2
    assert "an assumption it stands on did not hold (The card is valid.)" in done.contents()[1]
    assert done.effects() == ["shop.note(1)"], "the one after the revision"
    assert_sound(done)


def test_what_was_judged_before_the_effects_is_not_judged_again() -> None:
    done = doubted(calls(use("look"), use("note")), says("Done."))
    done.llm.judge = says(verdict())

    done.ended()

    seen = [
        json.dumps(r.messages) for r in done.llm.requests if r.output_schema and "score" in json.dumps(r.output_schema)
    ]
    assert done.keys("evaluate") == ["evaluate:1:reads", "evaluate:1", "evaluate:final"]
    assert ("shop.look" in seen[0], "shop.look" in seen[1], "shop.note" in seen[1]) == (True, False, True)


def test_with_nothing_left_to_check_effects_follow_reads_at_once() -> None:
    done = doubted(calls(use("look"), use("note")), says("Done."))
    done.llm.plan = planned(("Look", []))
    done.llm.judge = says(verdict())

    done.ended()

    assert done.keys("evaluate") == ["evaluate:1", "evaluate:final"]


def test_a_step_that_is_done_already_is_not_planned_anew_but_the_model_is_told() -> None:
    done = doubted(calls(use("look")), says("Done."))
    done.llm.judge = judging(
        says(verdict(plan_steps_done=[0, 1], assumptions=REFUTED, sentence="Expired.")), says(verdict())
    )

    done.ended()

    assert done.keys("revise") == []
    assert "This assumption of the plan did not hold: The card is valid. What was found: Expired." in done.told()


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"steps": [{}]}'])
def test_a_revision_that_is_none_still_takes_the_steps_away(text: str) -> None:
    done = doubted(calls(use("look")), says("Done."))
    done.llm.revision = says(text)

    assert done.ended().status is RunStatus.COMPLETED

    assert (done.step("revise:1").status, statuses(done.step("revise:1").plan)) == (
        StepStatus.ERROR,
        ["done", "changed", "running"],
    )


def test_a_reviser_that_is_away_still_takes_the_steps_away() -> None:
    done = doubted(calls(use("look")), says("Done."))

    def away(request: ModelRequest) -> ModelReply:
        raise ModelError("invalid_request", "no", retryable=False)

    done.llm.revision = away

    done.ended()

    assert done.step("revise:1").error == "no"
    assert statuses(done.step("revise:1").plan) == ["done", "changed", "running"]


@pytest.mark.parametrize("burn", range(1, 16))
def test_a_revision_survives_a_crash_anywhere(burn: int) -> None:
    straight = doubted(calls(use("look"), use("note")), calls(use("note")), says("Done."))
    straight.to_the_end()
    done = doubted(calls(use("look"), use("note")), calls(use("note")), says("Done."))
    done.fuse.left = burn

    done.to_the_end()

    assert done.keys() == straight.keys()
    assert done.journal.plan == straight.journal.plan
    assert done.effects() == straight.effects() == ["shop.note(1)"]


def test_places_of_steps_do_not_shift_under_the_rows_that_name_them() -> None:
    plan = planning.read_plan(PLAN.text)
    failed = planning.Failed(assumptions=(CARD,), steps=(1,), found="Expired.")

    new = planning.with_replaced(plan, failed, [{"title": "A", "status": "not_started", "assumptions": []}] * 2)

    assert [s["title"] for s in new["steps"]] == ["Look", "Refund", "A", "A", "Write"]
    assert statuses(new) == ["running", "changed", "not_started", "not_started", "not_started"]
    assert statuses(plan) == ["running", "not_started", "not_started"]


def test_an_assumption_fails_once() -> None:
    plan = planning.read_plan(PLAN.text)
    marked = planning.mark(plan, done=[], assumptions=REFUTED)

    assert planning.newly_failed(plan, marked).steps == (1,)
    assert planning.newly_failed(marked, marked).assumptions == ()
    assert planning.newly_failed(None, None).assumptions == ()


def test_every_open_step_that_names_the_assumption_stands_on_it() -> None:
    plan = planning.read_plan(planned(("A", [CARD]), ("B", []), ("C", [CARD])).text)
    marked = planning.mark(plan, done=[], assumptions=[{"step": 2, "assumption": 0, "status": "did_not_hold"}])

    assert planning.newly_failed(plan, marked).steps == (0, 2)
    assert planning.newly_failed(plan, planning.mark(marked, done=[0])).steps == (2,)


def test_a_changed_step_stays_changed() -> None:
    plan: JsonObject = planning.with_replaced(
        planning.read_plan(PLAN.text), planning.Failed(assumptions=(CARD,), steps=(1,)), ()
    )

    assert statuses(planning.mark(plan, done=[0, 1])) == ["done", "changed", "running"]
    assert statuses(planning.mark_ended(plan, finished=True)) == ["done", "changed", "done"]


# --- diminishing returns ---------------------------------------------------------------------------------------------
STUCK = says(verdict(progress=False, score=0.2, sentence="Nothing new."))


def test_three_evaluations_without_progress_stop_the_run_and_it_wraps_up() -> None:
    done = world(*[calls(use("look", id=str(n))) for n in range(9)], evaluation="every_step")
    done.llm.judge = STUCK

    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (
        RunStatus.STOPPED,
        StopReason.DIMINISHING_RETURNS,
        "wrapped up",
    )
    assert done.keys("evaluate") == ["evaluate:1", "evaluate:2", "evaluate:3"]
    assert "3 evaluations in a row saw no progress; the last one says: Nothing new" in end.stop_detail
    assert done.step("stopped").kind is StepKind.GUARDRAIL
    assert_sound(done)


def test_progress_begins_the_count_anew_and_no_verdict_leaves_it() -> None:
    def seen(*progress: bool) -> str:
        counted = Progress()
        return [
            counted.saw(Evaluation(score=0.5, progress=p, sentence="", plan_steps_done=(), assumptions=()))
            for p in progress
        ][-1]

    assert PATIENCE == 3
    assert seen(False, False, True, False, False) == ""
    assert seen(False, True, False, False, False) == "3 evaluations in a row saw no progress"


@pytest.mark.parametrize("evaluation", ["off", "final"])
def test_without_an_evaluation_of_each_step_nobody_stops_the_run(evaluation: str) -> None:
    turns = (*[calls(use("look", id=str(n))) for n in range(5)], says("Done."))
    done = world(*turns, evaluation=evaluation, answer_threshold=0)
    done.llm.judge = STUCK

    assert done.ended().stop_reason is StopReason.DONE


@pytest.mark.parametrize("burn", [3, 7, 8, 9, 10, 11, 12, 13])
def test_a_crash_changes_neither_the_count_nor_the_reason(burn: int) -> None:
    done = world(*[calls(use("look", id=str(n))) for n in range(9)], evaluation="every_step")
    done.llm.judge = STUCK
    done.fuse.left = burn

    end = done.to_the_end()

    assert (end.stop_reason, done.keys("model")) == (
        StopReason.DIMINISHING_RETURNS,
        ["model:1", "model:2", "model:3"],
    )


# --- reflection ------------------------------------------------------------------------------------------------------
def reviewed(*scores: float, answers: tuple[str, ...] = ("First.", "Second.", "Third."), **agent: Any) -> World:
    done = world(*[says(answer) for answer in answers], evaluation="final", **agent)
    done.llm.judge = judging(*[says(verdict(score=score, sentence="It names no order.")) for score in scores])
    return done


def test_an_answer_below_the_threshold_is_revised_once() -> None:
    done = reviewed(0.3, 0.4)

    assert done.ended().result == "Second."
    assert done.keys() == ["model:1", "evaluate:final", "model:2", "evaluate:revised", "result"]
    assert (
        "A review of your answer against the task found: It names no order. (score 0.30, 0.50 is needed)" in done.told()
    )


def test_an_answer_at_the_threshold_stands() -> None:
    assert reviewed(0.5).ended().result == "First."
    assert reviewed(0.6, answer_threshold=0.7).ended().result == "Second."
    assert reviewed(0.0, answer_threshold=0.0).ended().result == "First."


def test_a_revision_that_is_worse_is_not_taken() -> None:
    done = reviewed(0.4, 0.1)

    assert done.ended().result == "First."
    assert done.step("result").output == "First."


def test_a_revision_may_use_tools() -> None:
    done = world(says("First."), calls(use("look"), use("refund")), says("Second."), evaluation="final")
    done.llm.judge = judging(says(verdict(score=0.1)), says(verdict()))

    assert done.parked() == WAITS
    assert done.to_the_end().result == "Second."
    assert done.effects() == ["shop.refund(1)"]


def test_without_room_to_revise_the_answer_stands() -> None:
    """One step for the turn, one for its review, one that is kept back."""
    done = reviewed(0.1, limits=limits(max_steps=3))

    end = done.ended()

    assert (end.status, end.stop_reason, end.result) == (RunStatus.COMPLETED, StopReason.DONE, "First.")
    assert done.keys() == ["model:1", "evaluate:final", "result"]


def test_a_model_that_fails_while_revising_leaves_the_answer() -> None:
    done = reviewed(0.1)

    def away(request: ModelRequest) -> ModelReply:
        raise ModelError("invalid_request", "no", retryable=False)

    done.llm.turns = [says("First."), away]

    assert (done.ended().status, done.journal.steps["result"].output) == (RunStatus.COMPLETED, "First.")


def test_cancelled_while_revising_is_cancelled() -> None:
    done = reviewed(0.1)

    def cancelled(request: ModelRequest) -> ModelReply:
        done.controls.wish = "cancel"
        return says("Second.")

    done.llm.turns = [says("First."), cancelled]

    assert done.ended().status is RunStatus.CANCELLED


@pytest.mark.parametrize("burn", range(1, 10))
@pytest.mark.parametrize("mode", [Mode.INTERACTIVE, Mode.BATCH])
def test_reflection_survives_a_crash_anywhere(burn: int, mode: Mode) -> None:
    done = reviewed(0.3, 0.4, mode=mode, limits=UNLIMITED)
    done.fuse.left = burn
    with contextlib.suppress(Crash):
        done.advance()

    assert done.to_the_end().result == "Second."
    assert done.keys() == ["model:1", "evaluate:final", "model:2", "evaluate:revised", "result"]


# --- which judge -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("judge_model", "used"), [(None, "fake"), ("small", "small")])
def test_the_judge_may_be_a_smaller_model(judge_model: str | None, used: str) -> None:
    done = world(says("Done."), evaluation="final", judge_model=judge_model)
    done.llm.judge = says(verdict())

    done.ended()

    assert [request.model for request in done.llm.requests] == ["fake", used]
