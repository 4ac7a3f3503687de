"""Close to a limit and at it: the warning, the provider's own count, and "raise by" asked of people."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from runs.engine import raising
from runs.engine.budget import from_count, request_bytes
from runs.engine.fakes import FakeBudget, calls, says
from runs.engine.types import (
    ActionStatus,
    Limits,
    Mode,
    ModelReply,
    ModelRequest,
    RunStatus,
    Spent,
    StepKind,
    StepStatus,
    StopReason,
    Usage,
)
from tests.loop.helpers import APPROVE, REJECT, UNLIMITED, WAITS, Workshop, World, assert_sound, limits, use, world


def looks(number: int, **agent: Any) -> World:
    return world(*[calls(use("look", id=str(n))) for n in range(number)], says("Done."), **agent)


# --- the warning -----------------------------------------------------------------------------------------------------
def test_at_eighty_percent_people_and_the_model_are_told_once() -> None:
    done = looks(6, limits=limits(max_steps=15))

    assert done.ended().stop_reason is StopReason.DONE
    assert done.keys("warned") == ["warned:7"]
    step = done.step("warned:7")
    assert (step.kind, step.title, step.summary) == (
        StepKind.GUARDRAIL,
        "Close to a limit",
        "80% of the step limit (15 steps) is used.",
    )
    assert "Notice from agentsite: 80% of the step limit (15 steps) is used." in done.told()
    assert_sound(done)


def test_below_it_nobody_is_warned() -> None:
    done = looks(6, limits=limits(max_steps=16))
    done.ended()
    assert done.keys("warned") == []


def test_who_has_to_stop_anyway_is_not_warned() -> None:
    done = looks(6, limits=limits(max_steps=5))
    done.ended()
    assert done.keys("warned") == []


@pytest.mark.parametrize("burn", range(24, 36))
def test_a_crash_neither_repeats_nor_moves_the_warning(burn: int) -> None:
    done = looks(7, limits=limits(max_steps=17))
    done.fuse.left = burn
    done.to_the_end()
    assert done.keys("warned") == ["warned:8"]
    assert_sound(done)


def test_every_kind_of_limit_warns() -> None:
    bounds = Limits(
        max_steps=10, max_input_tokens=1000, max_output_tokens=100, max_cost_usd=Decimal("1.50"), max_seconds=60
    )
    spent = Spent(steps=8, input_tokens=900, output_tokens=100, cost_usd=Decimal("1.20"))

    words = [used.words for used in raising.nearly_used(bounds, spent, 59.4)]

    assert words == [
        "80% of the step limit (10 steps) is used",
        "90% of the limit of input tokens (1,000 input tokens) is used",
        "100% of the limit of output tokens (100 output tokens) is used",
        "80% of the cost limit ($1.50) is used",
        "99% of the time limit (60 seconds) is used",
    ]
    assert list(raising.nearly_used(UNLIMITED, spent, 1e9)) == []


# --- the provider's own count ----------------------------------------------------------------------------------------
def test_close_to_a_limit_the_provider_counts() -> None:
    """The bound takes each byte for a token; with the provider's count the same run gets to its end."""
    turns = (calls(use("look")), says("Done."))
    blind = world(*turns, limits=limits(max_input_tokens=3_000))
    assert blind.ended().stop_reason is StopReason.MAX_TOKENS

    counted = world(*turns, limits=limits(max_input_tokens=3_000))
    counted.llm.counts = lambda request: request_bytes(request) // 4

    assert counted.ended().stop_reason is StopReason.DONE


def test_far_from_every_limit_nobody_counts() -> None:
    done = looks(2, limits=Limits(max_cost_usd=Decimal(1000)))
    done.llm.counts = lambda request: pytest.fail("counted")
    assert done.ended().stop_reason is StopReason.DONE


@pytest.mark.parametrize("count", [None, 10**9])
def test_a_count_that_is_none_or_no_better_changes_nothing(count: int | None) -> None:
    done = looks(2, limits=limits(max_input_tokens=3_000))
    done.llm.counts = lambda request: count
    assert done.ended().stop_reason is StopReason.MAX_TOKENS


@pytest.mark.parametrize("most", [6_000, 12_000, 20_000])
def test_with_a_count_the_limit_still_holds(most: int) -> None:
    """A prompt of a token for four bytes, as the provider counts it, and all of `max_tokens`."""

    def greedy(request: ModelRequest) -> ModelReply:
        usage = Usage(input_tokens=request_bytes(request) // 4, output_tokens=request.max_tokens)
        reply = calls(use("look")) if request.tool_choice is None else says("wrapped up")
        return replace(reply, usage=usage)

    done = world(*[greedy] * 60, limits=limits(max_input_tokens=most))
    done.tools["shop.look"] = Workshop("shop.look", repeatable=True)
    done.llm.wrap_up = greedy
    done.llm.counts = lambda request: request_bytes(request) // 4

    end = done.ended()

    assert (end.stop_reason, end.result) == (StopReason.MAX_TOKENS, "wrapped up")
    assert done.journal.spent().input_tokens <= most
    assert_sound(done)


def test_an_estimate_has_a_margin() -> None:
    assert from_count(0) == 32
    assert from_count(10_000) == 10_232


# --- raise by --------------------------------------------------------------------------------------------------------
def test_at_the_limit_a_person_is_asked_and_the_run_goes_on() -> None:
    done = looks(4, limits=limits(max_steps=6), raise_limits=True)

    assert done.parked() == WAITS
    [action] = done.verdicts.waiting()
    assert (action.tool, action.args) == ("agentsite.raise_limit", {"limit": "max_steps", "by": "3"})
    assert done.keys()[-1] == "ask:raise:1"
    done.verdicts.decide(APPROVE)

    end = done.ended()

    assert (end.status, end.result) == (RunStatus.COMPLETED, "Done.")
    step = done.step("raise:1")
    assert (step.kind, step.title, step.summary, step.raised) == (
        StepKind.GUARDRAIL,
        "Raised the step limit",
        "to 9 steps, by Dana Okafor",
        {"max_steps": 9},
    )
    assert done.status("raise:1") is ActionStatus.SUCCEEDED
    assert done.verdicts.claims == ["raise:1"]
    assert done.journal.spent().steps == 8
    assert_sound(done)


def test_it_can_be_raised_again_and_again() -> None:
    done = looks(9, limits=limits(max_steps=6), raise_limits=True)

    assert done.to_the_end().stop_reason is StopReason.DONE
    raises = [done.step(key).raised for key in done.keys("raise")]
    assert raises == [{"max_steps": 9}, {"max_steps": 14}, {"max_steps": 21}]
    assert_sound(done)


@pytest.mark.parametrize("verdict", [REJECT, ActionStatus.EXPIRED, ActionStatus.CANCELLED])
def test_without_an_approval_the_run_wraps_up_and_asks_no_more(verdict: ActionStatus) -> None:
    done = looks(9, limits=limits(max_steps=6), raise_limits=True)

    end = done.to_the_end(verdict)

    assert (end.status, end.stop_reason, end.result) == (RunStatus.STOPPED, StopReason.MAX_STEPS, "wrapped up")
    assert (done.step("raise:1").status, done.step("raise:1").title) == (StepStatus.DENIED, "The limit was not raised")
    assert done.journal.spent().steps <= 6
    assert done.keys("raise") == ["raise:1"]
    assert_sound(done)


def test_a_person_may_give_another_amount() -> None:
    done = looks(9, limits=limits(max_steps=6), raise_limits=True)
    done.parked()
    done.verdicts.edit("raise:1", {"limit": "max_steps", "by": "30"})

    assert done.ended().stop_reason is StopReason.DONE
    assert done.step("raise:1").raised == {"max_steps": 36}


@pytest.mark.parametrize("args", [{}, {"limit": "max_steps", "by": "0"}, {"limit": "speed", "by": "3"}, {"by": "x"}])
def test_an_amount_that_makes_no_sense_raises_nothing(args: dict[str, Any]) -> None:
    done = looks(9, limits=limits(max_steps=6), raise_limits=True)
    done.parked()
    done.verdicts.edit("raise:1", args)

    assert done.ended().stop_reason is StopReason.MAX_STEPS
    assert done.status("raise:1") is ActionStatus.FAILED


@pytest.mark.parametrize("mode", [Mode.INTERACTIVE, Mode.BATCH])
@pytest.mark.parametrize("burn", range(1, 30, 2))
def test_a_raise_survives_a_crash_anywhere_and_is_raised_once(burn: int, mode: Mode) -> None:
    done = looks(4, limits=limits(max_steps=6), raise_limits=True, mode=mode)
    done.fuse.left = burn

    assert done.to_the_end().stop_reason is StopReason.DONE
    assert done.journal.raised == {"max_steps": 9}
    assert_sound(done)


def test_without_the_agents_leave_nobody_is_asked() -> None:
    done = looks(9, limits=limits(max_steps=6))
    assert done.ended().stop_reason is StopReason.MAX_STEPS
    assert done.verdicts.actions == {}


def test_what_is_not_the_runs_own_limit_cannot_be_raised_here() -> None:
    """The team's month, or a parent's budget."""
    done = looks(9, limits=limits(max_cost_usd=Decimal(1000)), raise_limits=True)
    done.budget = FakeBudget(usd=Decimal("0.01"))
    assert done.ended().stop_reason is StopReason.MAX_COST
    assert done.verdicts.actions == {}


def test_other_reasons_to_stop_ask_nobody() -> None:
    done = world(says("", stop_reason="model_context_window_exceeded"), raise_limits=True)
    assert done.ended().stop_reason is StopReason.CONTENT_FILTER


def test_cancelled_while_people_think_is_cancelled() -> None:
    done = looks(9, limits=limits(max_steps=6), raise_limits=True)
    done.parked()
    done.verdicts.decide(APPROVE)
    done.controls.wish = "cancel"

    assert done.ended().status is RunStatus.CANCELLED
    assert done.journal.raised == {}


@pytest.mark.parametrize(
    ("bounds", "limit"),
    [
        (limits(max_output_tokens=1300), "max_output_tokens"),
        (limits(max_input_tokens=6_000), "max_input_tokens"),
        (limits(max_cost_usd=Decimal(8)), "max_cost_usd"),
    ],
)
def test_each_limit_is_offered_by_its_name(bounds: Limits, limit: str) -> None:
    def busy(request: ModelRequest) -> ModelReply:
        usage = Usage(input_tokens=1000, output_tokens=min(request.max_tokens, 200))
        return replace(calls(use("look")), usage=usage)

    done = world(*[busy] * 60, limits=bounds, raise_limits=True)

    assert done.parked() == WAITS
    assert done.verdicts.waiting()[0].args["limit"] == limit


@pytest.mark.parametrize(
    ("limit", "value", "by"),
    [
        ("max_cost_usd", "1.50", "0.75"),
        ("max_cost_usd", "0.01", "0.005000000"),
        ("max_steps", "1", "1"),
        ("max_steps", "60", "30"),
    ],
)
def test_half_as_much_again_is_offered(limit: str, value: str, by: str) -> None:
    assert raising.step_up(limit, Decimal(value)) == Decimal(by)
